//! A rule grouped by team, over telemetry keyed by trace, gives on three instances the same events as on one, and as
//! DataFusion's batch engine gives over all rows at once.
//!
//! A trace's spans are of many teams, so every team's spans lie in every partition, and each instance reads only some
//! of them. Skips when `KAFKA_BOOTSTRAP` is not set.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "support/cluster.rs"]
mod cluster;
#[path = "support/content.rs"]
mod content;
#[path = "support/http.rs"]
mod http;
#[path = "support/instance.rs"]
mod instance;
#[path = "support/judged.rs"]
mod judged;
#[path = "support/published.rs"]
mod published;

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, TimestampNanosecondType};
use cluster::{Cluster, PATIENCE};
use content::content;
use fastrand::Rng;
use http::{free_port, metric};
use instance::Instance;
use judged::wait_until_judged;
use lictor_connectors::{KafkaSink, Outgoing, Sink};
use lictor_engine::clock::{Clock, SystemClock};
use lictor_queries::{References, RuleFile, compile, oracle};
use lictor_schemas::event::EnforcementEvent;
use lictor_schemas::otlp::encode::{RowDraft, encode_protobuf};
use lictor_schemas::otlp::{Decoder, RecordMeta};
use lictor_schemas::prices::PriceTable;
use lictor_schemas::tables::{Signal, Table};
use lictor_schemas::time::EventTime;
use published::published;
use serde_json::{Value, json};
use tempfile::TempDir;

const SECOND_NS: i64 = 1_000_000_000;
const PARTITIONS: i32 = 6;
const SHARDS: i32 = 8;
const TEAMS: usize = 12;
const SPANS: i64 = 6_000;
/// Four minutes of telemetry.
const STEP_NS: i64 = SECOND_NS / 25;
/// Less than the lateness that lictor allows by default.
const DISORDER_NS: i64 = 8 * SECOND_NS;
/// So many that every partition gets some.
const LAST_RECORDS: usize = 256;
const LOOK: Duration = Duration::from_millis(50);

/// A directive is published when its result changes, so each result differs from that of the window before: of every
/// team each window speaks. None ends by itself before the story does.
fn rules() -> String {
    let rule = |name: &str, query: &str| {
        format!(
            "CREATE RULE {name} WITH (action = 'block', reason_code = 'x_{name}', ttl = '4 days') AS
             SELECT team, window_start, window_end, observed,
                    CASE CAST(to_unixtime(window_start) AS BIGINT) / 10 % 3
                         WHEN 0 THEN 'BLOCKED' WHEN 1 THEN 'RATE_LIMITED' ELSE 'WARNING' END AS result
             FROM ({query}) AS found EMIT ON CLOSE;\n"
        )
    };
    let summed = |window: &str, observed: &str| {
        format!(
            "SELECT s.team, window_start, window_end, {observed} AS observed FROM {window} AS s
             WHERE s.team IS NOT NULL GROUP BY s.team, window_start, window_end"
        )
    };
    let tumbling = "TUMBLE(spans, event_time, INTERVAL '10 seconds')";
    let hopping = "HOP(spans, event_time, INTERVAL '10 seconds', INTERVAL '30 seconds')";
    let history = format!(
        "SELECT team, window_start, window_end, observed + 1000000 * coalesce(sum(observed) OVER (
             PARTITION BY team ORDER BY window_end ROWS BETWEEN 3 PRECEDING AND 1 PRECEDING), 0) AS observed
         FROM ({}) AS summed",
        summed(tumbling, "sum(s.input_tokens)")
    );
    [
        rule("calls", &summed(tumbling, "count(*)")),
        rule("tokens", &summed(tumbling, "sum(s.input_tokens)")),
        rule("hops", &summed(hopping, "sum(s.input_tokens)")),
        rule("history", &history),
    ]
    .concat()
}

/// A record and its key.
type Keyed = (Vec<u8>, Vec<u8>);

fn encoded(spans: &[RowDraft]) -> Vec<u8> {
    encode_protobuf(Signal::Traces, spans).unwrap()
}

/// Traces of one to six spans; the spans of a trace are of any team.
fn telemetry(random: &mut Rng, start: EventTime) -> Vec<Keyed> {
    let (mut records, mut spans) = (Vec::new(), Vec::new());
    for number in 0..SPANS {
        let trace_id = format!("{:032x}", records.len() + 1);
        let columns = json!({
            "trace_id": trace_id, "span_id": format!("{:016x}", number + 1),
            "team": format!("team-{}", random.usize(0..TEAMS)), "input_tokens": random.u32(1..1_000),
        });
        let columns = columns.as_object().unwrap().clone().into_iter().collect();
        let event_time = start.plus(number * STEP_NS - random.i64(0..DISORDER_NS));
        spans.push(RowDraft { table: Table::Spans, event_time, columns });
        if random.u32(0..4) == 0 || number == SPANS - 1 {
            records.push((trace_id.into_bytes(), encoded(&std::mem::take(&mut spans))));
        }
    }
    records
}

