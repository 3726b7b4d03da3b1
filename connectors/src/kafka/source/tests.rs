use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use super::*;
use crate::embedded::EmbeddedBroker;
use crate::error::Retry;
use crate::kafka::KafkaSink;
use crate::record::Outgoing;
use crate::sink::Sink;

/// One look of the loop; long enough that a test needs few of them.
const LOOK: Duration = Duration::from_millis(100);
/// 900 looks are a minute and a half: a first assignment takes three seconds, and many times that on a busy machine.
const LOOKS_MAX: usize = 900;

type Copied = (i32, i64, Option<Vec<u8>>, Option<Vec<u8>>);

fn publish(broker: &EmbeddedBroker, topic: &str, messages: &[(&str, Option<&str>)]) {
    let mut sink = KafkaSink::try_new(&broker.properties(), "test-out").unwrap();
    for (key, payload) in messages {
        let headers = vec![("traceparent".to_string(), b"00-1-2-01".to_vec())];
        let (key, payload) = (Some(key.as_bytes().to_vec()), payload.map(|text| text.as_bytes().to_vec()));
        sink.publish(&Outgoing { topic: topic.to_string(), key, payload, headers }).unwrap();
    }
    sink.flush().unwrap();
}

fn source(broker: &EmbeddedBroker, group: &str) -> KafkaSource {
    KafkaSource::try_new(&broker.properties(), group, "test-in", &["spans".to_string()]).unwrap()
}

/// Polls until `count` records came, releasing whatever is revoked meanwhile.
#[track_caller]
fn read(source: &mut KafkaSource, count: usize) -> Vec<Copied> {
    let mut records = Vec::new();
    for _ in 0..LOOKS_MAX {
        let polled = source.poll(LOOK, &mut |r| {
            records.push((r.partition, r.offset, r.key.map(<[u8]>::to_vec), r.payload.map(<[u8]>::to_vec)));
        });
        if let Polled::Assignment(AssignmentChange::Revoked(partitions)) = polled.unwrap() {
            source.release(&partitions).unwrap();
        }
        if records.len() == count {
            return records;
        }
    }
    panic!("{} of {count} records came", records.len());
}

#[track_caller]
fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    (0..LOOKS_MAX).find_map(|_| look()).expect("the condition did not come true in time")
}

fn spans() -> TopicPartition {
    TopicPartition::new("spans", 0)
}

#[test]
fn keys_tombstones_and_order_survive_the_way_through_the_broker() {
    let broker = EmbeddedBroker::start(&[("spans", 1)]).unwrap();
    publish(&broker, "spans", &[("a", Some("one")), ("a", None), ("b", Some(""))]);
    let records = read(&mut source(&broker, "g"), 3);
    let expected: Vec<Copied> = [("a", Some("one")), ("a", None), ("b", Some(""))]
        .iter()
        .zip(0..)
        .map(|((key, payload), offset)| {
            (0, offset, Some(key.as_bytes().to_vec()), payload.map(|p| p.as_bytes().to_vec()))
        })
        .collect();
    assert_eq!(records, expected);
}

#[test]
fn headers_and_timestamps_arrive() {
    let broker = EmbeddedBroker::start(&[("spans", 1)]).unwrap();
    publish(&broker, "spans", &[("a", Some("one"))]);
    let mut source = source(&broker, "g");
    let (headers, stamped_ms) = until(|| {
        source.next_noted().unwrap();
        let polled = source.consumer.poll(LOOK)?;
        let message = polled.ok()?;
        let header = rdkafka::message::Headers::get(message.headers()?, 0);
        Some(((header.key.to_string(), header.value.map(<[u8]>::to_vec)), as_record(&message).timestamp_ms))
    });
    assert_eq!(headers, ("traceparent".to_string(), Some(b"00-1-2-01".to_vec())));
    assert!(stamped_ms > 1_600_000_000_000, "{stamped_ms}");
}

#[test]
fn a_new_member_continues_at_the_committed_offset() {
    let broker = EmbeddedBroker::start(&[("spans", 1)]).unwrap();
    publish(&broker, "spans", &[("a", Some("one")), ("a", Some("two")), ("a", Some("three"))]);
    let mut first = source(&broker, "g");
    let offset_of_two = read(&mut first, 3)[1].1;
    first.commit(&[(spans(), NextOffset::after(offset_of_two))]).unwrap();
    drop(first);
    let again = read(&mut source(&broker, "g"), 1);
    assert_eq!(again[0].3.as_deref(), Some(b"three".as_slice()));
}

