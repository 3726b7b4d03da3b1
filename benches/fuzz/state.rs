//! Records of the state topic, one of which was changed, through a restart and the next epoch.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use lictor_connectors::{Committed, NextOffset, RecordRef, TopicPartition};
use lictor_engine::company::Company;
use lictor_engine::exchange::route::{Place, Router};
use lictor_engine::outputs::OutputTopics;
use lictor_engine::pipeline::{PipelineSettings, Stages};
use lictor_engine::rules_dir;
use lictor_engine::shard::{JudgeSettings, Restoring};
use lictor_engine::tasks::{Batch, JudgeTask, ScanTask, TaskTopics};
use lictor_schemas::tables::Signal;
use lictor_schemas::time::EventTime;

use super::Target;

const SECOND_NS: i64 = 1_000_000_000;
const TOPIC: &str = "otlp_spans";
const PLACE: Place = Place { shard: 0, shards: 1 };

/// A deployment with one shard that was stopped in the middle of its work.
pub(crate) struct State {
    settings: Arc<JudgeSettings>,
    /// What is in the log, compacted.
    log: BTreeMap<Vec<u8>, Vec<u8>>,
    committed: NextOffset,
    /// What was shipped and not judged yet.
    parcel: Vec<u8>,
    now: EventTime,
    restored: u64,
}

fn topics() -> TaskTopics {
    TaskTopics { shuffle: "l.shuffle".to_owned(), state: "l.state".to_owned(), outputs: OutputTopics::default() }
}

/// Every kind of state: sums, what `OVER` and detectors look back at, sessions, joined rows, what fires and is pending.
const RULES: &str = "
CREATE RULE spent WITH (action = 'block', reason_code = 'BUDGET_EXCEEDED') AS
SELECT s.team, window_start, window_end, sum(s.cost_total) AS observed, count(DISTINCT s.request_model) AS models
FROM TUMBLE(spans, event_time, INTERVAL '1 day') AS s GROUP BY s.team, window_start, window_end
HAVING sum(s.cost_total) > 0 EMIT ON UPDATE;
CREATE RULE unusual WITH (action = 'warn', reason_code = 'x_a', for = '1 minute', keep_firing_for = '2 minutes') AS
SELECT u.team, u.window_start, u.window_end, u.n AS observed FROM (
  SELECT c.*, lag(c.n, 1) OVER k AS before, ew_z(c.n) OVER k AS score FROM (
    SELECT team, window_start, window_end, count(*) AS n FROM TUMBLE(spans, event_time, INTERVAL '1 minute')
    GROUP BY team, window_start, window_end) AS c
  WINDOW k AS (PARTITION BY c.team ORDER BY c.window_end)) AS u WHERE u.n >= 0 GAP FILL FOR INTERVAL '1 hour';
CREATE RULE session WITH (action = 'warn', reason_code = 'x_b') AS
SELECT s.team, window_start, window_end, count(*) AS observed, hist_log(s.input_tokens) AS sizes
FROM SESSION(spans, event_time, INTERVAL '2 minutes') AS s GROUP BY s.team, window_start, window_end;
CREATE RULE joined WITH (action = 'notify', reason_code = 'x_c') AS
SELECT a.trace_id, a.team FROM spans AS a LEFT JOIN spans AS b ON b.trace_id = a.trace_id AND b.kind = 'none'
  AND b.event_time BETWEEN a.event_time AND a.event_time + INTERVAL '10 minutes' WHERE b.trace_id IS NULL;
";

fn stages() -> Stages {
    let rules = tempfile::TempDir::new().unwrap();
    fs::write(rules.path().join("rules.sql"), RULES).unwrap();
    let loaded = rules_dir::load(rules.path(), None).unwrap();
    assert_eq!(loaded.diagnostics, []);
    Stages::new(loaded.rules, loaded.prices, &PipelineSettings::default())
}

