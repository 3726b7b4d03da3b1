//! Both tasks over a cluster in memory: whatever is aborted, killed, moved or compacted, the events are those of one
//! pipeline that nothing ever happened to.

use std::collections::BTreeMap;
use std::sync::Arc;

use fastrand::Rng;
use lictor_connectors::{Committed, NextOffset, RecordRef, TopicPartition};
use lictor_queries::{References, RuleFile, RuleSet, compile};
use lictor_schemas::otlp::encode::{RowDraft, encode_protobuf};
use lictor_schemas::prices::PriceTable;
use lictor_schemas::tables::{Signal, Table};
use lictor_schemas::time::EventTime;
use serde_json::{Value, json};

use super::*;
use crate::exchange::route::{Place, Router};
use crate::pipeline::{Pipeline, PipelineSettings, Stages};
use crate::shard::{JudgeSettings, Restoring};

const SPANS: &str = "otlp_spans";
const SHARDS: i32 = 3;
const SECOND_NS: i64 = 1_000_000_000;
/// Long after the last record: every partition is idle, every window closes, all that can expire does.
const AFTERWARDS_NS: i64 = 3 * 86_400 * SECOND_NS;

/// Rules that speak when a window closes: what they say depends on no interleaving of partitions.
const ON_CLOSE: &str = "
    CREATE RULE counted WITH (action = 'notify', reason_code = 'x_test') AS
    SELECT team, window_start, window_end, count(*) AS observed, sum(input_tokens) AS tokens
    FROM TUMBLE(spans, event_time, INTERVAL '10 seconds') GROUP BY team, window_start, window_end;

    CREATE RULE hopping WITH (action = 'warn', reason_code = 'x_test') AS
    SELECT team, request_model, window_start, window_end, avg(input_tokens) AS observed, count(DISTINCT name) AS names
    FROM HOP(spans, event_time, INTERVAL '10 seconds', INTERVAL '30 seconds')
    GROUP BY team, request_model, window_start, window_end HAVING count(*) > 2;

    CREATE RULE compared WITH (action = 'throttle', reason_code = 'x_test') AS
    SELECT team, request_model, window_start, window_end, calls AS observed, past AS threshold FROM (
        SELECT team, request_model, window_start, window_end, calls,
               avg(calls) OVER (PARTITION BY team ORDER BY window_end ROWS BETWEEN 3 PRECEDING AND 1 PRECEDING) AS past
        FROM (SELECT team, request_model, window_start, window_end, count(*) AS calls
              FROM TUMBLE(spans, event_time, INTERVAL '10 seconds')
              GROUP BY team, request_model, window_start, window_end)
        WHERE request_model = 'a') WHERE calls > past;

    CREATE RULE together WITH (action = 'warn', reason_code = 'x_test') AS
    SELECT team, name, window_start, window_end, count(*) AS observed, sum(input_tokens) AS tokens
    FROM SESSION(spans, event_time, INTERVAL '4 seconds') GROUP BY team, name, window_start, window_end;

    CREATE RULE longer WITH (action = 'notify', reason_code = 'x_test') AS
    SELECT team, name, window_start, window_end, calls AS observed, past AS threshold FROM (
        SELECT team, name, window_start, window_end, calls, avg(calls) OVER (
            PARTITION BY team, name ORDER BY window_end ROWS BETWEEN 3 PRECEDING AND 1 PRECEDING) AS past
        FROM (SELECT team, name, window_start, window_end, count(*) AS calls
              FROM SESSION(spans, event_time, INTERVAL '2 seconds') GROUP BY team, name, window_start, window_end))
    WHERE calls > past;

    CREATE RULE at_home WITH (action = 'notify', reason_code = 'x_test') AS
    SELECT team, name, window_start, window_end, count(*) AS observed
    FROM CALENDAR(spans, event_time, 'hour', CASE name WHEN 'chat' THEN 'Asia/Kolkata' WHEN 'tool' THEN 'UTC' END)
    GROUP BY team, name, window_start, window_end HAVING count(*) > 1;

    CREATE RULE silent WITH (action = 'notify', reason_code = 'x_test') AS
    SELECT team, request_model, window_start, window_end, count(*) AS observed
    FROM TUMBLE(spans, event_time, INTERVAL '5 seconds') GROUP BY team, request_model, window_start, window_end
    HAVING count(*) = 0 GAP FILL FOR INTERVAL '20 seconds';

    CREATE RULE so_far WITH (action = 'notify', reason_code = 'x_test') AS
    SELECT team, window_start, window_end, count(*) AS observed
    FROM CUMULATE(spans, event_time, INTERVAL '5 seconds', INTERVAL '15 seconds')
    GROUP BY team, window_start, window_end HAVING count(*) > 3;

    CREATE RULE dear WITH (action = 'block', reason_code = 'BUDGET_EXCEEDED') AS
    SELECT team, trace_id, input_tokens AS observed FROM spans WHERE input_tokens > 900;";

