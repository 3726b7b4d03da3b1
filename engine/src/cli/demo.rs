//! `lictor demo`: everything in one process, with an embedded broker and a small company in trouble.
//!
//! Nothing is staged: the company's telemetry goes through the broker as OTLP, the shipped rules judge it in both
//! stages that production runs, and what is printed are the events read off them. Only time is compressed: about an
//! hour of event time passes per minute.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use clap::Args;
use lictor_connectors::{EmbeddedBroker, KafkaProperties, KafkaSink, KafkaSource, Outgoing, Sink};
use lictor_engine::clock::{Clock, SystemClock};
use lictor_engine::company::Company;
use lictor_engine::config::LogFormat;
use lictor_engine::live::{self, Ends, LiveOptions};
use lictor_engine::pipeline::{Pipeline, PipelineSettings};
use lictor_engine::watermark::Tolerances;
use lictor_engine::{rules_dir, shipped};
use lictor_schemas::tables::Signal;
use lictor_schemas::time::EventTime;

use super::demo_console::{Audience, Watched};
use super::demo_report::Narrator;
use super::rules_folder::RulesFolder;
use super::terminal::Painter;

/// Event time runs this much faster than the clock: an hour and ten minutes pass in sixty seconds.
const SPEED: i64 = 70;
/// The company's incidents fill an hour, which must lie within one UTC day and in the past.
const STORY_NS: i64 = 75 * 60 * 1_000_000_000;
const DAY_NS: i64 = 86_400_000_000_000;
/// The generator writes this often.
const BEAT: Duration = Duration::from_millis(50);
/// The embedded broker lets the first member of a group wait three seconds; nothing is told before it listens.
const TOPICS: [(&str, i32); 8] = [
    ("otlp_spans", 4),
    ("otlp_logs", 2),
    ("otlp_metrics", 2),
    ("lictor.enforcement", 1),
    ("lictor.directives", 1),
    ("lictor.directives.shadow", 1),
    ("lictor.dead-letter", 1),
    ("lictor.late", 1),
];

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// How long to run, as in 60s or 5m; without it until Ctrl-C.
    #[arg(long = "for", value_parser = parse_duration)]
    duration: Option<Duration>,
    /// Rules to run instead of the shipped ones.
    #[arg(long)]
    rules: Option<PathBuf>,
    /// Where the console is served, or `off`; a free port if this one is taken and none was named.
    #[arg(long)]
    http: Option<String>,
    /// Another company: the same seed gives the same telemetry.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    let ns = lictor_engine::config::duration::parse_ns(text)?;
    Ok(Duration::from_nanos(u64::try_from(ns).map_err(|e| e.to_string())?))
}

/// Runs the company and judges it; ends with 0.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    super::run::start_log(LogFormat::Text)?;
    let stop = super::stop_flag()?;
    let clock = SystemClock::start();
    let rules = RulesFolder::prepare(arguments.rules.clone(), shipped::write_to)?;
    let loaded = rules_dir::load(rules.path(), None)?;
    super::check::report_faults(&loaded, &mut io::stderr().lock(), Painter::for_stream(&io::stderr()))?;
    let broker = EmbeddedBroker::start(&TOPICS)?;
    let start = story_start(clock.now());
    let company = Company::new(arguments.seed, start).governed();
    let watched = Watched::start(arguments.http.as_deref(), &loaded, clock)?;
    let mut narrator = Narrator::new(io::stdout(), Painter::for_stream(&io::stdout()), company.incidents());
    narrator.introduce(&loaded, broker.bootstrap(), watched.address())?;
    // The company's clock runs far ahead of the broker's timestamps, and that is what the skew guard is there to
    // refuse.
    let tolerances = Tolerances { future_skew_ns: i64::MAX, ..Tolerances::default() };
    let settings = PipelineSettings { application_id: "demo".to_owned(), tolerances, ..PipelineSettings::default() };
    let pipeline = Pipeline::new(loaded.rules, loaded.prices, &settings);
    let topics: Vec<String> = settings.signals.keys().cloned().collect();
    let mut source = KafkaSource::try_new(&broker.properties(), "demo-scan", "demo", &topics)?;
    let mut sink = KafkaSink::try_new(&broker.properties(), "demo")?;
    let options = LiveOptions { application_id: "demo".to_owned(), ..LiveOptions::default() };
    let ends = Ends { source: &mut source, sink: &mut sink, clock: &clock };
    let produced = Arc::new(AtomicU64::new(u64::MAX));
    let generator =
        Generator { company, start, properties: broker.properties(), until: arguments.duration, clock, produced };
    narrator.stop_after(Arc::clone(&generator.produced), Arc::clone(&stop));
    let generator = generator.spawn(Arc::clone(&stop))?;
    let mut audience = Audience { narrator, watched };
    let judged = live::run(ends, pipeline, options, &stop, &mut audience);
    let narrator = audience.narrator;
    stop.store(true, Ordering::Relaxed);
    let told = generator.join().map_err(|_| anyhow::anyhow!("the generator panicked"))??;
    let summary = judged?;
    narrator.conclude(told, summary)?;
    Ok(ExitCode::SUCCESS)
}

