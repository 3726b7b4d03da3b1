//! A gateway that knows which calls may go on, to copy: it needs `rdkafka`, `serde_json`, `chrono` and `fastrand`.
//!
//! It reads the compacted directives topic to its end, follows it, and decides about a call from memory. For a call
//! that it stops it writes a span with the event `genops.policy.evaluated`, as GenOps §8.1 has it: a directive is about
//! many units of work, the decision about each is the gateway's to record.
//!
//! ```sh
//! cargo run -p lictor-connectors --example controller -- localhost:9092 <<< '{"team": "docs"}'
//! ```
//!
//! A call is a line of JSON, canonical column to value; so is what comes back a line: `allow`, or what stops the call.

use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::io::{self, BufRead, Write};
use std::time::{Duration, SystemTime};
use std::{env, process};

use chrono::{DateTime, Utc};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::{Value, json};

type Failure = Box<dyn Error + Send + Sync>;

const WAIT: Duration = Duration::from_secs(10);

/// The mildest first.
const STRENGTH: [&str; 5] = ["allow", "notify", "warn", "throttle", "block"];

/// An action that came after us stops nobody: it counts as `warn`.
const UNKNOWN_STRENGTH: usize = 2;

/// The attributes by which telemetry says what a call says by column; see `lictor schema spans`.
const ATTRIBUTES: [(&str, &str); 7] = [
    ("team", "genops.team"),
    ("project", "genops.project"),
    ("environment", "genops.environment"),
    ("customer_id", "genops.customer_id"),
    ("session_id", "genops.session_id"),
    ("provider", "gen_ai.provider.name"),
    ("request_model", "gen_ai.request.model"),
];

/// Everything that holds, by directive.
struct Directives {
    consumer: BaseConsumer,
    held: HashMap<Vec<u8>, Value>,
}

impl Directives {
    /// Every gateway needs every directive: it reads all partitions from the beginning, and its group is never joined.
    fn read(brokers: &str, topic: &str) -> Result<Self, Failure> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("group.id", "unused")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("isolation.level", "read_committed")
            .create()?;
        let metadata = consumer.fetch_metadata(Some(topic), WAIT)?;
        let partitions = metadata.topics().iter().flat_map(|topic| topic.partitions().iter().map(|p| p.id()));
        let mut unread: HashSet<i32> = partitions.collect();
        if unread.is_empty() {
            return Err(format!("there is no topic {topic}").into());
        }
        let mut start = TopicPartitionList::new();
        for partition in &unread {
            start.add_partition_offset(topic, *partition, Offset::Beginning)?;
        }
        consumer.assign(&start)?;
        let mut directives = Self { consumer, held: HashMap::new() };
        while !unread.is_empty() {
            if let Some(end) = directives.poll(WAIT)?.ok_or("the brokers do not answer")? {
                unread.remove(&end);
            }
        }
        Ok(directives)
    }

    /// Takes over what has come since.
    fn follow(&mut self) -> Result<(), Failure> {
        while self.poll(Duration::ZERO)?.is_some() {}
        Ok(())
    }

    /// Takes over one record: none if there is none, else the partition if it has been read to its end.
    fn poll(&mut self, wait: Duration) -> Result<Option<Option<i32>>, Failure> {
        let message = match self.consumer.poll(wait) {
            None => return Ok(None),
            Some(Err(KafkaError::PartitionEOF(partition))) => return Ok(Some(Some(partition))),
            Some(Err(error @ KafkaError::MessageConsumptionFatal(_))) => return Err(error.into()),
            // A broker that restarts, say: the client goes on by itself, and what is held holds until its end.
            Some(Err(error)) => {
                eprintln!("controller: {error}");
                return Ok(Some(None));
            }
            Some(Ok(message)) => message,
        };
        let key = message.key().unwrap_or_default().to_vec();
        match message.payload() {
            None => drop(self.held.remove(&key)),
            Some(payload) => match serde_json::from_slice::<Value>(payload) {
                Ok(mut event) => drop(self.held.insert(key, event["data"].take())),
                Err(error) => eprintln!("offset {}: no directive: {error}", message.offset()),
            },
        }
        Ok(Some(None))
    }

    /// The strongest directive about a call; those in the mode `shadow` are only to be looked at.
    fn strongest(&self, call: &Value, now: DateTime<Utc>) -> Option<&Value> {
        let holds = |directive: &&Value| {
            let until = directive["valid_until"].as_str().and_then(|text| DateTime::parse_from_rfc3339(text).ok());
            let selector = directive["selector"]["match"].as_object();
            directive["mode"] == "enforce"
                && until.is_some_and(|until| until > now)
                && selector.is_some_and(|selector| selector.iter().all(|(column, value)| call[column] == *value))
        };
        let strength = |directive: &&Value| {
            STRENGTH.iter().position(|action| directive["action"] == *action).unwrap_or(UNKNOWN_STRENGTH)
        };
        self.held.values().filter(holds).max_by_key(strength)
    }
}

