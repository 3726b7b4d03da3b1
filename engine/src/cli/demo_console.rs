//! The demo's console: the same as that of `run`, fed by a loop that has no tasks.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use anyhow::anyhow;
use lictor_connectors::TopicPartition;
use lictor_engine::clock::{Clock as _, SystemClock};
use lictor_engine::config;
use lictor_engine::console::{self, Console, ConsoleOptions, DIRECTIVES_MAX, Status};
use lictor_engine::http::{Health, HttpServer, SignalTime};
use lictor_engine::live::{EpochTiming, Observer};
use lictor_engine::metrics::Metrics;
use lictor_engine::pipeline::{Epoch, Pipeline};
use lictor_engine::rules_dir::LoadedRules;
use lictor_engine::tasks::Stage;
use lictor_engine::windowed::Observed;
use lictor_schemas::tables::Signal;
use lictor_schemas::time::EventTime;

use super::demo_report::Narrator;

/// As often as `run` looks at its state.
const STATUS_EVERY: Duration = Duration::from_secs(1);

/// Where `run` is, too.
const ADDRESS: ([u8; 4], u16) = ([127, 0, 0, 1], 8080);

/// A console, and what it is told; none if it is off.
pub(super) struct Watched(Option<Served>);

struct Served {
    console: Arc<Console>,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    clock: SystemClock,
    /// It ends with the value.
    server: HttpServer,
    status_at: Duration,
    is_time_to_look: bool,
}

impl Watched {
    /// Serves at `http`, or where `run` does, or at a free port if something is there already.
    pub(super) fn start(http: Option<&str>, loaded: &LoadedRules, clock: SystemClock) -> anyhow::Result<Self> {
        let address = match http.map(config::http) {
            None => Some(SocketAddr::from(ADDRESS)),
            Some(named) => named.map_err(|reason| anyhow!("--http: {reason}"))?,
        };
        let Some(address) = address else { return Ok(Self(None)) };
        if !console::is_local(address) {
            return Err(anyhow!("--http: the demo shows its console to this machine only: name a loopback address"));
        }
        let (metrics, health) = (Arc::new(Metrics::new()), Arc::new(Health::default()));
        let names = ("demo".to_owned(), "demo".to_owned());
        let options =
            ConsoleOptions { application_id: names.0, instance_id: names.1, shards: 1, ..ConsoleOptions::default() };
        let console = Arc::new(Console::new(options));
        super::console::set_rules(&console, loaded, clock.now(), None);
        let serve = |address| {
            // Nobody takes these: the demo's rules stay as they are.
            let (reload, _) = sync_channel(1);
            let pages = console::router(Arc::clone(&console), Arc::clone(&health), None, clock);
            HttpServer::start_beside((address, None), (Arc::clone(&metrics), Arc::clone(&health)), reload, clock, pages)
        };
        let any = SocketAddr::from((ADDRESS.0, 0));
        let server = serve(address).or_else(|error| if http.is_none() { serve(any) } else { Err(error) })?;
        let (status_at, is_time_to_look) = (Duration::ZERO, false);
        Ok(Self(Some(Served { console, metrics, health, clock, server, status_at, is_time_to_look })))
    }

    /// Where it is served.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.0.as_ref().map(|served| served.server.address())
    }
}

impl Served {
    fn committed(&mut self, epoch: &Epoch, timing: EpochTiming, pipeline: &Pipeline) {
        self.metrics.observe_scan(&epoch.counts);
        self.metrics.observe_judging(&epoch.decisions, &epoch.limits, timing.latency);
        if epoch.counts.records > 0 {
            self.console.scanned(&epoch.counts);
        }
        self.console.judged(&epoch.decisions, timing.latency);
        let (now, monotonic) = (self.clock.now(), self.clock.monotonic());
        for stage in Stage::ALL {
            self.health.progressed(stage, monotonic);
            self.health.serving(stage);
        }
        self.is_time_to_look = monotonic >= self.status_at;
        if self.is_time_to_look {
            self.status_at = monotonic + STATUS_EVERY;
            self.publish(pipeline, (now, monotonic));
        }
    }

    fn publish(&self, pipeline: &Pipeline, (now, monotonic): (EventTime, Duration)) {
        let rules = pipeline.status();
        self.metrics.observe_status(&rules);
        let [scan_spent, spent] = pipeline.spent();
        let marks = pipeline.marks();
        self.console.scan_spent(scan_spent);
        self.console.reads(marks.iter().map(|mark| &mark.partition).collect::<BTreeSet<_>>().len());
        let standing = self.console.is_watched(monotonic).then(|| pipeline.standing(DIRECTIVES_MAX));
        let time = |signal: Signal| {
            let (watermark, held_by) = (pipeline.watermark(signal), pipeline.slowest(signal).cloned());
            let is_begun = watermark > EventTime::MIN || held_by.is_some();
            is_begun.then_some((signal, SignalTime { watermark, held_by }))
        };
        let times: BTreeMap<_, _> = Signal::ALL.into_iter().filter_map(time).collect();
        self.health.set_times(times.clone());
        self.console.publish(Status { rules, spent, standing, marks, times, shards: 1 }, (now, monotonic));
    }
}

/// Who watches the demo: the one who tells its story, and the console.
pub(super) struct Audience<W> {
    pub(super) narrator: Narrator<W>,
    pub(super) watched: Watched,
}

impl<W: Write> Observer for Audience<W> {
    fn committed(&mut self, epoch: &Epoch, timing: EpochTiming, pipeline: &Pipeline) {
        self.narrator.committed(epoch, timing, pipeline);
        if let Watched(Some(served)) = &mut self.watched {
            served.committed(epoch, timing, pipeline);
        }
    }

    fn lags(&mut self, lag: &[(TopicPartition, i64)]) {
        if let Watched(Some(served)) = &self.watched {
            served.metrics.observe_lag(lag);
            served.console.lags(lag);
        }
    }

    fn looks(&mut self) -> bool {
        self.watched.0.as_mut().is_some_and(|served| std::mem::take(&mut served.is_time_to_look))
    }

    fn observed(&mut self, seen: &[(String, Observed)]) {
        if let Watched(Some(served)) = &self.watched {
            served.console.observed(seen);
        }
    }
}