impl State {
    pub(crate) fn new() -> Self {
        let start = EventTime::from_rfc3339("2026-03-01T08:00:00Z").unwrap();
        let Stages { scan, judge, routes } = stages();
        let mut scan = ScanTask::new(scan, Router::new(1, routes), judge.names.clone(), topics(), ("lictor", "a"));
        scan.expect(&[(TOPIC.to_owned(), 1)]);
        let nothing = Committed { next: NextOffset(0), metadata: String::new() };
        scan.assign(&TopicPartition::new(TOPIC, 0), &nothing, start);
        let settings = Arc::new(judge);
        let empty = Restoring::new(&settings, PLACE, false).finish(None, &[TOPIC.to_owned()]).unwrap();
        let mut judge = JudgeTask::new(topics());
        judge.serve(0, empty);
        let (log, committed, parcel) = (BTreeMap::new(), NextOffset(0), Vec::new());
        let mut state = Self { settings, log, committed, parcel, now: start, restored: 0 };
        let mut company = Company::new(5, start).with_traces_per_s(0.2);
        let (mut offset, mut parcels) = (0, 0);
        for minute in 1..=5 {
            state.now = start.plus(minute * 60 * SECOND_NS);
            let sent = company.next_batch(state.now).into_iter().filter(|message| message.0 == Signal::Traces);
            for payload in sent.map(|message| message.2) {
                let timestamp_ms = state.now.to_ms();
                let payload = Some(payload.as_slice());
                let record = RecordRef { topic: TOPIC, offset, timestamp_ms, payload, ..RecordRef::default() };
                scan.absorb(record, state.now);
                offset += 1;
            }
            let shipped = scan.end_epoch(state.now, true).batch;
            scan.commit();
            for message in shipped.messages.into_iter().filter(|m| m.outgoing.topic == topics().shuffle) {
                state.parcel = message.outgoing.payload.unwrap();
                judge.absorb(0, parcels, &state.parcel).unwrap();
                parcels += 1;
            }
            state.commit(judge.end_epoch(state.now).state);
            judge.commit().unwrap();
        }
        state
    }

    fn commit(&mut self, batch: Batch) {
        for message in batch.messages {
            let key = message.outgoing.key.unwrap();
            match message.outgoing.payload {
                Some(value) => drop(self.log.insert(key, value)),
                None => drop(self.log.remove(&key)),
            }
        }
        self.committed = batch.consumed.last().map_or(self.committed, |consumed| consumed.next);
    }

    /// The key of an input, up to its first zero, and its value.
    fn record_of(input: &[u8]) -> (&[u8], &[u8]) {
        let end = input.iter().position(|byte| *byte == 0).unwrap_or(input.len());
        (&input[..end], input.get(end + 1..).unwrap_or_default())
    }
}

impl Target for State {
    fn seeds(&self) -> Vec<Vec<u8>> {
        self.log.iter().map(|(key, value)| [key.as_slice(), &[0], value].concat()).collect()
    }

    fn run(&mut self, input: &[u8]) -> (&'static str, String) {
        let (key, value) = Self::record_of(input);
        let mut restoring = Restoring::new(&self.settings, PLACE, false);
        let others = self.log.iter().filter(|(other, _)| other.as_slice() != key);
        let records = others.map(|(key, value)| (key.as_slice(), value.as_slice())).chain([(key, value)]);
        for (key, value) in records {
            if let Err(error) = restoring.absorb(key, Some(value)) {
                return ("refused", error.to_string());
            }
        }
        let shard = match restoring.finish(Some(self.committed), &[TOPIC.to_owned()]) {
            Ok(shard) => shard,
            Err(error) => return ("refused", error.to_string()),
        };
        self.restored += 1;
        let mut judge = JudgeTask::new(topics());
        judge.serve(0, shard);
        let taken = judge.absorb(0, self.committed.0, &self.parcel);
        let mut said = 0;
        for minutes in [1, 60, 3_000] {
            said += judge.end_epoch(self.now.plus(minutes * 60 * SECOND_NS)).decisions.len();
            judge.commit().ok();
        }
        let stopped: Vec<String> = judge.status().into_iter().filter_map(|status| status.quarantined).collect();
        ("restored", format!("{:?} {} {}", taken.map_err(|error| error.to_string()), said.min(2), stopped.join(" ")))
    }

    fn settle(&mut self) -> String {
        let bytes: usize = self.log.values().map(Vec::len).sum();
        format!("; a log of {} records, {bytes} bytes; {} restored and judged on", self.log.len(), self.restored)
    }
}
