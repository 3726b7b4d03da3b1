//! What the readers of the topics find, held against what they must find.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use lictor_connectors::{KafkaProperties, KafkaSource, RecordRef, Source};
use lictor_engine::clock::{Clock, SystemClock};
use lictor_schemas::event::EnforcementEvent;

use crate::oracle::{Expected, Record, content};

const LOOK: Duration = Duration::from_millis(50);
/// So long nothing new comes if nothing more is going to come: all outages and restores are over well before.
const SILENCE: Duration = Duration::from_secs(60);
/// Findings that are shown of each kind.
const EXAMPLES: usize = 5;

/// How many outputs are not as they must be.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) outputs: usize,
    missing: Vec<String>,
    duplicated: Vec<String>,
    wrong: Vec<String>,
}

impl Verdict {
    pub(crate) fn is_clean(&self) -> bool {
        self.missing.is_empty() && self.duplicated.is_empty() && self.wrong.is_empty()
    }

    /// Examples of everything that was found.
    pub(crate) fn examples(&self) -> String {
        let of = |kind: &str, found: &[String]| {
            found.iter().take(EXAMPLES).map(|one| format!("{kind}: {one}\n")).collect::<String>()
        };
        of("missing", &self.missing) + &of("duplicated", &self.duplicated) + &of("wrong", &self.wrong)
    }

    /// Enforcement events, in the order of their partitions.
    pub(crate) fn events(&mut self, expected: &Expected, found: &[Record]) {
        let mut seen: BTreeMap<&str, &Record> = BTreeMap::new();
        let mut revisions: BTreeMap<String, u32> = BTreeMap::new();
        self.outputs += found.len();
        for record in found {
            let Ok(event) = EnforcementEvent::from_json(record.payload.as_deref().unwrap_or_default()) else {
                self.wrong.push(format!("no event: {record:?}"));
                continue;
            };
            let (at, content) = (place(record), content(&event));
            let Some((id, right)) = expected.events.get_key_value(&event.id) else {
                self.wrong.push(format!("{at}: nobody expects {content}"));
                continue;
            };
            if let Some(first) = seen.insert(id, record) {
                self.duplicated.push(format!("{at} and {}: {content}", place(first)));
                continue;
            }
            if *right != content {
                self.wrong.push(format!("{at}: {content}\n   must be {right}"));
            }
            let revision = revisions.entry(event.data.directive_id.clone()).or_default();
            if event.data.revision != *revision + 1 {
                self.wrong.push(format!("{at}: revision {} after {revision}: {content}", event.data.revision));
            }
            *revision = event.data.revision;
        }
        let missing = expected.events.iter().filter(|(id, _)| !seen.contains_key(id.as_str()));
        self.missing.extend(missing.map(|(_, content)| format!("event {content}")));
    }

    /// What a compacted topic says at last.
    pub(crate) fn directives(&mut self, expected: &BTreeMap<String, Option<String>>, found: &[Record]) {
        let mut newest: BTreeMap<String, Option<String>> = BTreeMap::new();
        for record in found {
            let key = String::from_utf8_lossy(record.key.as_deref().unwrap_or_default()).into_owned();
            let said = record.payload.as_deref().map(|payload| match EnforcementEvent::from_json(payload) {
                Ok(event) => content(&event),
                Err(error) => format!("{}: {error}", place(record)),
            });
            newest.insert(key, said);
        }
        self.outputs += newest.len();
        for (id, right) in expected {
            // A tombstone may have been compacted away.
            match (newest.remove(id).flatten(), right) {
                (found, right) if found == *right => {}
                (None, Some(right)) => self.missing.push(format!("directive {right}")),
                (found, right) => self.wrong.push(format!("directive {found:?}\n   must be {right:?}")),
            }
        }
        let unknown = newest.into_iter().filter_map(|(id, said)| Some(format!("directive {id}: {}", said?)));
        self.wrong.extend(unknown);
    }

