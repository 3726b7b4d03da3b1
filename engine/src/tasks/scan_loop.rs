//! The scan task's loop: telemetry in, parcels out.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use lictor_connectors::{
    AssignmentChange, Committed, KafkaRestorer, KafkaSource, KafkaTransactions, NextOffset, Polled, Retry, Source,
    TopicPartition, failpoint,
};
use lictor_schemas::time::EventTime;

use super::committer::{Committer, Outcome};
use super::reload::NextRules;
use super::restorer::Restorer;
use super::run::{Backoff, ReadingOptions, Stage, Stop};
use super::scan::ScanEpoch;
use super::times::Timing;
use super::{Batch, ScanTask, TaskError, TaskObserver};
use crate::aside::DecodeErrors;
use crate::clock::Clock;
use crate::scan_stage::ScanCounts;

/// An epoch lasts so many times as long while every record is there before it is asked for: alerts about what lies in a
/// backlog are late already, and fewer, larger epochs read it sooner.
const LINGERS_BEHIND: u32 = 4;
/// A broker that is away is asked again after the next silence.
const ANSWER_WAIT: Duration = Duration::from_secs(1);
/// How often a broker that could not say is asked again which input partitions there are.
const SOURCES_EVERY: Duration = Duration::from_secs(1);
/// As long as this we wait for a commit without polling; the group hears of us in the background.
const COMMIT_WAIT: Duration = Duration::from_secs(5);
/// How often what scanning has cost is told.
const STATUS_EVERY: Duration = Duration::from_secs(1);

pub(super) struct ScanLoop<'a, C> {
    source: KafkaSource,
    task: ScanTask,
    committer: Committer,
    restorer: Restorer<Option<Committed>>,
    rules: NextRules,
    options: ReadingOptions,
    clock: C,
    stop: &'a Stop<'a>,
    observer: &'a dyn TaskObserver,
    backoff: Backoff,
    decode_errors: DecodeErrors,
    /// What was counted of the batch on its way, and since.
    counts: ScanCounts,
    committed_at: Duration,
    /// When to ask which input partitions there are; nothing is begun before that is known.
    sources_at: Option<Duration>,
    /// Silent partitions that the broker has said to go on, and up to where we had read them then.
    doubted: BTreeMap<TopicPartition, Option<NextOffset>>,
    status_at: Duration,
    timing: Timing,
    records: u64,
}