/// Far enough back that the whole story lies in the past and within one UTC day.
fn story_start(now: EventTime) -> EventTime {
    let begin = now.0 - STORY_NS;
    let room = begin.rem_euclid(DAY_NS) + STORY_NS;
    EventTime(if room < DAY_NS { begin } else { begin - STORY_NS })
}

/// Produces the company's telemetry at its own pace.
struct Generator {
    company: Company,
    start: EventTime,
    properties: KafkaProperties,
    until: Option<Duration>,
    clock: SystemClock,
    /// How many records it has produced in all, once it has ended; until then the greatest number there is.
    produced: Arc<AtomicU64>,
}

impl Generator {
    /// Runs on a thread of its own until its time is over or `stop` is set; sets `stop` itself if it cannot go on.
    fn spawn(self, stop: Arc<AtomicBool>) -> io::Result<thread::JoinHandle<anyhow::Result<u64>>> {
        thread::Builder::new().name("company".to_owned()).spawn(move || {
            let total = Arc::clone(&self.produced);
            let produced = self.produce(&stop);
            match &produced {
                Ok(records) => total.store(*records, Ordering::Relaxed),
                Err(_) => stop.store(true, Ordering::Relaxed),
            }
            produced
        })
    }

    fn produce(mut self, stop: &AtomicBool) -> anyhow::Result<u64> {
        let mut sink = KafkaSink::try_new(&self.properties, "company")?;
        let began = self.clock.monotonic();
        let mut produced = 0;
        while !stop.load(Ordering::Relaxed) {
            let elapsed = self.clock.monotonic().saturating_sub(began);
            if self.until.is_some_and(|until| elapsed >= until) {
                break;
            }
            let passed = i64::try_from(elapsed.as_nanos())?.saturating_mul(SPEED);
            for (signal, key, payload) in self.company.next_batch(self.start.plus(passed)) {
                sink.publish(&message(signal, key, payload))?;
                produced += 1;
            }
            sink.flush()?;
            thread::park_timeout(BEAT);
        }
        Ok(produced)
    }
}

fn message(signal: Signal, key: Option<Vec<u8>>, payload: Vec<u8>) -> Outgoing {
    let topic = match signal {
        Signal::Traces => "otlp_spans",
        Signal::Logs => "otlp_logs",
        Signal::Metrics => "otlp_metrics",
    };
    Outgoing { topic: topic.to_owned(), key, payload: Some(payload), headers: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_story_lies_in_the_past_and_within_one_day() {
        for hour in 0..24 {
            for minute in [0, 14, 15, 16, 59] {
                let now = EventTime(20_000 * DAY_NS + (hour * 60 + minute) * 60 * 1_000_000_000);
                let start = story_start(now);
                assert!(start.plus(STORY_NS) <= now, "{now}");
                assert_eq!(start.0.div_euclid(DAY_NS), start.plus(STORY_NS - 1).0.div_euclid(DAY_NS), "{now}");
            }
        }
    }
}
