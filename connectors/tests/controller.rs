//! The controllers that are there to be copied, beside a real Kafka.
//!
//! Skips when `KAFKA_BOOTSTRAP` is not set; the one in Python also if there is no `python3` with `confluent_kafka`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[expect(dead_code, reason = "here its main is not what runs")]
#[path = "../examples/controller.rs"]
mod controller;
#[path = "support/fresh.rs"]
mod fresh;

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use arrow::array::AsArray;
use fresh::servers_and_name;
use lictor_connectors::{
    EmbeddedBroker, KafkaFollower, KafkaProperties, KafkaSink, Outgoing, RecordRef, Sink, TopicSpec, ensure_topics,
};
use lictor_schemas::event::{EnforcementEvent, Finding, Revision, State};
use lictor_schemas::genops::{Action, PolicyResult, ReasonCode, Severity};
use lictor_schemas::otlp::{Decoder, RecordMeta, Wanted};
use lictor_schemas::prices::PriceTable;
use lictor_schemas::rule::{Mode, RuleHeader, RuleVersion};
use lictor_schemas::tables::{Signal, Table};
use lictor_schemas::time::EventTime;
use lictor_schemas::violation::Subject;
use serde_json::{Map, Value, json};

const WAIT: Duration = Duration::from_secs(60);
/// Between two questions; 600 are a minute, for a broker on a busy machine.
const LOOK: Duration = Duration::from_millis(100);
const LOOKS_MAX: usize = 600;
/// How long a broker stays away: two seconds, in which a client has noticed.
const LOOKS_AWAY: usize = 20;

const DOCS: &str = r#"{"team": "docs", "project": "wiki", "environment": "production", "request_model": "gpt-4o"}"#;
const SEARCH: &str = r#"{"team": "search", "project": "web", "environment": "production", "request_model": "gpt-4o"}"#;
const BLOCKED: &str = "block BUDGET_EXCEEDED team_daily_budget: docs has spent 65.00 of its 60.0 USD for the day";

/// A cluster with a topic of directives and one of spans.
struct Site {
    properties: KafkaProperties,
    servers: String,
    directives: String,
    spans: String,
}

impl Site {
    fn new(test: &str) -> Option<Self> {
        let (servers, name) = servers_and_name(test)?;
        let properties = KafkaProperties::from_bootstrap(&servers);
        let (directives, spans) = (format!("{name}.directives"), format!("{name}.spans"));
        let topics = [TopicSpec::new(&directives, 2, true), TopicSpec::new(&spans, 1, false)];
        ensure_topics(&properties, &topics).unwrap();
        Some(Self { properties, servers, directives, spans })
    }

    fn publish(&self, key: &str, payload: Option<Vec<u8>>) {
        let mut sink = KafkaSink::try_new(&self.properties, "test-out").unwrap();
        let (topic, key) = (self.directives.clone(), Some(key.as_bytes().to_vec()));
        sink.publish(&Outgoing { topic, key, payload, headers: Vec::new() }).unwrap();
        sink.flush().unwrap();
    }

    /// Publishes what holds: a block, one that is only looked at, one that has ended, a warning, and half an event.
    fn publish_directives(&self) {
        let far = EventTime::from_rfc3339("2200-01-01T00:00:00Z").unwrap();
        let block = event("block", "docs", Mode::Enforce, PolicyResult::Blocked, far);
        self.publish("torn", Some(block[..100].to_vec()));
        self.publish("block", Some(block));
        self.publish("warn", Some(event("warn", "docs", Mode::Enforce, PolicyResult::Warning, far)));
        let mut later: Value =
            serde_json::from_slice(&event("later", "docs", Mode::Enforce, PolicyResult::Blocked, far)).unwrap();
        later["data"]["action"] = json!("an action of a later version");
        self.publish("later", Some(later.to_string().into_bytes()));
        self.publish("shadow", Some(event("shadow", "search", Mode::Shadow, PolicyResult::Blocked, far)));
        let past = EventTime::from_rfc3339("2001-01-01T00:00:00Z").unwrap();
        self.publish("past", Some(event("past", "search", Mode::Enforce, PolicyResult::Blocked, past)));
    }

    /// Asks a controller that has just started; then what is blocked is resolved and something else is blocked.
    fn converse(&self, mut calls: impl Write, mut answers: impl BufRead) {
        let mut ask = |call: &str| ask(&mut calls, &mut answers, call);
        assert_eq!((ask(DOCS).as_str(), ask(SEARCH).as_str()), (BLOCKED, "allow"));
        self.publish("block", None);
        let far = EventTime::from_rfc3339("2200-01-01T00:00:00Z").unwrap();
        self.publish("other", Some(event("other", "search", Mode::Enforce, PolicyResult::RateLimited, far)));
        let changed = (0..LOOKS_MAX).any(|_| {
            thread::park_timeout(LOOK);
            ask(DOCS) == "allow" && ask(SEARCH).starts_with("throttle BUDGET_EXCEEDED")
        });
        assert!(changed, "what was published is not followed");
    }

