//! Records that are no telemetry, or poisonous telemetry: nothing stops, and every record and every row is accounted
//! for.
//!
//! Once through the pipeline in memory, once from a real Kafka to a real dead-letter topic.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "support/cluster.rs"]
mod cluster;
#[path = "support/headers.rs"]
mod headers;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cluster::{Cluster, Message, PATIENCE};
use headers::headers;
use lictor_connectors::ensure_topics;
use lictor_engine::clock::{Clock, SystemClock};
use lictor_engine::company::Company;
use lictor_engine::config::{Config, Outside};
use lictor_engine::decision::{Decision, LimitReport};
use lictor_engine::metrics::Metrics;
use lictor_engine::pipeline::Stages;
use lictor_engine::rules_dir;
use lictor_engine::scan_stage::ScanCounts;
use lictor_engine::tasks::{self, Stage, TaskObserver};
use lictor_engine::watermark::Untimely;
use lictor_schemas::otlp::encode::{RowDraft, encode_protobuf};
use lictor_schemas::otlp::{Decoder, RecordMeta, Wanted};
use lictor_schemas::prices::PriceTable;
use lictor_schemas::tables::{Signal, Table};
use lictor_schemas::time::EventTime;
use serde_json::{Value, json};
use support::{Arrival, epochs};

const SECOND_NS: i64 = 1_000_000_000;
const HOUR_NS: i64 = 3_600 * SECOND_NS;
/// Seconds of the company's telemetry around the poison; the company's own garbage comes later.
const COMPANY_S: i64 = 240;
const GARBAGE: usize = 3;

fn spans(at: EventTime, columns: Value) -> Vec<u8> {
    let columns = columns.as_object().unwrap().clone().into_iter().collect();
    encode_protobuf(Signal::Traces, &[RowDraft { table: Table::Spans, event_time: at, columns }]).unwrap()
}

/// OTLP/JSON with one span for each trace id.
fn spans_of_traces(at: EventTime, trace_ids: &[&str]) -> Vec<u8> {
    let span = |trace_id: &&str| {
        json!({"traceId": trace_id, "spanId": "00f067aa0ba902b7", "name": "chat", "kind": 3,
            "startTimeUnixNano": at.0.to_string(), "endTimeUnixNano": at.0.to_string()})
    };
    let spans: Vec<Value> = trace_ids.iter().map(span).collect();
    json!({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}).to_string().into_bytes()
}

/// A record that must not become rows as it is, and the reason that its dead letter names; no reason if it has one row
/// that is no use.
struct Poison {
    payload: Option<Vec<u8>>,
    reason: Option<&'static str>,
}

impl Poison {
    fn dead(payload: Vec<u8>, reason: &'static str) -> Self {
        Self { payload: Some(payload), reason: Some(reason) }
    }

    fn untimely(payload: Vec<u8>) -> Self {
        Self { payload: Some(payload), reason: None }
    }
}

const NO_TRACE: &str = "00000000000000000000000000000000";
const A_TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// Everything that the acceptance names; `at` is the time of what is good in it.
fn poisons(at: EventTime) -> Vec<Poison> {
    let instant = |text: &str| EventTime::from_rfc3339(text).unwrap();
    let metric = RowDraft {
        table: Table::Metrics,
        event_time: at,
        columns: BTreeMap::from([
            ("metric_name".to_owned(), json!("gen_ai.client.token.usage")),
            ("metric_type".to_owned(), json!("sum")),
            ("value".to_owned(), json!(12)),
        ]),
    };
    let mut random = fastrand::Rng::with_seed(7);
    let mut noise = |bytes: usize| -> Vec<u8> { (0..bytes).map(|_| random.u8(..) | 0x07).collect() };
    let mut poisons: Vec<Poison> =
        (0..GARBAGE).map(|i| Poison::dead(noise(20 + 40 * i), "malformed_protobuf")).collect();
    poisons.extend([
        Poison::dead(encode_protobuf(Signal::Metrics, &[metric]).unwrap(), "wrong_signal"),
        Poison::dead(b"{\"resourceSpans\": [{".to_vec(), "malformed_json"),
        Poison::dead(spans_of_traces(at, &[NO_TRACE]), "invalid_id"),
        Poison::dead(spans_of_traces(at, &[A_TRACE, NO_TRACE, A_TRACE]), "invalid_items"),
        Poison::dead(Vec::new(), "empty"),
        Poison { payload: None, reason: Some("empty") },
        Poison::untimely(spans(instant("2099-01-01T00:00:00Z"), json!({"team": "search", "cost_total": 1e9}))),
        Poison::untimely(spans(instant("1970-01-01T00:00:01Z"), json!({"team": "search", "cost_total": 1e9}))),
    ]);
    poisons
}

