//! The judge task's loop: parcels in, events and state out.

use std::thread;
use std::time::Duration;

use lictor_connectors::{
    AssignmentChange, ConnectorError, KafkaRestorer, KafkaSink, KafkaSource, KafkaTransactions, Polled, Sink, Source,
    TopicPartition, failpoint,
};
use lictor_schemas::time::EventTime;

use super::backfiller::Backfiller;
use super::committer::{Outcome, commit};
use super::judge::JudgeEpoch;
use super::reload::{JudgeRules, Reloading, SharedRules};
use super::restorer::Restorer;
use super::run::{Backoff, ReadingOptions, Stage, Stop};
use super::times::Timing;
use super::{Batch, JudgeTask, TaskError, TaskObserver};
use crate::clock::Clock;
use crate::exchange::route::Place;
use crate::packed::PackedError;
use crate::shard::{Restoring, Shard};

/// Bytes of parcels after which an epoch ends: a commit of that size takes a tenth of a second.
const EPOCH_BYTES: usize = 16 << 20;
/// An epoch takes as long as so many commits: under load at most a fifth of the time is spent on committing.
const COMMITS_PER_EPOCH: u32 = 4;
/// However slow commits are, so much work at most is done again after a crash.
const EPOCH_MAX: Duration = Duration::from_secs(1);
/// Long after we were here a shard's topic is empty and begins behind the markers and the aborted parcels that followed
/// the last one judged. Whoever scans writes a parcel per second, so more than this is minutes of parcels lost.
const MARKERS_MAX: i64 = 1_000;
/// How long the parcels that are there when we are told to stop may take; others may go on writing for ever.
const DRAIN_MAX: Duration = Duration::from_secs(5);
/// How often what is read off state is read: Prometheus asks every few seconds.
const STATUS_EVERY: Duration = Duration::from_secs(1);

/// A shard that was read back, how much that was, and how long it took.
pub(super) struct Restored {
    shard: Shard,
    bytes: usize,
    took: Duration,
}

pub(super) struct JudgeLoop<'a, C> {
    source: KafkaSource,
    task: JudgeTask,
    transactions: KafkaTransactions,
    /// Publishes events before their state is committed; none if delivery is exactly once.
    early: Option<KafkaSink>,
    restorer: Restorer<Restored>,
    backfiller: Backfiller,
    reloading: Reloading,
    options: ReadingOptions,
    clock: C,
    stop: &'a Stop<'a>,
    observer: &'a dyn TaskObserver,
    backoff: Backoff,
    committed_at: Duration,
    commit_took: Duration,
    status_at: Duration,
    timing: Timing,
    events: u64,
}

/// What a judge loop writes with.
pub(super) struct Writers {
    pub(super) transactions: KafkaTransactions,
    pub(super) early: Option<KafkaSink>,
}