impl<'a, C: Clock + Copy + Send + 'static> ScanLoop<'a, C> {
    pub(super) fn try_new(
        source: KafkaSource,
        task: ScanTask,
        (transactions, asker): (KafkaTransactions, KafkaRestorer),
        rules: NextRules,
        (options, clock): (ReadingOptions, C),
        (stop, observer): (&'a Stop<'a>, &'a dyn TaskObserver),
    ) -> Result<Self, TaskError> {
        let patience = options.patience;
        let ask = move |partition: &TopicPartition| {
            let committed = asker.committed(std::slice::from_ref(partition), patience)?;
            let committed = committed.into_iter().find_map(|(_, committed)| committed);
            let begin = asker.begin_of(partition, patience)?;
            if let Some(missed) = committed.as_ref().map(|c| begin.0 - c.next.0).filter(|missed| *missed > 0) {
                tracing::error!(%partition, missed, "telemetry was deleted before it was read: nobody judges it");
            }
            Ok(committed)
        };
        Ok(Self {
            source,
            task,
            committer: Committer::start(transactions, "scan-committer", clock)?,
            restorer: Restorer::start("scan-restorer", ask)?,
            rules,
            options,
            clock,
            stop,
            observer,
            backoff: Backoff::default(),
            decode_errors: DecodeErrors::default(),
            counts: ScanCounts::default(),
            committed_at: Duration::ZERO,
            sources_at: None,
            doubted: BTreeMap::new(),
            status_at: Duration::ZERO,
            timing: Timing::new(Stage::Scan, observer.times()),
            records: 0,
        })
    }

    /// Runs until it is told to stop; the last epoch is committed before it returns. Returns the records read.
    pub(super) fn run(mut self) -> Result<u64, TaskError> {
        while !self.stop.is_set() {
            self.epoch()?;
        }
        self.commit_all()?;
        Ok(self.records)
    }

    fn epoch(&mut self) -> Result<(), TaskError> {
        self.observer.alive(Stage::Scan);
        self.reload()?;
        let (began, linger) = (self.clock.monotonic(), self.options.linger);
        let mut is_behind = true;
        while self.task.rows_pending() < self.options.rows_max && !self.stop.is_set() {
            let ends = began + if is_behind { linger * LINGERS_BEHIND } else { linger };
            let left = ends.saturating_sub(self.clock.monotonic());
            if left.is_zero() {
                break;
            }
            match self.poll(if is_behind { Duration::ZERO } else { left })? {
                Polled::Record => {}
                Polled::Empty => is_behind = false,
                Polled::Ended | Polled::Assignment(_) => break,
            }
        }
        self.ask_for_sources()?;
        self.take_over()?;
        self.tell_status();
        self.end_epoch()
    }

    fn tell_status(&mut self) {
        let now = self.clock.monotonic();
        if self.observer.looks() && now >= self.status_at {
            self.status_at = now + STATUS_EVERY;
            self.observer.scan_spent(self.task.stage().spent());
        }
    }

    /// Goes over to other rules, if there are any.
    fn reload(&mut self) -> Result<(), TaskError> {
        let Some(rules) = self.rules.take() else { return Ok(()) };
        self.commit_all()?;
        self.source.read_topics(&rules.inputs)?;
        self.task.replace_rules(rules);
        self.sources_at = Some(self.clock.monotonic());
        Ok(())
    }

    /// Waits for one record. The epoch must end when partitions come or go; that is answered already.
    fn poll(&mut self, wait: Duration) -> Result<Polled, TaskError> {
        let (task, timing, clock, now) = (&mut self.task, &mut self.timing, self.clock, self.clock.now());
        let polled = self.source.poll(wait, &mut |record| timing.of_record(&clock, || task.absorb(record, now)))?;
        if let Polled::Assignment(change) = &polled {
            self.reassign(change.clone())?;
        }
        Ok(polled)
    }

    /// Hands an epoch over to be committed, unless the one before is still on its way.
    fn end_epoch(&mut self) -> Result<(), TaskError> {
        let is_full = self.task.rows_pending() >= self.options.rows_max;
        let wait = if is_full { COMMIT_WAIT } else { Duration::ZERO };
        self.settle(wait)?;
        if self.committer.is_busy() {
            return if is_full { self.hold() } else { Ok(()) };
        }
        let monotonic = self.clock.monotonic();
        let is_due = monotonic.saturating_sub(self.committed_at) >= self.options.commit_every;
        let batch = self.finish_epoch(is_due)?;
        if is_due {
            self.committed_at = monotonic;
        }
        self.send(batch, monotonic)
    }

    /// Hands over what an epoch writes, if it writes anything; it was asked for at `asked_at`.
    fn send(&mut self, batch: Batch, asked_at: Duration) -> Result<(), TaskError> {
        if batch.is_empty() {
            return Ok(());
        }
        let rows = self.counts.rows_used.values().sum();
        self.timing.sent((asked_at, self.clock.monotonic()), (rows, 0));
        self.committer.send(batch, self.source.membership())
    }

    /// What an epoch writes.
    fn finish_epoch(&mut self, is_due: bool) -> Result<Batch, TaskError> {
        let now = self.clock.now();
        self.look_at_silence(now);
        let ScanEpoch { batch, counts } = self.task.end_epoch(now, is_due);
        self.records += counts.records;
        self.decode_errors.add(&counts, self.options.decode_error_ratio_max)?;
        self.counts.add(counts);
        Ok(batch)
    }

    /// Looks after the batch on its way.
    fn settle(&mut self, wait: Duration) -> Result<(), TaskError> {
        match self.committer.outcome(wait)? {
            None => Ok(()),
            Some(Outcome::Committed(took)) => {
                self.task.commit();
                self.backoff.reset();
                self.observer.scanned(&std::mem::take(&mut self.counts));
                self.observer.committed(Stage::Scan, took, &self.source.backlog());
                self.timing.committed(took).iter().for_each(|times| self.observer.timed(times));
                Ok(())
            }
            Some(Outcome::Aborted(cause, message)) => self.abort(cause, &message),
        }
    }

    /// While the broker does not let us commit, reading stands still; the group must go on hearing of us.
    fn hold(&mut self) -> Result<(), TaskError> {
        self.source.hold(self.task.partitions())?;
        while self.committer.is_busy() && !self.stop.is_set() {
            self.observer.alive(Stage::Scan);
            if let Polled::Assignment(change) = self.source.poll(self.options.linger, &mut |_| ())? {
                self.reassign(change)?;
            }
            self.settle(Duration::ZERO)?;
        }
        let reads: Vec<_> = self.task.standings().collect();
        self.source.start_at(&reads)?;
        Ok(())
    }

    fn abort(&mut self, cause: &'static str, message: &str) -> Result<(), TaskError> {
        tracing::warn!(stage = "scan", cause, message, "an epoch was not committed and is read again");
        self.observer.aborted(Stage::Scan, cause);
        self.counts = ScanCounts::default();
        self.timing.undone();
        let starts = self.task.undo(self.clock.now());
        thread::park_timeout(self.backoff.next());
        // What is no longer ours must not be set back.
        while let Polled::Assignment(change) = self.source.poll(Duration::ZERO, &mut |_| ())? {
            self.reassign(change)?;
        }
        let ours: Vec<_> = starts.into_iter().filter(|(partition, _)| self.task.reads(partition)).collect();
        self.source.start_at(&ours)?;
        Ok(())
    }

    /// Commits everything that was read.
    fn commit_all(&mut self) -> Result<(), TaskError> {
        self.settle_for_sure()?;
        let asked_at = self.clock.monotonic();
        let batch = self.finish_epoch(true)?;
        self.send(batch, asked_at)?;
        self.settle_for_sure()
    }

    /// Waits until it is known what has become of the batch on its way: whoever goes on without knowing that may count
    /// a record twice.
    fn settle_for_sure(&mut self) -> Result<(), TaskError> {
        self.settle(self.options.patience)?;
        if self.committer.is_busy() { Err(TaskError::Undecided) } else { Ok(()) }
    }

    fn reassign(&mut self, change: AssignmentChange) -> Result<(), TaskError> {
        match change {
            AssignmentChange::Assigned(partitions) => {
                if !partitions.is_empty() {
                    tracing::info!(stage = "scan", partitions = partitions.len(), "partitions assigned");
                }
                failpoint::hit("scan.assigned");
                partitions.iter().try_for_each(|partition| self.restorer.request(partition))?;
                self.tell_if_serving();
                self.sources_at = Some(self.clock.monotonic());
            }
            AssignmentChange::Revoked(partitions) => {
                failpoint::hit("scan.revoked");
                self.commit_all()?;
                self.forget(&partitions);
                self.source.release(&partitions)?;
            }
            AssignmentChange::Lost(partitions) => {
                tracing::warn!(stage = "scan", partitions = partitions.len(), "partitions lost to another instance");
                self.settle_for_sure()?;
                self.forget(&partitions);
                // Their rows are in the same sums as the others'.
                let starts = self.task.undo(self.clock.now());
                self.counts = ScanCounts::default();
                self.timing.undone();
                self.source.start_at(&starts)?;
            }
        }
        Ok(())
    }

    fn forget(&mut self, partitions: &[TopicPartition]) {
        for partition in partitions {
            self.restorer.cancel(partition);
            self.task.revoke(partition);
            self.doubted.remove(partition);
        }
        self.observer.assigned(Stage::Scan, self.task.partitions().count());
    }

    /// Asks which input partitions there are, if that must be known: windows wait for all of them.
    fn ask_for_sources(&mut self) -> Result<(), TaskError> {
        let monotonic = self.clock.monotonic();
        if self.sources_at.is_none_or(|at| monotonic < at) {
            return Ok(());
        }
        match self.source.partitions(ANSWER_WAIT) {
            Ok(topics) => {
                self.task.expect(&topics);
                self.sources_at = None;
                Ok(())
            }
            Err(error) if error.retry() == Retry::Backoff => {
                tracing::warn!(%error, "which input partitions there are is not known yet");
                self.sources_at = Some(monotonic + SOURCES_EVERY);
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Begins to read the partitions of which we know by now where.
    fn take_over(&mut self) -> Result<(), TaskError> {
        if self.sources_at.is_some() {
            return Ok(());
        }
        while let Some((partition, committed)) = self.restorer.answer()? {
            let started = self.source.start_at(&[(partition, committed.as_ref().map(|c| c.next))])?;
            for (partition, next) in started {
                let metadata = committed.as_ref().map_or_else(String::new, |c| c.metadata.clone());
                self.task.assign(&partition, &Committed { next, metadata }, self.clock.now());
            }
            self.tell_if_serving();
        }
        Ok(())
    }

    fn tell_if_serving(&self) {
        if self.restorer.pending() == 0 {
            self.observer.assigned(Stage::Scan, self.task.partitions().count());
        }
    }

    /// A partition falls idle only if the broker says that there is nothing more to read. If it does not answer, or if
    /// there is, the silence is ours. A partition that ends with the marks of transactions seems to go on for ever: if
    /// we are no further after the next silence, it is at its end.
    ///
    /// `now` is the tick that lets partitions fall idle.
    fn look_at_silence(&mut self, now: EventTime) {
        let silent = self.task.stage_mut().falling_idle(now);
        if silent.is_empty() {
            return;
        }
        let standings: BTreeMap<TopicPartition, Option<NextOffset>> = self.task.standings().collect();
        let mut is_away = false;
        for partition in silent {
            let next = standings.get(&partition).copied().flatten();
            let end = if is_away { None } else { self.source.end_of(&partition, ANSWER_WAIT).ok() };
            is_away |= end.is_none();
            let is_at_end = end.is_some_and(|end| next.is_none_or(|next| next >= end));
            let is_known = end.is_some() && self.doubted.get(&partition) == Some(&next);
            if is_at_end || is_known {
                self.doubted.remove(&partition);
                continue;
            }
            if end.is_some() {
                self.doubted.insert(partition.clone(), next);
            }
            self.task.stage_mut().excuse(&partition, now);
        }
    }
}
