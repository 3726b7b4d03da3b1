use std::sync::Arc;

use lictor_connectors::{EmbeddedBroker, KafkaSink, Outgoing, Sink};
use lictor_schemas::columns::RequestReader;
use lictor_schemas::event::{EnforcementEvent, Finding, Revision, State};
use lictor_schemas::genops::{Action, PolicyResult, ReasonCode, Severity};
use lictor_schemas::rule::{Mode, RuleHeader, RuleVersion};
use lictor_schemas::violation::Subject;
use serde_json::{Map, json};

use super::super::{GuardOptions, Stale};
use super::*;
use crate::clock::SystemClock;

const TOPIC: &str = "directives";
const SHADOW: &str = "directives.shadow";
/// Far more than a slow machine needs.
const PATIENCE: Duration = Duration::from_secs(60);

/// A block of a team that holds for a day.
fn event(id: &str, revision: u32, team: &str) -> Vec<u8> {
    event_in(Mode::Enforce, id, revision, team)
}

fn event_in(mode: Mode, id: &str, revision: u32, team: &str) -> Vec<u8> {
    let at = SystemClock::start().now();
    let rule = RuleHeader {
        severity: Severity::Critical,
        mode,
        file: "a.sql".to_owned(),
        version: RuleVersion("0".repeat(16)),
        ..RuleHeader::new("budget", Action::Block, ReasonCode::parse("BUDGET_EXCEEDED").unwrap())
    };
    let subject = Subject(Map::from_iter([("team".to_owned(), json!(team))]));
    let finding = Finding { result: PolicyResult::Blocked, ..Finding::cleared(None) };
    let valid_until = at.plus(86_400_000_000_000);
    let said = Revision {
        directive_id: id,
        revision,
        state: State::Firing,
        subject: &subject,
        finding,
        mode,
        started_at: None,
        at,
        valid_until,
    };
    EnforcementEvent::new("lictor", &rule, said).to_json()
}

fn publish(broker: &EmbeddedBroker, key: &str, payload: Option<Vec<u8>>) {
    publish_on(TOPIC, broker, key, payload);
}

fn publish_on(topic: &str, broker: &EmbeddedBroker, key: &str, payload: Option<Vec<u8>>) {
    let mut sink = KafkaSink::try_new(&broker.properties(), "test-out").unwrap();
    let (topic, key) = (topic.to_owned(), Some(key.into()));
    sink.publish(&Outgoing { topic, key, payload, headers: Vec::new() }).unwrap();
    sink.flush().unwrap();
}

/// Runs `test` beside a loop that follows the broker's topics.
fn beside_the_loop(broker: &EmbeddedBroker, options: GuardOptions, test: impl FnOnce(&Guard, SystemClock)) {
    let (guard, clock) = (Arc::new(Guard::new(options, &[])), SystemClock::start());
    let follower = |topic| KafkaFollower::try_new(&broker.properties(), "test-guard", topic).unwrap();
    let mut followers = [follower(TOPIC), follower(SHADOW)];
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| follow(&guard, &mut followers, &clock, &stop, &|text| text.replace("secret", "***")));
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| test(&guard, clock)));
        stop.store(true, Ordering::Relaxed);
        ended.unwrap();
    });
}

#[track_caller]
fn wait(clock: SystemClock, what: &str, is_so: impl Fn() -> bool) {
    while !is_so() {
        assert!(clock.monotonic() < PATIENCE, "{what}: not after {PATIENCE:?}");
        thread::park_timeout(Duration::from_millis(10));
    }
}

fn denies(guard: &Guard, team: &str, clock: SystemClock) -> bool {
    let (reader, team) = (RequestReader::new(&[]), json!(team));
    let verdict = guard.decide(&reader.read([("team", &team)]), clock.now(), clock.monotonic());
    verdict.directive.is_some()
}

#[test]
fn the_topic_is_read_to_its_end_and_followed() {
    let broker = EmbeddedBroker::start(&[(TOPIC, 3), (SHADOW, 1)]).unwrap();
    publish(&broker, "d1", Some(event("d1", 1, "docs")));
    publish(&broker, "d2", Some(event("d2", 1, "search")));
    publish(&broker, "d2", None);
    beside_the_loop(&broker, GuardOptions::default(), |guard, clock| {
        wait(clock, "read to its end", || guard.staleness().at(clock.monotonic()).is_ok());
        assert!(denies(guard, "docs", clock) && !denies(guard, "search", clock));
        publish(&broker, "d3", Some(event("d3", 1, "sales")));
        wait(clock, "a new directive", || denies(guard, "sales", clock));
        publish(&broker, "d1", None);
        wait(clock, "a tombstone", || !denies(guard, "docs", clock));
    });
}