/// Rules that speak at once: on one partition their every word is determined.
const ON_UPDATE: &str = "
    CREATE RULE running WITH (action = 'block', reason_code = 'BUDGET_EXCEEDED') AS
    SELECT team, window_start, window_end, sum(input_tokens) AS observed,
           CASE WHEN sum(input_tokens) > 4000 THEN 'BLOCKED' ELSE 'WARNING' END AS result
    FROM TUMBLE(spans, event_time, INTERVAL '20 seconds') GROUP BY team, window_start, window_end
    HAVING sum(input_tokens) > 2000 EMIT ON UPDATE;

    CREATE RULE busy WITH (action = 'throttle', reason_code = 'x_test') AS
    SELECT team, window_start, window_end, count(*) AS observed, max(input_tokens) AS most
    FROM SESSION(spans, event_time, INTERVAL '2 seconds') GROUP BY team, window_start, window_end
    HAVING count(*) BETWEEN 3 AND 8 OR max(input_tokens) % 3 = 0 EMIT ON UPDATE;

    CREATE RULE home WITH (action = 'notify', reason_code = 'x_test') AS
    SELECT team, window_start, window_end, count(*) AS observed
    FROM CALENDAR(spans, event_time, 'hour', CASE name WHEN 'chat' THEN 'Asia/Kolkata' WHEN 'tool' THEN 'UTC' END)
    GROUP BY team, window_start, window_end HAVING count(*) BETWEEN 3 AND 12 EMIT ON UPDATE;";

fn start() -> EventTime {
    EventTime::from_rfc3339("2026-03-01T08:00:00Z").unwrap()
}

fn rules(text: &str) -> RuleSet {
    let (rules, faults) = compile(&[RuleFile { file: "r.sql".into(), text: text.into() }], &References::new());
    assert_eq!(faults, []);
    rules
}

fn stages(text: &str) -> Stages {
    Stages::new(rules(text), Arc::new(PriceTable::empty()), &PipelineSettings::default())
}

/// Records of one to four spans for each partition, out of order by less than the lateness.
fn telemetry(random: &mut Rng, partitions: i32, spans: i64) -> Vec<Vec<Vec<u8>>> {
    let mut records: Vec<Vec<Vec<u8>>> = vec![Vec::new(); usize::try_from(partitions).unwrap()];
    let mut bundle = Vec::new();
    for number in 0..spans {
        let at = start().plus(number * SECOND_NS / 4 - random.i64(0..5 * SECOND_NS));
        let columns = json!({
            "team": format!("team-{}", random.u32(0..6)), "request_model": (["a", "b"][random.usize(0..2)]),
            "name": (["chat", "embed", "tool"][random.usize(0..3)]), "input_tokens": (number * 7919 % 1_009),
            "trace_id": format!("{:032x}", number + 1), "span_id": format!("{:016x}", number + 1),
        });
        let columns = columns.as_object().unwrap().clone().into_iter().collect();
        bundle.push(RowDraft { table: Table::Spans, event_time: at, columns });
        if random.u32(0..3) == 0 || number == spans - 1 {
            let payload = encode_protobuf(Signal::Traces, &std::mem::take(&mut bundle)).unwrap();
            let partition = random.usize(0..records.len());
            records[partition].push(payload);
            // What goes to the dead letters is committed at once; the sums of the rows before must not stay behind.
            if random.u32(0..4) == 0 {
                records[partition].push(b"\xffno telemetry".to_vec());
            }
        }
    }
    records
}

fn record(partition: i32, offset: usize, payload: &[u8]) -> RecordRef<'_> {
    let offset = i64::try_from(offset).unwrap();
    let timestamp_ms = start().plus(3_600 * SECOND_NS).to_ms();
    RecordRef {
        topic: SPANS,
        partition,
        offset,
        timestamp_ms,
        key: None,
        payload: Some(payload),
        ..RecordRef::default()
    }
}

