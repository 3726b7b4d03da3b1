//! Where a group's partitions are started, and how.
//!
//! A partition is moved by seeking, never by giving it up and taking it again: a rebalance may have reached the client
//! without having reached us, and the client takes whatever is given up then for our answer to it. The new holder would
//! start before we have committed.
//!
//! And only numbers are sought. Where a partition begins or ends is asked here and not left to the client, which looks
//! it up in the background: it asks again if the answer comes after a seek, and then follows that answer instead of the
//! seek.

use std::thread;
use std::time::Duration;

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::group::Member;
use super::refused;
use crate::error::{ConnectorError, Fault, Retry};
use crate::record::{NextOffset, TopicPartition};

/// The broker answers in milliseconds; a leader that is being elected takes some seconds.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// A partition that was just assigned starts within milliseconds, and within some seconds if the client asks first
/// where the group has committed.
const START_PAUSE: Duration = Duration::from_millis(5);
const START_PAUSES_MAX: usize = 2_000;

/// A broker answers one question after another. Whoever is started, or asks for something, waits until the fetch that
/// is on its way has found something or has waited for so long; the default is half a second.
const HELD_FETCH_WAIT_MS_MAX: &str = "100";

/// A member of a group, and what its properties say about partitions of which nothing was committed.
pub(super) struct Joining {
    pub(super) consumer: BaseConsumer<Member>,
    pub(super) reset: Reset,
}

impl FromClientConfigAndContext<Member> for Joining {
    fn from_config_and_context(config: &ClientConfig, context: Member) -> KafkaResult<Self> {
        let reset = Reset::from_property(config.get("auto.offset.reset"));
        let mut config = config.clone();
        if context.is_holding && reset == Reset::Latest {
            // Where partitions start is for us to say. What the client does on its own must not skip anything.
            config.set("auto.offset.reset", "earliest");
        }
        if context.is_holding && config.get("fetch.wait.max.ms").is_none() {
            config.set("fetch.wait.max.ms", HELD_FETCH_WAIT_MS_MAX);
        }
        Ok(Self { consumer: BaseConsumer::from_config_and_context(&config, context)?, reset })
    }
}

/// Where a partition starts of which nothing was committed: `auto.offset.reset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reset {
    Earliest,
    Latest,
    Refuse,
}

impl Reset {
    /// The client has checked the value; its default is the end.
    fn from_property(value: Option<&str>) -> Self {
        match value {
            Some("smallest" | "earliest" | "beginning") => Self::Earliest,
            Some("error") => Self::Refuse,
            _ => Self::Latest,
        }
    }

    fn offset_for(self, partition: &TopicPartition) -> Result<Offset, ConnectorError> {
        match self {
            Self::Earliest => Ok(Offset::Beginning),
            Self::Latest => Ok(Offset::End),
            Self::Refuse => Err(ConnectorError::Kafka {
                action: "start partitions",
                message: format!("nothing was committed for {partition}, and auto.offset.reset=error"),
                fault: Fault::User,
                retry: Retry::Never,
            }),
        }
    }
}

/// `starts` in numbers.
pub(super) fn located<'a>(
    consumer: &BaseConsumer<Member>,
    reset: Reset,
    starts: impl Iterator<Item = &'a (TopicPartition, Option<NextOffset>)>,
) -> Result<TopicPartitionList, ConnectorError> {
    let (mut known, mut asked) = (TopicPartitionList::new(), TopicPartitionList::new());
    for (partition, start) in starts {
        let (list, offset) = match start {
            Some(next) => (&mut known, Offset::Offset(next.0)),
            None => (&mut asked, reset.offset_for(partition)?),
        };
        list.add_partition_offset(&partition.topic, partition.partition, offset).map_err(|e| not_started(&e))?;
    }
    if asked.count() == 0 {
        return Ok(known);
    }
    // To the broker, beginning and end are two more times.
    let answered = consumer.offsets_for_times(asked, ANSWER_MAX).map_err(|error| not_started(&error))?;
    for answer in answered.elements() {
        answer.error().map_err(|error| not_started(&error))?;
        known
            .add_partition_offset(answer.topic(), answer.partition(), answer.offset())
            .map_err(|error| not_started(&error))?;
    }
    Ok(known)
}

/// Moves all of `starts`; nothing that was fetched before is handed over afterwards.
pub(super) fn seek(consumer: &BaseConsumer<Member>, mut starts: TopicPartitionList) -> Result<(), ConnectorError> {
    for _ in 0..START_PAUSES_MAX {
        if starts.count() == 0 {
            return Ok(());
        }
        let sought = consumer.seek_partitions(starts, ANSWER_MAX).map_err(|error| not_started(&error))?;
        starts = TopicPartitionList::new();
        for element in sought.elements() {
            match element.error() {
                Ok(()) => {}
                Err(error) if is_early(&error) => starts
                    .add_partition_offset(element.topic(), element.partition(), element.offset())
                    .map_err(|error| not_started(&error))?,
                Err(error) => return Err(not_started(&error)),
            }
        }
        if starts.count() > 0 {
            thread::sleep(START_PAUSE);
        }
    }
    let waiting: Vec<_> = starts.elements().iter().map(|e| format!("{}[{}]", e.topic(), e.partition())).collect();
    Err(ConnectorError::Kafka {
        action: "start partitions",
        message: format!("the client did not begin to fetch {}", waiting.join(", ")),
        fault: Fault::External,
        retry: Retry::Backoff,
    })
}

/// Has a client that fetches nothing look at once for something to fetch. It looks once a second, and whenever it has
/// something to send.
pub(super) fn wake(consumer: &BaseConsumer<Member>, starts: &TopicPartitionList) -> Result<(), ConnectorError> {
    let mut asked = starts.clone();
    asked.set_all_offsets(Offset::Beginning).map_err(|error| not_started(&error))?;
    // The answer says nothing new but is waited for: unanswered questions cost the client its connection.
    consumer.offsets_for_times(asked, ANSWER_MAX).map_err(|error| not_started(&error))?;
    Ok(())
}

/// The client has not begun to fetch the partition, or did something of its own to it at the same moment.
fn is_early(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(error.rdkafka_error_code(), Some(Code::State | Code::PreviousInProgress | Code::Outdated))
}

fn not_started(error: &KafkaError) -> ConnectorError {
    refused("start partitions", error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_spellings_of_where_to_start_are_known() {
        for (value, reset) in [
            (Some("earliest"), Reset::Earliest),
            (Some("smallest"), Reset::Earliest),
            (Some("beginning"), Reset::Earliest),
            (Some("latest"), Reset::Latest),
            (Some("largest"), Reset::Latest),
            (Some("end"), Reset::Latest),
            (None, Reset::Latest),
            (Some("error"), Reset::Refuse),
        ] {
            assert_eq!(Reset::from_property(value), reset, "{value:?}");
        }
    }
}
