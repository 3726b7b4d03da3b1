//! How many spans per second and core: decoding alone, 1, 20, 100 and 1,000 rules and what one more costs, the shipped
//! rules, a backtest, which decodes beside judging, and the whole path from a real Kafka beside a bare consumer of the
//! same topic.
//!
//! `cargo bench --bench throughput` prints medians of `LICTOR_RUNS` (5) runs, all over the same records, so that ratios
//! hold on any machine. The last two need `KAFKA_BOOTSTRAP` (see `tests/kafka.sh`); their ratio is of rates per second
//! of processor time, the client's threads included. With `-- kafka`, `backtest`, `shipped` or `20 rules` only those
//! are measured, beside decoding; `LICTOR_EVENT_SECONDS` makes other than 400 s of traffic.

#![expect(clippy::print_stdout, reason = "a benchmark prints what it has measured")]

#[path = "allocator.rs"]
mod allocator;
#[path = "cpu.rs"]
mod cpu;
#[path = "spread.rs"]
mod spread;
#[path = "workload.rs"]
mod workload;

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cpu::cpu_s;
use lictor_connectors::{
    ConnectorError, KafkaProperties, KafkaSink, KafkaSource, Outgoing, Polled, Recorded, Sink, Source, TopicPartition,
    TopicSpec, Track, ensure_topics,
};
use lictor_engine::backtest::{self, Backtest, Range, Witness};
use lictor_engine::clock::{Clock, SystemClock};
use lictor_engine::config::{Config, Outside};
use lictor_engine::pipeline::{Pipeline, PipelineSettings, Stages};
use lictor_engine::scan_stage::ScanCounts;
use lictor_engine::tasks::{self, Stage, TaskObserver};
use lictor_engine::{rules_dir, shipped};
use lictor_queries::RuleSet;
use lictor_schemas::event::EnforcementEvent;
use lictor_schemas::otlp::{Decoder, Wanted};
use lictor_schemas::prices::PriceTable;
use lictor_schemas::time::EventTime;
use spread::{Spread, runs};
use workload::{TOPIC, decode_epoch, epochs, judge_epoch, records, rule_set, settings, spans_of};