    /// The decisions on stopped calls, as a rule over `span_events` would read them.
    fn assert_decisions_are_recorded(&self) {
        let columns = ["name", "span_name", "team", "policy_result", "policy_reason_code", "policy_name"];
        let names = columns.map(str::to_owned).into_iter().collect();
        let wanted = Wanted(BTreeMap::from([(Table::SpanEvents, names)]));
        let mut decoder = Decoder::new(&wanted, &[], Arc::new(PriceTable::default()));
        let mut follower = KafkaFollower::try_new(&self.properties, "test-spans", &self.spans).unwrap();
        let mut take = |record: &RecordRef<'_>| {
            let meta = RecordMeta { topic: record.topic, partition: 0, offset: record.offset, timestamp_ms: 0 };
            decoder.absorb(Signal::Traces, record.payload.unwrap(), meta).unwrap();
            Ok(())
        };
        follower.read_to_end(WAIT, &|| true, &mut take).unwrap();
        let (_, batch) = decoder.take().remove(0);
        let row = |row: usize| {
            let text = |name: &str| batch.column_by_name(name).unwrap().as_string_view().value(row).to_owned();
            columns.map(text)
        };
        let decision = |team: &str, result: &str| {
            ["genops.policy.evaluated", "chat", team, result, "BUDGET_EXCEEDED", "team_daily_budget"].map(str::to_owned)
        };
        assert_eq!(row(0), decision("docs", "BLOCKED"));
        assert_eq!(row(batch.num_rows() - 1), decision("search", "RATE_LIMITED"));
    }
}

fn ask(mut calls: impl Write, mut answers: impl BufRead, call: &str) -> String {
    writeln!(calls, "{call}").unwrap();
    calls.flush().unwrap();
    let mut answer = String::new();
    answers.read_line(&mut answer).unwrap();
    answer.trim_end().to_owned()
}

fn event(id: &str, team: &str, mode: Mode, result: PolicyResult, valid_until: EventTime) -> Vec<u8> {
    let reason_code = ReasonCode::parse("BUDGET_EXCEEDED").unwrap();
    let rule = RuleHeader {
        severity: Severity::Critical,
        owner: "finops".to_owned(),
        mode,
        file: "a.sql".to_owned(),
        version: RuleVersion("0".repeat(16)),
        ..RuleHeader::new("team_daily_budget", Action::Block, reason_code.clone())
    };
    let subject = Subject(Map::from_iter([("team".to_owned(), json!(team))]));
    let message = Some(format!("{team} has spent 65.00 of its 60.0 USD for the day"));
    let finding = Finding { result, reason_code: Some(reason_code), message, ..Finding::cleared(None) };
    let (state, at) = (State::Firing, EventTime::default());
    let said = Revision {
        directive_id: id,
        revision: 1,
        state,
        subject: &subject,
        finding,
        mode,
        started_at: None,
        at,
        valid_until,
    };
    EnforcementEvent::new("lictor", &rule, said).to_json()
}

#[test]
fn the_controller_in_rust_stops_what_is_blocked_and_says_so() {
    let Some(site) = Site::new("controller-rust") else { return };
    site.publish_directives();
    let (calls, said) = io::pipe().unwrap();
    let (answers, answered) = io::pipe().unwrap();
    thread::scope(|scope| {
        let names = (site.servers.as_str(), site.directives.as_str(), site.spans.as_str());
        let running = scope.spawn(move || controller::run(names, BufReader::new(calls), answered));
        site.converse(said, BufReader::new(answers));
        running.join().unwrap().unwrap();
    });
    site.assert_decisions_are_recorded();
}

#[test]
fn a_broker_that_goes_away_ends_no_controller_and_what_is_held_holds() {
    let (directives, spans) = ("directives".to_owned(), "spans".to_owned());
    let broker = EmbeddedBroker::start(&[(&directives, 1), (&spans, 1)]).unwrap();
    let (properties, servers) = (broker.properties(), broker.bootstrap().to_owned());
    let site = Site { properties, servers, directives, spans };
    site.publish_directives();
    let (mut calls, said) = io::pipe().map(|(read, write)| (write, BufReader::new(read))).unwrap();
    let (answers, answered) = io::pipe().unwrap();
    let names = (site.servers.as_str(), site.directives.as_str(), site.spans.as_str());
    thread::scope(|scope| {
        let running = scope.spawn(move || controller::run(names, said, answered));
        let mut answers = BufReader::new(answers);
        let mut ask = |call: &str| ask(&mut calls, &mut answers, call);
        assert_eq!(ask(DOCS), BLOCKED);
        broker.take_down().unwrap();
        for _ in 0..LOOKS_AWAY {
            thread::park_timeout(LOOK);
            assert_eq!(ask(DOCS), BLOCKED);
        }
        broker.bring_up().unwrap();
        site.publish("block", None);
        let changed = (0..LOOKS_MAX).any(|_| {
            thread::park_timeout(LOOK);
            ask(DOCS) == "allow"
        });
        assert!(changed, "what was published after the outage is not followed");
        drop(calls);
        running.join().unwrap().unwrap();
    });
}

#[test]
fn the_controller_in_python_stops_what_is_blocked_and_says_so() {
    let python = Command::new("python3").args(["-c", "import confluent_kafka"]).stderr(Stdio::null()).status();
    if !python.is_ok_and(|status| status.success()) {
        eprintln!("controller-python: skipped: there is no python3 with confluent_kafka (pip install confluent-kafka)");
        return;
    }
    let Some(site) = Site::new("controller-python") else { return };
    site.publish_directives();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/controller.py");
    let mut python = Command::new("python3");
    python.args([script, &site.servers, &site.directives, &site.spans]);
    let mut child = python.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (calls, answers) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    // Its calls end with the conversation, and so does it.
    site.converse(calls, BufReader::new(answers));
    assert!(child.wait().unwrap().success());
    site.assert_decisions_are_recorded();
}
