//! When a follower of a real topic may say that it has everything.
//!
//! Runs against `KAFKA_BOOTSTRAP=host:port` and says so and passes without it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "support/fresh.rs"]
mod fresh;

use std::time::Duration;

use fresh::servers_and_name;
use lictor_connectors::{
    KafkaFollower, KafkaProperties, KafkaSink, KafkaTransactions, Outgoing, Sink, TopicSpec, ensure_topics,
};

const WAIT: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(50);
/// 1,200 are a minute, for a broker on a busy machine.
const LOOKS_MAX: u64 = 1_200;

fn message(topic: &str) -> Outgoing {
    Outgoing { topic: topic.to_owned(), key: Some(b"a".to_vec()), payload: Some(b"x".to_vec()), headers: Vec::new() }
}

/// Follows and probes at times of the test's own until it was current after `since`; the records that came.
#[track_caller]
fn follow_until_current(follower: &mut KafkaFollower, since: &mut u64) -> usize {
    let (begin, mut records) = (*since, 0);
    for _ in 0..LOOKS_MAX {
        records += follower.follow(LOOK, 100, &mut |_| Ok(())).unwrap();
        *since += 1;
        assert!(follower.probe(Duration::from_secs(*since)), "the broker answers");
        if follower.current_at().is_some_and(|at| at > Duration::from_secs(begin + 4)) {
            return records;
        }
    }
    panic!("never current after {begin}: {:?}", follower.current_at());
}

#[test]
fn a_follower_stays_current_whatever_lies_behind_the_last_record() {
    let Some((servers, topic)) = servers_and_name("follower") else { return };
    let properties = KafkaProperties::from_bootstrap(&servers);
    ensure_topics(&properties, &[TopicSpec::new(&topic, 2, true)]).unwrap();
    let mut follower = KafkaFollower::try_new(&properties, "test-follower", &topic).unwrap();
    follower.read_to_end(WAIT, &|| true, &mut |_| Ok(())).unwrap();
    assert_eq!((follower.partitions(), follower.current_at()), (2, None));
    let now = &mut 0;
    assert_eq!(follow_until_current(&mut follower, now), 0);

    let mut sink = KafkaSink::try_new(&properties, "test-out").unwrap();
    sink.publish(&message(&topic)).unwrap();
    sink.flush().unwrap();
    assert_eq!(follow_until_current(&mut follower, now), 1);

    let mut transactions = KafkaTransactions::try_new(&properties, &topic, "test-out", "scan", WAIT).unwrap();
    for partition in [0, 1, 1] {
        transactions.publish(&message(&topic), Some(partition)).unwrap();
        transactions.abort().unwrap();
        assert_eq!(follow_until_current(&mut follower, now), 0, "what was aborted is nothing that is missing");
    }
    assert_eq!(follow_until_current(&mut follower, now), 0);
}
