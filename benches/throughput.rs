//! How many spans per second and core: decoding alone, one rule, twenty rules, the shipped rules, and the whole path
//! from a real Kafka beside a bare consumer of the same topic.
//!
//! `cargo bench` prints one line per measurement, all over the same records in one run, so that ratios hold on any
//! machine. The last two need `KAFKA_BOOTSTRAP` (see `tests/kafka.sh`).

#![expect(clippy::print_stdout, reason = "a benchmark prints what it has measured")]

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lictor_connectors::{
    KafkaProperties, KafkaSink, KafkaSource, Outgoing, Polled, RecordRef, Sink, Source, TopicSpec, ensure_topics,
};
use lictor_engine::clock::{Clock, SystemClock};
use lictor_engine::company::Company;
use lictor_engine::live::{self, Ends, EpochTiming, LiveOptions, Observer, OutputTopics};
use lictor_engine::pipeline::{Epoch, Pipeline, PipelineSettings};
use lictor_engine::rules_dir;
use lictor_engine::watermark::Tolerances;
use lictor_queries::{References, RuleFile, RuleSet, compile};
use lictor_schemas::otlp::{Decoder, RecordMeta};
use lictor_schemas::prices::PriceTable;
use lictor_schemas::tables::{Signal, Table};
use lictor_schemas::time::EventTime;

const TRACES_PER_S: f64 = 200.0;
const EVENT_SECONDS: i64 = 400;
const RUNS: usize = 3;

fn main() {
    let records = records();
    let spans = spans_of(&records);
    let bytes: usize = records.iter().map(Vec::len).sum();
    println!("{} records, {spans} spans, {} bytes/span, best of {RUNS} runs, one core", records.len(), bytes / spans);
    let twenty = rule_set(20);
    let wanted = twenty.wanted.clone();
    let decode = measure("decode alone (columns of 20 rules)", spans, || decode(&records, &wanted));
    for (name, count) in [("decode + 1 rule", 1), ("decode + 20 rules", 20)] {
        let rate = measure(name, spans, || pipeline(&records, rule_set(count)));
        println!("{:44} {:>5.0} % of decode alone", "", 100.0 * rate / decode);
    }
    measure("decode + the 6 shipped rules", spans, || pipeline(&records, shipped()));
    match std::env::var("KAFKA_BOOTSTRAP") {
        Ok(bootstrap) => from_kafka(&bootstrap, &records, spans),
        Err(_) => println!("KAFKA_BOOTSTRAP is not set: the path from Kafka is not measured"),
    }
}

/// Spans of a busy company, as the collector sends them.
fn records() -> Vec<Vec<u8>> {
    let start = EventTime::from_ms(1_772_355_600_000);
    let mut company = Company::new(1, start).with_traces_per_s(TRACES_PER_S);
    let messages = company.next_batch(start.plus(EVENT_SECONDS * 1_000_000_000));
    messages.into_iter().filter(|m| m.0 == Signal::Traces).map(|m| m.2).filter(|p| p.len() > 100).collect()
}

fn spans_of(records: &[Vec<u8>]) -> usize {
    let wanted = [(Table::Spans, ["name".to_owned()].into())].into();
    let mut decoder = Decoder::new(&lictor_schemas::otlp::Wanted(wanted), &[], Arc::new(PriceTable::empty()));
    records
        .iter()
        .enumerate()
        .filter_map(|(i, r)| decoder.absorb(Signal::Traces, r, meta(i)).ok())
        .map(|a| a.rows)
        .sum()
}

fn meta(offset: usize) -> RecordMeta<'static> {
    RecordMeta { topic: "otlp_spans", partition: 0, offset: i64::try_from(offset).unwrap_or_default(), timestamp_ms: 0 }
}

