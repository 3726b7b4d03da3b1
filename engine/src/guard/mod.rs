//! The guard: answers whether a call may go on, from the directives that hold now.
//!
//! One loop ([`follow`]) keeps the compacted topics of directives in memory, those in shadow mode too, one HTTP thread
//! ([`serve`]) answers gateways. They share a [`Guard`]. The loop takes over batches under a short write lock; an
//! answer is a few look-ups under the read lock, one per set of columns by which directives select, however many
//! directives there are.
//!
//! What is not known is not guessed: until the topics were read to their ends, and when the broker has been away for
//! too long, the configuration says whether calls go on ([`OnStale`]), and every answer says that it was so. Directives
//! that are in force apply even then: each carries its own end.
//!
//! Invariant: time is an argument. Which directives apply to a request is a function of the records so far, the
//! request and `now`.

mod answer;
pub mod decisions;
mod follow;
mod held;
mod http;
mod index;
mod metrics;
mod options;
mod staleness;

use std::mem;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use lictor_schemas::columns::{ExtraSource, RequestColumns, RequestReader};
use lictor_schemas::time::EventTime;

pub use answer::{Outcome, Verdict};
use decisions::{Caller, Queue};
pub use follow::follow;
pub use held::{Change, Held, SelectorTexts, Unreadable};
pub use http::serve;
pub use index::{DirectiveIndex, Found, Put};
pub use metrics::{GuardMetrics, RecordedCounts};
pub(crate) use options::header_name;
pub use options::{GuardOptions, OnStale};
pub use staleness::{Stale, Staleness};

/// What the loop and the HTTP thread share.
#[derive(Debug)]
pub struct Guard {
    options: GuardOptions,
    reader: RequestReader,
    index: RwLock<DirectiveIndex>,
    staleness: Staleness,
    metrics: GuardMetrics,
    /// Where spans of stopped calls go, if anybody wants them.
    recorder: Option<Queue>,
}

impl Guard {
    /// Holds nothing and has read nothing. `columns` are the attributes of the configuration that feed columns.
    #[must_use]
    pub fn new(options: GuardOptions, columns: &[ExtraSource]) -> Self {
        let index = RwLock::new(DirectiveIndex::new(options.directives_max));
        let staleness = Staleness::new(options.stale_after);
        Self {
            options,
            reader: RequestReader::new(columns),
            index,
            staleness,
            metrics: GuardMetrics::new(),
            recorder: None,
        }
    }

    /// Leaves the spans of the calls that it stops in a queue.
    #[must_use]
    pub fn recording(self, to: Queue) -> Self {
        Self { recorder: Some(to), ..self }
    }

    /// How it was configured.
    #[must_use]
    pub fn options(&self) -> &GuardOptions {
        &self.options
    }

    /// Reads requests as the telemetry is read.
    #[must_use]
    pub fn reader(&self) -> &RequestReader {
        &self.reader
    }

    /// Whether what it knows is all there is.
    #[must_use]
    pub fn staleness(&self) -> &Staleness {
        &self.staleness
    }

    /// What it counts.
    #[must_use]
    pub fn metrics(&self) -> &GuardMetrics {
        &self.metrics
    }

    /// What it counts in the OpenMetrics text format, as of `monotonic` since the clock was started.
    #[must_use]
    pub fn encode(&self, monotonic: Duration) -> String {
        self.metrics.encode(self.staleness.age(monotonic), self.staleness.at(monotonic).is_ok())
    }

    /// Whether a call may go on: at `now` by the wall clock, at `monotonic` since the clock was started. Counts it.
    pub fn decide(&self, request: &RequestColumns<'_>, now: EventTime, monotonic: Duration) -> Verdict {
        let found = self.read().find(request, now);
        let stale = self.staleness.at(monotonic).err();
        let verdict = Verdict::new(found, stale, self.options.on_stale);
        self.metrics.observe(&verdict);
        verdict
    }

    /// Leaves the span of a call that was stopped at `now` in the queue, if there is one; the call was `caller`'s.
    pub fn record(&self, verdict: &Verdict, request: &RequestColumns<'_>, caller: Option<Caller>, now: EventTime) {
        let Some(queue) = &self.recorder else { return };
        let ids = (fastrand::u128(1..), fastrand::u64(1..));
        if let Some(message) = decisions::message(verdict, request, caller, now, ids) {
            decisions::leave(queue, message, self.metrics.recorded());
        }
    }

    /// Takes over what the topic says, in its order.
    pub fn apply(&self, changes: Vec<Change>) {
        let mut index = self.write();
        for change in changes {
            let outcome = index.apply(change);
            self.metrics.observe_put(outcome);
            if outcome == Put::LeftOut {
                self.staleness.set_incomplete(true);
            }
        }
        self.metrics.observe_index(&index);
    }

    /// Drops directives whose end has passed, at most `directives_max` of them, so that answers need not wait long.
    pub fn expire(&self, now: EventTime, directives_max: usize) {
        let mut index = self.write();
        let expired = index.expire(now, directives_max);
        self.metrics.observe_expired(expired);
        self.metrics.observe_index(&index);
    }

    /// Takes another index over, once the whole topic is in it.
    pub fn replace(&self, index: DirectiveIndex) {
        self.staleness.set_incomplete(index.is_incomplete());
        self.metrics.observe_index(&index);
        let before = mem::replace(&mut *self.write(), index);
        // Not under the lock: a hundred thousand directives take a while to free.
        drop(before);
    }

    /// The directives that are held now.
    pub fn read(&self) -> RwLockReadGuard<'_, DirectiveIndex> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, DirectiveIndex> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }
}
