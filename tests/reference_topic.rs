//! Real Kafka, the real binary: a rule judges by a compacted topic, and by what is written to it meanwhile.
//!
//! Skips when `KAFKA_BOOTSTRAP` is not set.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "support/cluster.rs"]
mod cluster;
#[path = "support/http.rs"]
mod http;
#[path = "support/instance.rs"]
mod instance;

use std::fs;
use std::thread;
use std::time::Duration;

use cluster::{Cluster, Message, PATIENCE};
use http::{ask, free_port, get, metric};
use instance::Instance;
use lictor_connectors::{KafkaSink, Outgoing, Sink};
use lictor_engine::clock::{Clock, SystemClock};
use lictor_schemas::event::{EnforcementEvent, State};
use lictor_schemas::otlp::encode::{RowDraft, encode_protobuf};
use lictor_schemas::tables::{Signal, Table};
use serde_json::json;
use tempfile::TempDir;

const TICK: Duration = Duration::from_millis(200);
const TEAMS: [&str; 3] = ["docs", "search", "sales"];
/// The feature of calls that ask whether a table is judged by.
const PROBE: &str = "probe";

/// Every call that costs more than its team may spend on one fires, for a subject of its own.
fn rules(topic: &str) -> String {
    format!(
        "CREATE EXTERNAL TABLE budgets (key VARCHAR, usd DOUBLE) STORED AS KAFKA LOCATION '{topic}';
         CREATE RULE dear WITH (action = 'warn', reason_code = 'x_dear', ttl = '1 day') AS
         SELECT s.team, s.feature, s.cost_total AS observed, b.usd AS threshold
         FROM spans AS s JOIN budgets AS b ON b.key = s.team WHERE s.cost_total > b.usd;"
    )
}

/// A cluster with a topic of budgets, and a lictor that judges by it.
struct Bench {
    cluster: Cluster,
    port: u16,
    rules: TempDir,
    clock: SystemClock,
}

impl Bench {
    fn new(test: &str) -> Option<Self> {
        let cluster = Cluster::from_env(test)?;
        cluster.make_topic("spans", 1, false);
        let rules = TempDir::new().unwrap();
        fs::write(rules.path().join("dear.sql"), self::rules(&cluster.topic("budgets"))).unwrap();
        Some(Self { cluster, port: free_port(), rules, clock: SystemClock::start() })
    }

    fn start(&self) -> Instance {
        let config = format!("http: 127.0.0.1:{}\nrules: {}", self.port, self.rules.path().display());
        let instance = Instance::start(&self.cluster, "judge", &config);
        self.wait("the instance does not serve", || get(self.port, "/readyz").is_ok_and(|said| said.contains(" 200 ")));
        instance
    }

    #[track_caller]
    fn wait(&self, what: &str, is_so: impl Fn() -> bool) {
        let end = self.clock.monotonic() + PATIENCE;
        while !is_so() {
            assert!(self.clock.monotonic() < end, "{what}");
            thread::park_timeout(TICK);
        }
    }

    fn budget(&self, team: &str, value: Option<&str>) {
        let mut sink = KafkaSink::try_new(&self.cluster.properties, "test-budgets").unwrap();
        let (key, payload) = (Some(team.as_bytes().to_vec()), value.map(|text| text.as_bytes().to_vec()));
        sink.publish(&Outgoing { topic: self.cluster.topic("budgets"), key, payload, headers: Vec::new() }).unwrap();
        sink.flush().unwrap();
    }

    /// Writes budgets and waits until they are judged by, which nobody asks for: until a team of its own, whose budget
    /// was written last, is told of.
    #[track_caller]
    fn change(&self, probe: &str, budgets: &[(&str, Option<&str>)]) {
        budgets.iter().for_each(|(team, value)| self.budget(team, *value));
        self.budget(probe, Some("{\"usd\": 0}"));
        let before = metric(self.port, "lictor_events_total", "dear");
        self.wait("the table was not read again", || {
            self.calls(PROBE, &[probe]);
            metric(self.port, "lictor_events_total", "dear") > before
        });
    }