#[test]
fn a_commit_during_a_rebalance_is_a_typed_error_that_may_be_retried() {
    let broker = EmbeddedBroker::start(&[("spans", 1)]).unwrap();
    publish(&broker, "spans", &[("a", Some("one"))]);
    let mut source = source(&broker, "g");
    read(&mut source, 1);
    broker
        .on_thread(|cluster| {
            let errors = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS; 1];
            cluster.request_errors(RDKafkaApiKey::OffsetCommit, &errors);
        })
        .unwrap();
    let error = source.commit(&[(spans(), NextOffset(1))]).unwrap_err();
    assert!(matches!(error, ConnectorError::Rebalanced { .. }), "{error}");
    assert_eq!(error.retry(), Retry::Backoff);
}

#[test]
fn a_refused_authorisation_is_the_users_fault() {
    let broker = EmbeddedBroker::start(&[("spans", 1)]).unwrap();
    publish(&broker, "spans", &[("a", Some("one"))]);
    let mut source = source(&broker, "g");
    read(&mut source, 1);
    broker
        .on_thread(|cluster| {
            let errors = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED; 1];
            cluster.request_errors(RDKafkaApiKey::OffsetCommit, &errors);
        })
        .unwrap();
    let error = source.commit(&[(spans(), NextOffset(1))]).unwrap_err();
    assert_eq!((error.fault(), error.retry()), (crate::error::Fault::User, Retry::Never), "{error}");
}

#[test]
fn a_topic_that_is_created_later_is_read_from_its_beginning() {
    let broker = EmbeddedBroker::start(&[]).unwrap();
    let mut source = source(&broker, "g");
    for _ in 0..5 {
        assert_eq!(source.poll(LOOK, &mut |_| panic!("nothing was published")).unwrap(), Polled::Empty);
    }
    broker.create_topic("spans", 1).unwrap();
    publish(&broker, "spans", &[("a", Some("one"))]);
    assert_eq!(read(&mut source, 1)[0].1, 0);
}

#[test]
fn a_broker_that_is_away_is_waited_for() {
    let broker = EmbeddedBroker::start(&[("spans", 1)]).unwrap();
    publish(&broker, "spans", &[("a", Some("one"))]);
    let mut source = source(&broker, "g");
    read(&mut source, 1);
    broker.take_down().unwrap();
    for _ in 0..5 {
        assert_eq!(source.poll(LOOK, &mut |_| panic!("nothing was published")).unwrap(), Polled::Empty);
    }
    broker.bring_up().unwrap();
    publish(&broker, "spans", &[("a", Some("two"))]);
    assert_eq!(read(&mut source, 1)[0].1, 1);
}

#[test]
fn lag_counts_what_is_not_committed_yet() {
    let broker = EmbeddedBroker::start(&[("spans", 1)]).unwrap();
    let properties = broker.properties().with("consumer.statistics.interval.ms", "50").unwrap();
    publish(&broker, "spans", &[("a", Some("one")), ("a", Some("two")), ("a", Some("three"))]);
    let mut source = KafkaSource::try_new(&properties, "g", "test-in", &["spans".to_string()]).unwrap();
    read(&mut source, 3);
    source.commit(&[(spans(), NextOffset(1))]).unwrap();
    until(|| {
        source.poll(LOOK, &mut |_| panic!("nothing more was published")).unwrap();
        (source.lag() == [(spans(), 2)]).then_some(())
    });
}

#[test]
fn partitions_move_only_after_their_holder_has_released_them() {
    let broker = EmbeddedBroker::start(&[("spans", 2)]).unwrap();
    let mut first = source(&broker, "g");
    until(|| {
        first.poll(LOOK, &mut |_| ()).unwrap();
        (first.assigned.len() == 2).then_some(())
    });
    let mut second = source(&broker, "g");
    let revoked = until(|| {
        second.poll(Duration::ZERO, &mut |_| ()).unwrap();
        match first.poll(LOOK, &mut |_| ()).unwrap() {
            Polled::Assignment(AssignmentChange::Revoked(partitions)) => Some(partitions),
            _ => None,
        }
    });
    assert_eq!(revoked.len(), 1);
    assert!(second.assigned.is_empty());
    // The group may not have heard of everybody's new assignment yet: it says so, and is asked again.
    until(|| {
        second.poll(LOOK, &mut |_| ()).unwrap();
        let committed = first.commit(&[(revoked[0].clone(), NextOffset(0))]);
        if matches!(committed, Err(ConnectorError::Rebalanced { .. })) {
            return None;
        }
        committed.unwrap();
        Some(())
    });
    assert!(second.assigned.is_empty());
    first.release(&revoked).unwrap();
    until(|| {
        first.poll(Duration::ZERO, &mut |_| ()).unwrap();
        second.poll(LOOK, &mut |_| ()).unwrap();
        (second.assigned.len() == 1).then_some(())
    });
    assert_eq!(second.assigned.keys().collect::<Vec<_>>(), revoked.iter().collect::<Vec<_>>());
    assert_eq!(first.assigned.len(), 1);
}

