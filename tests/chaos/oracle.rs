//! What must come out: the same records through both stages in memory, undisturbed.
//!
//! In how many shards groups are judged, and in which order the records of different partitions come, makes no
//! difference to what is expected here; a test below says so of the order.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use lictor_connectors::{RecordRef, TopicPartition};
use lictor_engine::decision::{Decision, DirectiveRecord};
use lictor_engine::pipeline::{Epoch, Pipeline, PipelineSettings};
use lictor_engine::rules_dir;
use lictor_engine::scan_stage::ScanCounts;
use lictor_engine::watermark::Tolerances;
use lictor_schemas::event::{EnforcementEvent, State};
use lictor_schemas::rule::Mode;
use lictor_schemas::tables::Signal;
use lictor_schemas::time::EventTime;
use serde_json::{Map, Value};

/// The rule whose events bear what depends on the interleaving.
const INTERLEAVED: &str = "slot_levels";
/// The rule that counts every span once.
const COUNTING: &str = "slot_totals";

/// Some seconds of the story; how it is cut makes no difference.
const EPOCH_RECORDS: usize = 500;

/// How a deployment is made up.
#[derive(Clone, Debug)]
pub(crate) struct Layout<'a> {
    pub(crate) application_id: &'a str,
    pub(crate) rules: &'a Path,
    pub(crate) topic: &'a str,
    pub(crate) partitions: i32,
    pub(crate) shards: u32,
}

/// A record as it lies in the topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) timestamp_ms: i64,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) payload: Option<Vec<u8>>,
}

impl From<RecordRef<'_>> for Record {
    fn from(record: RecordRef<'_>) -> Self {
        let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
        let RecordRef { partition, offset, timestamp_ms, .. } = record;
        Self { partition, offset, timestamp_ms, key: owned(record.key), payload: owned(record.payload) }
    }
}

impl Record {
    /// An OTLP log record as the id of the event that it is.
    pub(crate) fn into_event_id(self) -> Self {
        let message: Value = serde_json::from_slice(self.payload.as_deref().unwrap_or_default()).unwrap_or_default();
        let id = message["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0]["traceId"].as_str().map(str::to_owned);
        Self { payload: id.map(String::into_bytes), ..self }
    }
}

/// What the readers of all topics must find.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Expected {
    /// By id.
    pub(crate) events: BTreeMap<String, String>,
    /// What the compacted topic says of a directive at last; nothing if it has ended.
    pub(crate) directives: BTreeMap<String, Option<String>>,
    /// The same of directives in shadow mode.
    pub(crate) shadow: BTreeMap<String, Option<String>>,
    /// How many times each payload is dead-lettered.
    pub(crate) dead: BTreeMap<Vec<u8>, u32>,
    /// How many times each note is in the late topic.
    pub(crate) late: BTreeMap<Vec<u8>, u32>,
    /// Spans that the rules saw.
    pub(crate) spans_used: u64,
    /// Spans that came too late.
    pub(crate) spans_late: u64,
    /// Spans in the sums that were published.
    pub(crate) spans_summed: f64,
}

/// An event without what may differ between two runs.
pub(crate) fn content(event: &EnforcementEvent) -> String {
    let mut event = event.clone();
    event.data.detected_at = None;
    if event.data.rule.name == INTERLEAVED {
        event.time = EventTime(0);
        event.data.valid_from = EventTime(0);
        event.data.started_at = None;
        event.data.finding.observed = None;
        event.data.finding.sample_count = None;
        event.data.finding.exemplars.clear();
        event.data.finding.evidence = Map::new();
    }
    String::from_utf8(event.to_json()).unwrap()
}

/// The undisturbed deployment.
pub(crate) struct Oracle {
    topic: String,
    now: EventTime,
    pipeline: Pipeline,
    counts: ScanCounts,
    expected: Expected,
}

impl Oracle {
    /// `now` by the processing clock, which stands still: nothing falls idle.
    pub(crate) fn new(layout: &Layout<'_>, now: EventTime) -> Self {
        let loaded = rules_dir::load(layout.rules, None).unwrap();
        assert_eq!(loaded.diagnostics, []);
        let settings = PipelineSettings {
            application_id: layout.application_id.to_owned(),
            signals: [(layout.topic.to_owned(), Signal::Traces)].into(),
            tolerances: Tolerances::default(),
            ..PipelineSettings::default()
        };
        let mut pipeline = Pipeline::new(loaded.rules, Arc::clone(&loaded.prices), &settings);
        for partition in 0..layout.partitions {
            pipeline.assign(TopicPartition::new(layout.topic, partition), now);
        }
        let (counts, expected) = (ScanCounts::default(), Expected::default());
        Self { topic: layout.topic.to_owned(), now, pipeline, counts, expected }
    }

    /// Takes one record.
    pub(crate) fn absorb(&mut self, record: &Record) {
        let record = RecordRef {
            topic: &self.topic,
            partition: record.partition,
            offset: record.offset,
            timestamp_ms: record.timestamp_ms,
            key: record.key.as_deref(),
            payload: record.payload.as_deref(),
            ..RecordRef::default()
        };
        self.pipeline.absorb(record, self.now);
    }

