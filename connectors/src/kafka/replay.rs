//! From where partitions must be read again so that state in memory can be rebuilt.

use std::time::Duration;

use lictor_schemas::time::EventTime;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::{Offset, TopicPartitionList};

use super::refused;
use crate::error::ConnectorError;
use crate::record::{NextOffset, TopicPartition};

/// The broker answers both questions in milliseconds; a coordinator that is being elected takes some seconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where to start partitions, and how far each is only a repetition.
pub(super) struct Plan {
    pub(super) starts: TopicPartitionList,
    pub(super) targets: Vec<(TopicPartition, NextOffset)>,
}

/// Compares where the group has committed with the first offset at or after `since`.
pub(super) fn plan<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    partitions: &[TopicPartition],
    since: EventTime,
) -> Result<Plan, ConnectorError> {
    let asked = |error| refused("ask where to replay from", &error);
    let mut times = TopicPartitionList::with_capacity(partitions.len());
    let mut wanted = TopicPartitionList::with_capacity(partitions.len());
    for partition in partitions {
        let at = Offset::Offset(since.to_ms().max(0));
        times.add_partition_offset(&partition.topic, partition.partition, at).map_err(asked)?;
        wanted.add_partition(&partition.topic, partition.partition);
    }
    let committed = consumer.committed_offsets(wanted, PATIENCE).map_err(asked)?;
    let first = consumer.offsets_for_times(times, PATIENCE).map_err(asked)?;
    let mut plan = Plan { starts: TopicPartitionList::with_capacity(partitions.len()), targets: Vec::new() };
    for partition in partitions {
        let offset_in =
            |list: &TopicPartitionList| list.find_partition(&partition.topic, partition.partition).map(|e| e.offset());
        let start = match (offset_in(&committed), offset_in(&first)) {
            (Some(Offset::Offset(committed)), Some(Offset::Offset(first))) if first < committed => {
                plan.targets.push((partition.clone(), NextOffset(committed)));
                Offset::Offset(first)
            }
            (Some(committed @ Offset::Offset(_)), _) => committed,
            _ => Offset::Invalid,
        };
        plan.starts.add_partition_offset(&partition.topic, partition.partition, start).map_err(asked)?;
    }
    Ok(plan)
}