#[test]
fn a_source_with_an_unanswered_revocation_can_be_dropped() {
    let broker = EmbeddedBroker::start(&[("spans", 2)]).unwrap();
    let mut first = source(&broker, "g");
    until(|| {
        first.poll(LOOK, &mut |_| ()).unwrap();
        (first.assigned.len() == 2).then_some(())
    });
    let mut second = source(&broker, "g");
    until(|| {
        second.poll(Duration::ZERO, &mut |_| ()).unwrap();
        first.poll(LOOK, &mut |_| ()).unwrap();
        first.revoked.is_some().then_some(())
    });
    drop(first);
    until(|| {
        second.poll(LOOK, &mut |_| ()).unwrap();
        (second.assigned.len() == 2).then_some(())
    });
}

fn held_source(broker: &EmbeddedBroker, own: &[(&str, &str)], partitions: usize) -> KafkaSource {
    let properties = own.iter().fold(broker.properties(), |all, (name, value)| all.with(name, value).unwrap());
    let mut source = KafkaSource::try_new_held(&properties, "g", "test-in", &["spans".to_string()]).unwrap();
    until(|| {
        source.poll(LOOK, &mut |r| panic!("offset {} of a held partition", r.offset)).unwrap();
        (source.assigned.len() == partitions).then_some(())
    });
    source
}

/// Publishes so many records to the only partition.
fn fill(broker: &EmbeddedBroker, records: usize) {
    publish(broker, "spans", &vec![("a", Some("x")); records]);
}

fn offsets(records: &[Copied]) -> Vec<i64> {
    records.iter().map(|record| record.1).collect()
}

/// Looks a few times and finds nothing.
#[track_caller]
fn read_nothing(source: &mut KafkaSource) {
    for _ in 0..10 {
        assert_eq!(source.poll(LOOK, &mut |r| panic!("offset {}", r.offset)).unwrap(), Polled::Empty);
    }
}

#[test]
fn a_held_partition_hands_over_nothing_until_it_is_started() {
    let broker = EmbeddedBroker::start(&[("spans", 1)]).unwrap();
    fill(&broker, 10);
    let mut source = held_source(&broker, &[], 1);
    read_nothing(&mut source);
    source.start_at(&[(spans(), Some(NextOffset(7)))]).unwrap();
    assert_eq!(offsets(&read(&mut source, 3)), [7, 8, 9]);
    read_nothing(&mut source);
}

#[test]
fn a_partition_is_started_at_once_after_its_assignment() {
    let broker = EmbeddedBroker::start(&[("spans", 1)]).unwrap();
    fill(&broker, 10);
    for _ in 0..3 {
        let mut source = held_source(&broker, &[], 1);
        source.start_at(&[(spans(), Some(NextOffset(7)))]).unwrap();
        assert_eq!(offsets(&read(&mut source, 3)), [7, 8, 9]);
    }
}

#[test]
fn what_was_fetched_ahead_is_not_handed_over_after_a_start() {
    let broker = EmbeddedBroker::start(&[("spans", 1)]).unwrap();
    fill(&broker, 100);
    let mut source = held_source(&broker, &[], 1);
    for (start, count) in [(0, 10), (50, 10), (5, 30), (99, 1), (0, 100)] {
        source.start_at(&[(spans(), Some(NextOffset(start)))]).unwrap();
        let expected: Vec<i64> = (start..100).take(count).collect();
        assert_eq!(offsets(&read(&mut source, count)), expected);
    }
    read_nothing(&mut source);
    fill(&broker, 1);
    assert_eq!(offsets(&read(&mut source, 1)), [100]);
}

