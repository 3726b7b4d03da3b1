use lictor_connectors::{Headers, RecordRef};

use super::*;
use crate::aside::DeadLetter;

const BYTES: &[u8] = b"garbage";

fn said(headers: &[(&str, &str)]) -> Vec<Header> {
    headers.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect()
}

/// The letter that lictor makes of a record with these headers, as it is read from the dead-letter topic.
fn letter_of(headers: &[Header], payload: &[u8]) -> Letter {
    let record = RecordRef {
        topic: "otlp_spans",
        partition: 3,
        offset: 42,
        key: Some(b"k"),
        payload: Some(payload),
        headers: Headers::of(headers),
        ..RecordRef::default()
    };
    let message = DeadLetter::of_record(record, "malformed_json", "expected value, found \"my secret\"")
        .to_message("lictor.dead-letter", "app");
    Letter::of(&RecordRef {
        topic: "lictor.dead-letter",
        partition: 1,
        offset: 7,
        timestamp_ms: 1_000,
        key: message.key.as_deref(),
        payload: message.payload.as_deref(),
        headers: Headers::of(&message.headers),
    })
}

fn replay(selection: Selection, outlet: Outlet) -> Replay {
    Replay { selection, outlet, replays_max: 1, dead_letter: "lictor.dead-letter".to_owned() }
}

fn to_source() -> Outlet {
    Outlet::Source(["otlp_spans".to_owned()].into())
}

#[test]
fn what_lictor_puts_aside_is_read_back_whole() {
    let own = said(&[("traceparent", "00-1"), ("content-type", "application/json")]);
    let letter = letter_of(&own, BYTES);
    assert_eq!(letter.id.to_string(), "1:7");
    assert_eq!(letter.origin, Some(Origin { partition: TopicPartition::new("otlp_spans", 3), offset: 42 }));
    assert_eq!((letter.reason.as_str(), letter.application.as_str()), ("malformed_json", "app"));
    assert_eq!((letter.key.as_deref(), letter.payload.as_deref()), (Some(&b"k"[..]), Some(BYTES)));
    assert_eq!((letter.headers, letter.replays, letter.is_ours), (own, 0, true));
    assert!(letter.omitted.is_nothing());
}

#[test]
fn a_replay_is_the_record_as_it_was_with_a_mark_and_a_second_death_is_known() {
    let own = said(&[("traceparent", "00-1")]);
    let letter = letter_of(&own, BYTES);
    let replay = replay(Selection::default(), to_source());
    assert_eq!(replay.fate(&letter, false), Fate::Replayed);
    assert_eq!(replay.fate(&letter, true), Fate::Before);
    let (message, partition) = replay.message(letter);
    assert_eq!((message.topic.as_str(), partition), ("otlp_spans", Some(3)));
    assert_eq!((message.key.as_deref(), message.payload.as_deref()), (Some(&b"k"[..]), Some(BYTES)));
    let marks = said(&[("lictor-replays", "1"), ("lictor-replay-of", "lictor.dead-letter:1:7")]);
    assert_eq!(message.headers, [own.clone(), marks].concat());
    let again = letter_of(&message.headers, BYTES);
    assert_eq!((again.replays, &again.headers), (1, &own));
    assert_eq!(replay.fate(&again, false), Fate::DiedAgain);
    let twice = Replay { replays_max: 2, ..replay };
    assert_eq!(twice.fate(&again, false), Fate::Replayed);
    assert_eq!(text_of(&twice.message(again).0.headers, REPLAYS).as_deref(), Some("2"));
}

