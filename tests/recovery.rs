//! Real Kafka, the real binary, killed twice in the middle: no violation is missing, and what comes twice is the same.
//!
//! The first two thirds of the telemetry lie there as a backlog, so that partitions come one after the other and a kill
//! hits an instance that is busy. What the killed instance has published is compared with what an undisturbed one
//! publishes from the same topics. Skips when `KAFKA_BOOTSTRAP` is not set.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "support/cluster.rs"]
mod cluster;
#[path = "support/difference.rs"]
mod difference;
#[path = "support/instance.rs"]
mod instance;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cluster::{Cluster, PATIENCE};
use difference::difference;
use instance::Instance;
use lictor_connectors::{KafkaSource, RecordRef, Source};
use lictor_engine::clock::{Clock, SystemClock};
use lictor_engine::company::Company;
use lictor_schemas::event::EnforcementEvent;
use lictor_schemas::tables::Signal;
use lictor_schemas::time::EventTime;
use serde_json::Value;

const SECOND_NS: i64 = 1_000_000_000;
const DAY_NS: i64 = 86_400 * SECOND_NS;
/// All incidents of the company and their ends.
const STORY_S: i64 = 65 * 60;
/// The company's seconds in one of our records: an update rule is judged after every record, which costs milliseconds
/// in an unoptimised build.
const BUNDLE_S: i64 = 10;

/// Records nobody can decode, written after everything else: once all are among the dead letters, all is judged.
const SENTINEL: &[u8] = b"\xffsentinel";
/// So many that every partition gets some.
const SENTINELS: usize = 64;

/// Relative; sums of floats depend in their last digits on where epochs were cut.
const NUMBER_TOLERANCE: f64 = 1e-9;

/// Silence is not what is tested: on a slow machine it may be long.
const CONFIG: &str = "http: off\ntime: {idle_after: 10m}";

/// The company's hour, over by now and within one UTC day, in records of several seconds.
fn story() -> Vec<Option<Vec<u8>>> {
    let begin = SystemClock::start().now().0 - STORY_S * SECOND_NS;
    let has_room = begin.rem_euclid(DAY_NS) + STORY_S * SECOND_NS < DAY_NS;
    let start = EventTime(if has_room { begin } else { begin - STORY_S * SECOND_NS });
    let mut company = Company::new(7, start).with_traces_per_s(1.0);
    let bundle = |number: i64| {
        let messages = company.next_batch(start.plus(number * BUNDLE_S * SECOND_NS)).into_iter();
        let traces = messages.filter(|(signal, _, payload)| *signal == Signal::Traces && payload[0] != 0xff);
        Some(traces.map(|message| message.2).collect::<Vec<_>>().concat())
    };
    (1..=STORY_S / BUNDLE_S).map(bundle).collect()
}

/// Reads a topic from its beginning and goes on reading.
struct Follower {
    source: KafkaSource,
    events: Vec<EnforcementEvent>,
}

impl Follower {
    fn new(cluster: &Cluster, purpose: &str) -> Self {
        let topic = cluster.topic(purpose);
        cluster.make_topic(purpose, 1, false);
        let group = format!("{topic}.follower");
        let source = KafkaSource::try_new(&cluster.properties, &group, "test-in", &[topic]).unwrap();
        Self { source, events: Vec::new() }
    }

    /// Returns as soon as so many events are there.
    fn wait_for(&mut self, count: usize) {
        let clock = SystemClock::start();
        while self.events.len() < count {
            assert!(clock.monotonic() < PATIENCE, "{} of {count} events came", self.events.len());
            let events = &mut self.events;
            let take = &mut |record: RecordRef<'_>| {
                events.push(EnforcementEvent::from_json(record.payload.unwrap()).unwrap());
            };
            self.source.poll(Duration::from_millis(5), take).unwrap();
        }
    }
}

/// All events of an application, once it has judged everything.
fn events_at_the_end(cluster: &Cluster, application: &str) -> Vec<EnforcementEvent> {
    let is_sentinel = |payload: &Option<Vec<u8>>| payload.as_deref() == Some(SENTINEL);
    cluster.read(&format!("{application}.dead"), |read| {
        read.iter().filter(|message| is_sentinel(&message.payload)).count() >= SENTINELS
    });
    // An epoch's events are acknowledged together with its dead letters, so a message of our own is behind them all.
    let purpose = format!("{application}.enforcement");
    cluster.produce(&purpose, vec![Some(SENTINEL.to_vec())]).unwrap();
    let mut messages = cluster.read(&purpose, |read| read.iter().any(|message| is_sentinel(&message.payload)));
    messages.retain(|message| !is_sentinel(&message.payload));
    messages.iter().map(|m| EnforcementEvent::from_json(m.payload.as_ref().unwrap()).unwrap()).collect()
}

