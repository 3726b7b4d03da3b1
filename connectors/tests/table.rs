//! A topic as a reference table, on the embedded broker; with a real one where only that shows it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "support/fresh.rs"]
mod fresh;

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Field, Float64Type, Schema, SchemaRef};
use fresh::servers_and_name;
use lictor_connectors::{
    ConnectorError, EmbeddedBroker, Fault, Followed, KafkaProperties, KafkaSink, KafkaTable, KafkaTransactions,
    Outgoing, Retry, Sink, TopicSpec, ensure_topics,
};

const WAIT: Duration = Duration::from_secs(30);
/// Between two looks; 1,200 are a minute, for a broker on a busy machine.
const LOOK: Duration = Duration::from_millis(50);
const LOOKS_MAX: usize = 1_200;

fn columns() -> SchemaRef {
    let fields = [("key", DataType::Utf8View), ("usd", DataType::Float64)];
    Arc::new(Schema::new(fields.map(|(name, typed)| Field::new(name, typed, true)).to_vec()))
}

fn table(properties: &KafkaProperties, topic: &str) -> KafkaTable {
    KafkaTable::try_new(properties, "test-tables", topic, columns()).unwrap()
}

fn publish(properties: &KafkaProperties, topic: &str, records: &[(&str, Option<&str>)]) {
    let mut sink = KafkaSink::try_new(properties, "test-out").unwrap();
    for (key, value) in records {
        let (topic, key) = (topic.to_owned(), Some(key.as_bytes().to_vec()));
        let payload = value.map(|text| text.as_bytes().to_vec());
        sink.publish(&Outgoing { topic, key, payload, headers: Vec::new() }).unwrap();
    }
    sink.flush().unwrap();
}

fn rows(table: &KafkaTable) -> Vec<(String, f64)> {
    let batch = table.rows().unwrap();
    let keys = batch.column(0).as_string_view().iter().map(|key| key.unwrap().to_owned());
    keys.zip(batch.column(1).as_primitive::<Float64Type>().values().iter().copied()).collect()
}

/// Looks until so much has changed and been refused.
#[track_caller]
fn follow(table: &mut KafkaTable, changes: usize, refused: usize) -> Followed {
    let mut all = Followed::default();
    for _ in 0..LOOKS_MAX {
        let Followed { changes: more, refused: told, .. } = table.follow().unwrap();
        all.changes += more;
        all.refused.extend(told);
        if all.changes >= changes && all.refused.len() >= refused {
            return all;
        }
        thread::park_timeout(LOOK);
    }
    panic!("{all:?}");
}

fn expect(rows: &[(&str, f64)]) -> Vec<(String, f64)> {
    rows.iter().map(|(key, usd)| ((*key).to_owned(), *usd)).collect()
}

fn read_and_follow(properties: &KafkaProperties, topic: &str) {
    let mut table = table(properties, topic);
    table.read_to_end(WAIT, &|| true).unwrap();
    assert_eq!(rows(&table), []);
    let usd = |usd: u32| format!("{{\"usd\":{usd}}}");
    publish(properties, topic, &[("b", Some(&usd(1))), ("a", Some(&usd(2))), ("b", Some(&usd(3)))]);
    follow(&mut table, 3, 0);
    assert_eq!(rows(&table), expect(&[("a", 2.0), ("b", 3.0)]));

    publish(properties, topic, &[("b", Some("{\"usd\":\"x\"}")), ("a", None), ("c", Some(&usd(4)))]);
    let followed = follow(&mut table, 2, 1);
    assert!(followed.refused[0].to_string().contains("column `usd`"), "{followed:?}");
    assert_eq!(rows(&table), expect(&[("b", 3.0), ("c", 4.0)]));
    assert_eq!(table.refused().len(), 1);

    // Somebody who reads all of it at once has the same table, and so has who reads it again.
    let mut other = self::table(properties, topic);
    for table in [&mut table, &mut other] {
        table.read_to_end(WAIT, &|| true).unwrap();
        assert_eq!(rows(table), expect(&[("b", 3.0), ("c", 4.0)]));
    }
    publish(properties, topic, &[("b", None)]);
    follow(&mut table, 1, 0);
    assert_eq!((rows(&table), table.refused().len()), (expect(&[("c", 4.0)]), 0));
}