/// What an event says, without the time at which it was found.
fn plain(payload: &[u8]) -> (String, Value) {
    let mut event: Value = serde_json::from_slice(payload).unwrap();
    event["data"].as_object_mut().unwrap().remove("detected_at");
    event.as_object_mut().unwrap().remove("time");
    (event["id"].as_str().unwrap().to_owned(), event)
}

/// The events of a pipeline that reads everything undisturbed.
fn undisturbed(text: &str, telemetry: &[Vec<Vec<u8>>]) -> BTreeMap<String, Value> {
    let settings = PipelineSettings::default();
    let mut pipeline = Pipeline::new(rules(text), Arc::new(PriceTable::empty()), &settings);
    let now = start().plus(3_600 * SECOND_NS);
    for partition in (0..).zip(telemetry).map(|(p, _)| p) {
        pipeline.assign(TopicPartition::new(SPANS, partition), now);
    }
    for (partition, records) in (0..).zip(telemetry) {
        records
            .iter()
            .enumerate()
            .for_each(|(offset, payload)| pipeline.absorb(record(partition, offset, payload), now));
    }
    let epochs = [pipeline.end_epoch(now), pipeline.end_epoch(now.plus(AFTERWARDS_NS))];
    assert!(pipeline.status().iter().all(|status| status.quarantined.is_none()), "{:?}", pipeline.status());
    let decisions = epochs.iter().flat_map(|epoch| &epoch.decisions);
    decisions.map(|decision| plain(&decision.event.to_json())).collect()
}

/// Key and value of a record of the state topic.
type StateEntry = (Vec<u8>, Option<Vec<u8>>);

/// What Kafka has of it: only what was committed.
#[derive(Default)]
struct Cluster {
    telemetry: Vec<Vec<Vec<u8>>>,
    scanned: BTreeMap<i32, Committed>,
    shuffle: BTreeMap<i32, Vec<Vec<u8>>>,
    judged: BTreeMap<i32, NextOffset>,
    state: BTreeMap<i32, Vec<StateEntry>>,
    events: Vec<(String, Value)>,
    directives: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

fn topics() -> TaskTopics {
    TaskTopics { shuffle: "l.shuffle".to_owned(), state: "l.state".to_owned(), outputs: OutputTopics::default() }
}

impl Cluster {
    fn commit(&mut self, batch: Batch) {
        assert!(!batch.consumed.is_empty(), "a transaction without offsets is not fenced");
        for Message { outgoing, partition } in batch.messages {
            match (outgoing.topic.as_str(), partition) {
                ("l.shuffle", Some(shard)) => self.shuffle.entry(shard).or_default().push(outgoing.payload.unwrap()),
                ("l.state", Some(shard)) => {
                    self.state.entry(shard).or_default().push((outgoing.key.unwrap(), outgoing.payload));
                }
                ("lictor.enforcement", None) => self.events.push(plain(&outgoing.payload.unwrap())),
                ("lictor.dead-letter", None) => {}
                ("lictor.directives", None) => drop(self.directives.insert(outgoing.key.unwrap(), outgoing.payload)),
                other => panic!("a message to {other:?}"),
            }
        }
        for consumed in batch.consumed {
            let partition = consumed.partition.partition;
            if &*consumed.partition.topic == SPANS {
                self.scanned.insert(partition, Committed { next: consumed.next, metadata: consumed.metadata });
            } else {
                self.judged.insert(partition, consumed.next);
            }
        }
    }

    /// Keeps the newest record of every key of a part of a state log, as the log cleaner does.
    fn compact(&mut self, shard: i32, random: &mut Rng) {
        let Some(log) = self.state.get_mut(&shard).filter(|log| !log.is_empty()) else { return };
        let mut tail = log.split_off(random.usize(0..log.len()));
        let newest: BTreeMap<Vec<u8>, usize> = log.iter().enumerate().map(|(i, (key, _))| (key.clone(), i)).collect();
        let mut at = 0;
        log.retain(|(key, value)| {
            at += 1;
            newest[key] == at - 1 && value.is_some()
        });
        log.append(&mut tail);
    }
}

struct Instance {
    scan: ScanTask,
    judge: JudgeTask,
    settings: Arc<JudgeSettings>,
    /// What is next to read of the partitions it has.
    reading: BTreeMap<i32, usize>,
    judging: BTreeMap<i32, usize>,
}

impl Instance {
    fn new(text: &str, partitions: i32) -> Self {
        let Stages { scan, judge, routes } = stages(text);
        let router = Router::new(u32::try_from(SHARDS).unwrap(), routes);
        let mut scan = ScanTask::new(scan, router, judge.names.clone(), topics(), ("lictor", "a"));
        scan.expect(&[(SPANS.to_owned(), partitions)]);
        let (judge, settings) = (JudgeTask::new(topics()), Arc::new(judge));
        Self { scan, judge, settings, reading: BTreeMap::new(), judging: BTreeMap::new() }
    }

