//! Where records come from, as the loop sees it.
//!
//! One record per call and borrowed: nothing is copied between the client's fetch buffer and the decoder, and the loop
//! can close an epoch after any record. Rebalances are values that `poll` returns and not callbacks, so that the loop
//! alone decides when a partition is let go.

use std::time::Duration;

use crate::error::ConnectorError;
use crate::record::{NextOffset, RecordRef, TopicPartition};

/// What one call of [`Source::poll`] brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Polled {
    /// One record was handed over.
    Record,
    /// Nothing came within the time, or something the loop need not know.
    Empty,
    /// Nothing will ever come again (recorded files only).
    Ended,
    /// The set of partitions this source reads changes.
    Assignment(AssignmentChange),
}

/// How the set of partitions changes. The lists may be empty: a rebalance can leave everything as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AssignmentChange {
    /// Records of these partitions will follow, from their committed offsets on.
    Assigned(Vec<TopicPartition>),
    /// These partitions go to another member. They are still ours until [`Source::release`]: commit, then release.
    Revoked(Vec<TopicPartition>),
    /// These partitions already belong to somebody else: what was read of them since the last commit must be dropped.
    /// They are released already.
    Lost(Vec<TopicPartition>),
}

/// A stream of records from one or more partitions, ordered within each of them.
pub trait Source {
    /// Waits at most `wait`, rounded up to whole milliseconds, for one record and hands it to `absorb`, borrowed.
    ///
    /// `absorb` is called exactly once if the answer is [`Polled::Record`], and not at all otherwise.
    ///
    /// # Errors
    /// A fatal state of the client, a refused authorisation, a recorded file that breaks off. What the client recovers
    /// from by itself (a broker that is away, a topic that does not exist yet) is logged and is not an error.
    fn poll(&mut self, wait: Duration, absorb: &mut dyn FnMut(RecordRef<'_>)) -> Result<Polled, ConnectorError>;

    /// Makes the offsets durable: a restart continues at them.
    ///
    /// Only to be called after everything derived from the records before them was flushed.
    ///
    /// # Errors
    /// [`ConnectorError::Rebalanced`] if the group moved on meanwhile; nothing was made durable then.
    fn commit(&mut self, next: &[(TopicPartition, NextOffset)]) -> Result<(), ConnectorError>;

    /// Answers a revocation, after the loop has committed what it read of `partitions`. Does nothing if no revocation
    /// is waiting for its answer.
    ///
    /// # Errors
    /// The client refuses the answer.
    fn release(&mut self, partitions: &[TopicPartition]) -> Result<(), ConnectorError>;

    /// How many records of each partition were not handed over yet, where that is known.
    fn backlog(&self) -> Vec<(TopicPartition, i64)> {
        Vec::new()
    }
}
