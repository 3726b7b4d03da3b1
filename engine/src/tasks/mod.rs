//! The two stages of `run`, each an exactly-once task: consume, process, produce.
//!
//! A task owns a consumer, a transactional producer and everything in between; one thread runs it. What is a decision
//! and what is I/O are apart: [`ScanTask`] and [`JudgeTask`] say what an epoch writes and take back what was not
//! committed, the loops ([`scan_loop`], [`judge_loop`]) talk to Kafka.
//!
//! Invariant: every transaction ends with the offsets it was made from, and nothing is visible before it is committed.

mod backfiller;
mod committer;
mod judge;
mod judge_loop;
mod look;
mod reload;
mod restorer;
mod run;
mod scan;
mod scan_loop;
mod times;

use lictor_connectors::{Consumed, Outgoing};

pub use judge::JudgeTask;
pub(crate) use look::Rota;
pub use run::{Delivery, ReadingOptions, Stage, Summary, TaskError, TaskObserver, TaskOptions, run, run_reloading};
pub use scan::{ScanEpoch, ScanTask};
pub use times::EpochTimes;

use crate::outputs::OutputTopics;

/// The topics that the tasks write to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskTopics {
    /// Partial sums, by shard.
    pub shuffle: String,
    /// What shards remember.
    pub state: String,
    /// For others to read.
    pub outputs: OutputTopics,
}

/// A message, and its partition if it is not chosen by the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The message.
    pub outgoing: Outgoing,
    /// The partition.
    pub partition: Option<i32>,
}

impl Message {
    fn to_partition(topic: &str, partition: i32, payload: Vec<u8>) -> Self {
        let outgoing = Outgoing { topic: topic.to_owned(), key: None, payload: Some(payload), headers: Vec::new() };
        Self { outgoing, partition: Some(partition) }
    }
}

/// What one transaction writes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// In the order in which they must be published.
    pub messages: Vec<Message>,
    /// How far the input was read.
    pub consumed: Vec<Consumed>,
}

impl Batch {
    /// Whether there is nothing to commit.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.consumed.is_empty()
    }
}

#[cfg(test)]
mod tests;
