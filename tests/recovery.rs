//! Real Kafka, the real binary, killed in the middle: no violation is missing, and what comes twice is the same.
//!
//! Skips when `KAFKA_BOOTSTRAP` is not set.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lictor_connectors::{
    KafkaProperties, KafkaSink, KafkaSource, Outgoing, Polled, Sink, Source, TopicSpec, ensure_topics,
};
use lictor_engine::clock::{Clock, SystemClock};
use lictor_engine::company::Company;
use lictor_schemas::event::EnforcementEvent;
use lictor_schemas::tables::Signal;
use lictor_schemas::time::EventTime;

/// Records nobody can decode, written after everything else: once all are among the dead letters, all is judged.
const SENTINELS: usize = 32;
/// Far more than a slow machine needs.
const PATIENCE: Duration = Duration::from_secs(240);
const HOUR_NS: i64 = 3_600_000_000_000;

/// A cluster, and the topics of one test on it.
struct Stand {
    properties: KafkaProperties,
    spans: String,
    records: Vec<Vec<u8>>,
    folder: tempfile::TempDir,
}

impl Stand {
    /// The company's first 70 minutes, which are just over, and an empty topic for them.
    fn set_up(name: &str, partitions: i32) -> Option<Self> {
        let Ok(bootstrap) = std::env::var("KAFKA_BOOTSTRAP") else {
            eprintln!("skipped: KAFKA_BOOTSTRAP is not set (see tests/kafka.sh)");
            return None;
        };
        let since_epoch = now();
        let start = EventTime(i64::try_from(since_epoch.as_nanos()).unwrap() - 2 * HOUR_NS);
        let mut company = Company::new(7, start).with_traces_per_s(0.3);
        let messages = company.next_batch(start.plus(HOUR_NS * 7 / 6));
        let records = messages.into_iter().filter(|m| m.0 == Signal::Traces).map(|m| m.2).collect();
        let properties = KafkaProperties::from_bootstrap(&bootstrap);
        let spans = format!("{name}_{}_{}", std::process::id(), since_epoch.as_millis());
        let topic = TopicSpec { name: spans.clone(), partitions, compacted: false };
        ensure_topics(&properties, &[topic]).unwrap();
        Some(Self { properties, spans, records, folder: tempfile::tempdir().unwrap() })
    }

    /// Starts `lictor run` under an application id, with output topics of its own.
    fn start(&self, application: &str) -> Running {
        let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../queries/rules");
        let config = self.folder.path().join(format!("{application}.yaml"));
        let text = format!(
            "application_id: {application}-{spans}\nrules: {rules}\nhttp: off\n\
             kafka: {{bootstrap.servers: \"{bootstrap}\"}}\n\
             topics:\n  traces: [{spans}]\n  enforcement: {spans}.{application}.events\n\
             \x20 directives: {spans}.{application}.directives\n  dead_letter: {spans}.{application}.dead\n\
             \x20 late: {spans}.{application}.late\n",
            spans = self.spans,
            rules = rules.display(),
            bootstrap = self.properties.bootstrap_servers(),
        );
        fs::write(&config, text).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_lictor"))
            .args(["run", "-c"])
            .arg(&config)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Running { child }
    }

    fn produce(&self, records: &[Vec<u8>]) {
        let mut sink = KafkaSink::try_new(&self.properties, "recovery").unwrap();
        for (number, payload) in records.iter().enumerate() {
            let key = Some(number.to_string().into_bytes());
            sink.publish(&Outgoing { topic: self.spans.clone(), key, payload: Some(payload.clone()), headers: vec![] })
                .unwrap();
        }
        sink.flush().unwrap();
    }

    fn produce_sentinels(&self) {
        self.produce(&vec![b"sentinel".to_vec(); SENTINELS]);
    }

    /// Reads an output topic from its beginning until `is_enough` of what was read so far.
    fn read(&self, topic: &str, is_enough: impl Fn(&[Vec<u8>]) -> bool) -> Vec<Vec<u8>> {
        let properties = self.properties.clone().with("consumer.auto.offset.reset", "earliest").unwrap();
        let group = format!("read-{topic}-{}", now().as_nanos());
        let mut source = KafkaSource::try_new(&properties, &group, "recovery", &[topic.to_owned()]).unwrap();
        let (mut read, began) = (Vec::new(), now());
        while !is_enough(&read) {
            assert!(now().saturating_sub(began) < PATIENCE, "{topic}: {} messages after {PATIENCE:?}", read.len());
            source
                .poll(Duration::from_millis(100), &mut |r| read.push(r.payload.unwrap_or_default().to_vec()))
                .unwrap();
        }
        read
    }

    /// Waits until an application has published so many events.
    fn await_events(&self, application: &str, count: usize) {
        self.read(&format!("{}.{application}.events", self.spans), |read| read.len() >= count);
    }

