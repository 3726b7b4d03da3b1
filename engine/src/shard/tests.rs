//! What survives a restart, what does not, and what is refused.

mod edits;
mod warming;

use std::collections::BTreeMap;

use lictor_connectors::{Committed, RecordRef, TopicPartition};
use lictor_queries::{References, RuleFile, compile};
use lictor_schemas::event::State;
use lictor_schemas::otlp::encode::{RowDraft, encode_protobuf};
use lictor_schemas::prices::PriceTable;
use lictor_schemas::rule::Mode;
use lictor_schemas::tables::{Signal, Table};
use serde_json::json;

use super::*;
use crate::decision::DirectiveRecord;
use crate::exchange::route::{Place, Router};
use crate::outputs::OutputTopics;
use crate::pipeline::{PipelineSettings, Stages};
use crate::scan_stage::ScanStage;
use crate::tasks::{ScanTask, TaskTopics};

const SPANS: &str = "otlp_spans";
const MINUTE_NS: i64 = 60_000_000_000;
const START: EventTime = EventTime(1_772_352_000_000_000_000);

fn counted(having: &str) -> String {
    format!(
        "CREATE RULE counted WITH (action = 'notify', reason_code = 'x_test') AS
         SELECT team, window_start, window_end, count(*) AS observed, sum(input_tokens) AS tokens
         FROM TUMBLE(spans, event_time, INTERVAL '1 minute') GROUP BY team, window_start, window_end {having};"
    )
}

/// One instance with one shard, and the state topic's partition.
struct Bench {
    scan: ScanTask,
    settings: Arc<JudgeSettings>,
    shard: Shard,
    log: Vec<(String, Option<Vec<u8>>)>,
    next: NextOffset,
    offset: i64,
    is_retried: bool,
    /// How far history is read back.
    reach_ns: i64,
    /// Of the deployment.
    mode: Mode,
    /// What was read.
    records: Vec<Vec<u8>>,
}

impl Bench {
    fn new(text: &str) -> Self {
        Self::with_reach(text, 0)
    }

    fn with_reach(text: &str, reach_ns: i64) -> Self {
        let mode = Mode::Enforce;
        let (scan, settings) = instance(text, (reach_ns, mode));
        let shard = Shard::empty(&settings, Place::ONLY);
        let (log, next, records) = (Vec::new(), NextOffset(0), Vec::new());
        Self { scan, settings, shard, log, next, offset: 0, is_retried: false, reach_ns, mode, records }
    }

    /// Reads one record of spans and judges what is shipped of it.
    fn read(&mut self, at: EventTime, teams: &[String]) -> Vec<Decision> {
        let row = |team: &String| {
            let columns = [("team".to_owned(), json!(team)), ("input_tokens".to_owned(), json!(1))].into();
            RowDraft { table: Table::Spans, event_time: at, columns }
        };
        let payload = encode_protobuf(Signal::Traces, &teams.iter().map(row).collect::<Vec<_>>()).unwrap();
        let (offset, key) = (self.offset, None);
        self.offset += 1;
        self.records.push(payload.clone());
        let payload = Some(payload.as_slice());
        self.scan.absorb(
            RecordRef { topic: SPANS, partition: 0, offset, timestamp_ms: 0, key, payload, ..RecordRef::default() },
            START,
        );
        let batch = self.scan.end_epoch(START, true).batch;
        self.scan.commit();
        let mut decisions = Vec::new();
        for message in batch.messages {
            decisions.extend(self.shard.absorb(&message.outgoing.payload.unwrap()).unwrap());
            self.next = NextOffset(self.next.0 + 1);
        }
        decisions
    }

    fn commit(&mut self) -> Changes {
        let changes = self.shard.changes(self.next);
        let written = changes.records.iter().map(|record| (record.key.to_string(), record.value.clone()));
        self.log.extend(written);
        self.shard.commit().unwrap();
        changes
    }

    /// Restarts with these rules; the log has been compacted.
    fn restart(&mut self, text: &str) {
        self.compact();
        (self.scan, self.settings) = instance(text, (self.reach_ns, self.mode));
        self.reassign();
        self.shard = self.restored(Some(self.next)).unwrap();
    }

