//! How many spans per second and core: decoding alone, 1, 20, 100 and 1,000 rules and what one more costs, the shipped
//! rules, a backtest, which decodes beside judging, and the whole path from a real Kafka beside a bare consumer of the
//! same topic.
//!
//! `cargo bench` prints one line per measurement, all over the same records in one run, so that ratios hold on any
//! machine. The last two need `KAFKA_BOOTSTRAP` (see `tests/kafka.sh`). With `-- kafka`, `backtest`, `shipped` or
//! `20 rules` only those are measured, beside decoding; `LICTOR_EVENT_SECONDS` makes other than 400 s of traffic.

#![expect(clippy::print_stdout, reason = "a benchmark prints what it has measured")]

#[path = "cpu.rs"]
mod cpu;

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cpu::cpu_s;
use lictor_connectors::{
    ConnectorError, KafkaProperties, KafkaSink, KafkaSource, Outgoing, Polled, RecordRef, Recorded, Sink, Source,
    TopicPartition, TopicSpec, Track, ensure_topics,
};
use lictor_engine::backtest::{self, Backtest, Range, Witness};
use lictor_engine::clock::{Clock, SystemClock};
use lictor_engine::company::Company;
use lictor_engine::config::{Config, Outside};
use lictor_engine::pipeline::{Pipeline, PipelineSettings, Stages};
use lictor_engine::scan_stage::ScanCounts;
use lictor_engine::tasks::{self, Stage, TaskObserver};
use lictor_engine::watermark::Tolerances;
use lictor_engine::{rules_dir, shipped};
use lictor_queries::{References, RuleFile, RuleSet, compile};
use lictor_schemas::event::EnforcementEvent;
use lictor_schemas::otlp::{Decoder, RecordMeta};
use lictor_schemas::prices::PriceTable;
use lictor_schemas::tables::{Signal, Table};
use lictor_schemas::time::EventTime;

const TRACES_PER_S: f64 = 200.0;
const RUNS: usize = 3;

fn main() {
    // Cargo itself passes `--bench`.
    let only = std::env::args().skip(1).find(|argument| !argument.starts_with("--")).unwrap_or_default();
    let records = records();
    let spans = spans_of(&records);
    let bytes: usize = records.iter().map(Vec::len).sum();
    println!("{} records, {spans} spans, {} bytes/span, best of {RUNS} runs, one core", records.len(), bytes / spans);
    let twenty = rule_set(20);
    let wanted = twenty.wanted.clone();
    let decode = measure("decode alone (columns of 20 rules)", spans, || (), |()| decode(&records, &wanted));
    for (count, share) in [(1, 1), (20, 1), (100, 4), (1_000, 4)] {
        if !format!("{count} rules").contains(&only) {
            continue;
        }
        let records = &records[..records.len() / share];
        let (name, loading) = (format!("decode + {count} rules"), SystemClock::start());
        drop(rule_set(count));
        let loading = loading.monotonic();
        let rate = measure(&name, spans_of(records), || rule_set(count), |rules| pipeline(records, rules));
        let per_rule = (1e9 / rate - 1e9 / decode) / f64::from(count);
        let of_decode = 100.0 * rate / decode;
        println!(
            "{:44} {of_decode:>5.0} % of decode alone, {per_rule:.1} ns per span and rule, compiled in {loading:.1?}",
            ""
        );
    }
    if "shipped".contains(&only) {
        measure("decode + the 6 shipped rules", spans, shipped, |rules| pipeline(&records, rules));
    }
    if "backtest".contains(&only) {
        backtests(&records, spans, decode);
    }
    match std::env::var("KAFKA_BOOTSTRAP") {
        Ok(bootstrap) if "kafka".contains(&only) => from_kafka(&bootstrap, &records, spans),
        Ok(_) => {}
        Err(_) => println!("KAFKA_BOOTSTRAP is not set: the path from Kafka is not measured"),
    }
}

fn backtests(records: &[Vec<u8>], spans: usize, decode: f64) {
    let replayed = measure("backtest, 20 rules, one thread decodes", spans, || rule_set(20), |r| replay(records, [r]));
    println!("{:44} {:>5.0} % of decode alone", "", 100.0 * replayed / decode);
    let both = || [rule_set(20), rule_set(20)];
    measure("backtest, 20 rules against 20", spans, both, |rules| replay(records, rules));
}