    /// Waits until an application has judged everything, and reads all its events.
    fn events_at_the_end(&self, application: &str) -> Vec<EnforcementEvent> {
        let is_sentinel = |r: &&Vec<u8>| r.as_slice() == b"sentinel";
        self.read(&format!("{}.{application}.dead", self.spans), |read| {
            read.iter().filter(is_sentinel).count() >= SENTINELS
        });
        let topic = format!("{}.{application}.events", self.spans);
        let properties = self.properties.clone().with("consumer.auto.offset.reset", "earliest").unwrap();
        let group = format!("end-{topic}-{}", now().as_nanos());
        let mut source = KafkaSource::try_new(&properties, &group, "recovery", &[topic]).unwrap();
        let mut events = Vec::new();
        let mut last_seen = now();
        // Dead letters are published after their epoch's events: what is there by now is all.
        while now().saturating_sub(last_seen) < Duration::from_secs(3) {
            let take = &mut |r: lictor_connectors::RecordRef<'_>| {
                events.push(EnforcementEvent::from_json(r.payload.unwrap_or_default()).unwrap());
            };
            if source.poll(Duration::from_millis(100), take).unwrap() != Polled::Empty {
                last_seen = now();
            }
        }
        events
    }
}

/// The time since 1970: deadlines against a real broker need a real clock.
fn now() -> Duration {
    Duration::from_nanos(SystemClock::start().now().0.unsigned_abs())
}

/// A running `lictor run`, killed when it is dropped.
struct Running {
    child: Child,
}

impl Running {
    /// `kill -9`.
    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for a line of the log that contains `text`.
    fn await_log(&mut self, text: &str) {
        let stderr = self.child.stderr.take().unwrap();
        let found = BufReader::new(stderr).lines().map_while(Result::ok).any(|line| line.contains(text));
        assert!(found, "the log ended without `{text}`");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What an event says, without when and in which revision it was said.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Violation {
    rule: String,
    subject: String,
    window: Option<String>,
    result: &'static str,
    holds: bool,
}

fn violation(event: &EnforcementEvent) -> Violation {
    let data = &event.data;
    let json = serde_json::to_value(data).unwrap();
    Violation {
        rule: data.rule.name.clone(),
        subject: event.to_subject_text(),
        window: json.get("window").filter(|w| !w.is_null()).map(ToString::to_string),
        result: data.finding.result.as_str(),
        holds: !data.state.is_ended(),
    }
}

/// An event up to the last digits of its sums, which depend on where epochs were cut.
fn identity(event: &EnforcementEvent) -> (Violation, String, u32, String) {
    let data = &event.data;
    (violation(event), data.directive_id.clone(), data.revision, event.time.to_rfc3339())
}

/// Kills a run at two moments; the events of the undisturbed run and of the killed one.
fn killed_twice(stand: &Stand) -> (Vec<EnforcementEvent>, Vec<EnforcementEvent>) {
    let thirds: Vec<&[Vec<u8>]> = stand.records.chunks(stand.records.len().div_ceil(3)).collect();
    let undisturbed = stand.start("undisturbed");
    let first = stand.start("killed");
    stand.produce(thirds[0]);
    stand.await_events("killed", 1);
    first.kill();
    stand.produce(thirds[1]);
    let mut second = stand.start("killed");
    stand.await_events("killed", 4);
    second.await_log("state is rebuilt");
    second.kill();
    stand.produce(thirds[2]);
    stand.produce_sentinels();
    let third = stand.start("killed");
    let killed = stand.events_at_the_end("killed");
    let whole = stand.events_at_the_end("undisturbed");
    drop((undisturbed, third));
    (whole, killed)
}

#[test]
fn killed_on_one_partition_every_event_is_there_and_repeats_only_itself() {
    let Some(stand) = Stand::set_up("recovery1", 1) else { return };
    let (whole, killed) = killed_twice(&stand);
    assert!(whole.len() >= 10, "{} events", whole.len());
    let by_id: BTreeMap<&str, _> = whole.iter().map(|e| (e.id.as_str(), identity(e))).collect();
    assert_eq!(by_id.len(), whole.len(), "the undisturbed run repeats nothing");
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for event in &killed {
        assert_eq!(by_id.get(event.id.as_str()), Some(&identity(event)), "an event that the whole run has not");
        *seen.entry(&event.id).or_default() += 1;
    }
    let missing: Vec<_> = by_id.keys().filter(|id| !seen.contains_key(**id)).collect();
    eprintln!("1 partition: {} events, {} published, 2 kills, 0 of other content", whole.len(), killed.len());
    assert!(missing.is_empty(), "missing: {missing:?}");
}

#[test]
fn killed_on_four_partitions_no_violation_is_missing() {
    let Some(stand) = Stand::set_up("recovery4", 4) else { return };
    let (whole, killed) = killed_twice(&stand);
    // Which window a renewal names depends on how the partitions were interleaved, in both runs.
    let finding = |e: &EnforcementEvent| Violation { window: None, ..violation(e) };
    let said = |events: &[EnforcementEvent]| events.iter().map(finding).collect::<BTreeSet<_>>();
    let (whole, killed) = (said(&whole), said(&killed));
    let missing: Vec<_> = whole.difference(&killed).collect();
    eprintln!("4 partitions: {} distinct findings, {} after 2 kills", whole.len(), killed.len());
    assert!(missing.is_empty(), "missing: {missing:#?}");
}