    /// The partition is read on by whoever reads it now.
    fn reassign(&mut self) {
        let standing = Committed { next: NextOffset(self.offset), metadata: format!("high={}", START.0) };
        self.scan.assign(&TopicPartition::new(SPANS, 0), &standing, START);
    }

    fn restored(&self, committed: Option<NextOffset>) -> Result<Shard, RestoreError> {
        let mut restoring = Restoring::new(&self.settings, Place::ONLY, self.is_retried);
        for (key, value) in &self.log {
            restoring.absorb(key.as_bytes(), value.as_deref())?;
        }
        restoring.finish(committed, &[SPANS.to_owned()])
    }

    fn compact(&mut self) {
        let newest: BTreeMap<String, usize> = self.log.iter().enumerate().map(|(i, (k, _))| (k.clone(), i)).collect();
        let mut at = 0;
        self.log.retain(|(key, value)| {
            at += 1;
            newest[key] == at - 1 && value.is_some()
        });
    }

    fn log_bytes(&self) -> usize {
        self.log.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, Vec::len)).sum()
    }
}

/// Rules that are not whole say so themselves.
const FAULTY: &str = "CREATE RULE;";

fn instance(text: &str, (reach_ns, mode): (i64, Mode)) -> (ScanTask, Arc<JudgeSettings>) {
    let (rules, faults) = compile(&[RuleFile { file: "r.sql".into(), text: text.into() }], &References::new());
    assert_eq!(faults.is_empty(), !text.ends_with(FAULTY), "{faults:?}");
    let settings = PipelineSettings { reach_ns, mode, ..PipelineSettings::default() };
    let Stages { scan, judge, routes } = Stages::new(rules, Arc::new(PriceTable::empty()), &settings);
    let scan = scan_task(scan, Router::new(1, routes), &judge);
    (scan, Arc::new(judge))
}

/// Reads the only partition.
fn scan_task(stage: ScanStage, router: Router, judge: &JudgeSettings) -> ScanTask {
    let topics =
        TaskTopics { shuffle: "l.shuffle".to_owned(), state: "l.state".to_owned(), outputs: OutputTopics::default() };
    let mut scan = ScanTask::new(stage, router, judge.names.clone(), topics, ("lictor", "a"));
    scan.expect(&[(SPANS.to_owned(), 1)]);
    let standing = Committed { next: NextOffset(0), metadata: String::new() };
    scan.assign(&TopicPartition::new(SPANS, 0), &standing, START);
    scan
}

