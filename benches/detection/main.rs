//! How often the shipped rules alarm for nothing, and how soon they see what goes wrong.
//!
//! `cargo bench --bench detection` prints two Markdown tables. For each seed fifty keys work for a week in which
//! nothing happens, and for two days in which everything does; that goes through the shipped rules as a backtest, from
//! OTLP to events. A day is about 900,000 spans; most of its processor time goes into windows that close. Seeds run at
//! the same time.
//!
//! `LICTOR_SEEDS=1` has fewer seeds than three, `LICTOR_DAYS=2` a shorter week, `LICTOR_RULES=drift,sla` only the rules
//! of these folders, and `LICTOR_ALARMS=rule` prints what a rule has said.

#![expect(clippy::print_stdout, reason = "a benchmark prints what it has measured")]
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on panics")]

#[path = "../allocator.rs"]
mod allocator;
mod incidents;
mod keys;
mod measure;
mod random;
mod report;
mod site;
mod spans;
mod topics;
mod traffic;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::{env, thread};

use fastrand::Rng;
use incidents::Calendar;
use lictor_engine::backtest::{self, Backtest, Range};
use lictor_engine::clock::{Clock, SystemClock};
use lictor_engine::pipeline::PipelineSettings;
use lictor_engine::watermark::Tolerances;
use lictor_schemas::time::EventTime;
use measure::Listener;
use report::Report;
use topics::Topics;
use traffic::{CHUNK_NS, Traffic};

const DAY_NS: i64 = 86_400_000_000_000;
/// 2026-03-02T00:00:00Z, a Monday.
const START: EventTime = EventTime(1_772_409_600_000_000_000);
/// Days of incidents, and a third one in which the last of them can end.
const INCIDENT_DAYS: i64 = 3;

fn main() {
    let number = |name: &str, default: u64| env::var(name).map_or(default, |text| text.parse().unwrap());
    let (seeds, quiet_days) = (number("LICTOR_SEEDS", 3), i64::try_from(number("LICTOR_DAYS", 7)).unwrap());
    let shown = env::var("LICTOR_ALARMS").unwrap_or_default();
    let (clock, quiet_until) = (SystemClock::start(), START.plus(quiet_days * DAY_NS));
    let mut report = Report::default();
    thread::scope(|scope| {
        let judged = |seed| {
            let calendar = Calendar::on(quiet_until, &mut Rng::with_seed(seed));
            let judged = judge(seed, &calendar, quiet_until.plus(INCIDENT_DAYS * DAY_NS));
            (seed, calendar, judged)
        };
        let threads: Vec<_> = (1..=seeds).map(|seed| scope.spawn(move || judged(seed))).collect();
        for thread in threads {
            let (seed, calendar, Judged { listener, rules, records }) = thread.join().unwrap();
            for alarm in listener.alarms.iter().filter(|alarm| alarm.rule == shown) {
                println!("{seed} {} {:?} {}", alarm.at, alarm.who, alarm.message);
            }
            let took_s = clock.monotonic().as_secs();
            eprintln!("seed {seed}: {records} records, {} directives, {took_s} s", listener.alarms.len());
            report.add(&rules, &listener.alarms, &calendar, (START, quiet_until));
        }
    });
    print!("{}", report.to_markdown());
}

/// What became of a company's telemetry.
struct Judged {
    listener: Listener,
    /// All rules that have judged it.
    rules: Vec<String>,
    records: u64,
}

/// What the shipped rules say of a company's telemetry.
fn judge(seed: u64, calendar: &Calendar, end: EventTime) -> Judged {
    let settings = settings();
    let loaded = site::rules(seed, START, &settings);
    let topics = Topics::new(format!("seed {seed}"), Traffic::new((seed, seed), START, calendar.clone()), end);
    let backtest = Backtest {
        tracks: topics::tracks(&topics),
        range: Range::default(),
        sets: vec![(loaded.rules, Arc::clone(&loaded.prices))],
        settings,
        leaves_open: false,
        decoders: 1,
    };
    let mut listener = Listener::default();
    let stop = AtomicBool::new(false);
    let outcome = backtest::run(backtest, &BTreeSet::new(), vec![&mut listener], &stop).unwrap();
    let account = &outcome.accounts[0];
    let broken: Vec<String> = account.rules.iter().filter_map(|rule| rule.quarantined.clone()).collect();
    assert!(broken.is_empty() && account.dead.is_empty(), "{broken:?} {:?}", account.dead);
    let rules = account.rules.iter().map(|rule| rule.name.clone()).collect();
    Judged { listener, rules, records: outcome.reading.records }
}

fn settings() -> PipelineSettings {
    // A message a minute is no silence.
    let tolerances = Tolerances { idle_after_ns: 10 * CHUNK_NS, ..Tolerances::default() };
    PipelineSettings { tolerances, ..PipelineSettings::default() }
}
