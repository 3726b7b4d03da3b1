//! What the loop does, told to the metrics and the health checks.
//!
//! The loop knows neither: it sees a source and an observer, and these are both.

use std::sync::Arc;
use std::time::Duration;

use lictor_connectors::{ConnectorError, KafkaSource, NextOffset, Polled, RecordRef, Source, TopicPartition};
use lictor_engine::clock::Clock;
use lictor_engine::http::Health;
use lictor_engine::live::{EpochTiming, Observer};
use lictor_engine::metrics::Metrics;
use lictor_engine::pipeline::{Epoch, Pipeline};
use lictor_schemas::tables::Signal;
use lictor_schemas::time::EventTime;

/// How often what is read off state is read: Prometheus asks every few seconds, epochs end every few milliseconds.
const STATUS_EVERY: Duration = Duration::from_secs(1);

/// A source that tells of commits, of assignments and, where it knows, of its lag.
pub(super) struct WatchedSource<S> {
    source: S,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    lag: Vec<(TopicPartition, i64)>,
}

impl<S: Source + Lag> WatchedSource<S> {
    /// Watches `source`.
    pub(super) fn new(source: S, metrics: Arc<Metrics>, health: Arc<Health>) -> Self {
        Self { source, metrics, health, lag: Vec::new() }
    }

    /// The client learns its lag every few seconds; between that nothing is news.
    fn look_at_lag(&mut self) {
        let lag = self.source.lag();
        if lag != self.lag {
            self.metrics.observe_lag(&lag);
            self.lag = lag;
        }
    }
}

/// A source that may know how far behind it is.
pub(super) trait Lag {
    /// Records behind the committed offset, per assigned partition.
    fn lag(&self) -> Vec<(TopicPartition, i64)>;
}

impl Lag for KafkaSource {
    fn lag(&self) -> Vec<(TopicPartition, i64)> {
        Self::lag(self)
    }
}

impl<S: Source + Lag> Source for WatchedSource<S> {
    fn poll(&mut self, wait: Duration, absorb: &mut dyn FnMut(RecordRef<'_>)) -> Result<Polled, ConnectorError> {
        let polled = self.source.poll(wait, absorb)?;
        // Not after each record: a busy source is looked at when it commits.
        if polled != Polled::Record {
            self.look_at_lag();
        }
        Ok(polled)
    }

    fn commit(&mut self, next: &[(TopicPartition, NextOffset)]) -> Result<(), ConnectorError> {
        self.source.commit(next)?;
        self.metrics.observe_commit();
        self.look_at_lag();
        Ok(())
    }

    fn release(&mut self, partitions: &[TopicPartition]) -> Result<(), ConnectorError> {
        self.source.release(partitions)
    }

    fn replay(
        &mut self,
        partitions: &[TopicPartition],
        since: EventTime,
    ) -> Result<Vec<(TopicPartition, NextOffset)>, ConnectorError> {
        let targets = self.source.replay(partitions, since)?;
        // Only now: the epoch that an assignment ends is not yet one of the assigned partitions.
        if !partitions.is_empty() {
            self.health.assigned();
        }
        Ok(targets)
    }

    fn hold(&mut self, partition: &TopicPartition) -> Result<(), ConnectorError> {
        self.source.hold(partition)
    }

    fn resume(&mut self) -> Result<(), ConnectorError> {
        self.source.resume()
    }
}

/// Tells of every epoch at once, and of state from time to time.
pub(super) struct Watcher<C> {
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    clock: C,
    status_due: Duration,
}

impl<C: Clock> Watcher<C> {
    /// `clock` is the one that the HTTP server compares progress with.
    pub(super) fn new(metrics: Arc<Metrics>, health: Arc<Health>, clock: C) -> Self {
        Self { metrics, health, clock, status_due: Duration::ZERO }
    }
}

impl<C: Clock> Observer for Watcher<C> {
    fn committed(&mut self, epoch: &Epoch, timing: EpochTiming, pipeline: &Pipeline) {
        // What is rebuilt after a restart was counted by the run before.
        if !timing.is_replay {
            self.metrics.observe_epoch(epoch, timing.duration, timing.latency);
            self.health.committed();
        }
        let now = self.clock.monotonic();
        if now < self.status_due {
            return;
        }
        self.status_due = now + STATUS_EVERY;
        self.metrics.observe_status(&pipeline.status());
        for signal in Signal::ALL {
            self.metrics.observe_watermark(signal, pipeline.watermark(signal), self.clock.now());
        }
    }