/// A span of five megabytes: telemetry like any other.
fn large_span(at: EventTime) -> Vec<u8> {
    spans(at, json!({"team": "search", "attr:prompt": "x".repeat(5_000_000)}))
}

/// A record's value; none is a tombstone.
type Payload = Option<Vec<u8>>;

/// The company's traces with the poison strewn in, and what must become of the poison, by payload.
fn telemetry(start: EventTime) -> (Vec<Payload>, BTreeMap<Payload, &'static str>) {
    let mut company = Company::new(3, start).with_traces_per_s(1.0);
    let traces = company.next_batch(start.plus(COMPANY_S * SECOND_NS)).into_iter().filter(|m| m.0 == Signal::Traces);
    let mut payloads: Vec<Option<Vec<u8>>> = traces.map(|message| Some(message.2)).collect();
    let poisons = poisons(start);
    let deaths = poisons.iter().filter_map(|p| Some((p.payload.clone(), p.reason?))).collect();
    let mut random = fastrand::Rng::with_seed(11);
    for poison in poisons {
        // Good spans must come in time, and the first row of a partition is never late.
        let is_partly_good = poison.reason == Some("invalid_items");
        let place = if is_partly_good { 3 } else { random.usize(20..payloads.len()) };
        payloads.insert(place, poison.payload);
    }
    (payloads, deaths)
}

/// How many spans the records hold that can be rows, by the decoder itself.
fn rows_in(payloads: &[Option<Vec<u8>>]) -> u64 {
    let wanted = Wanted(BTreeMap::from([(Table::Spans, BTreeSet::new())]));
    let mut decoder = Decoder::new(&wanted, &[], Arc::new(PriceTable::empty()));
    let meta = RecordMeta { topic: "t", partition: 0, offset: 0, timestamp_ms: 0 };
    let rows = |payload: &Option<Vec<u8>>| {
        decoder.absorb(Signal::Traces, payload.as_deref().unwrap_or_default(), meta).map_or(0, |a| a.rows)
    };
    u64::try_from(payloads.iter().map(rows).sum::<usize>()).unwrap()
}

/// Every record and every row left on exactly one of the ways.
#[track_caller]
fn assert_accounted(counts: &ScanCounts, payloads: &[Option<Vec<u8>>], reasons: &BTreeMap<&'static str, u64>) {
    assert_eq!(counts.records, u64::try_from(payloads.len()).unwrap());
    assert_eq!(counts.dead_letters, *reasons);
    assert_eq!(counts.records_partly_dead, reasons["invalid_items"]);
    assert_eq!(counts.records_dead, reasons.values().sum::<u64>() - reasons["invalid_items"]);
    let untimely = |reason| counts.rows_untimely.get(&(Table::Spans, reason)).copied().unwrap_or_default();
    let (late, future) = (untimely(Untimely::Late), untimely(Untimely::FutureSkew));
    let used = counts.rows_used[&Table::Spans];
    assert_eq!(future, 1, "the span of 2099");
    // One of 1970, and the four that the company sends late.
    assert_eq!(late, 5, "{counts:?}");
    assert_eq!(used + late + future, rows_in(payloads));
    eprintln!(
        "{} records: {} dead, {} partly dead; {used} rows used, {late} late, {future} from the future; letters {:?}",
        counts.records, counts.records_dead, counts.records_partly_dead, counts.dead_letters
    );
}

