//! How often the shipped rules alarm for nothing, and how soon they see what goes wrong.
//!
//! `cargo bench --bench detection` prints two Markdown tables. For each seed fifty keys work for a week in which
//! nothing happens, and for two days in which everything does; that goes through the shipped rules as a backtest, from
//! OTLP to events. A day is about 900,000 spans; most of its processor time goes into windows that close.
//! `LICTOR_SEEDS=1` has fewer seeds than three, `LICTOR_DAYS=2` a shorter week, and `LICTOR_ALARMS=rule` prints what a
//! rule has said.

#![expect(clippy::print_stdout, reason = "a benchmark prints what it has measured")]
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on panics")]

mod incidents;
mod keys;
mod measure;
mod random;
mod report;
mod site;
mod spans;
mod traffic;

use std::collections::{BTreeSet, VecDeque};
use std::env;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use fastrand::Rng;
use incidents::Calendar;
use lictor_connectors::{ConnectorError, Recorded, TopicPartition, Track};
use lictor_engine::backtest::{self, Backtest, Range};
use lictor_engine::clock::{Clock, SystemClock};
use lictor_engine::pipeline::PipelineSettings;
use lictor_engine::watermark::Tolerances;
use lictor_schemas::otlp::encode::{RowDraft, encode_protobuf};
use lictor_schemas::tables::{Signal, Table};
use lictor_schemas::time::EventTime;
use measure::Listener;
use report::Report;
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
    for seed in 1..=seeds {
        let calendar = Calendar::on(quiet_until, &mut Rng::with_seed(seed));
        let (listener, records) = judge(seed, &calendar, quiet_until.plus(INCIDENT_DAYS * DAY_NS));
        for alarm in listener.alarms.iter().filter(|alarm| alarm.rule == shown) {
            println!("{seed} {} {:?} {}", alarm.at, alarm.who, alarm.message);
        }
        let took_s = clock.monotonic().as_secs();
        eprintln!("seed {seed}: {records} records, {} directives, {took_s} s", listener.alarms.len());
        report.add(&listener.alarms, &calendar, (START, quiet_until));
    }
    print!("{}", report.to_markdown());
}

/// What the shipped rules say of a company's telemetry, and how many records that was.
fn judge(seed: u64, calendar: &Calendar, end: EventTime) -> (Listener, u64) {
    let loaded = site::rules(seed, START);
    let traffic = Traffic::new((seed, seed), START, calendar.clone());
    let topics = Arc::new(Mutex::new(Topics { traffic, end, waiting: [VecDeque::new(), VecDeque::new()] }));
    let topic = |number| Box::new(Topic { topics: Arc::clone(&topics), number, offset: 0 }) as Box<dyn Track>;
    let tracks = (0..TOPICS.len()).map(topic).collect();
    // A message a minute is no silence.
    let tolerances = Tolerances { idle_after_ns: 10 * CHUNK_NS, ..Tolerances::default() };
    let backtest = Backtest {
        tracks,
        range: Range::default(),
        sets: vec![(loaded.rules, Arc::clone(&loaded.prices))],
        settings: PipelineSettings { tolerances, ..PipelineSettings::default() },
        leaves_open: false,
        decoders: 1,
    };
    let mut listener = Listener::default();
    let stop = AtomicBool::new(false);
    let outcome = backtest::run(backtest, &BTreeSet::new(), vec![&mut listener], &stop).unwrap();
    let account = &outcome.accounts[0];
    let broken: Vec<String> = account.rules.iter().filter_map(|rule| rule.quarantined.clone()).collect();
    assert!(broken.is_empty() && account.dead.is_empty(), "{broken:?} {:?}", account.dead);
    (listener, outcome.reading.records)
}

/// What telemetry there is, and where it lies.
const TOPICS: [(&str, Signal, Table); 2] =
    [("otlp_spans", Signal::Traces, Table::Spans), ("otlp_logs", Signal::Logs, Table::Logs)];

/// Topics that are written while they are read.
struct Topics {
    traffic: Traffic,
    end: EventTime,
    /// Messages of each topic that nobody has read yet, with the times at which they came.
    waiting: [VecDeque<(EventTime, Vec<u8>)>; TOPICS.len()],
}

impl Topics {
    /// The next message of a topic; none at the end.
    fn next(&mut self, number: usize) -> Option<(EventTime, Vec<u8>)> {
        while self.waiting[number].is_empty() {
            let (rows, at) = self.traffic.next_chunk();
            if at > self.end {
                return None;
            }
            for ((_, signal, table), waiting) in TOPICS.iter().zip(&mut self.waiting) {
                let of_topic: Vec<RowDraft> = rows.iter().filter(|row| row.table == *table).cloned().collect();
                if !of_topic.is_empty() {
                    waiting.push_back((at, encode_protobuf(*signal, &of_topic).unwrap()));
                }
            }
        }
        self.waiting[number].pop_front()
    }
}

/// One of them.
struct Topic {
    topics: Arc<Mutex<Topics>>,
    number: usize,
    offset: i64,
}

impl Track for Topic {
    fn read_next(&mut self) -> Result<Option<Recorded>, ConnectorError> {
        let Some((at, payload)) = self.topics.lock().unwrap().next(self.number) else { return Ok(None) };
        let (partition, offset) = (TopicPartition::new(TOPICS[self.number].0, 0), self.offset);
        self.offset += 1;
        Ok(Some(Recorded { partition, offset, timestamp_ms: at.to_ms(), key: None, payload: Some(payload) }))
    }
}