/// A span of nobody, after which all windows close.
fn afterwards(start: EventTime) -> Vec<u8> {
    let event_time = start.plus(SPANS * STEP_NS + 600 * SECOND_NS);
    encoded(&[RowDraft { table: Table::Spans, event_time, columns: BTreeMap::new() }])
}

fn produce(cluster: &Cluster, records: &[Keyed]) {
    let mut sink = KafkaSink::try_new(&cluster.properties, "test-out").unwrap();
    for (key, payload) in records.iter().cloned() {
        let (topic, headers) = (cluster.topic("spans"), Vec::new());
        sink.publish(&Outgoing { topic, key: Some(key), payload: Some(payload), headers }).unwrap();
    }
    sink.flush().unwrap();
}

/// What a rule observed of a team in a window.
type Observed = BTreeMap<(String, String, EventTime, EventTime), i64>;

/// What the batch engine says of all rules over all rows.
fn expected(text: String, records: &[Keyed]) -> Observed {
    let (files, references) = ([RuleFile { file: "rules.sql".to_owned(), text }], References::new());
    let (rules, faults) = compile(&files, &references);
    assert_eq!(faults, []);
    let mut decoder = Decoder::new(&rules.wanted, &[], Arc::new(PriceTable::empty()));
    let meta = RecordMeta { topic: "spans", partition: 0, offset: 0, timestamp_ms: 0 };
    records.iter().for_each(|(_, payload)| drop(decoder.absorb(Signal::Traces, payload, meta).unwrap()));
    let telemetry: BTreeMap<Table, RecordBatch> = decoder.take().into_iter().collect();
    assert_eq!(i64::try_from(telemetry[&Table::Spans].num_rows()).unwrap(), SPANS);
    let mut observed = Observed::new();
    for rule in &rules.rules {
        let name = &rule.header.name;
        for batch in oracle(&files, &references, name, &telemetry).unwrap() {
            note(name, &batch, &mut observed);
        }
    }
    observed
}

fn note(rule: &str, batch: &RecordBatch, observed: &mut Observed) {
    let column = |name: &str, to: &DataType| cast(batch.column_by_name(name).unwrap(), to).unwrap();
    let instants = |name: &str| {
        let column = batch.column_by_name(name).unwrap();
        column.as_primitive::<TimestampNanosecondType>().clone()
    };
    let (teams, values) = (column("team", &DataType::Utf8), column("observed", &DataType::Int64));
    let (starts, ends) = (instants("window_start"), instants("window_end"));
    for row in 0..batch.num_rows() {
        let team = teams.as_string::<i32>().value(row).to_owned();
        let key = (rule.to_owned(), team, EventTime(starts.value(row)), EventTime(ends.value(row)));
        assert!(values.is_valid(row), "{key:?} observed nothing");
        let before = observed.insert(key, values.as_primitive::<Int64Type>().value(row));
        assert_eq!(before, None, "two rows for one team and window");
    }
}

/// What the events say.
#[expect(clippy::cast_possible_truncation, reason = "sums of small whole numbers")]
fn found(events: &[EnforcementEvent]) -> Observed {
    let mut observed = Observed::new();
    for event in events.iter().filter(|event| !event.data.state.is_ended()) {
        let (finding, window) = (&event.data.finding, event.data.finding.window.unwrap());
        let team = event.data.selector.matches["team"].as_str().unwrap().to_owned();
        let key = (event.data.rule.name.clone(), team, window.start, window.end);
        let before = observed.insert(key, finding.observed.unwrap() as i64);
        assert_eq!(before, None, "two events for one team and window: {event:?}");
    }
    observed
}

/// The instances of an application, and the ports of their metrics.
struct Deployment {
    application: &'static str,
    instances: Vec<(Instance, u16)>,
}

impl Deployment {
    fn start(cluster: &Cluster, application: &'static str, names: &[&str], rules: &TempDir) -> Self {
        cluster.make_topic(&format!("{application}.enforcement"), 1, false);
        let start = |name: &&str| {
            let port = free_port();
            let more = format!(
                "instance_id: {name}\nshards: {SHARDS}\nrules: {}\nhttp: 127.0.0.1:{port}\ntime: {{idle_after: 10m}}",
                rules.path().display()
            );
            (Instance::start(cluster, application, &more), port)
        };
        Self { application, instances: names.iter().map(start).collect() }
    }

