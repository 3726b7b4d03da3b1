//! Finds out, on a thread of its own, what a newly assigned partition needs before it can be read.
//!
//! The broker may make us wait: for the open transaction of a predecessor that died, or for megabytes of state. The
//! partitions that are served already must not stand still for that, and the group must go on hearing of us.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread;

use lictor_connectors::{Retry, TopicPartition};

use super::TaskError;

/// Partitions that may wait for their turn; an instance of more would have run out of memory before. A channel takes
/// the room for its most at once, of which answers are therefore no part.
const WAITING_MAX: usize = 16_384;

/// The number of a request, for which partition it was, and what came of it.
type Answer<T> = (u64, TopicPartition, Box<Result<T, TaskError>>);

/// Asks for one partition after the other.
pub(super) struct Restorer<T> {
    requests: SyncSender<(u64, TopicPartition)>,
    answers: Receiver<Answer<T>>,
    /// The number of the request that counts.
    pending: BTreeMap<TopicPartition, u64>,
    requested: u64,
}

impl<T: Send + 'static> Restorer<T> {
    /// `restore` is called on the new thread, once per request.
    pub(super) fn start(
        name: &str,
        mut restore: impl FnMut(&TopicPartition) -> Result<T, TaskError> + Send + 'static,
    ) -> std::io::Result<Self> {
        let (requests, inbox) = sync_channel::<(u64, TopicPartition)>(WAITING_MAX);
        let (outbox, answers) = sync_channel(WAITING_MAX);
        let work = move || {
            while let Ok((number, partition)) = inbox.recv() {
                let answer = Box::new(restore(&partition));
                if outbox.send((number, partition, answer)).is_err() {
                    break;
                }
            }
        };
        // Not joined: it may be waiting for the broker when the process wants to end.
        thread::Builder::new().name(name.to_owned()).spawn(work)?;
        Ok(Self { requests, answers, pending: BTreeMap::new(), requested: 0 })
    }

    /// Asks for a partition.
    pub(super) fn request(&mut self, partition: &TopicPartition) -> Result<(), TaskError> {
        self.requested += 1;
        self.pending.insert(partition.clone(), self.requested);
        self.requests.try_send((self.requested, partition.clone())).map_err(|_| TaskError::Thread("restorer"))
    }

    /// The answer is not wanted any more.
    pub(super) fn cancel(&mut self, partition: &TopicPartition) {
        self.pending.remove(partition);
    }

    /// The partitions that are waited for.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &TopicPartition> {
        self.pending.keys()
    }

    /// How many partitions are waited for.
    pub(super) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// The next answer, if there is one. What could be answered later is asked again.
    pub(super) fn answer(&mut self) -> Result<Option<(TopicPartition, T)>, TaskError> {
        loop {
            let (number, partition, answer) = match self.answers.try_recv() {
                Ok(answer) => answer,
                Err(TryRecvError::Empty) => return Ok(None),
                Err(TryRecvError::Disconnected) => return Err(TaskError::Thread("restorer")),
            };
            if self.pending.get(&partition) != Some(&number) {
                continue;
            }
            match *answer {
                Ok(answer) => {
                    self.pending.remove(&partition);
                    return Ok(Some((partition, answer)));
                }
                Err(TaskError::Connector(error)) if error.retry() == Retry::Backoff => {
                    tracing::warn!(%partition, %error, "the partition cannot be taken over yet");
                    self.request(&partition)?;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(number: i32) -> TopicPartition {
        TopicPartition::new("t", number)
    }

    fn wait<T: Send + 'static>(restorer: &mut Restorer<T>) -> (TopicPartition, T) {
        loop {
            if let Some(answer) = restorer.answer().unwrap() {
                return answer;
            }
            thread::yield_now();
        }
    }

    #[test]
    fn only_the_newest_request_for_a_partition_is_answered() {
        let mut count = 0;
        let counting = move |_: &TopicPartition| {
            count += 1;
            Ok(count)
        };
        let mut restorer = Restorer::start("test", counting).unwrap();
        restorer.request(&partition(0)).unwrap();
        restorer.cancel(&partition(0));
        restorer.request(&partition(0)).unwrap();
        restorer.request(&partition(1)).unwrap();
        assert_eq!(wait(&mut restorer), (partition(0), 2));
        assert_eq!(wait(&mut restorer), (partition(1), 3));
        assert_eq!(restorer.pending(), 0);
    }
}