/// Budgets, anomalies, latencies: windowed sums over different keys and windows, half of them judged on update.
fn rule_set(count: usize) -> RuleSet {
    let keys = ["team", "project", "provider", "request_model", "customer_id"];
    let rules = (0..count).map(|i| {
        let (key, minutes) = (keys[i % keys.len()], 1 + i / keys.len());
        let emit = if i % 4 == 3 { "UPDATE" } else { "CLOSE" };
        format!(
            "CREATE RULE r{i} WITH (action='warn', reason_code='x_bench') AS
             SELECT s.{key}, window_start, window_end, sum(s.cost_total) AS observed, count(*) AS calls
             FROM TUMBLE(spans, event_time, INTERVAL '{minutes} minutes') AS s
             WHERE s.usage_leaf AND s.{key} IS NOT NULL
             GROUP BY s.{key}, window_start, window_end HAVING sum(s.cost_total) > 1000000 EMIT ON {emit};"
        )
    });
    let file = RuleFile { file: "bench.sql".to_owned(), text: rules.collect() };
    let (rules, faults) = compile(&[file], &References::new());
    assert!(faults.is_empty(), "{faults:?}");
    rules
}

fn shipped() -> RuleSet {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../queries/rules");
    rules_dir::load(&dir, None).map(|l| l.rules).unwrap_or_else(|e| panic!("the shipped rules: {e}"))
}

/// Runs a thing some times and prints its best rate, in spans per second.
fn measure(name: &str, spans: usize, run: impl Fn()) -> f64 {
    let clock = SystemClock::start();
    let once = || {
        let began = clock.monotonic();
        run();
        clock.monotonic().saturating_sub(began)
    };
    let best = (0..RUNS).map(|_| once()).min().unwrap_or_default();
    let rate = spans as f64 / best.as_secs_f64();
    println!("{name:44} {:>9.0} spans/s {:>7.0} ns/span", rate, 1e9 / rate);
    rate
}

fn decode(records: &[Vec<u8>], wanted: &lictor_schemas::otlp::Wanted) {
    let mut decoder = Decoder::new(wanted, &[], Arc::new(PriceTable::empty()));
    for (i, record) in records.iter().enumerate() {
        let _ = decoder.absorb(Signal::Traces, record, meta(i));
        if i % 64 == 63 {
            decoder.take();
        }
    }
}

fn settings() -> PipelineSettings {
    let tolerances = Tolerances { future_skew_ns: i64::MAX, ..Tolerances::default() };
    PipelineSettings { tolerances, ..PipelineSettings::default() }
}

fn pipeline(records: &[Vec<u8>], rules: RuleSet) {
    let mut pipeline = Pipeline::new(rules, Arc::new(PriceTable::empty()), &settings());
    for (i, payload) in records.iter().enumerate() {
        let record = RecordRef {
            topic: "otlp_spans",
            partition: 0,
            offset: i64::try_from(i).unwrap_or_default(),
            timestamp_ms: 0,
            key: None,
            payload: Some(payload),
        };
        pipeline.absorb(record, EventTime(0));
        if i % 64 == 63 {
            pipeline.end_epoch(EventTime(0));
        }
    }
    pipeline.end_epoch(EventTime(0));
}

/// The same records on a real topic: read by a bare consumer, then judged by twenty rules.
fn from_kafka(bootstrap: &str, records: &[Vec<u8>], spans: usize) {
    let properties = KafkaProperties::from_bootstrap(bootstrap);
    let topic = format!("bench_spans_{}", std::process::id());
    produce(&properties, &topic, records);
    let bare = consume(&properties, &topic, records.len(), spans);
    let whole = judge(&properties, &topic, records.len(), spans);
    println!("{:44} {:>5.1} % of the bare consumer", "", 100.0 * whole / bare);
}

fn produce(properties: &KafkaProperties, topic: &str, records: &[Vec<u8>]) {
    let spec = |name: &str, compacted| TopicSpec { name: name.to_owned(), partitions: 4, compacted };
    let out = OutputTopics::default();
    let topics =
        [spec(topic, false), spec(&out.enforcement, false), spec(&out.directives, true), spec(&out.late, false)];
    ensure_topics(properties, &topics).unwrap_or_else(|e| panic!("{e}"));
    let mut sink = KafkaSink::try_new(properties, "bench").unwrap_or_else(|e| panic!("{e}"));
    for payload in records {
        let message =
            Outgoing { topic: topic.to_owned(), key: None, payload: Some(payload.clone()), headers: Vec::new() };
        sink.publish(&message).unwrap_or_else(|e| panic!("{e}"));
    }
    sink.flush().unwrap_or_else(|e| panic!("{e}"));
}