/// Decides about each call and answers it with a line.
pub(crate) fn run(
    (brokers, directives, spans): (&str, &str, &str),
    calls: impl BufRead,
    mut answers: impl Write,
) -> Result<(), Failure> {
    let mut directives = Directives::read(brokers, directives)?;
    let producer: ThreadedProducer<DefaultProducerContext> =
        ClientConfig::new().set("bootstrap.servers", brokers).create()?;
    for call in calls.lines() {
        let call: Value = serde_json::from_str(&call?)?;
        directives.follow()?;
        let now = now();
        let strongest = directives.strongest(&call, now);
        match strongest.filter(|directive| ["throttle", "block"].iter().any(|stop| directive["action"] == *stop)) {
            None => writeln!(answers, "allow")?,
            Some(directive) => {
                let text = |name: &str| directive[name].as_str().unwrap_or_default();
                let rule = directive["rule"]["name"].as_str().unwrap_or_default();
                writeln!(answers, "{} {} {rule}: {}", text("action"), text("reason_code"), text("message"))?;
                let span = stopped_call(&call, directive, now).to_string();
                producer.send(BaseRecord::<(), str>::to(spans).payload(&span)).map_err(|(error, _)| error)?;
            }
        }
        answers.flush()?;
    }
    Ok(producer.flush(WAIT)?)
}

/// The unit of work that does not go on, as OTLP: its attribution, and the decision as attributes and as an event.
fn stopped_call(call: &Value, directive: &Value, now: DateTime<Utc>) -> Value {
    let attribute = |key: &str, text: &Value| json!({"key": key, "value": {"stringValue": text}});
    let said = ATTRIBUTES.iter().filter(|(column, _)| call[*column].is_string());
    let mut attributes: Vec<Value> = said.map(|(column, key)| attribute(key, &call[*column])).collect();
    let decision = [
        attribute("genops.policy.result", &directive["result"]),
        attribute("genops.policy.reason_code", &directive["reason_code"]),
        attribute("genops.policy.name", &directive["rule"]["name"]),
        attribute("genops.policy.reason", &json!(directive["message"].as_str().unwrap_or_default())),
    ];
    attributes.extend(decision.iter().cloned());
    attributes.push(attribute("genops.operation.name", &json!("chat")));
    attributes.push(attribute("genops.operation.type", &json!("inference")));
    attributes.push(attribute("genops.spec.version", &directive["spec_version"]));
    let at = now.timestamp_nanos_opt().unwrap_or_default().to_string();
    let event = json!({"timeUnixNano": at, "name": "genops.policy.evaluated", "attributes": decision});
    let span = json!({
        "traceId": format!("{:032x}", fastrand::u128(1..)), "spanId": format!("{:016x}", fastrand::u64(1..)),
        "name": "chat", "kind": 3, "startTimeUnixNano": at, "endTimeUnixNano": at,
        "attributes": attributes, "events": [event], "status": {"code": 2},
    });
    let resource = json!({"attributes": [attribute("service.name", &json!("gateway"))]});
    json!({"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": [span]}]}]})
}

#[expect(clippy::disallowed_methods, reason = "a program of its own, with a clock of its own")]
fn now() -> DateTime<Utc> {
    SystemTime::now().into()
}

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let names = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [brokers] => (brokers, "lictor.directives", "otlp_spans"),
        [brokers, directives, spans] => (brokers, directives, spans),
        _ => {
            eprintln!("usage: controller brokers [directives-topic spans-topic]");
            process::exit(2)
        }
    };
    if let Err(error) = run(names, io::stdin().lock(), io::stdout().lock()) {
        eprintln!("controller: {error}");
        process::exit(1)
    }
}