fn count(reasons: impl Iterator<Item = &'static str>) -> BTreeMap<&'static str, u64> {
    let mut counted = BTreeMap::new();
    reasons.for_each(|reason| *counted.entry(reason).or_default() += 1);
    counted
}

#[test]
fn poison_in_the_pipeline_is_put_aside_with_coordinates_reason_and_bytes() {
    let start = EventTime::from_rfc3339("2026-03-01T08:00:00Z").unwrap();
    let now = start.plus((COMPANY_S + 10) * SECOND_NS);
    let (mut payloads, deaths) = telemetry(start);
    payloads.insert(3, Some(large_span(start)));
    let arrival = |(offset, payload): (i64, &Option<Vec<u8>>)| {
        let payload = payload.clone();
        Arrival { signal: Signal::Traces, partition: 0, offset, timestamp_ms: now.to_ms(), payload }
    };
    let arrivals: Vec<Arrival> = (0..).zip(&payloads).map(arrival).collect();
    let mut random = fastrand::Rng::with_seed(5);
    let epochs = epochs(&arrivals, now, &mut |_| random.usize(0..10) == 0);
    let mut counts = ScanCounts::default();
    epochs.iter().for_each(|epoch| counts.add(epoch.counts.clone()));
    let reasons = count(payloads.iter().filter_map(|payload| deaths.get(payload).copied()));
    assert_accounted(&counts, &payloads, &reasons);
    let letters: Vec<_> = epochs.iter().flat_map(|epoch| &epoch.dead).collect();
    let expected: Vec<_> = (0..).zip(&payloads).filter_map(|(at, p)| Some((at, p, *deaths.get(p)?))).collect();
    assert_eq!(letters.len(), expected.len());
    for (letter, (offset, payload, reason)) in letters.iter().zip(expected) {
        assert_eq!((letter.partition.to_string(), letter.offset), ("otlp_spans[0]".to_owned(), offset));
        assert_eq!(letter.reason, reason);
        assert!(!letter.message.is_empty());
        match reason {
            // Of a record with good spans, too, only the bad one is put aside.
            "invalid_items" => assert_ne!(letter.payload, *payload),
            _ => assert_eq!(letter.payload, *payload),
        }
    }
    let late: Vec<_> = epochs.iter().flat_map(|epoch| &epoch.late).collect();
    assert_eq!(late.iter().map(|note| note.rows).sum::<u64>(), 6);
    let earliest = late.iter().map(|note| note.earliest.to_rfc3339()).min().unwrap();
    assert_eq!(earliest, "1970-01-01T00:00:01Z");
}

/// Sums up what the tasks do, and stops them when all records are read and something was decided.
struct Auditor<'a> {
    counts: Mutex<ScanCounts>,
    has_events: AtomicBool,
    metrics: Metrics,
    records: u64,
    stop: &'a AtomicBool,
    clock: SystemClock,
}

impl TaskObserver for Auditor<'_> {
    fn alive(&self, _: Stage) {
        let is_done = self.has_events.load(Ordering::Relaxed) && self.counts.lock().unwrap().records >= self.records;
        if is_done || self.clock.monotonic() > PATIENCE {
            self.stop.store(true, Ordering::Relaxed);
        }
    }

    fn judged(&self, decisions: &[Decision], _: &[LimitReport], _: Option<Duration>) {
        self.has_events.fetch_or(!decisions.is_empty(), Ordering::Relaxed);
    }

    fn scanned(&self, counts: &ScanCounts) {
        self.counts.lock().unwrap().add(counts.clone());
        self.metrics.observe_scan(counts);
    }
}

/// An application of the cluster's name that reads its spans under the shipped rules.
fn configuration(cluster: &Cluster) -> Config {
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../queries/rules");
    let text = format!(
        "application_id: {name}\nrules: {rules}\nkafka: {{bootstrap.servers: \"{servers}\"}}\n\
         topics: {{traces: [{name}.spans], logs: [], metrics: [], enforcement: {name}.enforcement,\n\
         \x20 directives: {name}.directives, directives_shadow: {name}.shadow, dead_letter: {name}.dead,\n\
         \x20 late: {name}.late}}\n",
        name = cluster.name,
        rules = rules.display(),
        servers = cluster.properties.bootstrap_servers(),
    );
    let outside = Outside { env: &|_| None, file: &|_| Err(std::io::ErrorKind::NotFound.into()) };
    Config::from_yaml(Path::new("lictor.yaml"), &text, &outside).unwrap()
}

/// Runs an instance with the shipped rules over the cluster's spans until `records` are read.
fn judge(cluster: &Cluster, records: usize) -> (ScanCounts, Metrics) {
    let config = configuration(cluster);
    let loaded = rules_dir::load(&config.rules, None).unwrap();
    let stages = Stages::new(loaded.rules, loaded.prices, &config.pipeline_settings());
    ensure_topics(&config.kafka, &config.topic_specs()).unwrap();
    let options = config.task_options(stages.scan.topics_read().into_iter().collect());
    let (clock, stop) = (SystemClock::start(), AtomicBool::new(false));
    let records = u64::try_from(records).unwrap();
    let counts = Mutex::new(ScanCounts::default());
    let has_events = AtomicBool::new(false);
    let auditor = Auditor { counts, has_events, metrics: Metrics::new(), records, stop: &stop, clock };
    let summary = tasks::run(&config.kafka, stages, &options, clock, (&stop, &auditor)).unwrap();
    assert_eq!(summary.records, records);
    (auditor.counts.into_inner().unwrap(), auditor.metrics)
}