/// Spans of a busy company, as the collector sends them.
fn records() -> Vec<Vec<u8>> {
    let start = EventTime::from_ms(1_772_355_600_000);
    let seconds = std::env::var("LICTOR_EVENT_SECONDS").map_or(400, |text| text.parse().unwrap_or(400));
    let mut company = Company::new(1, start).with_traces_per_s(TRACES_PER_S);
    let messages = company.next_batch(start.plus(seconds * 1_000_000_000));
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
fn rule_set(count: u32) -> RuleSet {
    let keys = ["team", "project", "provider", "request_model", "customer_id"];
    let rules = (0..count as usize).map(|i| {
        // Of a thousand, two hundred differ in more than their thresholds.
        let (key, minutes) = (keys[i % keys.len()], 1 + i % 200 / keys.len());
        let (emit, most) = (if i % 4 == 3 { "UPDATE" } else { "CLOSE" }, 1_000_000 + i / 200);
        format!(
            "CREATE RULE r{i} WITH (action='warn', reason_code='x_bench') AS
             SELECT s.{key}, window_start, window_end, sum(s.cost_total) AS observed, count(*) AS calls
             FROM TUMBLE(spans, event_time, INTERVAL '{minutes} minutes') AS s
             WHERE s.usage_leaf AND s.{key} IS NOT NULL
             GROUP BY s.{key}, window_start, window_end HAVING sum(s.cost_total) > {most} EMIT ON {emit};"
        )
    });
    let file = RuleFile { file: "bench.sql".to_owned(), text: rules.collect() };
    let (rules, faults) = compile(&[file], &References::new());
    assert!(faults.is_empty(), "{faults:?}");
    rules
}

fn shipped() -> RuleSet {
    let dir = tempfile::tempdir().unwrap_or_else(|e| panic!("no folder for rules: {e}"));
    shipped::write_to(dir.path()).unwrap_or_else(|e| panic!("the shipped rules: {e}"));
    rules_dir::load(dir.path(), None).map(|l| l.rules).unwrap_or_else(|e| panic!("the shipped rules: {e}"))
}

/// Runs a thing some times and prints its best rate, in spans per second; what is prepared for it does not count.
fn measure<T>(name: &str, spans: usize, prepare: impl Fn() -> T, run: impl Fn(T)) -> f64 {
    let clock = SystemClock::start();
    let once = || {
        let prepared = prepare();
        let began = clock.monotonic();
        run(prepared);
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
            ..RecordRef::default()
        };
        pipeline.absorb(record, EventTime(0));
        if i % 64 == 63 {
            pipeline.end_epoch(EventTime(0));
        }
    }
    pipeline.end_epoch(EventTime(0));
}

/// Records in memory, as a partition that was recorded.
struct InMemory(std::vec::IntoIter<Recorded>);

impl Track for InMemory {
    fn read_next(&mut self) -> Result<Option<Recorded>, ConnectorError> {
        Ok(self.0.next())
    }
}

/// Nobody listens.
struct Deaf;

impl Witness for Deaf {
    fn see(&mut self, _: &EnforcementEvent) {}
}

/// A backtest of the records under some rule sets: one thread decodes, and one judges for each of them.
fn replay<const SETS: usize>(records: &[Vec<u8>], sets: [RuleSet; SETS]) {
    let partition = TopicPartition::new("otlp_spans", 0);
    let recorded = (0..).zip(records).map(|(offset, payload)| {
        let payload = Some(payload.clone());
        Recorded { partition: partition.clone(), offset, timestamp_ms: 0, key: None, payload }
    });
    let track = InMemory(recorded.collect::<Vec<_>>().into_iter());
    let prices = Arc::new(PriceTable::empty());
    let backtest = Backtest {
        tracks: vec![Box::new(track)],
        range: Range::default(),
        sets: sets.into_iter().map(|rules| (rules, Arc::clone(&prices))).collect(),
        settings: settings(),
        leaves_open: false,
        decoders: 1,
    };
    let mut deaf: Vec<Deaf> = backtest.sets.iter().map(|_| Deaf).collect();
    let witnesses = deaf.iter_mut().map(|deaf| deaf as &mut dyn Witness).collect();
    let outcome = backtest::run(backtest, &BTreeSet::new(), witnesses, &AtomicBool::new(false));
    assert_eq!(outcome.map(|o| o.reading.records).unwrap_or_default(), records.len() as u64);
}

/// The same records on a real topic: read by a bare consumer, then judged by twenty rules.
fn from_kafka(bootstrap: &str, records: &[Vec<u8>], spans: usize) {
    let properties = KafkaProperties::from_bootstrap(bootstrap);
    let topic = format!("bench-spans-{}", std::process::id());
    produce(&properties, &topic, records);
    let bare = consume(&properties, &topic, records.len(), spans);
    let whole = judge(bootstrap, &topic, records.len(), spans);
    println!("{:44} {:>5.1} % of the bare consumer", "", 100.0 * whole / bare);
}