#[test]
fn a_source_that_does_not_hold_can_be_started_elsewhere_too() {
    let broker = EmbeddedBroker::start(&[("spans", 1)]).unwrap();
    fill(&broker, 10);
    let mut source = source(&broker, "g");
    assert_eq!(offsets(&read(&mut source, 4)), [0, 1, 2, 3]);
    source.start_at(&[(spans(), Some(NextOffset(2)))]).unwrap();
    assert_eq!(offsets(&read(&mut source, 8)), [2, 3, 4, 5, 6, 7, 8, 9]);
}

#[test]
fn without_an_offset_a_partition_starts_where_the_properties_say() {
    for (reset, first) in [("earliest", 0), ("latest", 10)] {
        let broker = EmbeddedBroker::start(&[("spans", 1)]).unwrap();
        fill(&broker, 10);
        let mut source = held_source(&broker, &[("consumer.auto.offset.reset", reset)], 1);
        source.start_at(&[(spans(), None)]).unwrap();
        fill(&broker, 1);
        assert_eq!(offsets(&read(&mut source, 1)), [first], "{reset}");
    }
}

#[test]
fn without_an_offset_nothing_starts_if_the_properties_forbid_it() {
    let broker = EmbeddedBroker::start(&[("spans", 1)]).unwrap();
    fill(&broker, 10);
    let mut source = held_source(&broker, &[("consumer.auto.offset.reset", "error")], 1);
    let error = source.start_at(&[(spans(), None)]).unwrap_err();
    assert_eq!((error.fault(), error.retry()), (crate::error::Fault::User, Retry::Never));
    assert!(error.to_string().contains("nothing was committed for spans[0]"), "{error}");
    read_nothing(&mut source);
}

#[test]
fn the_other_partitions_go_on_when_one_is_started_again() {
    for strategy in ["cooperative-sticky", "range"] {
        let broker = EmbeddedBroker::start(&[("spans", 2)]).unwrap();
        let keys: Vec<String> = (0..100).map(|key| key.to_string()).collect();
        let messages: Vec<_> = keys.iter().map(|key| (key.as_str(), Some("x"))).collect();
        publish(&broker, "spans", &messages);
        let own = [("consumer.partition.assignment.strategy", strategy)];
        let mut source = held_source(&broker, &own, 2);
        let [first, second] = [0, 1].map(|partition| TopicPartition::new("spans", partition));
        source.start_at(&[(first.clone(), None)]).unwrap();
        source.start_at(&[(second, None)]).unwrap();
        let mut records = read(&mut source, 60);
        source.start_at(&[(first, Some(NextOffset(0)))]).unwrap();
        records.retain(|record| record.0 == 1);
        let rest = 100 - records.len();
        records.extend(read(&mut source, rest));
        read_nothing(&mut source);
        for partition in [0, 1] {
            let read: Vec<i64> = records.iter().filter(|r| r.0 == partition).map(|r| r.1).collect();
            assert_eq!(read, (0..).take(read.len()).collect::<Vec<_>>(), "{strategy}, partition {partition}");
        }
    }
}

#[test]
fn a_partition_that_comes_back_is_held_again() {
    let broker = EmbeddedBroker::start(&[("spans", 2)]).unwrap();
    let mut first = held_source(&broker, &[], 2);
    let starts: Vec<_> = first.assigned.keys().map(|partition| (partition.clone(), None)).collect();
    first.start_at(&starts).unwrap();
    let held = |source: &KafkaSource| source.assigned.values().filter(|next| next.is_none()).count();
    assert_eq!(held(&first), 0);
    let mut second = source(&broker, "g");
    until(|| {
        second.poll(LOOK, &mut |_| ()).unwrap();
        first.poll(Duration::ZERO, &mut |_| ()).unwrap();
        first.release(&[]).unwrap();
        (second.assigned.len() == 1).then_some(())
    });
    assert_eq!((first.assigned.len(), held(&first)), (1, 0));
    drop(second);
    until(|| {
        first.poll(LOOK, &mut |_| ()).unwrap();
        (first.assigned.len() == 2).then_some(())
    });
    assert_eq!(held(&first), 1);
}