    /// Judges what was absorbed.
    pub(crate) fn end_epoch(&mut self) {
        let Epoch { decisions, dead, late, counts, .. } = self.pipeline.end_epoch(self.now);
        decisions.iter().for_each(|decision| self.expected.note(decision));
        for letter in dead {
            *self.expected.dead.entry(letter.payload.unwrap_or_default()).or_default() += 1;
        }
        for note in late {
            *self.expected.late.entry(note.to_message("late").payload.unwrap_or_default()).or_default() += 1;
        }
        self.counts.add(counts);
    }

    /// Takes and judges the records that came since the last call, in the order of their timestamps.
    pub(crate) fn learn(&mut self, mut records: Vec<Record>) {
        records.sort_by_key(|record| (record.timestamp_ms, record.partition, record.offset));
        for epoch in records.chunks(EPOCH_RECORDS) {
            epoch.iter().for_each(|record| self.absorb(record));
            self.end_epoch();
        }
    }

    /// What must have come out by now.
    pub(crate) fn so_far(&self) -> &Expected {
        &self.expected
    }

    /// What must have come out at the end.
    pub(crate) fn finish(mut self) -> Expected {
        let failed: Vec<_> = self.pipeline.status().into_iter().filter(|s| s.quarantined.is_some()).collect();
        assert_eq!(failed, [], "rules were quarantined");
        self.expected.spans_used = self.counts.rows_used.values().sum();
        self.expected.spans_late = self.counts.rows_untimely.values().sum();
        self.expected
    }
}

impl Expected {
    fn note(&mut self, decision: &Decision) {
        let event = &decision.event;
        if event.data.rule.name == COUNTING && event.data.state == State::Firing {
            self.spans_summed += event.data.finding.observed.unwrap_or_default();
        }
        let content = content(event);
        let directive = (decision.directive == DirectiveRecord::Put).then(|| content.clone());
        let of_mode = match event.data.mode {
            Mode::Enforce => &mut self.directives,
            Mode::Shadow => &mut self.shadow,
        };
        of_mode.insert(event.data.directive_id.clone(), directive);
        let before = self.events.insert(event.id.clone(), content);
        assert_eq!(before, None, "the oracle repeats itself: {}", event.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RULES;
    use crate::story::Story;
    use lictor_engine::pipeline::Stages;

    const PARTITIONS: i32 = 3;

    fn layout(rules: &Path) -> Layout<'_> {
        Layout { application_id: "chaos", rules, topic: "spans", partitions: PARTITIONS, shards: 4 }
    }

    /// A story on its partitions; a key always leads to the same.
    fn records(seed: u64, count: usize) -> Vec<Record> {
        let mut story = Story::new(seed, EventTime(1_790_000_000_000_000_000));
        let mut told: Vec<_> = (0..count).map(|_| story.next()).collect();
        let sum = |key: &[u8]| i32::try_from(key.iter().map(|byte| u32::from(*byte)).sum::<u32>()).unwrap();
        let key_to = |p: i32| (0..).map(|n: u32| n.to_string()).find(|k| sum(k.as_bytes()) % PARTITIONS == p).unwrap();
        told.extend((0..PARTITIONS).map(|p| story.afterwards(key_to(p).as_bytes())));
        let mut ends = [0; PARTITIONS as usize];
        let placed = told.into_iter().map(|told| {
            let partition = sum(&told.key) % PARTITIONS;
            let end = &mut ends[usize::try_from(partition).unwrap()];
            let offset = std::mem::replace(end, *end + 1);
            Record { partition, offset, timestamp_ms: 0, key: Some(told.key), payload: Some(told.payload) }
        });
        placed.collect()
    }

    fn expect(records: &[Record], is_cut: &mut dyn FnMut() -> bool) -> Expected {
        let mut oracle = Oracle::new(&layout(Path::new(RULES)), EventTime(0));
        for record in records {
            oracle.absorb(record);
            if is_cut() {
                oracle.end_epoch();
            }
        }
        oracle.end_epoch();
        oracle.finish()
    }

    #[test]
    fn what_is_expected_does_not_depend_on_interleaving_or_epochs() {
        let records = records(3, 900);
        let expected = expect(&records, &mut || false);
        assert!(expected.events.len() > 1_000, "{} events", expected.events.len());
        assert_eq!(expected.spans_summed, (expected.spans_used - PARTITIONS.unsigned_abs() as u64) as f64);
        assert!(!expected.directives.is_empty() && !expected.shadow.is_empty());
        assert!(expected.spans_late > 0 && !expected.dead.is_empty() && !expected.late.is_empty());
        let mut one_after_the_other = records.clone();
        one_after_the_other.sort_by_key(|record| (record.partition, record.offset));
        let mut random = fastrand::Rng::with_seed(5);
        let other = expect(&one_after_the_other, &mut || random.u32(0..7) == 0);
        for (id, content) in &expected.events {
            assert_eq!(other.events.get(id), Some(content));
        }
        assert_eq!(other, expected);
    }

    #[test]
    fn groups_of_all_rules_are_spread_over_shards() {
        let loaded = rules_dir::load(Path::new(RULES), None).unwrap();
        let routes = Stages::new(loaded.rules, Arc::clone(&loaded.prices), &PipelineSettings::default()).routes;
        // Sums of joined rows are where their rows were joined, and those are spread.
        let of_no_key = routes.stores.iter().filter(|route| route.keys.is_empty()).count();
        assert_eq!(of_no_key, 1, "{routes:?}");
    }
}
