//! Real Kafka, the real binary, killed in the middle: every event is there, and none comes twice.
//!
//! The telemetry lies there as a backlog, in three parts, so that partitions come one after the other and a kill hits
//! an instance that is busy. What the killed instance has published is compared with what an undisturbed one publishes
//! from the same topics. Skips when `KAFKA_BOOTSTRAP` is not set.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "support/cluster.rs"]
mod cluster;
#[path = "support/content.rs"]
mod content;
#[path = "support/difference.rs"]
mod difference;
#[path = "support/http.rs"]
mod http;
#[path = "support/instance.rs"]
mod instance;
#[path = "support/judged.rs"]
mod judged;
#[path = "support/published.rs"]
mod published;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cluster::{Cluster, PATIENCE};
use content::content;
use difference::difference;
use http::{free_port, metric};
use instance::Instance;
use judged::wait_until_judged;
use lictor_connectors::{KafkaSink, KafkaSource, Outgoing, RecordRef, Sink, Source};
use lictor_engine::clock::{Clock, SystemClock};
use lictor_engine::company::Company;
use lictor_schemas::event::EnforcementEvent;
use lictor_schemas::otlp::encode::{RowDraft, encode_protobuf};
use lictor_schemas::tables::{Signal, Table};
use lictor_schemas::time::EventTime;
use published::published;
use serde_json::{Value, json};

const SECOND_NS: i64 = 1_000_000_000;
const DAY_NS: i64 = 86_400 * SECOND_NS;
/// All incidents of the company and their ends.
const STORY_S: i64 = 65 * 60;
/// The company's seconds in one of our records: an update rule is judged after every record, which costs milliseconds
/// in an unoptimised build.
const BUNDLE_S: i64 = 20;

const SHARDS: i32 = 4;

/// Committed events are read within this time.
const SETTLING: Duration = Duration::from_millis(300);

/// Relative; sums of floats depend in their last digits on where epochs were cut.
const NUMBER_TOLERANCE: f64 = 1e-9;

/// What a killed instance served nobody else gets before this time is over; less than the default.
const SESSION_MS: u32 = 6_000;

/// Silence is not what is tested: on a slow machine it may be long.
fn config(cluster: &Cluster) -> String {
    let servers = cluster.properties.bootstrap_servers();
    format!(
        "shards: {SHARDS}\ntime: {{idle_after: 10m}}\n\
         kafka: {{bootstrap.servers: \"{servers}\", consumer.session.timeout.ms: {SESSION_MS}}}"
    )
}

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

    /// Takes what comes within a moment.
    fn look(&mut self) {
        let events = &mut self.events;
        let take = &mut |record: RecordRef<'_>| {
            events.push(EnforcementEvent::from_json(record.payload.unwrap()).unwrap());
        };
        self.source.poll(Duration::from_millis(5), take).unwrap();
    }

    /// Returns as soon as so many events are there.
    fn wait_for(&mut self, count: usize) {
        let clock = SystemClock::start();
        while self.events.len() < count {
            assert!(clock.monotonic() < PATIENCE, "{} of {count} events came", self.events.len());
            self.look();
        }
    }

    /// How many events were published before a kill.
    fn count(&mut self) -> usize {
        let clock = SystemClock::start();
        while clock.monotonic() < SETTLING {
            self.look();
        }
        self.events.len()
    }
}

/// All events of an application, once it has judged everything.
fn events_at_the_end(cluster: &Cluster, application: &str, partitions: i32) -> Vec<EnforcementEvent> {
    let (application_id, input) = (cluster.topic(application), cluster.topic("spans"));
    wait_until_judged(&cluster.properties, &application_id, (&input, partitions), SHARDS, PATIENCE);
    published(cluster, &format!("{application}.enforcement"))
}

/// What was published.
struct Published {
    undisturbed: Vec<EnforcementEvent>,
    killed: Vec<EnforcementEvent>,
    /// How many events there were at each kill.
    at_kills: [usize; 2],
}