    fn alive(&mut self, _now: EventTime) {
        self.health.progressed(self.clock.monotonic());
    }
}

#[cfg(test)]
mod tests {
    use lictor_engine::clock::ManualClock;
    use lictor_engine::pipeline::PipelineSettings;
    use lictor_queries::RuleSet;
    use lictor_schemas::prices::PriceTable;

    use super::*;

    struct Quiet;

    impl Source for Quiet {
        fn poll(&mut self, _: Duration, _: &mut dyn FnMut(RecordRef<'_>)) -> Result<Polled, ConnectorError> {
            Ok(Polled::Empty)
        }

        fn commit(&mut self, next: &[(TopicPartition, NextOffset)]) -> Result<(), ConnectorError> {
            match next {
                [] => Err(ConnectorError::Rebalanced { message: "again".to_owned() }),
                _ => Ok(()),
            }
        }

        fn release(&mut self, _: &[TopicPartition]) -> Result<(), ConnectorError> {
            Ok(())
        }
    }

    impl Lag for Quiet {
        fn lag(&self) -> Vec<(TopicPartition, i64)> {
            vec![(TopicPartition::new("t", 0), 5)]
        }
    }

    #[test]
    fn a_source_that_waits_shows_its_lag_too() {
        let metrics = Arc::new(Metrics::new());
        let mut source = WatchedSource::new(Quiet, Arc::clone(&metrics), Arc::default());
        source.poll(Duration::ZERO, &mut |_| ()).unwrap();
        assert!(metrics.encode().contains("lictor_consumer_lag{topic=\"t\",partition=\"0\"} 5\n"));
    }

    fn timing(is_replay: bool) -> EpochTiming {
        EpochTiming { duration: Duration::from_millis(1), latency: None, is_replay }
    }

    fn records(records: u64) -> Epoch {
        let mut epoch = Epoch::default();
        epoch.counts.records = records;
        epoch
    }

    #[test]
    fn commits_that_succeed_are_counted_and_bring_the_lag() {
        let (metrics, health) = (Arc::new(Metrics::new()), Arc::new(Health::default()));
        let mut source = WatchedSource::new(Quiet, Arc::clone(&metrics), health);
        assert!(source.commit(&[]).is_err());
        source.commit(&[(TopicPartition::new("t", 0), NextOffset(1))]).unwrap();
        let text = metrics.encode();
        assert!(text.contains("lictor_commits_total 1\n"), "{text}");
        assert!(text.contains("lictor_consumer_lag{topic=\"t\",partition=\"0\"} 5\n"), "{text}");
    }

    #[test]
    fn ready_after_the_first_epoch_that_is_neither_before_the_assignment_nor_a_replay() {
        let (metrics, health) = (Arc::new(Metrics::new()), Arc::new(Health::default()));
        let mut source = WatchedSource::new(Quiet, Arc::clone(&metrics), Arc::clone(&health));
        let pipeline = Pipeline::new(RuleSet::default(), Arc::new(PriceTable::empty()), &PipelineSettings::default());
        let mut watcher = Watcher::new(Arc::clone(&metrics), Arc::clone(&health), ManualClock::default());
        watcher.committed(&records(0), timing(false), &pipeline);
        assert!(health.readiness().is_err());
        source.replay(&[TopicPartition::new("t", 0)], EventTime::MIN).unwrap();
        watcher.committed(&records(7), timing(true), &pipeline);
        assert!(health.readiness().is_err());
        watcher.committed(&records(2), timing(false), &pipeline);
        assert_eq!(health.readiness(), Ok(()));
        // The seven replayed records were counted before the restart.
        assert!(metrics.encode().contains("lictor_records_total{outcome=\"used\"} 2\n"));
    }

    #[test]
    fn a_loop_that_comes_round_is_alive() {
        let health = Arc::new(Health::default());
        let clock = ManualClock::default();
        clock.advance(Duration::from_secs(100));
        assert!(health.liveness(clock.monotonic()).is_err());
        let mut watcher = Watcher::new(Arc::default(), Arc::clone(&health), clock);
        watcher.alive(EventTime::default());
        assert_eq!(health.liveness(Duration::from_secs(100)), Ok(()));
    }
}
