//! Both stages in one loop, with nothing kept: what `demo` runs beside its embedded broker, which has no transactions.
//!
//! An epoch closes when its linger or its row limit is reached. Its events are published and acknowledged first, then
//! its offsets are committed. State lives in memory and ends with the process; `run` has [`tasks`](crate::tasks)
//! instead, which survive anything.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lictor_connectors::{
    AssignmentChange, ConnectorError, NextOffset, Polled, RecordRef, Sink, Source, TopicPartition,
};
use lictor_schemas::time::EventTime;

use crate::aside::{DecodeErrors, Undecodable};
use crate::clock::Clock;
use crate::outputs::OutputTopics;
use crate::pipeline::{Epoch, Pipeline};
use crate::windowed::Observed;

/// How the loop cuts epochs and where it publishes.
#[derive(Clone, Debug)]
pub struct LiveOptions {
    /// Names this deployment in dead letters.
    pub application_id: String,
    /// The longest time between a record and its epoch's end.
    pub linger: Duration,
    /// Rows after which an epoch ends early.
    pub rows_max: usize,
    /// The longest time between commits when nothing is published.
    pub commit_every: Duration,
    /// Above this share of undecodable records the loop stops instead of draining a topic into the dead letters.
    pub decode_error_ratio_max: f64,
    /// The topics written to.
    pub topics: OutputTopics,
}

impl Default for LiveOptions {
    /// 25 ms is a fifth of what a person calls instant; 65,536 rows fill DataFusion's batches and bound an epoch's
    /// memory.
    fn default() -> Self {
        Self {
            application_id: "lictor".to_owned(),
            linger: Duration::from_millis(25),
            rows_max: 65_536,
            commit_every: Duration::from_secs(1),
            decode_error_ratio_max: 0.5,
            topics: OutputTopics::default(),
        }
    }
}

/// Watches epochs as they are committed.
pub trait Observer {
    /// An epoch's output is acknowledged and, if anything was read, its offsets are committed.
    fn committed(&mut self, epoch: &Epoch, timing: EpochTiming, pipeline: &Pipeline);

    /// How many records of each partition were not read yet, as the source knows it.
    fn lags(&mut self, _lag: &[(TopicPartition, i64)]) {}

    /// The loop is alive; called once per epoch, before it is committed.
    fn alive(&mut self, _now: EventTime) {}

    /// Whether what groups measure is to be looked at, after this epoch.
    fn looks(&mut self) -> bool {
        false
    }

    /// What groups of some rules measure.
    fn observed(&mut self, _seen: &[(String, Observed)]) {}
}

/// When an epoch happened.
#[derive(Clone, Copy, Debug)]
pub struct EpochTiming {
    /// From the first poll to the acknowledgement of the output.
    pub duration: Duration,
    /// From the broker timestamp of the epoch's newest record to the acknowledgement; none if it had no record.
    pub latency: Option<Duration>,
}

/// Why the loop ended before it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// Reading, publishing or committing failed for good.
    #[error(transparent)]
    Connector(#[from] ConnectorError),
    /// A topic holds something else than what it is bound to.
    #[error(transparent)]
    Undecodable(#[from] Undecodable),
}

/// What the loop did, from start to stop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Records read.
    pub records: u64,
    /// Events published.
    pub events: u64,
    /// Commits of offsets.
    pub commits: u64,
}

/// Runs until `stop` is set or the source ends; the last epoch is committed before it returns.
///
/// # Errors
/// [`LiveError`]; what was not committed is read again by the next start.
pub fn run(
    ends: Ends<'_>,
    pipeline: Pipeline,
    options: LiveOptions,
    stop: &AtomicBool,
    observer: &mut dyn Observer,
) -> Result<Summary, LiveError> {
    let mut live = Loop {
        ends,
        pipeline,
        options,
        positions: Positions::default(),
        last_commit: Duration::ZERO,
        is_dirty: false,
        is_drained: false,
        recent: DecodeErrors::default(),
        summary: Summary::default(),
    };
    let mut has_ended = false;
    while !has_ended && !stop.load(Ordering::Relaxed) {
        has_ended = live.epoch(stop, observer)?;
    }
    live.finish(observer)?;
    Ok(live.summary)
}