    fn take_partition(&mut self, cluster: &Cluster, partition: i32, now: EventTime) {
        let committed = cluster.scanned.get(&partition).cloned();
        let committed = committed.unwrap_or(Committed { next: NextOffset(0), metadata: String::new() });
        self.scan.assign(&TopicPartition::new(SPANS, partition), &committed, now);
        self.reading.insert(partition, usize::try_from(committed.next.0).unwrap());
    }

    fn take_shard(&mut self, cluster: &Cluster, shard: i32) {
        let mut restoring = Restoring::new(&self.settings, Place::ONLY, false);
        for (key, value) in cluster.state.get(&shard).into_iter().flatten() {
            restoring.absorb(key, value.as_deref()).unwrap();
        }
        let committed = cluster.judged.get(&shard).copied();
        let restored = restoring.finish(committed, &[SPANS.to_owned()]).unwrap();
        let next = self.judge.serve(shard, restored).unwrap_or(NextOffset(0));
        self.judging.insert(shard, usize::try_from(next.0).unwrap());
    }

    fn read(&mut self, cluster: &Cluster, random: &mut Rng, now: EventTime) {
        for (partition, next) in &mut self.reading {
            let records = &cluster.telemetry[usize::try_from(*partition).unwrap()];
            for payload in &records[*next..records.len().min(*next + random.usize(0..4))] {
                self.scan.absorb(record(*partition, *next, payload), now);
                *next += 1;
            }
        }
    }

    fn end_scan(&mut self, cluster: &mut Cluster, is_due: bool, is_aborted: bool, now: EventTime) {
        let epoch = self.scan.end_epoch(now, is_due);
        if is_aborted {
            for (partition, next) in self.scan.undo(now) {
                self.reading.insert(partition.partition, usize::try_from(next.unwrap().0).unwrap());
            }
        } else if !epoch.batch.is_empty() {
            cluster.commit(epoch.batch);
            self.scan.commit();
        }
    }

    fn judge(&mut self, cluster: &Cluster, parcels_max: usize) {
        for (shard, next) in &mut self.judging {
            let parcels = cluster.shuffle.get(shard).map(Vec::as_slice).unwrap_or_default();
            for parcel in &parcels[*next..parcels.len().min(*next + parcels_max)] {
                self.judge.absorb(*shard, i64::try_from(*next).unwrap(), parcel).unwrap();
                *next += 1;
            }
        }
    }

    fn end_judging(&mut self, cluster: &mut Cluster, is_aborted: bool, now: EventTime) {
        if !self.judge.is_dirty() {
            return;
        }
        let mut epoch = self.judge.end_epoch(now);
        if is_aborted {
            for (shard, next) in self.judge.undo().unwrap() {
                let next = next.map_or(0, |next| usize::try_from(next.0).unwrap());
                self.judging.insert(shard.partition, next);
            }
            return;
        }
        let messages = self.judge.messages_of(&epoch.decisions);
        epoch.state.messages.splice(0..0, messages);
        cluster.commit(epoch.state);
        self.judge.commit().unwrap();
    }

