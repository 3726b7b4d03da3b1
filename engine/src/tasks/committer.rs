//! Commits one epoch on a thread of its own, while the next is being read.
//!
//! A commit waits for the broker, some milliseconds at best and many seconds if the broker is away; reading must go on
//! meanwhile, or the group takes us for dead.

use std::cell::Cell;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use lictor_connectors::{AbortCause, ConnectorError, KafkaTransactions, Membership, TransactionError};

use super::{Batch, TaskError};
use crate::clock::Clock;

/// What became of a batch.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It is durable; the commit took so long.
    Committed(Duration),
    /// It has not happened; the label of the metric, and why.
    Aborted(&'static str, String),
}

/// Publishes and commits a batch, or takes it back.
///
/// # Errors
/// The producer is no good any more: another instance has taken its place, or the broker refuses it for good.
pub(super) fn commit(
    transactions: &mut KafkaTransactions,
    batch: &Batch,
    member: &dyn Fn() -> Option<Membership>,
    clock: &dyn Clock,
) -> Result<Outcome, ConnectorError> {
    let started = clock.monotonic();
    let committed = publish(transactions, batch).and_then(|()| match member() {
        Some(member) => transactions.commit(&batch.consumed, &member),
        None => Err(TransactionError::Abort {
            cause: AbortCause::Rebalanced,
            message: "the group is rebalancing".to_owned(),
        }),
    });
    let Err(failed) = committed else {
        return Ok(Outcome::Committed(clock.monotonic().saturating_sub(started)));
    };
    match failed {
        TransactionError::Fatal(error) => Err(error),
        TransactionError::Abort { cause, message } => {
            transactions.abort()?;
            Ok(Outcome::Aborted(cause.as_str(), message))
        }
        TransactionError::TooLarge { topic, bytes } => Err(ConnectorError::TooLarge { topic, bytes }),
    }
}

fn publish(transactions: &mut KafkaTransactions, batch: &Batch) -> Result<(), TransactionError> {
    batch.messages.iter().try_for_each(|message| transactions.publish(&message.outgoing, message.partition))
}

/// The thread that commits.
pub(super) struct Committer {
    batches: Option<SyncSender<(Batch, Option<Membership>)>>,
    outcomes: Receiver<Result<Outcome, ConnectorError>>,
    is_busy: bool,
    thread: Option<JoinHandle<()>>,
}

impl Committer {
    pub(super) fn start<C: Clock + Send + 'static>(
        mut transactions: KafkaTransactions,
        name: &str,
        clock: C,
    ) -> std::io::Result<Self> {
        let (batches, inbox) = sync_channel::<(Batch, Option<Membership>)>(1);
        let (outbox, outcomes) = sync_channel(1);
        let work = move || {
            while let Ok((batch, member)) = inbox.recv() {
                let member = Cell::new(member);
                let outcome = commit(&mut transactions, &batch, &|| member.take(), &clock);
                if outbox.send(outcome).is_err() {
                    break;
                }
            }
        };
        let thread = thread::Builder::new().name(name.to_owned()).spawn(work)?;
        Ok(Self { batches: Some(batches), outcomes, is_busy: false, thread: Some(thread) })
    }

    /// Whether a batch is on its way.
    pub(super) fn is_busy(&self) -> bool {
        self.is_busy
    }

    /// Hands a batch over; only while none is on its way.
    pub(super) fn send(&mut self, batch: Batch, member: Option<Membership>) -> Result<(), TaskError> {
        assert!(!self.is_busy, "one batch at a time");
        self.is_busy = true;
        let sender = self.batches.as_ref().ok_or_else(gone)?;
        sender.send((batch, member)).map_err(|_| gone())
    }

    /// What became of the batch that is on its way, if that is known within `wait`.
    pub(super) fn outcome(&mut self, wait: Duration) -> Result<Option<Outcome>, TaskError> {
        if !self.is_busy {
            return Ok(None);
        }
        let outcome = if wait.is_zero() {
            self.outcomes.try_recv().map_err(|error| error == TryRecvError::Disconnected)
        } else {
            self.outcomes.recv_timeout(wait).map_err(|error| error == RecvTimeoutError::Disconnected)
        };
        match outcome {
            Ok(outcome) => {
                self.is_busy = false;
                Ok(Some(outcome?))
            }
            Err(true) => Err(gone()),
            Err(false) => Ok(None),
        }
    }
}

impl Drop for Committer {
    /// Waits for the thread unless it waits for a broker: what it does not get committed has not happened.
    fn drop(&mut self) {
        self.batches = None;
        if let Some(thread) = self.thread.take().filter(|_| !self.is_busy)
            && thread.join().is_err()
        {
            tracing::error!("the committing thread panicked");
        }
    }
}

fn gone() -> TaskError {
    TaskError::Thread("committer")
}