#[test]
fn poison_on_kafka_reaches_the_dead_letter_topic_and_everything_else_goes_on() {
    let Some(cluster) = Cluster::from_env("poison") else { return };
    ["spans", "enforcement", "dead", "late"].iter().for_each(|topic| cluster.make_topic(topic, 1, false));
    cluster.make_topic("directives", 1, true);
    let start = SystemClock::start().now().plus(-HOUR_NS);
    let (mut payloads, mut deaths) = telemetry(start);
    // A dead letter of five megabytes is more than lictor's producer sends.
    let (large, large_garbage) = (Some(large_span(start.plus(COMPANY_S * SECOND_NS))), Some(vec![0xff; 5_000_000]));
    deaths.insert(large_garbage.clone(), "malformed_protobuf");
    payloads.extend([large, large_garbage.clone()]);
    let end = start.plus((COMPANY_S + 1) * SECOND_NS);
    payloads.push(Some(spans(end, json!({"team": "legal", "provider": "deepseek", "request_model": "r1"}))));
    cluster.produce("spans", payloads.clone()).unwrap();

    let (counts, metrics) = judge(&cluster, payloads.len());
    let reasons = count(payloads.iter().filter_map(|payload| deaths.get(payload).copied()));
    assert_accounted(&counts, &payloads, &reasons);
    assert_exposed(&metrics, &counts);
    let events = cluster.read("enforcement", |read| !read.is_empty());
    assert!(String::from_utf8(events[0].payload.clone().unwrap()).unwrap().contains("deepseek"));

    let expected: Vec<_> = (0..).zip(&payloads).filter_map(|(at, p)| Some((at, p, *deaths.get(p)?))).collect();
    let letters = cluster.read("dead", |read| read.len() >= expected.len());
    let headers = headers(&cluster, "dead", expected.len());
    for ((letter, headers), (offset, payload, reason)) in letters.iter().zip(&headers).zip(expected) {
        let is_large = *payload == large_garbage;
        assert_coordinates(&cluster, headers, offset, reason);
        assert_eq!(headers.get("lictor-payload-omitted-bytes"), is_large.then(|| "5000000".to_owned()).as_ref());
        match reason {
            "invalid_items" => assert!(letter.payload != *payload && letter.payload.is_some()),
            _ if is_large => assert_eq!(letter.payload, Some(Vec::new())),
            _ => assert_eq!(letter.payload, *payload, "{reason} at {offset}"),
        }
    }
    assert_late_notes(&cluster.read("late", |read| read.len() >= 6));
}

#[track_caller]
fn assert_coordinates(cluster: &Cluster, headers: &BTreeMap<String, String>, offset: i64, reason: &str) {
    let header = |name: &str| headers[&format!("__connect.errors.{name}")].clone();
    let coordinates = (header("topic"), header("partition"), header("offset"));
    assert_eq!(coordinates, (cluster.topic("spans"), "0".to_owned(), offset.to_string()));
    assert_eq!(header("class.name"), format!("lictor.decode.{reason}"));
    assert!(!header("exception.message").is_empty());
}

/// The metrics say what the epochs said.
#[track_caller]
fn assert_exposed(metrics: &Metrics, counts: &ScanCounts) {
    let text = metrics.encode();
    let used = counts.records - counts.records_dead - counts.records_partly_dead;
    for line in [
        format!("lictor_records_total{{outcome=\"used\"}} {used}"),
        format!("lictor_records_total{{outcome=\"partly_dead\"}} {}", counts.records_partly_dead),
        format!("lictor_records_total{{outcome=\"dead\"}} {}", counts.records_dead),
        format!("lictor_rows_total{{table=\"spans\",outcome=\"used\"}} {}", counts.rows_used[&Table::Spans]),
        "lictor_late_rows_total{table=\"spans\",reason=\"late\"} 5".to_owned(),
        "lictor_late_rows_total{table=\"spans\",reason=\"future_skew\"} 1".to_owned(),
        "lictor_dead_letters_total{reason=\"wrong_signal\"} 1".to_owned(),
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
}

#[track_caller]
fn assert_late_notes(messages: &[Message]) {
    let notes: Vec<Value> =
        messages.iter().map(|m| serde_json::from_slice(m.payload.as_ref().unwrap()).unwrap()).collect();
    let years: BTreeSet<&str> = notes.iter().map(|note| &note["earliest"].as_str().unwrap()[..4]).collect();
    assert!(years.contains("1970") && years.contains("2099"), "{notes:?}");
    let rows: u64 = notes.iter().map(|note| note["rows"].as_u64().unwrap()).sum();
    assert_eq!(rows, 6);
    assert!(notes.iter().all(|note| note["late_by_ms"].as_i64().unwrap() > 0 && note["offset"].is_i64()), "{notes:?}");
}