fn produce(properties: &KafkaProperties, topic: &str, records: &[Vec<u8>]) {
    ensure_topics(properties, &[TopicSpec::new(topic, 4, false)]).unwrap_or_else(|e| panic!("{e}"));
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
    let source = KafkaSource::try_new(properties, &group, &group, &[topic.to_owned()]);
    let mut source = source.unwrap_or_else(|e| panic!("{e}"));
    let (mut read, mut bytes) = (0, 0);
    let clock = SystemClock::start();
    let mut began = None;
    while read < records {
        let polled = source.poll(Duration::from_millis(100), &mut |r| bytes += r.payload.map_or(0, <[u8]>::len));
        if polled.unwrap_or_else(|e| panic!("{e}")) == Polled::Record {
            began.get_or_insert_with(|| Moment::now(&clock));
            read += 1;
        }
    }
    report("bare consumer", spans, began.unwrap_or_default(), Moment::now(&clock))
}

/// An application of its own that reads `topic`.
fn configuration(bootstrap: &str, topic: &str) -> Config {
    let name = format!("bench-judge-{}", std::process::id());
    let text = format!(
        "application_id: {name}\nrules: .\nkafka: {{bootstrap.servers: \"{bootstrap}\"}}\n\
         topics: {{traces: [{topic}], enforcement: {name}.enforcement, directives: {name}.directives,\n\
         \x20 dead_letter: {name}.dead, late: {name}.late}}\n"
    );
    let outside = Outside { env: &|_| None, file: &|_| Err(io::ErrorKind::NotFound.into()) };
    Config::from_yaml(Path::new("lictor.yaml"), &text, &outside).unwrap_or_else(|e| panic!("{e}"))
}

fn judge(bootstrap: &str, topic: &str, records: usize, spans: usize) -> f64 {
    let config = configuration(bootstrap, topic);
    let settings = PipelineSettings { tolerances: settings().tolerances, ..config.pipeline_settings() };
    let stages = Stages::new(rule_set(20), Arc::new(PriceTable::empty()), &settings);
    ensure_topics(&config.kafka, &config.topic_specs()).unwrap_or_else(|e| panic!("{e}"));
    let options = config.task_options(vec![topic.to_owned()]);
    let (clock, stop) = (SystemClock::start(), AtomicBool::new(false));
    let progress = Mutex::new(Progress { left: records as u64, began: None, judged: Moment::default() });
    let meter = Meter { clock, stop: &stop, progress };
    tasks::run(&config.kafka, stages, &options, clock, (&stop, &meter)).unwrap_or_else(|e| panic!("{e}"));
    let Progress { began, judged, .. } = meter.progress.into_inner().unwrap_or_else(|e| panic!("{e}"));
    report("the whole path, 20 rules, exactly once", spans, began.unwrap_or_default(), judged)
}

/// Nothing more is judged if nothing was for so long after everything was scanned: the judge waits for nothing longer
/// than for a commit.
const SILENCE: Duration = Duration::from_secs(2);

/// Stops the tasks when everything has been judged and committed.
struct Meter<'a> {
    clock: SystemClock,
    stop: &'a AtomicBool,
    progress: Mutex<Progress>,
}

struct Progress {
    /// Records that are not scanned yet.
    left: u64,
    /// When partitions were assigned.
    began: Option<Moment>,
    /// The last commit of the judge.
    judged: Moment,
}

impl Meter<'_> {
    fn note(&self, note: impl FnOnce(&mut Progress, Moment)) {
        let mut progress = self.progress.lock().unwrap_or_else(|e| panic!("{e}"));
        note(&mut progress, Moment::now(&self.clock));
    }
}

impl TaskObserver for Meter<'_> {
    fn alive(&self, _: Stage) {
        self.note(|progress, now| {
            let is_silent = now.at.saturating_sub(progress.judged.at) > SILENCE;
            self.stop.store(progress.left == 0 && is_silent, Ordering::Relaxed);
        });
    }

    fn assigned(&self, stage: Stage, partitions: usize) {
        if stage == Stage::Scan && partitions > 0 {
            self.note(|progress, now| {
                progress.began.get_or_insert(now);
            });
        }
    }

    fn scanned(&self, counts: &ScanCounts) {
        self.note(|progress, now| {
            progress.left = progress.left.saturating_sub(counts.records);
            // Whatever comes of them is judged later.
            progress.judged = now;
        });
    }

    fn committed(&self, stage: Stage, _: Duration, _: &[(TopicPartition, i64)]) {
        if stage == Stage::Judge {
            self.note(|progress, now| progress.judged = now);
        }
    }
}

/// A time, and the processor time used by then.
#[derive(Clone, Copy, Debug, Default)]
struct Moment {
    at: Duration,
    cpu_s: f64,
}

impl Moment {
    fn now(clock: &SystemClock) -> Self {
        Self { at: clock.monotonic(), cpu_s: cpu_s() }
    }
}

fn report(name: &str, spans: usize, began: Moment, ended: Moment) -> f64 {
    let wall = ended.at.saturating_sub(began.at).as_secs_f64();
    let (rate, cores) = (spans as f64 / wall, (ended.cpu_s - began.cpu_s) / wall);
    println!("{name:44} {rate:>9.0} spans/s, {cores:.2} cores busy, {:>9.0} spans/s and core", rate / cores.max(0.01));
    rate
}