#[test]
fn what_is_only_looked_at_lies_on_a_topic_of_its_own() {
    let broker = EmbeddedBroker::start(&[(TOPIC, 1), (SHADOW, 2)]).unwrap();
    publish_on(SHADOW, &broker, "s1", Some(event_in(Mode::Shadow, "s1", 1, "docs")));
    publish(&broker, "d1", Some(event("d1", 1, "search")));
    let shadowed = |guard: &Guard, team: &str, clock: SystemClock| {
        let (reader, team) = (RequestReader::new(&[]), json!(team));
        let verdict = guard.decide(&reader.read([("team", &team)]), clock.now(), clock.monotonic());
        assert!(verdict.directive.is_none() || verdict.shadow.is_none());
        verdict.shadow.is_some()
    };
    beside_the_loop(&broker, GuardOptions::default(), |guard, clock| {
        wait(clock, "read to its end", || guard.staleness().at(clock.monotonic()).is_ok());
        assert!(shadowed(guard, "docs", clock) && !denies(guard, "docs", clock) && denies(guard, "search", clock));
        publish_on(SHADOW, &broker, "s2", Some(event_in(Mode::Shadow, "s2", 1, "sales")));
        wait(clock, "a new one", || shadowed(guard, "sales", clock));
        publish_on(SHADOW, &broker, "s1", None);
        wait(clock, "its end", || !shadowed(guard, "docs", clock));
        let metrics = guard.metrics().encode(None, false);
        assert!(metrics.contains("lictor_guard_shadowed_total{rule=\"budget\",decision=\"deny\"}"), "{metrics}");
    });
}

#[test]
fn records_that_are_no_directives_are_counted_and_change_nothing() {
    let broker = EmbeddedBroker::start(&[(TOPIC, 1), (SHADOW, 1)]).unwrap();
    let (whole, other) = (event("d1", 1, "docs"), event("d9", 1, "docs"));
    publish(&broker, "d1", Some(whole.clone()));
    publish(&broker, "d1", Some(whole[..whole.len() / 2].to_vec()));
    publish(&broker, "d1", Some(b"{\"specversion\":\"1.0\",\"type\":\"another\"}".to_vec()));
    publish(&broker, "d1", Some(other));
    beside_the_loop(&broker, GuardOptions::default(), |guard, clock| {
        wait(clock, "read to its end", || guard.staleness().at(clock.monotonic()).is_ok());
        assert!(denies(guard, "docs", clock));
        publish(&broker, "d1", Some(Vec::new()));
        publish(&broker, "d2", Some(event("d2", 1, "search")));
        wait(clock, "what comes behind", || denies(guard, "search", clock));
        let metrics = guard.metrics().encode(None, false);
        assert!(metrics.contains("lictor_guard_records_total{outcome=\"unreadable\"} 4\n"), "{metrics}");
        assert!(denies(guard, "docs", clock));
    });
}

#[test]
fn a_topic_that_is_not_there_is_waited_for() {
    let broker = EmbeddedBroker::start(&[("other", 1)]).unwrap();
    beside_the_loop(&broker, GuardOptions::default(), |guard, clock| {
        let why = || guard.staleness().readiness(clock.monotonic()).err().unwrap_or_default();
        wait(clock, "the reason", || why().contains("topic `directives` does not exist"));
        assert_eq!(guard.staleness().at(clock.monotonic()), Err(Stale::Reading));
        broker.create_topic(TOPIC, 1).unwrap();
        wait(clock, "the other one", || why().contains("topic `directives.shadow` does not exist"));
        broker.create_topic(SHADOW, 1).unwrap();
        wait(clock, "read to its end", || guard.staleness().at(clock.monotonic()).is_ok());
    });
}

#[test]
fn a_broker_that_goes_away_is_noticed_and_one_that_comes_back_too() {
    let broker = EmbeddedBroker::start(&[(TOPIC, 2), (SHADOW, 1)]).unwrap();
    let options = GuardOptions { stale_after: Duration::from_secs(3), ..GuardOptions::default() };
    beside_the_loop(&broker, options, |guard, clock| {
        let is_current = || guard.staleness().at(clock.monotonic()).is_ok();
        wait(clock, "read to its end", is_current);
        publish(&broker, "d1", Some(event("d1", 1, "docs")));
        wait(clock, "a directive", || denies(guard, "docs", clock));
        broker.take_down().unwrap();
        wait(clock, "stale", || !is_current());
        assert!(denies(guard, "docs", clock), "what is in force applies");
        broker.bring_up().unwrap();
        wait(clock, "current again", is_current);
    });
}

#[test]
fn more_directives_than_may_be_held_make_it_stale() {
    let broker = EmbeddedBroker::start(&[(TOPIC, 1), (SHADOW, 1)]).unwrap();
    publish(&broker, "d1", Some(event("d1", 1, "docs")));
    let options = GuardOptions { directives_max: 1, ..GuardOptions::default() };
    beside_the_loop(&broker, options, |guard, clock| {
        wait(clock, "read to its end", || guard.staleness().at(clock.monotonic()).is_ok());
        publish(&broker, "d2", Some(event("d2", 1, "search")));
        wait(clock, "too many", || guard.staleness().at(clock.monotonic()) == Err(Stale::Incomplete));
        assert!(denies(guard, "docs", clock) && !denies(guard, "search", clock));
    });
}
