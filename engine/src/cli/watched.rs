//! What the tasks do, told to the metrics and the health checks.
//!
//! The tasks know neither: they see an observer, and this is it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use lictor_connectors::TopicPartition;
use lictor_engine::clock::Clock;
use lictor_engine::console::{Console, DIRECTIVES_MAX, Status};
use lictor_engine::decision::{Decision, LimitReport};
use lictor_engine::http::{Health, SignalTime};
use lictor_engine::metrics::Metrics;
use lictor_engine::scan_stage::ScanCounts;
use lictor_engine::tasks::{EpochTimes, JudgeTask, Stage, TaskObserver};
use lictor_engine::telemetry::epochs::Epochs;
use lictor_engine::windowed::Observed;
use lictor_schemas::tables::Signal;
use lictor_schemas::time::EventTime;

/// Tells of every epoch at once, and of state from time to time.
pub(super) struct Watcher<C> {
    metrics: Arc<Metrics>,
    epochs: Option<Arc<Epochs>>,
    health: Arc<Health>,
    console: Option<Arc<Console>>,
    clock: C,
}

impl<C: Clock> Watcher<C> {
    /// `clock` is the one that the HTTP server compares progress with. Epochs are told of if they become traces.
    pub(super) fn new(
        (metrics, epochs): (Arc<Metrics>, Option<Arc<Epochs>>),
        health: Arc<Health>,
        console: Option<Arc<Console>>,
        clock: C,
    ) -> Self {
        Self { metrics, epochs, health, console, clock }
    }
}

impl<C: Clock + Sync> TaskObserver for Watcher<C> {
    fn alive(&self, stage: Stage) {
        self.health.progressed(stage, self.clock.monotonic());
    }

    fn assigned(&self, stage: Stage, partitions: usize) {
        self.metrics.observe_partitions(stage, partitions);
        self.health.serving(stage);
        if let (Some(console), Stage::Scan) = (&self.console, stage) {
            console.reads(partitions);
        }
    }

    fn scanned(&self, counts: &ScanCounts) {
        self.metrics.observe_scan(counts);
        self.console.iter().for_each(|console| console.scanned(counts));
    }

    fn judged(&self, decisions: &[Decision], limits: &[LimitReport], latency: Option<Duration>) {
        self.metrics.observe_judging(decisions, limits, latency);
        self.console.iter().for_each(|console| console.judged(decisions, latency));
    }

    fn committed(&self, stage: Stage, took: Duration, lag: &[(TopicPartition, i64)]) {
        self.metrics.observe_commit(stage, took);
        if stage == Stage::Scan {
            self.metrics.observe_lag(lag);
            self.console.iter().for_each(|console| console.lags(lag));
        }
    }

    fn aborted(&self, stage: Stage, cause: &'static str) {
        self.metrics.observe_abort(stage, cause);
    }

    fn restored(&self, bytes: usize, took: Duration) {
        self.metrics.observe_restore(bytes, took);
    }

    fn times(&self) -> bool {
        self.epochs.is_some()
    }

    fn timed(&self, times: &EpochTimes) {
        self.epochs.iter().for_each(|epochs| epochs.tell(*times));
    }

    fn looks(&self) -> bool {
        self.console.is_some()
    }

    fn observed(&self, seen: &[(String, Observed)]) {
        self.console.iter().for_each(|console| console.observed(seen));
    }

    fn scan_spent(&self, spent: BTreeMap<String, Duration>) {
        if let Some(console) = &self.console {
            console.scan_spent(spent);
        }
    }

    fn status(&self, task: &JudgeTask) {
        let rules = task.status();
        self.metrics.observe_status(&rules);
        let mut times = BTreeMap::new();
        for signal in Signal::ALL {
            let (watermark, held_by) = (task.watermark(signal), task.slowest(signal).cloned());
            self.metrics.observe_watermark(signal, watermark, self.clock.now());
            if watermark > EventTime::MIN || held_by.is_some() {
                times.insert(signal, SignalTime { watermark, held_by });
            }
        }
        self.health.set_times(times.clone());
        let Some(console) = &self.console else { return };
        let (now, monotonic) = (self.clock.now(), self.clock.monotonic());
        let standing = console.is_watched(monotonic).then(|| task.standing(DIRECTIVES_MAX));
        let (spent, marks, shards) = (task.spent(), task.marks(), task.shards());
        console.publish(Status { rules, spent, standing, marks, times, shards }, (now, monotonic));
    }
}

#[cfg(test)]
mod tests {
    use lictor_engine::clock::ManualClock;

    use super::*;

    /// A clock that threads may share, as a test needs no other.
    struct Still(Duration);

    impl Clock for Still {
        fn now(&self) -> EventTime {
            ManualClock::default().now()
        }

        fn monotonic(&self) -> Duration {
            self.0
        }
    }

    fn watcher(at: Duration) -> (Watcher<Still>, Arc<Metrics>, Arc<Health>) {
        let (metrics, health) = (Arc::new(Metrics::new()), Arc::new(Health::default()));
        let watcher = Watcher::new((Arc::clone(&metrics), None), Arc::clone(&health), None, Still(at));
        (watcher, metrics, health)
    }

    #[test]
    fn ready_once_both_stages_serve_what_they_were_assigned() {
        let (watcher, metrics, health) = watcher(Duration::ZERO);
        watcher.assigned(Stage::Scan, 4);
        assert!(health.readiness().is_err());
        watcher.assigned(Stage::Judge, 0);
        assert_eq!(health.readiness(), Ok(()), "an instance with nothing to do is ready to do it");
        assert!(metrics.encode().contains("lictor_partitions{stage=\"scan\"} 4\n"));
    }

    #[test]
    fn a_loop_that_does_not_come_round_is_not_covered_by_the_other() {
        let late = Duration::from_secs(100);
        let (watcher, _, health) = watcher(late);
        watcher.alive(Stage::Judge);
        let verdict = health.liveness(late);
        assert_eq!(verdict, Err("the scan loop has made no progress for 100 s".to_owned()));
        watcher.alive(Stage::Scan);
        assert_eq!(health.liveness(late), Ok(()));
    }

    #[test]
    fn commits_bring_the_lag_of_the_telemetry_and_not_that_of_the_shuffle() {
        let (watcher, metrics, _) = watcher(Duration::ZERO);
        watcher.committed(Stage::Scan, Duration::from_millis(3), &[(TopicPartition::new("t", 0), 5)]);
        watcher.committed(Stage::Judge, Duration::from_millis(3), &[]);
        let text = metrics.encode();
        assert!(text.contains("lictor_consumer_lag{topic=\"t\",partition=\"0\"} 5\n"), "{text}");
    }
}