/// The loop's connections to the world.
pub struct Ends<'a> {
    /// Where telemetry comes from.
    pub source: &'a mut dyn Source,
    /// Where events go.
    pub sink: &'a mut dyn Sink,
    /// The processing clock.
    pub clock: &'a dyn Clock,
}

struct Loop<'a> {
    ends: Ends<'a>,
    pipeline: Pipeline,
    options: LiveOptions,
    positions: Positions,
    last_commit: Duration,
    /// Whether something was read since the last commit.
    is_dirty: bool,
    /// Whether the source had nothing more in this epoch.
    is_drained: bool,
    recent: DecodeErrors,
    summary: Summary,
}

/// What is next to read of every partition read so far.
#[derive(Default)]
struct Positions {
    next: Vec<(TopicPartition, NextOffset)>,
    newest_ms: i64,
}

impl Positions {
    fn note(&mut self, record: RecordRef<'_>) {
        self.newest_ms = self.newest_ms.max(record.timestamp_ms);
        let is_it =
            |(p, _): &&mut (TopicPartition, NextOffset)| p.partition == record.partition && *p.topic == *record.topic;
        let next = NextOffset::after(record.offset);
        match self.next.iter_mut().find(is_it) {
            Some(known) => known.1 = next,
            None => self.next.push((TopicPartition::new(record.topic, record.partition), next)),
        }
    }

    fn forget(&mut self, partitions: &[TopicPartition]) {
        self.next.retain(|(p, _)| !partitions.contains(p));
    }
}

/// Records that the broker has had for longer than this are a backlog: live ones are here within a second.
const LIVE_AGE_NS: i64 = 5_000_000_000;

/// A poll that comes back so long after its time was not waiting, the process was paused: that nothing came says
/// nothing.
const PAUSE: Duration = Duration::from_secs(1);