    /// A call of every team, at a cost of 7.
    fn calls(&self, feature: &str, teams: &[&str]) {
        let call = |team: &&str| {
            let columns = json!({"team": team, "feature": feature, "cost_total": 7});
            let columns = columns.as_object().unwrap().clone().into_iter().collect();
            RowDraft { table: Table::Spans, event_time: self.clock.now(), columns }
        };
        let payload = encode_protobuf(Signal::Traces, &teams.iter().map(call).collect::<Vec<_>>()).unwrap();
        self.cluster.produce("spans", vec![Some(payload)]).unwrap();
    }

    /// `feature team threshold` of all that has fired, once it is so many, in order of their text.
    fn fired(&self, count: usize) -> Vec<String> {
        let messages = self.cluster.read("judge.enforcement", |read| fired_of(read).len() >= count);
        fired_of(&messages)
    }
}

fn fired_of(messages: &[Message]) -> Vec<String> {
    let events = messages.iter().map(|m| EnforcementEvent::from_json(m.payload.as_ref().unwrap()).unwrap());
    let lines = events.filter(|event| event.data.state == State::Firing).map(|event| {
        let part = |column: &str| event.data.selector.matches[column].as_str().unwrap().to_owned();
        format!("{} {} {}", part("feature"), part("team"), event.data.finding.threshold.unwrap())
    });
    let mut lines: Vec<String> = lines.filter(|line| !line.starts_with(PROBE)).collect();
    lines.sort();
    lines
}

#[test]
fn a_changed_record_changes_the_decision_and_a_broken_one_does_not() {
    let Some(bench) = Bench::new("reference-topic") else { return };
    bench.cluster.make_topic("budgets", 3, true);
    bench.budget("docs", Some("{\"usd\": 100}"));
    bench.budget("docs", Some("{\"usd\": 5, \"owner\": \"ann\"}"));
    bench.budget("search", Some("{\"usd\": 5}"));
    let _instance = bench.start();
    bench.calls("1-start", &TEAMS);
    let mut expected = vec!["1-start docs 5", "1-start search 5"];
    assert_eq!(bench.fired(expected.len()), expected);

    bench.change("p1", &[("docs", Some("{\"usd\": 6}")), ("search", Some("{\"usd\": 50}"))]);
    bench.calls("2-changed", &TEAMS);
    expected.push("2-changed docs 6");
    assert_eq!(bench.fired(expected.len()), expected);

    // The broken record of `docs` is told and changes nothing, the good one beside it counts.
    bench.change("p2", &[("docs", Some("{\"usd\": \"lots\"}")), ("sales", Some("{\"usd\": 1}"))]);
    let said = ask(bench.port, "POST", "/-/reload").unwrap();
    let place = format!("reference table budgets: refused records: 1, such as {}[", bench.cluster.topic("budgets"));
    assert!(said.contains(&place) && said.contains("column `usd`: ") && said.contains("lots"), "{said}");
    assert!((metric(bench.port, "lictor_refused_references", "budgets") - 1.0).abs() < f64::EPSILON);
    bench.calls("3-broken", &TEAMS);
    expected.extend(["3-broken docs 6", "3-broken sales 1"]);
    assert_eq!(bench.fired(expected.len()), expected);

    bench.change("p3", &[("docs", None)]);
    bench.calls("4-tombstone", &TEAMS);
    expected.push("4-tombstone sales 1");
    assert_eq!(bench.fired(expected.len()), expected);
    assert!(metric(bench.port, "lictor_refused_references", "budgets") < 0.5, "the tombstone ended that");
}

#[test]
fn a_topic_that_comes_later_brings_its_rules() {
    let Some(bench) = Bench::new("reference-topic-later") else { return };
    let other = "CREATE RULE other WITH (action = 'warn', reason_code = 'x_other') AS
        SELECT s.team, s.cost_total AS observed FROM spans AS s WHERE s.cost_total > 1000;";
    fs::write(bench.rules.path().join("other.sql"), other).unwrap();
    let _instance = bench.start();
    let said = ask(bench.port, "POST", "/-/reload").unwrap();
    assert!(said.starts_with("HTTP/1.1 422 ") && said.contains("does not exist"), "{said}");
    bench.cluster.make_topic("budgets", 1, true);
    bench.budget("docs", Some("{\"usd\": 5}"));
    bench.wait("the rule does not fire", || {
        bench.calls("later", &TEAMS);
        metric(bench.port, "lictor_events_total", "dear") > 0.0
    });
    assert_eq!(bench.fired(1), ["later docs 5"]);
}