    /// Payloads of a topic, each so many times.
    pub(crate) fn payloads(&mut self, topic: &str, expected: &BTreeMap<Vec<u8>, u32>, found: &[Record]) {
        let mut counts: BTreeMap<&[u8], u32> = BTreeMap::new();
        for record in found {
            *counts.entry(record.payload.as_deref().unwrap_or_default()).or_default() += 1;
        }
        self.outputs += found.len();
        for (payload, right) in expected {
            let count = counts.remove(payload.as_slice()).unwrap_or_default();
            let said = || format!("{topic}: {count} of {right} times {}", String::from_utf8_lossy(payload));
            if count < *right {
                self.missing.push(said());
            } else if count > *right {
                self.duplicated.push(said());
            }
        }
        let unknown = counts.into_keys().map(|payload| format!("{topic}: {}", String::from_utf8_lossy(payload)));
        self.wrong.extend(unknown);
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { outputs, missing, duplicated, wrong } = self;
        let (missing, duplicated, wrong) = (missing.len(), duplicated.len(), wrong.len());
        write!(f, "outputs {outputs}, missing {missing}, duplicated {duplicated}, wrong {wrong}")
    }
}

fn place(record: &Record) -> String {
    format!("[{}]@{}", record.partition, record.offset)
}

/// Reads the events as they come.
pub(crate) struct Follower {
    source: KafkaSource,
    seen: BTreeSet<String>,
}

impl Follower {
    pub(crate) fn new(properties: &KafkaProperties, topic: &str) -> Self {
        let source = KafkaSource::try_new(properties, "chaos-follower", "chaos-follower", &[topic.to_owned()]).unwrap();
        Self { source, seen: BTreeSet::new() }
    }

    /// Returns when all expected events have come; false if nothing has come for long and some are missing.
    pub(crate) fn wait_for(&mut self, expected: &Expected) -> bool {
        let clock = SystemClock::start();
        let mut missing: BTreeSet<&String> = expected.events.keys().filter(|id| !self.seen.contains(*id)).collect();
        let mut last = clock.monotonic();
        while !missing.is_empty() {
            if clock.monotonic() > last + SILENCE {
                eprintln!("chaos: {} of {} events have not come", missing.len(), expected.events.len());
                return false;
            }
            let seen = &mut self.seen;
            let take = &mut |record: RecordRef<'_>| {
                let event = EnforcementEvent::from_json(record.payload.unwrap_or_default()).unwrap();
                if missing.remove(&event.id) {
                    last = clock.monotonic();
                }
                seen.insert(event.id);
            };
            self.source.poll(LOOK, take).unwrap();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(offset: i64, key: &str, payload: Option<&str>) -> Record {
        let bytes = |text: &str| text.as_bytes().to_vec();
        Record { partition: 0, offset, timestamp_ms: 0, key: Some(bytes(key)), payload: payload.map(bytes) }
    }

    #[test]
    fn payloads_that_are_missing_doubled_or_strange_are_found() {
        let expected = ["a", "b", "c"].map(|text| (text.as_bytes().to_vec(), 1)).into();
        let found: Vec<_> = ["a", "b", "b", "x"].iter().map(|text| record(0, "", Some(text))).collect();
        let mut verdict = Verdict::default();
        verdict.payloads("dead", &expected, &found);
        assert_eq!(verdict.to_string(), "outputs 4, missing 1, duplicated 1, wrong 1");
        assert!(!verdict.is_clean() && verdict.examples().contains("missing: dead: 0 of 1 times c"));
    }

    #[test]
    fn only_the_newest_word_on_a_directive_counts_and_its_end_may_be_forgotten() {
        let expected = [("ended".to_owned(), None), ("forgotten".to_owned(), None)].into();
        let mut verdict = Verdict::default();
        verdict.directives(&expected, &[record(0, "ended", Some("{}")), record(1, "ended", None)]);
        assert!(verdict.is_clean(), "{}", verdict.examples());
        verdict.directives(&expected, &[record(0, "ended", Some("{}")), record(1, "unknown", Some("{}"))]);
        assert_eq!(verdict.wrong.len(), 2, "{}", verdict.examples());
    }
}