#[test]
fn a_topic_is_read_to_its_end_and_followed() {
    let broker = EmbeddedBroker::start(&[("budgets", 3)]).unwrap();
    read_and_follow(&broker.properties(), "budgets");
}

#[test]
fn a_real_topic_is_read_to_its_end_and_followed() {
    let Some((servers, topic)) = servers_and_name("table") else { return };
    let properties = KafkaProperties::from_bootstrap(&servers);
    ensure_topics(&properties, &[TopicSpec::new(&topic, 3, true)]).unwrap();
    read_and_follow(&properties, &topic);
}

#[test]
fn records_of_aborted_transactions_are_no_rows_and_no_end_that_is_waited_for() {
    let Some((servers, topic)) = servers_and_name("table-aborted") else { return };
    let properties = KafkaProperties::from_bootstrap(&servers);
    ensure_topics(&properties, &[TopicSpec::new(&topic, 1, true)]).unwrap();
    publish(&properties, &topic, &[("a", Some("{\"usd\":1}"))]);
    let mut transactions = KafkaTransactions::try_new(&properties, &topic, "test-out", "scan", WAIT).unwrap();
    let mut abort = |usd: u32| {
        let (key, payload) = (Some(b"a".to_vec()), Some(format!("{{\"usd\":{usd}}}").into_bytes()));
        let message = Outgoing { topic: topic.clone(), key, payload, headers: Vec::new() };
        transactions.publish(&message, Some(0)).unwrap();
        transactions.abort().unwrap();
    };
    abort(2);
    let mut table = table(&properties, &topic);
    table.read_to_end(WAIT, &|| true).unwrap();
    assert_eq!(rows(&table), expect(&[("a", 1.0)]));
    abort(3);
    publish(&properties, &topic, &[("b", Some("{\"usd\":4}"))]);
    assert_eq!(follow(&mut table, 1, 0).changes, 1);
    assert_eq!(rows(&table), expect(&[("a", 1.0), ("b", 4.0)]));
}

#[test]
fn a_reader_goes_on_after_reading_everything_again() {
    let broker = EmbeddedBroker::start(&[("budgets", 1)]).unwrap();
    let mut table = table(&broker.properties(), "budgets");
    for (round, key) in (1..).zip(["a", "b"]) {
        table.read_to_end(WAIT, &|| true).unwrap();
        publish(&broker.properties(), "budgets", &[(key, Some("{\"usd\":1}"))]);
        follow(&mut table, 1, 0);
        assert_eq!(rows(&table), expect(&[("a", 1.0), ("b", 1.0)][..round]));
    }
}

#[test]
fn a_topic_that_is_not_there_is_the_users_mistake() {
    let broker = EmbeddedBroker::start(&[("other", 1)]).unwrap();
    let error = table(&broker.properties(), "budgets").read_to_end(WAIT, &|| true).unwrap_err();
    assert_eq!((error.fault(), error.retry()), (Fault::User, Retry::Never));
    assert!(error.to_string().contains("topic `budgets` does not exist"), "{error}");
}

#[test]
fn a_broker_that_is_away_is_waited_for_and_no_secret_is_told() {
    let broker = EmbeddedBroker::start(&[("budgets", 1)]).unwrap();
    broker.take_down().unwrap();
    let properties = broker.properties().with("sasl.password", "hunter2").unwrap();
    let error = table(&properties, "budgets").read_to_end(Duration::from_millis(300), &|| true).unwrap_err();
    assert_eq!((error.fault(), error.retry()), (Fault::External, Retry::Backoff));
    assert!(!error.to_string().contains("hunter2"), "{error}");
}

#[test]
fn reading_ends_when_it_is_told_to() {
    let broker = EmbeddedBroker::start(&[("budgets", 1)]).unwrap();
    publish(&broker.properties(), "budgets", &[("a", Some("{}"))]);
    let error = table(&broker.properties(), "budgets").read_to_end(WAIT, &|| false).unwrap_err();
    assert!(matches!(&error, ConnectorError::Kafka { message, .. } if message.contains("stopped")), "{error}");
}