fn main() {
    // Cargo itself passes `--bench`.
    let only = std::env::args().skip(1).find(|argument| !argument.starts_with("--")).unwrap_or_default();
    let records = records();
    let spans = spans_of(&records);
    let bytes: usize = records.iter().map(Vec::len).sum();
    let runs = runs();
    println!("{} records, {spans} spans, {} bytes/span", records.len(), bytes / spans);
    println!("median (least–greatest) of {runs} runs, one core unless it says more");
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
        let rate = measure(&name, spans_of(records), || rule_set(count), |rules| judge(records, rules));
        let per_rule = (1e9 / rate - 1e9 / decode) / f64::from(count);
        let of_decode = 100.0 * rate / decode;
        println!(
            "{:44} {of_decode:>5.0} % of decode alone, {per_rule:.1} ns per span and rule, compiled in {loading:.1?}",
            ""
        );
    }
    if "shipped".contains(&only) {
        measure("decode + the 6 shipped rules", spans, shipped, |rules| judge(&records, rules));
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

fn shipped() -> RuleSet {
    let dir = tempfile::tempdir().unwrap_or_else(|e| panic!("no folder for rules: {e}"));
    shipped::write_to(dir.path()).unwrap_or_else(|e| panic!("the shipped rules: {e}"));
    rules_dir::load(dir.path(), None).map(|l| l.rules).unwrap_or_else(|e| panic!("the shipped rules: {e}"))
}

/// Runs a thing some times and prints its rates, in spans per second; what is prepared for it does not count. Gives the
/// median.
fn measure<T>(name: &str, spans: usize, prepare: impl Fn() -> T, run: impl Fn(T)) -> f64 {
    let clock = SystemClock::start();
    let once = || {
        let prepared = prepare();
        let began = clock.monotonic();
        run(prepared);
        spans as f64 / clock.monotonic().saturating_sub(began).as_secs_f64()
    };
    let rate = Spread::of((0..runs()).map(|_| once()));
    println!("{name:44} {:>29} spans/s {:>7.0} ns/span", rate.to_string(), 1e9 / rate.median);
    rate.median
}

fn decode(records: &[Vec<u8>], wanted: &Wanted) {
    let mut decoder = Decoder::new(wanted, &[], Arc::new(PriceTable::empty()));
    epochs(records, 0).for_each(|epoch| decode_epoch(&mut decoder, epoch));
}

fn judge(records: &[Vec<u8>], rules: RuleSet) {
    let mut pipeline = Pipeline::new(rules, Arc::new(PriceTable::empty()), &settings());
    for epoch in epochs(records, 0) {
        judge_epoch(&mut pipeline, epoch);
        pipeline.end_epoch(EventTime(0));
    }
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
    let partition = TopicPartition::new(TOPIC, 0);
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

/// The same records on a real topic: read by a bare consumer and judged by twenty rules, in turns.
fn from_kafka(bootstrap: &str, records: &[Vec<u8>], spans: usize) {
    let properties = KafkaProperties::from_bootstrap(bootstrap);
    let topic = format!("bench-spans-{}", std::process::id());
    produce(&properties, &topic, records);
    let (mut bare, mut whole) = (Vec::new(), Vec::new());
    for run in 0..runs() {
        bare.push(consume(&properties, &topic, run, records.len()));
        whole.push(path(bootstrap, &topic, run, records.len()));
    }
    let bare = report("bare consumer", spans, &bare);
    let whole = report("the whole path, 20 rules, exactly once", spans, &whole);
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

fn consume(properties: &KafkaProperties, topic: &str, run: usize, records: usize) -> Took {
    let group = format!("bench-bare-{}-{run}", std::process::id());
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
    Moment::now(&clock).since(began.unwrap_or_default())
}

/// An application of its own that reads `topic`.
fn configuration(bootstrap: &str, topic: &str, run: usize) -> Config {
    let name = format!("bench-judge-{}-{run}", std::process::id());
    let text = format!(
        "application_id: {name}\nrules: .\nkafka: {{bootstrap.servers: \"{bootstrap}\"}}\n\
         topics: {{traces: [{topic}], enforcement: {name}.enforcement, directives: {name}.directives,\n\
         \x20 dead_letter: {name}.dead, late: {name}.late}}\n"
    );
    let outside = Outside { env: &|_| None, file: &|_| Err(io::ErrorKind::NotFound.into()) };
    Config::from_yaml(Path::new("lictor.yaml"), &text, &outside).unwrap_or_else(|e| panic!("{e}"))
}

/// From Kafka to Kafka.
fn path(bootstrap: &str, topic: &str, run: usize, records: usize) -> Took {
    let config = configuration(bootstrap, topic, run);
    let settings = PipelineSettings { tolerances: settings().tolerances, ..config.pipeline_settings() };
    let stages = Stages::new(rule_set(20), Arc::new(PriceTable::empty()), &settings);
    ensure_topics(&config.kafka, &config.topic_specs()).unwrap_or_else(|e| panic!("{e}"));
    let options = config.task_options(vec![topic.to_owned()]);
    let (clock, stop) = (SystemClock::start(), AtomicBool::new(false));
    let progress = Mutex::new(Progress { left: records as u64, began: None, judged: Moment::default() });
    let meter = Meter { clock, stop: &stop, progress };
    tasks::run(&config.kafka, stages, &options, clock, (&stop, &meter)).unwrap_or_else(|e| panic!("{e}"));
    let Progress { began, judged, .. } = meter.progress.into_inner().unwrap_or_else(|e| panic!("{e}"));
    judged.since(began.unwrap_or_default())
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

    fn since(self, began: Self) -> Took {
        Took { wall_s: self.at.saturating_sub(began.at).as_secs_f64(), cpu_s: self.cpu_s - began.cpu_s }
    }
}

/// What a run has taken.
#[derive(Clone, Copy, Debug)]
struct Took {
    wall_s: f64,
    cpu_s: f64,
}

/// Prints what runs have taken and gives the median of spans per second of processor time.
fn report(name: &str, spans: usize, runs: &[Took]) -> f64 {
    let spread = |of: &dyn Fn(&Took) -> f64| Spread::of(runs.iter().map(of));
    let rate = spread(&|took| spans as f64 / took.wall_s);
    let per_core = spread(&|took| spans as f64 / took.cpu_s.max(0.01));
    let cores = spread(&|took| took.cpu_s / took.wall_s);
    println!("{name:44} {:>29} spans/s, {cores:.2} cores busy", rate.to_string());
    println!("{:44} {:>29} spans/s and core", "", per_core.to_string());
    per_core.median
}