fn teams(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn observed(decisions: &[Decision]) -> Vec<(String, Option<f64>)> {
    let said = |d: &Decision| (d.event.to_subject_text(), d.event.data.finding.observed);
    decisions.iter().map(said).collect()
}

#[test]
fn a_log_and_a_group_that_disagree_are_refused() {
    let mut bench = Bench::new(&counted(""));
    bench.read(START, &teams(&["a"]));
    bench.commit();
    let (next, none) = (bench.next, NextOffset(99));
    assert!(bench.restored(Some(next)).is_ok());
    for committed in [None, Some(none)] {
        let message = bench.restored(committed).unwrap_err().to_string();
        assert!(message.starts_with(&format!("the state log ends at offset {} and ", next.0)), "{message}");
    }
    bench.log.clear();
    let message = bench.restored(Some(next)).unwrap_err().to_string();
    assert!(message.starts_with("the state log ends at nothing and the consumer group has committed offset"));
}

#[test]
fn somebody_elses_topic_is_refused() {
    let mut bench = Bench::new(&counted(""));
    bench.log.push(("customer-17".to_owned(), Some(b"{}".to_vec())));
    let message = bench.restored(None).unwrap_err().to_string();
    assert!(message.contains("`customer-17`, which lictor does not write"), "{message}");
}

#[test]
fn another_threshold_keeps_what_was_counted() {
    let mut bench = Bench::new(&counted("HAVING count(*) > 100"));
    bench.read(START, &teams(&["a", "a", "b"]));
    bench.commit();
    bench.restart(&counted("HAVING count(*) > 2"));
    bench.read(START.plus(1), &teams(&["a", "b"]));
    let decisions = bench.read(START.plus(2 * MINUTE_NS), &teams(&["c"]));
    assert_eq!(observed(&decisions), [("team=a".to_owned(), Some(3.0))]);
}

#[test]
fn another_aggregate_begins_anew() {
    let mut bench = Bench::new(&counted(""));
    bench.read(START, &teams(&["a", "a", "b"]));
    bench.commit();
    let other = counted("").replace("sum(input_tokens) AS tokens", "max(input_tokens) AS tokens");
    bench.restart(&other);
    assert_eq!(bench.shard.status()[0].groups, 0);
    bench.read(START.plus(1), &teams(&["a"]));
    bench.commit();
    // Rows of the old shape are still in the log, and do no harm.
    bench.restart(&other);
    let decisions = bench.read(START.plus(2 * MINUTE_NS), &teams(&["c"]));
    assert_eq!(observed(&decisions), [("team=a".to_owned(), Some(1.0))]);
}

#[test]
fn a_quarantined_rule_stays_so_until_its_text_changes() {
    let mut bench = Bench::new(&counted(""));
    bench.read(START, &teams(&["a"]));
    bench.shard.stage.quarantine(crate::exchange::RuleId(0), "overflow".to_owned());
    bench.commit();
    bench.restart(&counted(""));
    assert_eq!(bench.shard.status()[0].quarantined.as_deref(), Some("overflow"));
    bench.is_retried = true;
    bench.restart(&counted(""));
    assert_eq!(bench.shard.status()[0].quarantined, None, "a reload gives it another try");
    bench.is_retried = false;
    bench.restart(&counted("HAVING count(*) > 0"));
    assert_eq!(bench.shard.status()[0].quarantined, None);
    bench.read(START.plus(1), &teams(&["a"]));
    let decisions = bench.read(START.plus(2 * MINUTE_NS), &teams(&["c"]));
    assert_eq!(observed(&decisions), [("team=a".to_owned(), Some(1.0))], "it has forgotten everything");
}

#[test]
fn the_log_stays_short_and_has_everything() {
    let mut bench = Bench::new(&counted(""));
    let all: Vec<String> = (0..20_000).map(|n| format!("a team with a longer name, number {n}")).collect();
    all.chunks(5_000).for_each(|some| drop(bench.read(START, some)));
    bench.commit();
    let state = bench.log_bytes();
    let largest = bench.log.iter().filter_map(|(_, value)| Some(value.as_ref()?.len())).max();
    assert!(largest < Some(1_000_000), "{largest:?}");
    for round in 0..300_i64 {
        let some: Vec<String> =
            (0..200).map(|n| all[(usize::try_from(round).unwrap() * 37 + n * 91) % 20_000].clone()).collect();
        bench.read(START.plus(round), &some);
        bench.commit();
        bench.compact();
    }
    assert!(bench.log_bytes() < 4 * state, "{} bytes for a state of {state}", bench.log_bytes());
    bench.restart(&counted(""));
    assert_eq!(bench.shard.status()[0].groups, 20_000);
    let decisions = bench.read(START.plus(2 * MINUTE_NS), &teams(&["c"]));
    let total: f64 = decisions.iter().filter_map(|d| d.event.data.finding.observed).sum();
    assert_eq!((decisions.len(), total), (20_000, 20_000.0 + 300.0 * 200.0));
}

#[test]
fn what_was_undone_is_not_written() {
    let mut bench = Bench::new(&counted(""));
    bench.read(START, &teams(&["a"]));
    bench.commit();
    let next = bench.next;
    bench.read(START.plus(1), &teams(&["a", "new"]));
    bench.shard.changes(bench.next);
    bench.shard.undo().unwrap();
    bench.next = next;
    bench.read(START.plus(2), &teams(&["b"]));
    bench.commit();
    bench.restart(&counted(""));
    let decisions = bench.read(START.plus(2 * MINUTE_NS), &teams(&["c"]));
    assert_eq!(observed(&decisions), [("team=a".to_owned(), Some(1.0)), ("team=b".to_owned(), Some(1.0))]);
}

fn silent(fill: &str) -> String {
    format!(
        "CREATE RULE silent WITH (action = 'notify', reason_code = 'x_test') AS
         SELECT team, window_start, window_end, count(*) AS observed
         FROM TUMBLE(spans, event_time, INTERVAL '1 minute') GROUP BY team, window_start, window_end
         HAVING count(*) = 0 GAP FILL {fill};"
    )
}

#[test]
fn keys_that_gaps_are_filled_for_survive_a_restart_and_not_their_time() {
    let rule = silent("FOR INTERVAL '10 minutes'");
    let mut bench = Bench::new(&rule);
    bench.read(START, &teams(&["a", "b"]));
    bench.read(START.plus(MINUTE_NS + MINUTE_NS / 2), &teams(&["b"]));
    bench.commit();
    bench.restart(&rule);
    let decisions = bench.read(START.plus(2 * MINUTE_NS + MINUTE_NS / 2), &teams(&["b"]));
    assert_eq!(observed(&decisions), [("team=a".to_owned(), Some(0.0))]);
    bench.commit();
    bench.restart(&rule);
    let decisions = bench.read(START.plus(20 * MINUTE_NS), &teams(&["c"]));
    let fired = decisions.iter().filter(|d| d.event.data.finding.observed.is_some());
    let of_b = fired.filter(|d| d.event.to_subject_text() == "team=b").count();
    assert!(of_b > 0, "b has fallen silent too");
    bench.commit();
    assert_eq!(bench.shard.status()[0].groups, 1, "c in its window: a and b are forgotten");
}

#[test]
fn every_expected_key_is_judged_on_one_shard() {
    let text = format!(
        "CREATE EXTERNAL TABLE expected (team VARCHAR) STORED AS CSV LOCATION 'e.csv'; {}",
        silent("FROM expected")
    );
    let names: Vec<String> = (0..40).map(|n| format!("team-{n}")).collect();
    let column: arrow::array::ArrayRef = Arc::new(arrow::array::StringViewArray::from_iter_values(&names));
    let rows = arrow::array::RecordBatch::try_from_iter([("team", column)]).unwrap();
    let references = References::from([("expected".to_owned(), Ok(rows.clone()))]);
    let (rules, faults) = compile(&[RuleFile { file: "r.sql".into(), text }], &references);
    assert_eq!(faults, []);
    rules.fill_reference("expected", &rows).unwrap();
    let stages = Stages::new(rules, Arc::new(PriceTable::empty()), &PipelineSettings::default());
    let (settings, shards) = (Arc::new(stages.judge), 3);
    let mut scan = scan_task(stages.scan, Router::new(shards, stages.routes), &settings);
    let place = |shard| Place { shard, shards };
    let mut served: Vec<Shard> = (0..shards).map(|shard| Shard::empty(&settings, place(shard))).collect();
    let mut silent = Vec::new();
    for (offset, at) in [START, START.plus(MINUTE_NS + MINUTE_NS / 2)].into_iter().enumerate() {
        let columns = [("team".to_owned(), json!("team-7"))].into();
        let row = RowDraft { table: Table::Spans, event_time: at, columns };
        let payload = encode_protobuf(Signal::Traces, &[row]).unwrap();
        let (offset, payload) = (i64::try_from(offset).unwrap(), Some(payload.as_slice()));
        scan.absorb(
            RecordRef {
                topic: SPANS,
                partition: 0,
                offset,
                timestamp_ms: 0,
                key: None,
                payload,
                ..RecordRef::default()
            },
            START,
        );
        for message in scan.end_epoch(START, true).batch.messages {
            let shard = usize::try_from(message.partition.unwrap()).unwrap();
            silent.extend(served[shard].absorb(&message.outgoing.payload.unwrap()).unwrap());
        }
        scan.commit();
    }
    let mut subjects: Vec<String> = silent.iter().map(|d| d.event.to_subject_text()).collect();
    subjects.sort();
    let mut expected: Vec<String> = names.iter().filter(|n| *n != "team-7").map(|n| format!("team={n}")).collect();
    expected.sort();
    assert_eq!(subjects, expected);
}

#[test]
fn a_large_state_of_a_rule_that_was_faulty_for_a_while_survives_further_restarts() {
    let other = counted("").replace("counted", "other").replace("team,", "name,");
    let both = format!("{}{other}", counted(""));
    let mut bench = Bench::new(&both);
    let all: Vec<String> = (0..9_000).map(|n| format!("team-{n}")).collect();
    all.chunks(3_000).for_each(|some| drop(bench.read(START, some)));
    bench.commit();
    let few = |bench: &mut Bench, from: i64| {
        for n in from..from + 3 {
            bench.read(START.plus(n), &teams(&["team-1"]));
            bench.commit();
        }
    };
    few(&mut bench, 1);
    for round in 0..3 {
        bench.restart(&format!("{other}{FAULTY}"));
        few(&mut bench, 10 + 20 * round);
        bench.restart(&both);
        few(&mut bench, 20 + 20 * round);
        bench.restart(&both);
        assert_eq!(bench.shard.status()[0].groups, 9_000, "round {round}");
    }
    let decisions = bench.read(START.plus(2 * MINUTE_NS), &teams(&["c"]));
    let of_counted = decisions.iter().filter(|d| d.event.data.rule.name == "counted");
    let total: f64 = of_counted.filter_map(|d| d.event.data.finding.observed).sum();
    assert_eq!(total, 9_000.0 + 3.0 + 3.0 * 3.0, "what was read while the rule was faulty does not count");
}

#[test]
fn a_threshold_that_was_raised_lets_go_of_those_below_it_without_a_row_of_theirs() {
    let rule = |most: u32| counted(&format!("HAVING count(*) >= {most} EMIT ON UPDATE"));
    let mut bench = Bench::new(&rule(2));
    let fired = bench.read(START, &teams(&["a", "a", "b"]));
    assert_eq!(observed(&fired), [("team=a".to_owned(), Some(2.0))]);
    bench.commit();
    bench.restart(&rule(2));
    assert_eq!(bench.read(START.plus(1), &teams(&["z"])), [], "nothing has changed");
    bench.commit();
    bench.restart(&rule(10));
    let next = bench.next;
    let resolved = bench.read(START.plus(2), &teams(&["z"]));
    let states: Vec<_> = resolved.iter().map(|d| (d.event.to_subject_text(), d.event.data.state.as_str())).collect();
    assert_eq!(states, [("team=a".to_owned(), "resolved")]);
    bench.shard.undo().unwrap();
    bench.next = next;
    assert_eq!(bench.read(START.plus(3), &teams(&["z"])).len(), 1, "and again, if that was not committed");
    bench.commit();
    bench.restart(&rule(1));
    let fired = bench.read(START.plus(4), &teams(&["z"]));
    assert_eq!(fired.len(), 3, "a lowered one finds a, b and z");
}

#[test]
fn a_history_of_a_level_that_is_gone_does_not_come_back() {
    let plain = counted("").replace(";", "");
    let looking_back = format!(
        "{} AS SELECT c.team, c.window_start, c.window_end, c.observed,
         lag(c.observed) OVER (PARTITION BY c.team ORDER BY c.window_end) AS before FROM ({}) AS c;",
        plain.split(" AS\n").next().unwrap(),
        plain.split(" AS\n").nth(1).unwrap()
    );
    let mut bench = Bench::new(&looking_back);
    bench.read(START, &teams(&["a"]));
    bench.read(START.plus(2 * MINUTE_NS), &teams(&["a"]));
    bench.commit();
    bench.restart(&counted(""));
    bench.read(START.plus(2 * MINUTE_NS + 1), &teams(&["a"]));
    bench.commit();
    bench.restart(&looking_back);
    let decisions = bench.read(START.plus(4 * MINUTE_NS), &teams(&["a"]));
    let befores: Vec<_> = decisions.iter().filter_map(|d| d.event.data.finding.evidence.get("before")).collect();
    assert_eq!(befores, [&serde_json::Value::Null]);
}

fn running(name: &str, most: u32) -> String {
    format!(
        "CREATE RULE {name} WITH (action = 'notify', reason_code = 'x_test') AS
         SELECT team, window_start, window_end, sum(input_tokens) AS observed
         FROM TUMBLE(spans, event_time, INTERVAL '1 minute') GROUP BY team, window_start, window_end
         HAVING sum(input_tokens) <= {most} EMIT ON UPDATE;"
    )
}

#[test]
fn rules_that_share_sums_each_remember_what_they_have_found() {
    let mut bench = Bench::new(&format!("{}{}", running("few", 1), running("some", 2)));
    assert_eq!(bench.settings.judging.stores.len(), 1, "the sums are kept once");
    let said = |decisions: &[Decision]| -> Vec<(String, State)> {
        decisions.iter().map(|d| (d.event.data.rule.name.clone(), d.event.data.state)).collect()
    };
    let (fired, over) = (State::Firing, State::Resolved);
    let both = [("few".to_owned(), fired), ("some".to_owned(), fired)];
    assert_eq!(said(&bench.read(START, &teams(&["a"]))), both);
    bench.commit();
    assert_eq!(said(&bench.read(START.plus(1), &teams(&["a"]))), [("few".to_owned(), over)]);
    bench.shard.undo().unwrap();
    bench.commit();
    // The first reader is gone, so the second is the first now; and a new one comes before it.
    bench.restart(&format!("{}{}", running("new", 5), running("some", 2)));
    let decisions = said(&bench.read(START.plus(1), &teams(&["a", "a"])));
    assert_eq!(decisions, [("new".to_owned(), fired), ("some".to_owned(), over)]);
}

#[test]
fn sums_that_a_faulty_rule_shares_are_kept_for_it_when_the_other_one_leaves_them() {
    let (few, some) = (running("few", 1), running("some", 2));
    let mut bench = Bench::new(&format!("{few}{some}"));
    assert_eq!(bench.read(START, &teams(&["a"])).len(), 2);
    bench.commit();
    bench.restart(&format!("{few}{FAULTY}"));
    assert_eq!(bench.read(START.plus(1), &teams(&["b"])).len(), 1);
    bench.commit();
    bench.restart(&format!("{}{FAULTY}", few.replace("sum(input_tokens)", "max(input_tokens)")));
    bench.commit();
    bench.restart(&format!("{few}{some}"));
    bench.commit();
    let mut decisions = bench.read(START.plus(2), &teams(&["a", "a", "b", "b"]));
    decisions.retain(|decision| decision.event.data.rule.name == "some");
    assert_eq!(observed(&decisions), [("team=a".to_owned(), None)], "three of team a are too many, it had one");
}

#[test]
fn who_looks_back_for_a_partner_does_not_miss_one_from_before_it_was_there() {
    let lone = "CREATE RULE lone WITH (action = 'warn', reason_code = 'x_test') AS
        SELECT a.team FROM spans AS a LEFT JOIN spans AS b ON b.team = a.team
            AND b.event_time >= a.event_time - INTERVAL '10 minutes' AND b.event_time < a.event_time
        WHERE b.team IS NULL;";
    let mut bench = Bench::new(&counted("HAVING count(*) > 100"));
    bench.read(START, &teams(&["a"]));
    bench.commit();
    bench.restart(&format!("{}{lone}", counted("HAVING count(*) > 100")));
    for minute in [1, 5, 12, 24] {
        bench.read(START.plus(minute * MINUTE_NS), &teams(&["a"]));
    }
    let decisions = bench.read(START.plus(60 * MINUTE_NS), &teams(&["c"]));
    let firing = decisions.iter().filter(|d| d.event.data.state == State::Firing);
    let at: Vec<i64> = firing.map(|d| (d.event.time.0 - START.0) / MINUTE_NS).collect();
    assert_eq!(at, [24], "at 1 the span at 0 may be one of many that nobody has seen; at 24 none came for ten minutes");
}

#[test]
fn an_update_names_the_record_that_crossed_the_line_and_then_the_heaviest_row() {
    let mut bench = Bench::new(&running("most", 9).replace("<= 9", ">= 3"));
    for ns in 5..7 {
        assert_eq!(bench.read(START.plus(ns), &teams(&["a"])), []);
    }
    bench.commit();
    // It came late, and yet it was the one.
    let decisions = bench.read(START, &teams(&["a"]));
    let exemplars = &decisions[0].event.data.finding.exemplars;
    assert_eq!(exemplars.first().map(|row| row.offset), Some(2), "{exemplars:?}");
}