    /// A metric of every instance.
    fn metric(&self, name: &str, label: &str) -> Vec<f64> {
        self.instances.iter().map(|(_, port)| metric(*port, name, label)).collect()
    }

    /// Returns once a metric's values sum up to this, each instance having some.
    fn wait_for(&self, name: &str, label: &str, sum: f64) -> Vec<f64> {
        let clock = SystemClock::start();
        loop {
            let values = self.metric(name, label);
            if values.iter().sum::<f64>() == sum && values.iter().all(|value| *value > 0.0) {
                return values;
            }
            let application = self.application;
            assert!(clock.monotonic() < PATIENCE, "{application}: {name}{{{label}}}: {values:?}, not {sum} in all");
            thread::park_timeout(LOOK);
        }
    }

    /// Returns once all partitions and all shards are served, some by every instance.
    fn wait_until_shared(&self) {
        self.wait_for("lictor_partitions", "scan", f64::from(PARTITIONS));
        self.wait_for("lictor_partitions", "judge", f64::from(SHARDS));
    }

    /// All events, by id, once everything is judged. None came twice.
    fn events(&self, cluster: &Cluster) -> BTreeMap<String, EnforcementEvent> {
        let application_id = cluster.topic(self.application);
        let input = cluster.topic("spans");
        wait_until_judged(&cluster.properties, &application_id, (&input, PARTITIONS), SHARDS, PATIENCE);
        let all = published(cluster, &format!("{}.enforcement", self.application));
        let count = all.len();
        let events: BTreeMap<_, _> = all.into_iter().map(|event| (event.id.clone(), event)).collect();
        assert_eq!(events.len(), count, "{}: events came twice", self.application);
        events
    }
}

#[test]
fn three_instances_give_the_events_of_one_and_of_the_batch_engine() {
    let Some(cluster) = Cluster::from_env("scale-out") else { return };
    cluster.make_topic("spans", PARTITIONS, false);
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("rules.sql"), rules()).unwrap();
    let one = Deployment::start(&cluster, "one", &["only"], &folder);
    let three = Deployment::start(&cluster, "three", &["a", "b", "c"], &folder);
    one.wait_until_shared();
    three.wait_until_shared();

    let now = SystemClock::start().now();
    let start = EventTime(now.0 - now.0.rem_euclid(30 * SECOND_NS)).plus(-3_600 * SECOND_NS);
    let records = telemetry(&mut Rng::with_seed(3), start);
    produce(&cluster, &records);
    cluster.produce("spans", vec![Some(afterwards(start)); LAST_RECORDS]).unwrap();
    let (of_one, of_three) = (one.events(&cluster), three.events(&cluster));

    let expected = expected(rules(), &records);
    let windows = SPANS * STEP_NS / (10 * SECOND_NS);
    assert!(expected.len() > usize::try_from(4 * windows).unwrap() * (TEAMS - 1), "{} sums", expected.len());
    let said = |events: &BTreeMap<String, EnforcementEvent>| found(&events.values().cloned().collect::<Vec<_>>());
    assert_equal("one instance and the batch engine", &expected, &said(&of_one));
    assert_equal("three instances and the batch engine", &expected, &said(&of_three));
    let contents = |events: &BTreeMap<String, EnforcementEvent>| -> BTreeMap<String, Value> {
        events.iter().map(|(id, event)| (id.clone(), content(event))).collect()
    };
    assert_equal("one instance and three", &contents(&of_one), &contents(&of_three));

    let total = f64::from(u32::try_from(records.len() + LAST_RECORDS).unwrap());
    let read = three.wait_for("lictor_records_total", "used", total);
    let decided = three.wait_for("lictor_events_total", "", f64::from(u32::try_from(of_three.len()).unwrap()));
    eprintln!(
        "scale-out: {SPANS} spans, {} sums, {} events; the three read {read:?} records and published {decided:?}",
        expected.len(),
        of_three.len()
    );
}

#[track_caller]
fn assert_equal<K: Ord + std::fmt::Debug, V: PartialEq + std::fmt::Debug>(
    what: &str,
    a: &BTreeMap<K, V>,
    b: &BTreeMap<K, V>,
) {
    let keys: std::collections::BTreeSet<&K> = a.keys().chain(b.keys()).collect();
    let differs = keys.into_iter().find(|key| a.get(key) != b.get(key));
    if let Some(key) = differs {
        let (a_len, b_len) = (a.len(), b.len());
        panic!("{what}, {a_len} and {b_len}: {key:?}: {:?} and {:?}", a.get(key), b.get(key));
    }
}