/// What was published.
struct Published {
    undisturbed: Vec<EnforcementEvent>,
    killed: Vec<EnforcementEvent>,
}

/// Runs one application that is killed twice, and one that is not.
fn kill_twice(cluster: &Cluster, partitions: i32) -> Published {
    cluster.make_topic("spans", partitions, false);
    let mut follower = Follower::new(cluster, "killed.enforcement");
    let mut records = story();
    let last_third = records.split_off(records.len() * 2 / 3);
    cluster.produce("spans", records).unwrap();
    let first = Instance::start(cluster, "killed", CONFIG);
    follower.wait_for(3);
    drop(first);
    let second = Instance::start(cluster, "killed", CONFIG);
    follower.wait_for(9);
    drop(second);
    cluster.produce("spans", last_third).unwrap();
    cluster.produce("spans", vec![Some(SENTINEL.to_vec()); SENTINELS]).unwrap();
    let third = Instance::start(cluster, "killed", CONFIG);
    let killed = events_at_the_end(cluster, "killed");
    drop(third);
    cluster.make_topic("undisturbed.enforcement", 1, false);
    let whole = Instance::start(cluster, "undisturbed", CONFIG);
    let undisturbed = events_at_the_end(cluster, "undisturbed");
    drop(whole);
    Published { undisturbed, killed }
}

/// An event without what may differ between two instances: when it was published, and under which name.
fn content(event: &EnforcementEvent) -> Value {
    let mut event = event.clone();
    event.data.detected_at = None;
    event.source = String::new();
    serde_json::from_slice(&event.to_json()).unwrap()
}

/// Events that came again under their id, and how many of those had another content.
fn repetitions(events: &[EnforcementEvent]) -> (usize, usize) {
    let mut first: BTreeMap<&str, Value> = BTreeMap::new();
    let (mut repeated, mut changed) = (0, 0);
    for event in events {
        let content = content(event);
        if let Some(before) = first.get(event.id.as_str()) {
            repeated += 1;
            changed += usize::from(difference("event", before, &content, NUMBER_TOLERANCE).is_some());
            continue;
        }
        first.insert(&event.id, content);
    }
    (repeated, changed)
}

#[test]
fn killed_on_one_partition_every_event_is_there_and_repeats_only_itself() {
    let Some(cluster) = Cluster::from_env("recovery-one") else { return };
    let Published { undisturbed, killed } = kill_twice(&cluster, 1);
    let expected: BTreeMap<&str, Value> = undisturbed.iter().map(|e| (e.id.as_str(), content(e))).collect();
    assert!(expected.len() >= 20, "{} events", expected.len());
    assert_eq!(expected.len(), undisturbed.len(), "the undisturbed run repeats nothing");
    let found: BTreeMap<&str, Value> = killed.iter().map(|e| (e.id.as_str(), content(e))).collect();
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (id, event) in &expected {
        let differs = difference("event", event, &found[id], NUMBER_TOLERANCE);
        assert_eq!(differs, None, "{id}");
    }
    let (repeated, changed) = repetitions(&killed);
    eprintln!("one partition: {} events, 2 kills, {repeated} came twice, {changed} of those changed", expected.len());
    assert_eq!(changed, 0);
}

/// Who broke which rule, and how: rule, subject, result, whether it still holds.
///
/// With several partitions it depends on their interleaving, in the undisturbed run too, in which of its overlapping
/// windows a violation that goes on is renewed.
fn findings(events: &[EnforcementEvent]) -> BTreeSet<(String, String, &'static str, bool)> {
    let finding = |event: &EnforcementEvent| {
        let data = &event.data;
        let (result, holds) = (data.finding.result.as_str(), !data.state.is_ended());
        (data.rule.name.clone(), event.to_subject_text(), result, holds)
    };
    events.iter().map(finding).collect()
}

#[test]
fn killed_on_four_partitions_no_violation_is_missing() {
    let Some(cluster) = Cluster::from_env("recovery-four") else { return };
    let Published { undisturbed, killed } = kill_twice(&cluster, 4);
    let (repeated, changed) = repetitions(&killed);
    let (expected, found) = (findings(&undisturbed), findings(&killed));
    eprintln!(
        "four partitions: {} and {} events of {} and {} findings, 2 kills, {repeated} came twice, {changed} of those \
         changed",
        undisturbed.len(),
        killed.len(),
        expected.len(),
        found.len()
    );
    assert!(expected.len() >= 12, "{expected:#?}");
    let missing: Vec<_> = expected.difference(&found).collect();
    assert!(missing.is_empty(), "missing: {missing:#?}");
}
