//! From the production of a span to the event that it causes, as a reader of committed events sees it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use hdrhistogram::Histogram;
use lictor_connectors::{KafkaSource, RecordRef, Source, TopicSpec, ensure_topics};
use lictor_engine::clock::{Clock, SystemClock};
use lictor_engine::tasks::Stage;
use lictor_schemas::event::EnforcementEvent;

use crate::instance::{Commits, Stopped};
use crate::load::{MARK_TOKENS, Marks, send, spans_per_s};
use crate::site::{Instance, Site};
use crate::spread::Spread;

const WARM_UP: Duration = Duration::from_secs(5);
const MEASURED: Duration = Duration::from_secs(30);
/// So late nothing comes any more.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(5);

/// One rule that speaks at once about every marked span, and ten that sum up beside it, one of them judged on update.
pub(crate) fn rules() -> String {
    let keys = ["team", "project", "provider", "request_model", "customer_id"];
    let windowed = (0..10).map(|i| {
        let (key, minutes) = (keys[i % keys.len()], 1 + i / keys.len());
        let emit = if i == 3 { "UPDATE" } else { "CLOSE" };
        format!(
            "CREATE RULE windowed_{i} WITH (action = 'warn', reason_code = 'x_bench') AS
             SELECT s.{key}, window_start, window_end, sum(s.cost_total) AS observed, count(*) AS calls
             FROM TUMBLE(spans, event_time, INTERVAL '{minutes} minutes') AS s
             WHERE s.usage_leaf AND s.{key} IS NOT NULL
             GROUP BY s.{key}, window_start, window_end HAVING sum(s.cost_total) > 1000000 EMIT ON {emit};\n"
        )
    });
    let marked = format!(
        "CREATE RULE marked WITH (action = 'warn', reason_code = 'x_marked') AS
         SELECT s.session_id, s.input_tokens AS observed FROM spans AS s WHERE s.input_tokens >= {MARK_TOKENS};"
    );
    windowed.chain([marked]).collect()
}

/// Measures so many times, each at a place of its own; the quantiles of all runs come last.
pub(crate) fn measure(runs: usize, site: &dyn Fn() -> Site, delivery: &str) {
    let quantiles: Vec<[f64; 2]> = (0..runs).map(|_| run(&site(), delivery)).collect();
    let [p50_ms, p99_ms] = [0, 1].map(|which| Spread::of(quantiles.iter().map(|run| run[which])));
    println!("{delivery:14} span sent to event read, {runs} runs: p50 {p50_ms:.1} ms, p99 {p99_ms:.1} ms");
}

/// The median and the 99th percentile, in milliseconds.
fn run(site: &Site, delivery: &str) -> [f64; 2] {
    let topic = format!("{}.enforcement", site.name);
    ensure_topics(&site.properties, &[TopicSpec::new(topic.clone(), 1, false)]).unwrap();
    let (clock, marks, stop) = (SystemClock::start(), Marks::default(), AtomicBool::new(false));
    let (instance, _) = site.start();
    let source = KafkaSource::try_new(&site.properties, &format!("{topic}.reader"), "bench-reader", &[topic]).unwrap();
    let mut reader = Reader { source, clock, marks: &marks, latencies: BTreeMap::new() };
    thread::scope(|scope| {
        let load = scope.spawn(|| send(site, clock, &marks, &stop));
        let stopped = reader.follow(instance, &stop);
        let (spans, latest) = load.join().unwrap();
        report(delivery, &stopped, &reader.latencies);
        let planned = spans_per_s();
        println!("{:14} load: {spans} spans at {planned} spans/s, at most {latest:.1?} behind", "");
    });
    let read = Quantiles::of(reader.latencies.values().map(|latency| latency.read));
    [read.p50_ms, read.p99_ms]
}

/// A reader of committed events.
struct Reader<'a> {
    source: KafkaSource,
    clock: SystemClock,
    marks: &'a Marks,
    /// By the mark's number.
    latencies: BTreeMap<usize, Latency>,
}

/// How long an event took since its span was sent.
struct Latency {
    decided: Duration,
    read: Duration,
}