#[test]
fn a_member_speaks_for_its_partitions_while_they_are_revoked_but_not_before_it_was_told() {
    let broker = EmbeddedBroker::start(&[("spans", 2)]).unwrap();
    let mut first = source(&broker, "g");
    assert!(first.membership().is_none());
    until(|| {
        first.poll(LOOK, &mut |_| ()).unwrap();
        (first.assigned.len() == 2 && first.membership().is_some()).then_some(())
    });
    let mut second = source(&broker, "g");
    // Only the client hears of it.
    until(|| {
        second.poll(Duration::ZERO, &mut |_| ()).unwrap();
        first.consumer.poll(LOOK);
        first.consumer.context().has_noted().then_some(())
    });
    assert!(first.membership().is_none());
    let polled = first.poll(LOOK, &mut |_| ()).unwrap();
    assert!(matches!(polled, Polled::Assignment(AssignmentChange::Revoked(_))), "{polled:?}");
    assert!(first.membership().is_some());
}

#[test]
fn topics_that_exist_are_counted_and_others_left_out() {
    let broker = EmbeddedBroker::start(&[("spans", 2), ("logs", 3)]).unwrap();
    let topics = ["spans", "absent", "logs"].map(str::to_string);
    let source = KafkaSource::try_new(&broker.properties(), "g", "test-in", &topics).unwrap();
    let partitions = source.partitions(Duration::from_secs(10)).unwrap();
    assert_eq!(partitions, [("spans".to_string(), 2), ("logs".to_string(), 3)]);
}

#[test]
fn the_end_of_a_partition_is_the_brokers_word_and_not_a_memory() {
    let broker = EmbeddedBroker::start(&[("spans", 1)]).unwrap();
    let source = source(&broker, "g");
    let wait = Duration::from_secs(10);
    assert_eq!(source.end_of(&spans(), wait).unwrap(), NextOffset(0));
    fill(&broker, 10);
    assert_eq!(source.end_of(&spans(), wait).unwrap(), NextOffset(10));
    broker.take_down().unwrap();
    let error = source.end_of(&spans(), Duration::from_millis(500)).unwrap_err();
    assert_eq!(error.retry(), Retry::Backoff, "{error}");
}

#[test]
fn the_backlog_counts_what_was_not_handed_over_and_nothing_held() {
    let broker = EmbeddedBroker::start(&[("spans", 1)]).unwrap();
    fill(&broker, 10);
    let mut source = held_source(&broker, &[("consumer.statistics.interval.ms", "50")], 1);
    read_nothing(&mut source);
    assert_eq!(source.backlog(), []);
    source.start_at(&[(spans(), Some(NextOffset(4)))]).unwrap();
    read(&mut source, 6);
    until(|| {
        source.poll(LOOK, &mut |_| panic!("nothing more was published")).unwrap();
        (source.backlog() == [(spans(), 0)]).then_some(())
    });
}

#[test]
fn a_client_that_forgets_a_pause_or_goes_back_hands_over_nothing_twice() {
    let broker = EmbeddedBroker::start(&[("spans", 1)]).unwrap();
    fill(&broker, 10);
    let mut source = held_source(&broker, &[], 1);
    source.consumer.resume(&list_of([&spans()])).unwrap();
    read_nothing(&mut source);
    source.start_at(&[(spans(), Some(NextOffset(4)))]).unwrap();
    assert_eq!(offsets(&read(&mut source, 3)), [4, 5, 6]);
    let mut back = TopicPartitionList::new();
    back.add_partition_offset("spans", 0, Offset::Offset(0)).unwrap();
    source.consumer.seek_partitions(back, Duration::from_secs(10)).unwrap();
    assert_eq!(offsets(&read(&mut source, 3)), [7, 8, 9]);
    // Unless it was asked to.
    source.start_at(&[(spans(), Some(NextOffset(4)))]).unwrap();
    assert_eq!(offsets(&read(&mut source, 6)), [4, 5, 6, 7, 8, 9]);
}

#[test]
fn a_start_waits_for_a_client_that_still_asks_where_the_group_has_committed() {
    let broker = EmbeddedBroker::start(&[("spans", 1)]).unwrap();
    fill(&broker, 10);
    // Nothing is committed in the first round.
    for _ in 0..2 {
        let mut source = source(&broker, "g");
        until(|| {
            source.poll(LOOK, &mut |r| panic!("offset {}", r.offset)).unwrap();
            (source.assigned.len() == 1).then_some(())
        });
        source.start_at(&[(spans(), Some(NextOffset(7)))]).unwrap();
        assert_eq!(offsets(&read(&mut source, 3)), [7, 8, 9]);
        read_nothing(&mut source);
        source.commit(&[(spans(), NextOffset(5))]).unwrap();
    }
}