impl Loop<'_> {
    /// One epoch; says whether the source has ended.
    fn epoch(&mut self, stop: &AtomicBool, observer: &mut dyn Observer) -> Result<bool, LiveError> {
        let started = self.ends.clock.monotonic();
        let deadline = started + self.options.linger;
        let mut has_ended = false;
        self.is_drained = false;
        while self.pipeline.rows_pending() < self.options.rows_max && !stop.load(Ordering::Relaxed) {
            let wait = deadline.saturating_sub(self.ends.clock.monotonic());
            if wait.is_zero() {
                break;
            }
            match self.poll(wait)? {
                Polled::Record => self.is_dirty = true,
                Polled::Empty => self.is_drained = self.ends.clock.monotonic() < deadline + PAUSE,
                Polled::Ended => {
                    has_ended = true;
                    break;
                }
                Polled::Assignment(change) => {
                    self.end_epoch(started, observer)?;
                    self.reassign(change)?;
                    return Ok(false);
                }
            }
        }
        self.end_epoch(started, observer)?;
        Ok(has_ended)
    }

    fn poll(&mut self, wait: Duration) -> Result<Polled, LiveError> {
        let now = self.ends.clock.now();
        let (pipeline, positions) = (&mut self.pipeline, &mut self.positions);
        let polled = self.ends.source.poll(wait, &mut |record| {
            positions.note(record);
            pipeline.absorb(record, now);
        })?;
        Ok(polled)
    }

    /// Ends the epoch, publishes what it brought and commits.
    fn end_epoch(&mut self, started: Duration, observer: &mut dyn Observer) -> Result<(), LiveError> {
        let now = self.ends.clock.now();
        if self.is_behind(now) {
            self.pipeline.excuse_silence(now);
        }
        let mut epoch = self.pipeline.end_epoch(now);
        observer.alive(self.ends.clock.now());
        self.summary.records += epoch.counts.records;
        self.recent.add(&epoch.counts, self.options.decode_error_ratio_max)?;
        let has_output = self.publish(&mut epoch)?;
        self.commit_if_due(has_output)?;
        let newest = std::mem::take(&mut self.positions.newest_ms);
        let age_ns = self.ends.clock.now().0.saturating_sub(EventTime::from_ms(newest).0);
        let latency = (newest > 0).then(|| Duration::from_nanos(u64::try_from(age_ns).unwrap_or_default()));
        let duration = self.ends.clock.monotonic().saturating_sub(started);
        observer.committed(&epoch, EpochTiming { duration, latency }, &self.pipeline);
        observer.lags(&self.ends.source.backlog());
        if observer.looks() {
            observer.observed(&self.pipeline.observe());
        }
        Ok(())
    }

    /// Whether records of partitions that were not heard may be waiting: a backlog comes partition by partition, and a
    /// process that was paused has asked nobody. Their windows would close over them otherwise, and their rows be lost.
    fn is_behind(&self, now: EventTime) -> bool {
        let newest = EventTime::from_ms(self.positions.newest_ms);
        let is_live = now.0.saturating_sub(newest.0) <= LIVE_AGE_NS;
        !(is_live || self.is_drained)
    }

    /// Publishes an epoch's events, directives, dead letters and late notes; says whether there were any.
    fn publish(&mut self, epoch: &mut Epoch) -> Result<bool, LiveError> {
        let detected_at = self.ends.clock.now();
        for decision in &mut epoch.decisions {
            decision.event.data.detected_at = Some(detected_at);
            for message in self.options.topics.messages_of(decision) {
                self.ends.sink.publish(&message)?;
            }
        }
        self.summary.events += epoch.decisions.len() as u64;
        for letter in &epoch.dead {
            let message = letter.to_message(&self.options.topics.dead_letter, &self.options.application_id);
            self.ends.sink.publish(&message)?;
        }
        for rows in &epoch.late {
            self.ends.sink.publish(&rows.to_message(&self.options.topics.late))?;
        }
        let has_output = !(epoch.decisions.is_empty() && epoch.dead.is_empty() && epoch.late.is_empty());
        if has_output {
            self.ends.sink.flush()?;
        }
        Ok(has_output)
    }

    fn commit_if_due(&mut self, has_output: bool) -> Result<(), LiveError> {
        let since = self.ends.clock.monotonic().saturating_sub(self.last_commit);
        if !self.is_dirty || (!has_output && since < self.options.commit_every) {
            return Ok(());
        }
        self.commit()
    }

    fn commit(&mut self) -> Result<(), LiveError> {
        match self.ends.source.commit(&self.positions.next) {
            Ok(()) => {
                self.last_commit = self.ends.clock.monotonic();
                self.is_dirty = false;
                self.summary.commits += 1;
                Ok(())
            }
            // The next poll rejoins the group; what is still ours then is committed then.
            Err(ConnectorError::Rebalanced { message }) => {
                tracing::warn!(message, "offsets were not committed, the group is rebalancing");
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn reassign(&mut self, change: AssignmentChange) -> Result<(), LiveError> {
        let now = self.ends.clock.now();
        match change {
            AssignmentChange::Assigned(partitions) => {
                partitions.iter().for_each(|p| self.pipeline.assign(p.clone(), now));
            }
            AssignmentChange::Revoked(partitions) => {
                if self.is_dirty {
                    self.commit()?;
                }
                self.drop_partitions(&partitions);
                self.ends.source.release(&partitions)?;
            }
            AssignmentChange::Lost(partitions) => self.drop_partitions(&partitions),
        }
        Ok(())
    }

    fn drop_partitions(&mut self, partitions: &[TopicPartition]) {
        partitions.iter().for_each(|p| self.pipeline.revoke(p));
        self.positions.forget(partitions);
    }

    /// Publishes and commits what is left.
    fn finish(&mut self, observer: &mut dyn Observer) -> Result<(), LiveError> {
        self.end_epoch(self.ends.clock.monotonic(), observer)?;
        if self.is_dirty {
            self.commit()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