impl Reader<'_> {
    /// Reads until all that was marked while it was measured is there; stops the load, then the instance.
    fn follow(&mut self, mut instance: Instance, stop: &AtomicBool) -> Stopped {
        let began = self.clock.monotonic();
        let marks = || self.marks.lock().unwrap().len();
        self.follow_until(began + WARM_UP, |_| false);
        instance.begin();
        let first = marks();
        self.follow_until(began + WARM_UP + MEASURED, |_| false);
        let last = marks();
        instance.end();
        stop.store(true, Ordering::Relaxed);
        let is_complete = |read: &BTreeMap<usize, Latency>| read.range(first..last).count() == last - first;
        self.follow_until(began + WARM_UP + MEASURED + PATIENCE, is_complete);
        self.latencies.retain(|number, _| (first..last).contains(number));
        assert!(is_complete(&self.latencies), "{} of {} events came", self.latencies.len(), last - first);
        instance.stop()
    }

    fn follow_until(&mut self, end: Duration, is_enough: impl Fn(&BTreeMap<usize, Latency>) -> bool) {
        while self.clock.monotonic() < end && !is_enough(&self.latencies) {
            let Self { clock, marks, latencies, .. } = self;
            let take = &mut |record: RecordRef<'_>| {
                let read_at = clock.monotonic();
                let event = EnforcementEvent::from_json(record.payload.unwrap()).unwrap();
                let Some(number) = event.data.selector.matches.get("session_id") else { return };
                let number: usize = number.as_str().unwrap().parse().unwrap();
                let sent = marks.lock().unwrap()[number];
                let decided_ns = event.data.detected_at.unwrap().0.saturating_sub(sent.now.0).max(0);
                let decided = Duration::from_nanos(decided_ns.unsigned_abs());
                let latency = Latency { decided, read: read_at.saturating_sub(sent.at) };
                assert!(latencies.insert(number, latency).is_none(), "an event came twice");
            };
            self.source.poll(LOOK, take).unwrap();
        }
    }
}

fn report(delivery: &str, stopped: &Stopped, latencies: &BTreeMap<usize, Latency>) {
    let count = latencies.len();
    let [read, decided] = [|latency: &Latency| latency.read, |latency: &Latency| latency.decided];
    let of = |which: fn(&Latency) -> Duration| Quantiles::of(latencies.values().map(which));
    println!("{delivery:14} span sent to event read: {}, {count} events", of(read));
    println!("{:14} span sent to decision: {}", "", of(decided));
    for (stage, commits) in Stage::ALL.iter().zip(stopped.commits) {
        let (stage, per_s) = (stage.as_str(), commits.count as f64 / stopped.seconds);
        let Commits { p50_ms, p99_ms, .. } = commits;
        println!("{:14} {stage} commits: p50 {p50_ms:.1} ms, p99 {p99_ms:.1} ms, {per_s:.1} per second", "");
    }
    let (rate, cores) = (stopped.rows as f64 / stopped.seconds, stopped.cpu_s / stopped.seconds);
    let (aborts, mib) = (stopped.aborts, stopped.peak_rss_bytes >> 20);
    println!("{:14} instance: {rate:.0} spans/s, {cores:.2} cores busy, {aborts} aborts, {mib} MiB at most", "");
}

/// Of times.
struct Quantiles {
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
}

impl Quantiles {
    fn of(times: impl Iterator<Item = Duration>) -> Self {
        let mut us = Histogram::<u64>::new_with_bounds(1, 60_000_000, 3).unwrap();
        times.for_each(|time| us.saturating_record(u64::try_from(time.as_micros()).unwrap()));
        let ms = |quantile| Duration::from_micros(us.value_at_quantile(quantile)).as_secs_f64() * 1e3;
        Self { p50_ms: ms(0.5), p99_ms: ms(0.99), max_ms: ms(1.0) }
    }
}

impl fmt::Display for Quantiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { p50_ms, p99_ms, max_ms } = self;
        write!(f, "p50 {p50_ms:.1} ms, p99 {p99_ms:.1} ms, max {max_ms:.1} ms")
    }
}
