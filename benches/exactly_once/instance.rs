//! The instance under test: both tasks as `lictor run` has them, and an observer that measures.
//!
//! It says what it has measured as a line of JSON, first when it serves everything, then when it has stopped. `begin`
//! and `end` on standard input say what is measured; the end of standard input stops the instance.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use hdrhistogram::Histogram;
use lictor_connectors::{TopicPartition, ensure_topics};
use lictor_engine::clock::{Clock, SystemClock};
use lictor_engine::config::Config;
use lictor_engine::pipeline::Stages;
use lictor_engine::rules_dir;
use lictor_engine::scan_stage::ScanCounts;
use lictor_engine::tasks::{self, Stage, TaskObserver};
use serde::{Deserialize, Serialize};

use crate::cpu::cpu_s;
use crate::site::SHARDS;

/// The argument that makes this program an instance.
pub(crate) const ROLE: &str = "instance";

/// When all shards are served.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Served {
    /// Since the tasks were started.
    pub(crate) after_s: f64,
    pub(crate) restored_bytes: u64,
    /// For how long shards were read back, all together.
    pub(crate) restoring_s: f64,
    pub(crate) peak_rss_bytes: u64,
}

/// What was measured between `begin` and `end`.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Stopped {
    pub(crate) seconds: f64,
    pub(crate) cpu_s: f64,
    pub(crate) rows: u64,
    pub(crate) aborts: u64,
    /// Of each stage, in the order of [`Stage::ALL`].
    pub(crate) commits: [Commits; 2],
    pub(crate) peak_rss_bytes: u64,
}

/// How long the commits of a stage took.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Commits {
    pub(crate) count: u64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
}

pub(crate) fn run(config: &Path) {
    let config = Config::load(config).unwrap();
    let loaded = rules_dir::load(&config.rules, None).unwrap();
    assert_eq!(loaded.diagnostics, []);
    let stages = Stages::new(loaded.rules, loaded.prices, &config.pipeline_settings());
    ensure_topics(&config.kafka, &config.topic_specs()).unwrap();
    let options = config.task_options(stages.scan.topics_read().into_iter().collect());
    let (stop, meter) = (AtomicBool::new(false), Meter::start());
    let clock = meter.clock;
    thread::scope(|scope| {
        scope.spawn(|| {
            for line in io::stdin().lines() {
                match line.unwrap().as_str() {
                    "begin" => meter.begin(),
                    "end" => meter.end(),
                    other => panic!("{other}?"),
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
        tasks::run(&config.kafka, stages, &options, clock, (&stop, &meter)).unwrap();
    });
    say(&meter.counted.into_inner().unwrap().stopped);
}

fn say(what: &impl Serialize) {
    println!("{}", serde_json::to_string(what).unwrap());
}

/// Counts what the tasks do.
struct Meter {
    clock: SystemClock,
    counted: Mutex<Counted>,
}

struct Counted {
    served: Served,
    has_served: bool,
    began: Duration,
    cpu_s: f64,
    rows: u64,
    aborts: u64,
    /// In microseconds.
    commits: [Histogram<u64>; 2],
    stopped: Stopped,
}

impl Counted {
    fn since(began: Duration) -> Self {
        let commits = [(); 2].map(|()| Histogram::new_with_bounds(1, 60_000_000, 3).unwrap());
        let (served, stopped) = (Served::default(), Stopped::default());
        Self { served, has_served: false, began, cpu_s: cpu_s(), rows: 0, aborts: 0, commits, stopped }
    }
}

impl Meter {
    fn start() -> Self {
        Self { clock: SystemClock::start(), counted: Mutex::new(Counted::since(Duration::ZERO)) }
    }

    fn begin(&self) {
        let mut counted = self.counted.lock().unwrap();
        *counted = Counted { has_served: true, ..Counted::since(self.clock.monotonic()) };
    }

    fn end(&self) {
        let counted = &mut *self.counted.lock().unwrap();
        counted.stopped = Stopped {
            seconds: self.clock.monotonic().saturating_sub(counted.began).as_secs_f64(),
            cpu_s: cpu_s() - counted.cpu_s,
            rows: counted.rows,
            aborts: counted.aborts,
            commits: [0, 1].map(|stage| commits(&counted.commits[stage])),
            peak_rss_bytes: peak_rss_bytes(),
        };
    }
}

fn commits(us: &Histogram<u64>) -> Commits {
    #[expect(clippy::cast_precision_loss, reason = "microseconds of a minute")]
    let ms = |quantile| us.value_at_quantile(quantile) as f64 / 1_000.0;
    Commits { count: us.len(), p50_ms: ms(0.5), p99_ms: ms(0.99) }
}

impl TaskObserver for Meter {
    fn assigned(&self, stage: Stage, partitions: usize) {
        let counted = &mut *self.counted.lock().unwrap();
        let is_complete = stage == Stage::Judge && i32::try_from(partitions) == Ok(SHARDS);
        if is_complete && !counted.has_served {
            counted.has_served = true;
            let after_s = self.clock.monotonic().as_secs_f64();
            say(&Served { after_s, peak_rss_bytes: peak_rss_bytes(), ..counted.served });
        }
    }

    fn restored(&self, bytes: usize, took: Duration) {
        let served = &mut self.counted.lock().unwrap().served;
        served.restored_bytes += bytes as u64;
        served.restoring_s += took.as_secs_f64();
    }

    fn scanned(&self, counts: &ScanCounts) {
        self.counted.lock().unwrap().rows += counts.rows_used.values().sum::<u64>();
    }

    fn committed(&self, stage: Stage, took: Duration, _: &[(TopicPartition, i64)]) {
        let us = u64::try_from(took.as_micros()).unwrap();
        self.counted.lock().unwrap().commits[stage as usize].saturating_record(us);
    }

    fn aborted(&self, _: Stage, _: &'static str) {
        self.counted.lock().unwrap().aborts += 1;
    }
}

/// The most memory that this process has had so far.
fn peak_rss_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or_default() * 1_024
}