impl<'a, C: Clock + Copy + Send + 'static> JudgeLoop<'a, C> {
    pub(super) fn try_new(
        source: KafkaSource,
        task: JudgeTask,
        Writers { transactions, early }: Writers,
        (restorer, backfiller, reloading): (Restorer<Restored>, Backfiller, Reloading),
        (options, clock): (ReadingOptions, C),
        (stop, observer): (&'a Stop<'a>, &'a dyn TaskObserver),
    ) -> Self {
        Self {
            source,
            task,
            transactions,
            early,
            restorer,
            backfiller,
            reloading,
            options,
            clock,
            stop,
            observer,
            backoff: Backoff::default(),
            committed_at: Duration::ZERO,
            commit_took: Duration::ZERO,
            status_at: Duration::ZERO,
            timing: Timing::new(Stage::Judge, observer.times()),
            events: 0,
        }
    }

    /// Runs until it is told to stop; the last epoch is committed before it returns. Returns the events published.
    ///
    /// What the scan loop has written at last is judged first: parcels are deleted by age, and who knows when somebody
    /// comes again.
    pub(super) fn run(mut self) -> Result<u64, TaskError> {
        while !self.stop.is_set() {
            self.epoch()?;
            self.reload()?;
        }
        let deadline = self.clock.monotonic() + DRAIN_MAX;
        loop {
            let was_scanned = self.stop.is_scanned();
            let bytes = self.epoch()?;
            if (was_scanned && bytes == 0) || self.clock.monotonic() >= deadline {
                break;
            }
        }
        self.commit(true)?;
        Ok(self.events)
    }

    /// Waits for a parcel, takes what else is there already, and commits. Returns the bytes that were there.
    fn epoch(&mut self) -> Result<usize, TaskError> {
        self.observer.alive(Stage::Judge);
        let mut bytes = self.poll(self.options.linger)?;
        let longest = self.options.linger.max(self.commit_took * COMMITS_PER_EPOCH).min(EPOCH_MAX);
        let deadline = self.clock.monotonic() + longest;
        while (1..EPOCH_BYTES).contains(&bytes) && self.clock.monotonic() < deadline {
            match self.poll(Duration::ZERO)? {
                0 => break,
                more => bytes += more,
            }
        }
        self.take_over()?;
        self.backfill()?;
        self.commit(false)?;
        self.tell_status();
        Ok(bytes)
    }

    /// Waits for one parcel; returns its size, 0 if the epoch must end.
    fn poll(&mut self, wait: Duration) -> Result<usize, TaskError> {
        let (task, mut bytes, mut absorbed) = (&mut self.task, 0, Ok(()));
        let (timing, clock) = (&mut self.timing, self.clock);
        let polled = self.source.poll(wait, &mut |record| {
            let parcel = record.payload.unwrap_or_default();
            bytes = parcel.len().max(1);
            let at = TopicPartition::new(record.topic, record.partition);
            absorbed = timing
                .of_record(&clock, || task.absorb(record.partition, record.offset, parcel))
                .map_err(|error| (at, record.offset, error));
        })?;
        match absorbed {
            Ok(()) => {}
            Err((_, _, PackedError::Malformed(message))) => {
                tracing::error!(message, "a record of the shuffle topic was not written by lictor: left out");
            }
            Err((partition, offset, error)) => return Err(TaskError::Parcel { partition, offset, error }),
        }
        if let Polled::Assignment(change) = polled {
            self.reassign(change)?;
            return Ok(0);
        }
        Ok(bytes)
    }

    /// Commits what was absorbed, if there is something that cannot wait, or if it has waited long enough.
    fn commit(&mut self, is_forced: bool) -> Result<(), TaskError> {
        let monotonic = self.clock.monotonic();
        let is_due = is_forced || monotonic.saturating_sub(self.committed_at) >= self.options.commit_every;
        if !(self.task.has_decisions() || (is_due && self.task.is_dirty())) {
            return Ok(());
        }
        self.committed_at = monotonic;
        let mut epoch = self.task.end_epoch(self.clock.now());
        let messages = self.task.messages_of(&epoch.decisions);
        match &mut self.early {
            Some(sink) => {
                messages.iter().try_for_each(|message| sink.publish(&message.outgoing))?;
                sink.flush()?;
            }
            None => {
                epoch.state.messages.splice(0..0, messages);
            }
        }
        let batch = std::mem::take(&mut epoch.state);
        self.timing.sent((monotonic, self.clock.monotonic()), (0, epoch.decisions.len() as u64));
        match self.commit_batch(&batch)? {
            Outcome::Committed(took) => {
                self.task.commit()?;
                self.backoff.reset();
                self.commit_took = took;
                self.events += epoch.decisions.len() as u64;
                self.tell_committed(&epoch, took);
                Ok(())
            }
            Outcome::Aborted(cause, message) => self.abort(cause, &message),
        }
    }

    fn commit_batch(&mut self, batch: &Batch) -> Result<Outcome, ConnectorError> {
        let source = &self.source;
        commit(&mut self.transactions, batch, &|| source.membership(), &self.clock)
    }

    fn abort(&mut self, cause: &'static str, message: &str) -> Result<(), TaskError> {
        tracing::warn!(stage = "judge", cause, message, "an epoch was not committed and is judged again");
        self.observer.aborted(Stage::Judge, cause);
        self.timing.undone();
        let starts = self.task.undo()?;
        thread::park_timeout(self.backoff.next());
        // What is no longer ours must not be set back.
        while let Polled::Assignment(change) = self.source.poll(Duration::ZERO, &mut |_| ())? {
            self.reassign(change)?;
        }
        let ours: Vec<_> = starts.into_iter().filter(|(shard, _)| self.task.serves(shard.partition)).collect();
        self.source.start_at(&ours)?;
        Ok(())
    }

    /// Goes over to other rules, if there are any: every shard is read back with them.
    fn reload(&mut self) -> Result<(), TaskError> {
        let Some(stages) = self.reloading.next().filter(|_| !self.stop.is_set()) else { return Ok(()) };
        self.commit(true)?;
        let shards: Vec<TopicPartition> = self.task.served().chain(self.restorer.waiting().cloned()).collect();
        tracing::info!(stage = "judge", shards = shards.len(), "going over to other rules");
        self.backfiller.cancel();
        self.reloading.apply(stages, shards.iter().map(|shard| shard.partition).collect());
        self.source.hold(&shards)?;
        for shard in &shards {
            self.task.drop_shard(shard.partition);
            self.restorer.request(shard)?;
        }
        Ok(())
    }

    fn reassign(&mut self, change: AssignmentChange) -> Result<(), TaskError> {
        match change {
            AssignmentChange::Assigned(shards) => {
                if !shards.is_empty() {
                    tracing::info!(stage = "judge", shards = shards.len(), "shards assigned");
                }
                failpoint::hit("judge.assigned");
                shards.iter().try_for_each(|shard| self.restorer.request(shard))?;
                self.tell_if_serving();
            }
            AssignmentChange::Revoked(shards) => {
                failpoint::hit("judge.revoked");
                self.commit(true)?;
                self.forget(&shards);
                self.source.release(&shards)?;
            }
            AssignmentChange::Lost(shards) => {
                tracing::warn!(stage = "judge", shards = shards.len(), "shards lost to another instance");
                self.forget(&shards);
            }
        }
        Ok(())
    }

    fn forget(&mut self, shards: &[TopicPartition]) {
        for shard in shards {
            self.restorer.cancel(shard);
            self.task.drop_shard(shard.partition);
        }
        self.observer.assigned(Stage::Judge, self.task.shards());
    }

    /// Serves the shards that were read back.
    fn take_over(&mut self) -> Result<(), TaskError> {
        while let Some((partition, Restored { shard, bytes, took })) = self.restorer.answer()? {
            self.observer.restored(bytes, took);
            self.reloading.shared.serves(partition.partition);
            let next = self.task.serve(partition.partition, shard);
            self.source.start_at(&[(partition, next)])?;
            self.tell_if_serving();
        }
        Ok(())
    }

    /// Takes over history that was summed up, and lets what else is waited for be.
    fn backfill(&mut self) -> Result<(), TaskError> {
        if let Some(backfilled) = self.backfiller.answer()? {
            let (stores, records) = (backfilled.backfill.stores.len(), backfilled.records);
            if self.task.fill(backfilled) {
                tracing::info!(stores, records, "sums now hold what was read before their rules were there");
            }
        }
        if self.backfiller.is_idle()
            && !self.stop.is_set()
            && let Some((settings, backfill)) = self.task.awaited()
        {
            tracing::info!(
                stores = backfill.stores.len(),
                shards = backfill.shards.len(),
                from = backfill.read_from.to_rfc3339(),
                "reading what came before rules were there"
            );
            self.backfiller.request(settings, backfill)?;
        }
        Ok(())
    }

    fn tell_if_serving(&self) {
        if self.restorer.pending() == 0 {
            self.observer.assigned(Stage::Judge, self.task.shards());
            tracing::info!(shards = self.task.shards(), "serving");
        }
    }

    fn tell_committed(&mut self, epoch: &JudgeEpoch, took: Duration) {
        let latency = epoch.newest.map(|at| age(at, self.clock.now()));
        self.observer.judged(&epoch.decisions, &epoch.limits, latency);
        self.observer.committed(Stage::Judge, took, &[]);
        self.timing.committed(took).iter().for_each(|times| self.observer.timed(times));
    }

    fn tell_status(&mut self) {
        let now = self.clock.monotonic();
        if now >= self.status_at {
            self.status_at = now + STATUS_EVERY;
            if self.observer.looks() {
                self.observer.observed(&self.task.observe());
            }
            self.observer.status(&self.task);
        }
    }
}