    fn finish(&mut self, cluster: &mut Cluster, now: EventTime) {
        self.end_scan(cluster, true, false, now);
        self.judge(cluster, usize::MAX / 2);
        self.end_judging(cluster, false, now);
    }
}

/// Two instances that are disturbed at random until everything is read and judged.
fn disturbed(text: &str, telemetry: Vec<Vec<Vec<u8>>>, random: &mut Rng) -> Cluster {
    let partitions = i32::try_from(telemetry.len()).unwrap();
    let now = start().plus(3_600 * SECOND_NS);
    let mut cluster = Cluster { telemetry, ..Cluster::default() };
    let mut instances = [Instance::new(text, partitions), Instance::new(text, partitions)];
    (0..partitions).for_each(|p| instances[random.usize(0..2)].take_partition(&cluster, p, now));
    (0..SHARDS).for_each(|shard| instances[random.usize(0..2)].take_shard(&cluster, shard));
    while !is_read(&cluster, &instances) {
        let which = random.usize(0..2);
        let (one, other) = instances.split_at_mut(1);
        let (instance, other) = if which == 0 { (&mut one[0], &mut other[0]) } else { (&mut other[0], &mut one[0]) };
        match random.u32(0..12) {
            0..5 => instance.read(&cluster, random, now),
            5..7 => instance.end_scan(&mut cluster, random.bool(), random.u32(0..4) == 0, now),
            7..9 => instance.judge(&cluster, random.usize(0..6)),
            9 => instance.end_judging(&mut cluster, random.u32(0..4) == 0, now),
            10 => restart(instance, &mut cluster, text, random, now),
            _ => rebalance(instance, other, &mut cluster, random, now),
        }
    }
    // Twice: what one instance ships last, the other may have to judge.
    for later in [0, AFTERWARDS_NS, AFTERWARDS_NS + SECOND_NS] {
        instances.iter_mut().for_each(|instance| instance.finish(&mut cluster, now.plus(later)));
        instances.iter_mut().for_each(|instance| instance.finish(&mut cluster, now.plus(later)));
    }
    cluster
}

fn is_read(cluster: &Cluster, instances: &[Instance]) -> bool {
    let mut reading = instances.iter().flat_map(|instance| &instance.reading);
    let is_at_end = |(p, next): (&i32, &usize)| cluster.telemetry[usize::try_from(*p).unwrap()].len() == *next;
    reading.all(is_at_end)
}

/// The process is killed: what was not committed is gone. It comes back and takes its own again.
fn restart(instance: &mut Instance, cluster: &mut Cluster, text: &str, random: &mut Rng, now: EventTime) {
    let partitions = i32::try_from(cluster.telemetry.len()).unwrap();
    let (reading, judging) = (std::mem::take(&mut instance.reading), std::mem::take(&mut instance.judging));
    *instance = Instance::new(text, partitions);
    reading.into_keys().for_each(|partition| instance.take_partition(cluster, partition, now));
    for shard in judging.into_keys() {
        cluster.compact(shard, random);
        instance.take_shard(cluster, shard);
    }
}

/// A partition and a shard move from one instance to the other, committed first.
fn rebalance(from: &mut Instance, to: &mut Instance, cluster: &mut Cluster, random: &mut Rng, now: EventTime) {
    from.end_scan(cluster, true, false, now);
    from.end_judging(cluster, false, now);
    if let Some(partition) = random.choice(from.reading.keys().copied().collect::<Vec<_>>()) {
        from.reading.remove(&partition);
        from.scan.revoke(&TopicPartition::new(SPANS, partition));
        to.take_partition(cluster, partition, now);
    }
    if let Some(shard) = random.choice(from.judging.keys().copied().collect::<Vec<_>>()) {
        from.judging.remove(&shard);
        from.judge.drop_shard(shard);
        to.take_shard(cluster, shard);
    }
}

fn check(text: &str, partitions: i32, seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let mut random = Rng::with_seed(seed);
        let telemetry = telemetry(&mut random, partitions, 240);
        let expected = undisturbed(text, &telemetry);
        assert!(expected.len() > 50, "seed {seed}: only {} events", expected.len());
        let cluster = disturbed(text, telemetry, &mut random);
        let found: BTreeMap<String, Value> = cluster.events.iter().cloned().collect();
        assert_eq!(found.len(), cluster.events.len(), "seed {seed}: an event came twice");
        for (id, event) in &expected {
            assert_eq!(found.get(id), Some(event), "seed {seed}: {id}");
        }
        assert_eq!(found.len(), expected.len(), "seed {seed}: more events than there should be");
        let holding = cluster.directives.values().flatten().count();
        assert_eq!(holding, 0, "seed {seed}: in the end everything has expired");
    }
}

#[test]
fn two_disturbed_instances_decide_what_one_undisturbed_pipeline_does() {
    check(ON_CLOSE, 4, 0..8);
}

#[test]
fn on_one_partition_every_word_of_an_update_rule_is_the_same() {
    check(&format!("{ON_CLOSE}{ON_UPDATE}"), 1, 20..28);
}