/// Runs one application that is killed twice, and one that is not.
fn kill_twice(cluster: &Cluster, partitions: i32, delivery: &str) -> Published {
    cluster.make_topic("spans", partitions, false);
    let mut follower = Follower::new(cluster, "killed.enforcement");
    let mut records = story();
    let end = records.split_off(records.len() * 5 / 6);
    let middle = records.split_off(records.len() * 3 / 5);
    cluster.produce("spans", records).unwrap();
    let delivered = |how: &str| format!("{}\nhttp: off\ndelivery: {how}", config(cluster));
    let first = Instance::start(cluster, "killed", &delivered(delivery));
    follower.wait_for(3);
    drop(first);
    let at_first = follower.count();
    cluster.produce("spans", middle).unwrap();
    let second = Instance::start(cluster, "killed", &delivered(delivery));
    follower.wait_for(at_first + 2);
    drop(second);
    let at_kills = [at_first, follower.count()];
    cluster.produce("spans", end).unwrap();
    let third = Instance::start(cluster, "killed", &delivered(delivery));
    let killed = events_at_the_end(cluster, "killed", partitions);
    drop(third);
    cluster.make_topic("undisturbed.enforcement", 1, false);
    let whole = Instance::start(cluster, "undisturbed", &delivered("exactly_once"));
    let undisturbed = events_at_the_end(cluster, "undisturbed", partitions);
    drop(whole);
    let said: BTreeSet<&str> = killed.iter().map(|event| event.id.as_str()).collect();
    assert!(at_kills[1] < said.len(), "kills at {at_kills:?} came too late: {} events in all", said.len());
    Published { undisturbed, killed, at_kills }
}

/// How many events came again under their id.
///
/// # Panics
/// One has another content then.
#[track_caller]
fn repetitions(events: &[EnforcementEvent]) -> usize {
    let mut first: BTreeMap<&str, Value> = BTreeMap::new();
    for event in events {
        let content = content(event);
        if let Some(before) = first.get(event.id.as_str()) {
            let differs = difference("event", before, &content, NUMBER_TOLERANCE);
            assert_eq!(differs, None, "{} came again and says something else", event.id);
            continue;
        }
        first.insert(&event.id, content);
    }
    events.len() - first.len()
}

/// Nothing that was found is missing. Renewals of what goes on depend on when time is told while nothing happens, which
/// a restart moves: they are not compared.
#[track_caller]
fn assert_found(undisturbed: &[EnforcementEvent], killed: &[EnforcementEvent]) {
    let (expected, found) = (findings(undisturbed), findings(killed));
    assert!(expected.len() >= 10, "{expected:#?}");
    let missing: Vec<_> = expected.difference(&found).collect();
    assert!(missing.is_empty(), "missing: {missing:#?}");
}

#[test]
fn killed_on_one_partition_every_event_is_there_once() {
    let Some(cluster) = Cluster::from_env("recovery-one") else { return };
    let Published { undisturbed, killed, at_kills } = kill_twice(&cluster, 1, "exactly_once");
    assert_found(&undisturbed, &killed);
    eprintln!("one partition: {} events, kills at {at_kills:?}", killed.len());
    assert_eq!((repetitions(&undisturbed), repetitions(&killed)), (0, 0), "events came twice");
}