#[test]
fn letters_of_others_go_nowhere_but_where_an_operator_says() {
    let letter = letter_of(&[], BYTES);
    let others = Letter { is_ours: false, ..letter.clone() };
    let elsewhere = Outlet::Source(["otlp_logs".to_owned()].into());
    let stray = Letter { origin: None, ..letter.clone() };
    for (outlet, letter, fate) in [
        (to_source(), &others, Fate::NotOurs),
        (to_source(), &stray, Fate::NotOurs),
        (elsewhere, &letter, Fate::OtherTopic),
        (Outlet::Topic("t".to_owned()), &others, Fate::Replayed),
        (Outlet::Topic("t".to_owned()), &stray, Fate::Replayed),
    ] {
        assert_eq!(replay(Selection::default(), outlet).fate(letter, false), fate);
    }
    let (message, partition) = replay(Selection::default(), Outlet::Topic("t".to_owned())).message(others);
    assert_eq!((message.topic.as_str(), partition), ("t", None));
}

#[test]
fn a_letter_says_what_it_goes_without() {
    let letter = letter_of(&said(&[("h", &"x".repeat(20_000))]), &vec![b'x'; 1_000_000]);
    assert_eq!((letter.omitted.payload_bytes, letter.omitted.header_bytes), (1_000_000, 20_001));
    assert_eq!((letter.bytes(), letter.payload.as_deref(), letter.headers.len()), (1_000_000, Some(&b""[..]), 0));
}

#[test]
fn a_count_that_cannot_be_read_is_too_many() {
    assert_eq!(letter_of(&said(&[("lictor-replays", "-1")]), BYTES).replays, u32::MAX);
}

#[test]
fn letters_are_chosen_by_topic_partition_reason_error_and_time() {
    let letter = letter_of(&[], BYTES);
    let at = |ms| Some(EventTime::from_ms(ms));
    let none = Selection::default;
    for (selection, is_taken) in [
        (none(), true),
        (Selection { letters: vec!["1:7".parse().unwrap()], ..none() }, true),
        (Selection { letters: vec!["1:8".parse().unwrap()], ..none() }, false),
        (Selection { topic: Some("otlp_spans".into()), partition: Some(3), ..none() }, true),
        (Selection { topic: Some("otlp_logs".into()), ..none() }, false),
        (Selection { partition: Some(1), ..none() }, false),
        (Selection { reason: Some("malformed_json".into()), error: Some("Found".into()), ..none() }, true),
        (Selection { reason: Some("empty".into()), ..none() }, false),
        (Selection { error: Some("lost".into()), ..none() }, false),
        (Selection { from: at(1_000), to: at(1_001), ..none() }, true),
        (Selection { to: at(1_000), ..none() }, false),
        (Selection { from: at(1_001), ..none() }, false),
    ] {
        assert_eq!(selection.takes(&letter), is_taken, "{selection:?}");
    }
}

#[test]
fn letters_are_named_by_partition_and_offset() {
    assert_eq!("0:17".parse(), Ok(LetterId { partition: 0, offset: 17 }));
    for text in ["", "17", "0:", "a:1", "-1:0", "0:-1", "0:1:2"] {
        assert!(text.parse::<LetterId>().is_err(), "{text}");
    }
}

#[test]
fn a_connectors_letter_has_its_class_for_a_reason() {
    let headers = said(&[
        ("__connect.errors.topic", "orders"),
        ("__connect.errors.partition", "0"),
        ("__connect.errors.offset", "9"),
        ("__connect.errors.exception.class.name", "org.apache.kafka.connect.errors.DataException"),
    ]);
    let letter = Letter::of(&RecordRef { headers: Headers::of(&headers), ..RecordRef::default() });
    assert_eq!(letter.reason, "org.apache.kafka.connect.errors.DataException");
    assert!(!letter.is_ours && letter.origin.is_some());
}

#[test]
fn an_account_names_every_way_that_was_gone() {
    let mut account = Account::default();
    [Fate::Replayed, Fate::Replayed, Fate::Before].into_iter().for_each(|fate| account.add(fate));
    assert_eq!(account.to_string(), "3 letters read: 2 replayed, 1 replayed before");
    assert!(!account.has_left());
    account.add(Fate::DiedAgain);
    assert!(account.has_left() && account.total() == 4);
}