fn age(at: EventTime, now: EventTime) -> Duration {
    Duration::from_nanos(u64::try_from(now.0.saturating_sub(at.0)).unwrap_or_default())
}

/// Reads shards back from the state topic.
pub(super) fn restorer<C: Clock + Copy + Send + 'static>(
    mut log: KafkaRestorer,
    rules: SharedRules,
    (state_topic, shards): (String, u32),
    (patience, clock): (Duration, C),
) -> Result<Restorer<Restored>, TaskError> {
    let restore = move |shard: &TopicPartition| {
        let started = clock.monotonic();
        failpoint::hit("judge.restore");
        let committed = log.committed(std::slice::from_ref(shard), patience)?;
        let committed = committed.into_iter().find_map(|(_, committed)| committed).map(|c| c.next);
        let (JudgeRules { settings, inputs, .. }, is_retried) = rules.of_shard(shard.partition);
        let place = Place { shard: u32::try_from(shard.partition).unwrap_or_default(), shards };
        let mut restoring = Restoring::new(&settings, place, is_retried);
        let mut taken = Ok(());
        let partition = TopicPartition::new(&state_topic, shard.partition);
        log.read(&partition, patience, &mut |record| {
            if taken.is_ok() {
                taken = restoring.absorb(record.key.unwrap_or_default(), record.payload);
            }
        })?;
        let failed = |error| TaskError::Restore { shard: shard.partition, error };
        taken.map_err(failed)?;
        let begin = log.begin_of(shard, patience)?;
        if let Some(next) = committed.filter(|next| begin > *next) {
            if begin.0 - next.0 > MARKERS_MAX {
                return Err(TaskError::Truncated { partition: shard.clone(), next, begin });
            }
            let offsets = begin.0 - next.0;
            tracing::warn!(%shard, offsets, "deleted by age before it was read: the ends of transactions, or a parcel");
        }
        let bytes = restoring.bytes();
        let shard = restoring.finish(committed, &inputs).map_err(failed)?;
        failpoint::hit("judge.restored");
        Ok(Restored { shard, bytes, took: clock.monotonic().saturating_sub(started) })
    };
    Ok(Restorer::start("judge-restorer", restore)?)
}