fn consume(properties: &KafkaProperties, topic: &str, records: usize, spans: usize) -> f64 {
    let group = format!("bench-bare-{}", std::process::id());
    let mut source = source(properties, &group, topic);
    let (mut read, mut bytes) = (0, 0);
    let clock = SystemClock::start();
    let mut began = None;
    while read < records {
        let polled = source.poll(Duration::from_millis(100), &mut |r| bytes += r.payload.map_or(0, <[u8]>::len));
        if polled.unwrap_or_else(|e| panic!("{e}")) == Polled::Record {
            began.get_or_insert_with(|| (clock.monotonic(), cpu_s()));
            read += 1;
        }
    }
    report("bare consumer", spans, &clock, began)
}

fn source(properties: &KafkaProperties, group: &str, topic: &str) -> KafkaSource {
    KafkaSource::try_new(properties, group, group, &[topic.to_owned()]).unwrap_or_else(|e| panic!("{e}"))
}

fn judge(properties: &KafkaProperties, topic: &str, records: usize, spans: usize) -> f64 {
    let signals = [(topic.to_owned(), Signal::Traces)].into();
    let pipeline =
        Pipeline::new(rule_set(20), Arc::new(PriceTable::empty()), &PipelineSettings { signals, ..settings() });
    let group = format!("bench-judge-{}", std::process::id());
    let mut source = source(properties, &group, topic);
    let mut sink = KafkaSink::try_new(properties, "bench").unwrap_or_else(|e| panic!("{e}"));
    let (clock, stop) = (SystemClock::start(), Arc::new(AtomicBool::new(false)));
    let mut meter = Meter { left: records, clock, began: None, stop: Arc::clone(&stop) };
    let ends = Ends { source: &mut source, sink: &mut sink, clock: &clock };
    live::run(ends, pipeline, LiveOptions::default(), &stop, &mut meter).unwrap_or_else(|e| panic!("{e}"));
    report("the whole path, 20 rules, from Kafka", spans, &clock, meter.began)
}

/// Stops the loop when everything has been judged and committed.
struct Meter {
    left: usize,
    clock: SystemClock,
    began: Option<(Duration, f64)>,
    stop: Arc<AtomicBool>,
}

impl Observer for Meter {
    fn committed(&mut self, epoch: &Epoch, timing: EpochTiming, _: &Pipeline) {
        if epoch.counts.records > 0 {
            let at = self.clock.monotonic().saturating_sub(timing.duration);
            self.began.get_or_insert_with(|| (at, cpu_s()));
        }
        self.left = self.left.saturating_sub(usize::try_from(epoch.counts.records).unwrap_or(usize::MAX));
        self.stop.store(self.left == 0, Ordering::Relaxed);
    }
}

fn report(name: &str, spans: usize, clock: &SystemClock, began: Option<(Duration, f64)>) -> f64 {
    let (at, cpu) = began.unwrap_or_default();
    let wall = clock.monotonic().saturating_sub(at).as_secs_f64();
    let (rate, cores) = (spans as f64 / wall, (cpu_s() - cpu) / wall);
    println!("{name:44} {rate:>9.0} spans/s, {cores:.2} cores busy, {:>9.0} spans/s and core", rate / cores.max(0.01));
    rate
}

/// Processor time of this process so far, in seconds: user and system, all threads.
fn cpu_s() -> f64 {
    const TICKS_PER_S: f64 = 100.0;
    let text = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |i: usize| fields.get(i).and_then(|f| f.parse::<f64>().ok()).unwrap_or_default();
    (ticks(11) + ticks(12)) / TICKS_PER_S
}