#[test]
fn delivered_at_least_once_nothing_is_missing() {
    let Some(cluster) = Cluster::from_env("recovery-early") else { return };
    let Published { undisturbed, killed, at_kills } = kill_twice(&cluster, 1, "at_least_once");
    assert_found(&undisturbed, &killed);
    let ids: BTreeSet<&str> = killed.iter().map(|event| event.id.as_str()).collect();
    let (events, repeated) = (undisturbed.len(), killed.len() - ids.len());
    eprintln!("at least once: {events} events, kills at {at_kills:?}, {repeated} came twice");
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
fn killed_on_four_partitions_no_violation_is_missing_and_no_event_comes_twice() {
    let Some(cluster) = Cluster::from_env("recovery-four") else { return };
    let Published { undisturbed, killed, at_kills } = kill_twice(&cluster, 4, "exactly_once");
    let (expected, found) = (findings(&undisturbed), findings(&killed));
    eprintln!(
        "four partitions: {} and {} events of {} and {} findings, kills at {at_kills:?}",
        undisturbed.len(),
        killed.len(),
        expected.len(),
        found.len()
    );
    assert!(expected.len() >= 10, "{expected:#?}");
    let missing: Vec<_> = expected.difference(&found).collect();
    assert!(missing.is_empty(), "missing: {missing:#?}");
    assert_eq!((repetitions(&undisturbed), repetitions(&killed)), (0, 0), "events came twice");
}

const BETWEEN_VIOLATIONS: Duration = Duration::from_millis(50);
/// Longer than this a violation waits for its event only if somebody has to take over first.
const PROMPT: Duration = Duration::from_secs(2);

/// A violation of a rule that judges row by row, by a team that commits no other.
fn violation(number: usize, at: EventTime) -> Vec<u8> {
    let columns = json!({"team": number.to_string(), "provider": "deepseek", "request_model": "deepseek-chat"});
    let columns = columns.as_object().unwrap().clone().into_iter().collect();
    encode_protobuf(Signal::Traces, &[RowDraft { table: Table::Spans, event_time: at, columns }]).unwrap()
}

/// Violations that are written steadily, and their events.
struct Stream {
    sink: KafkaSink,
    topic: String,
    follower: Follower,
    clock: SystemClock,
    /// When each violation was written.
    written: Vec<Duration>,
    /// When its event came, by the number of the violation.
    published: BTreeMap<usize, Duration>,
}

impl Stream {
    fn new(cluster: &Cluster, follower: Follower) -> Self {
        let sink = KafkaSink::try_new(&cluster.properties, "test-out").unwrap();
        let (clock, topic) = (SystemClock::start(), cluster.topic("spans"));
        Self { sink, topic, follower, clock, written: Vec::new(), published: BTreeMap::new() }
    }

    /// Writes and follows until there is enough.
    fn go_on_until(&mut self, is_enough: impl Fn(&Self) -> bool) {
        let began = self.clock.monotonic();
        while !is_enough(self) {
            let (now, written) = (self.clock.monotonic(), self.written.len());
            assert!(now < began + PATIENCE, "{} events of {written} violations came", self.published.len());
            if self.written.last().is_none_or(|last| now >= *last + BETWEEN_VIOLATIONS) {
                self.written.push(now);
                let (topic, payload) = (self.topic.clone(), Some(violation(written, self.clock.now())));
                self.sink.publish(&Outgoing { topic, key: None, payload, headers: Vec::new() }).unwrap();
                self.sink.flush().unwrap();
            }
            self.follower.look();
            for event in self.follower.events.drain(..) {
                let number = event.data.selector.matches["team"].as_str().unwrap().parse().unwrap();
                let before = self.published.insert(number, self.clock.monotonic());
                assert_eq!(before, None, "an event came twice: {event:?}");
            }
        }
    }

    /// How many violations have events, counted up to the first that has none.
    fn complete(&self) -> usize {
        (0..).zip(self.published.keys()).take_while(|(number, published)| number == *published).count()
    }

    /// From writing to reading, and when that was, of events that were not prompt.
    fn belated(&self) -> impl Iterator<Item = (Duration, Duration)> {
        let waited = |(number, at): (&usize, &Duration)| (at.saturating_sub(self.written[*number]), *at);
        self.published.iter().map(waited).filter(|(waited, _)| *waited > PROMPT)
    }
}

#[test]
fn what_a_killed_instance_served_another_one_goes_on_with() {
    let Some(cluster) = Cluster::from_env("recovery-pair") else { return };
    cluster.make_topic("spans", 4, false);
    let start = |name: &str| {
        let port = free_port();
        let more = format!("{}\ninstance_id: {name}\nhttp: 127.0.0.1:{port}", config(&cluster));
        (Instance::start(&cluster, "pair", &more), port)
    };
    let mut stream = Stream::new(&cluster, Follower::new(&cluster, "pair.enforcement"));
    let mut instances = vec![start("a"), start("b")];
    let shards = |port: u16| metric(port, "lictor_partitions", "judge");
    let is_shared = |shards: &[f64]| shards.iter().all(|n| *n > 0.0) && shards.iter().sum::<f64>() == f64::from(SHARDS);
    stream.go_on_until(|_| is_shared(&instances.iter().map(|(_, port)| shards(*port)).collect::<Vec<_>>()));
    let settled = stream.written.len();
    stream.go_on_until(|stream| stream.complete() > settled + 20);

    instances.sort_by(|(_, a), (_, b)| shards(*a).total_cmp(&shards(*b)));
    let (most, port) = instances.pop().unwrap();
    let served = shards(port);
    drop(most);
    let (killed_at, killed_after) = (stream.clock.monotonic(), stream.written.len());
    stream.go_on_until(|stream| stream.complete() > killed_after + 20);
    let belated: Vec<_> = stream.belated().filter(|(_, at)| *at > killed_at).collect();
    let longest = belated.iter().map(|(waited, _)| *waited).max().unwrap_or_default();
    let over_after = belated.iter().map(|(_, at)| at.saturating_sub(killed_at)).max().unwrap_or_default();
    eprintln!(
        "failover: an instance with {served} of {SHARDS} shards was killed, session.timeout.ms={SESSION_MS}: {} events \
         were late, at most {longest:.1?}; all is prompt again after {over_after:.1?}",
        belated.len()
    );
}
