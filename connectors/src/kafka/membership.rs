//! Who a consumer is in its group, checked before it is sent.
//!
//! Offsets in a transaction are refused by the broker unless they come from a current member: that is what fences a
//! process that was stopped and missed its partitions being given away. But a broker asks no questions if generation -1
//! and an empty member id are sent, for the sake of old clients, and those are exactly what the client falls back to
//! when it learns that it was thrown out, before it says so. So identities are made here only, and only complete ones;
//! who means to have none says so ([`OutsideOfGroup`]).
//!
//! The client library hands out the identity without showing it, so this module asks the C library.

use std::ffi::CStr;
use std::fmt;
use std::ptr::NonNull;

use rdkafka::bindings;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, ConsumerGroupMetadata};

/// A member's identity at one moment: [`KafkaTransactions::commit`](super::KafkaTransactions::commit) sends it with the
/// offsets.
///
/// It may be sent to another thread. If the group moves on meanwhile, the broker refuses it.
pub struct Membership {
    metadata: ConsumerGroupMetadata,
    identity: Identity,
}

impl Membership {
    /// The identity of `consumer` now; `None` while it is not a member, or no longer one.
    pub(super) fn fresh<C: ConsumerContext>(consumer: &BaseConsumer<C>) -> Option<Self> {
        // The identity that is sent and the one that is looked at are asked for one after the other. Generations only
        // grow, so what is the same before and after was the same in between.
        let before = Identity::of(consumer)?;
        let metadata = consumer.group_metadata()?;
        let after = Identity::of(consumer)?;
        (before == after && !consumer.assignment_lost()).then_some(Self { metadata, identity: after })
    }

    pub(super) fn metadata(&self) -> &ConsumerGroupMetadata {
        &self.metadata
    }
}

/// A group that nobody joins: its offsets are a single program's notes, and what fences them is the transactional id
/// alone. A broker takes such offsets without a question as long as the group has no members.
pub struct OutsideOfGroup(ConsumerGroupMetadata);

impl OutsideOfGroup {
    /// The group of `consumer`, which must never subscribe to anything; `None` if it has none.
    pub(super) fn of<C: ConsumerContext>(consumer: &BaseConsumer<C>) -> Option<Self> {
        consumer.group_metadata().map(Self)
    }

    pub(super) fn metadata(&self) -> &ConsumerGroupMetadata {
        &self.0
    }
}

impl fmt::Debug for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.identity.fmt(f)
    }
}

/// A generation above zero (a member epoch, in the new group protocol) and a member id that is not empty.
#[derive(Debug, PartialEq, Eq)]
struct Identity {
    generation: i32,
    member_id: String,
}

impl Identity {
    #[expect(unsafe_code, reason = "the client library does not show generation and member id")]
    fn of<C: ConsumerContext>(consumer: &BaseConsumer<C>) -> Option<Self> {
        // SAFETY: the consumer owns its native client, which lives at least as long as this borrow. The call returns
        // null or an object of its own, which `Native` destroys once.
        let native = Native(NonNull::new(unsafe {
            bindings::rd_kafka_consumer_group_metadata(consumer.client().native_ptr())
        })?);
        // SAFETY: `native` is not destroyed before the end of this function; the member id is a string of its own that
        // ends with a zero and is copied here.
        let (generation, member_id) = unsafe {
            let generation = bindings::rd_kafka_consumer_group_metadata_generation_id(native.0.as_ptr());
            let member_id = bindings::rd_kafka_consumer_group_metadata_member_id(native.0.as_ptr());
            (generation, CStr::from_ptr(NonNull::new(member_id.cast_mut())?.as_ptr()).to_string_lossy().into_owned())
        };
        (generation > 0 && !member_id.is_empty()).then_some(Self { generation, member_id })
    }
}

struct Native(NonNull<bindings::rd_kafka_consumer_group_metadata_t>);

impl Drop for Native {
    #[expect(unsafe_code, reason = "the C library's objects are destroyed by hand")]
    fn drop(&mut self) {
        // SAFETY: the pointer came from `rd_kafka_consumer_group_metadata` and nobody else has it.
        unsafe { bindings::rd_kafka_consumer_group_metadata_destroy(self.0.as_ptr()) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rdkafka::consumer::DefaultConsumerContext;
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

    use super::*;
    use crate::embedded::EmbeddedBroker;
    use crate::kafka::properties::Role;

    const LOOK: Duration = Duration::from_millis(50);
    /// 600 looks are half a minute: a group's first assignment takes three seconds here.
    const LOOKS_MAX: usize = 600;

    #[test]
    fn nobody_is_a_member_before_joining_or_after_being_thrown_out() {
        let broker = EmbeddedBroker::start(&[("spans", 1)]).unwrap();
        let own = [("group.id", "g"), ("client.id", "test")];
        let consumer: BaseConsumer<DefaultConsumerContext> =
            broker.properties().create(Role::Consumer, &own, DefaultConsumerContext).unwrap();
        let until = |is_member: bool| {
            (0..LOOKS_MAX).any(|_| {
                consumer.poll(LOOK);
                Membership::fresh(&consumer).is_some() == is_member
            })
        };
        assert!(Membership::fresh(&consumer).is_none());
        consumer.subscribe(&["spans"]).unwrap();
        assert!(until(true), "the consumer did not join");
        let shown = format!("{:?}", Membership::fresh(&consumer).unwrap());
        assert!(shown.starts_with("Identity { generation: ") && shown.contains("member_id: \""), "{shown}");
        broker
            .on_thread(|cluster| {
                let errors = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID];
                cluster.request_errors(RDKafkaApiKey::Heartbeat, &errors);
            })
            .unwrap();
        assert!(until(false), "a member that was thrown out still has an identity");
        assert!(until(true), "the consumer did not join again");
    }
}
