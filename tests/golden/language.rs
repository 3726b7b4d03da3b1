//! What the rule language can say means the same however its rows arrive: every rule test in `language/` is run again,
//! its rows cut into epochs, interleaved and encoded in every way that must not be seen in what is published.
//!
//! A row is a record of its own here, so that there is something to cut and to interleave.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lictor_connectors::TopicPartition;
use lictor_engine::pipeline::{Pipeline, PipelineSettings};
use lictor_engine::rule_test::{Row, Step, TestCase, TestFile};
use lictor_engine::rules_dir::{self, LoadedRules};
use lictor_engine::watermark::Tolerances;
use lictor_queries::{Emission, RuleKind};
use lictor_schemas::event::EnforcementEvent;
use lictor_schemas::otlp::encode::{RowDraft, encode_json, encode_protobuf};
use lictor_schemas::tables::{Signal, Table};
use lictor_schemas::time::EventTime;
use serde_json::Value;

use crate::killed::events_of_the_killed;
use crate::support::{Arrival, to_record, topic_of};
use crate::{MINUTE_NS, assert_same, by_rule, interleaved};

/// Where the processing clock stands when a case begins: it plays no part but in ticks.
pub(crate) const BEFORE: EventTime = EventTime(0);

/// Longer than anything in `language/` holds, and short: where gaps are filled every window of it is judged.
const AFTERWARDS_NS: i64 = 30 * MINUTE_NS;

/// On how many partitions rows are dealt, if there are as many.
const PARTITIONS: usize = 3;

/// What comes into an engine, in order.
#[derive(Clone, Debug)]
pub(crate) enum Input {
    Record(Arrival),
    /// The processing clock moves here, and every partition has been silent for long.
    Tick(EventTime),
}

/// As much silence as makes a partition idle is one nanosecond: the clock moves in ticks only.
pub(crate) fn settings() -> PipelineSettings {
    let tolerances = Tolerances { idle_after_ns: 1, ..Tolerances::default() };
    PipelineSettings { tolerances, ..PipelineSettings::default() }
}

/// The time of a tick that follows `now`.
pub(crate) fn ticked(now: EventTime, to: EventTime) -> EventTime {
    now.plus(1).max(to)
}

pub(crate) fn load(rules: &Path) -> LoadedRules {
    let loaded = rules_dir::load(rules, None).unwrap();
    assert_eq!(loaded.diagnostics, [], "{}", rules.display());
    loaded
}

/// The input partitions that inputs come on.
pub(crate) fn partitions(inputs: &[Input]) -> BTreeSet<(Signal, i32)> {
    let of = |input: &Input| match input {
        Input::Record(arrival) => Some((arrival.signal, arrival.partition)),
        Input::Tick(_) => None,
    };
    inputs.iter().filter_map(of).collect()
}

/// What happens in a rule test.
enum Happening {
    Rows(Vec<RowDraft>),
    Advance(EventTime),
}

impl Happening {
    fn rows(&self) -> &[RowDraft] {
        match self {
            Self::Rows(rows) => rows,
            Self::Advance(_) => &[],
        }
    }
}

/// A rule test.
struct Case {
    name: String,
    /// The rule file under test.
    rules: PathBuf,
    happenings: Vec<Happening>,
    /// How many events it expects.
    expected: usize,
    /// Whether all its rules speak when windows close: then rows of a group may lie on several partitions.
    is_on_close: bool,
}

/// How rows are written.
type Encode = fn(Signal, &[RowDraft]) -> Result<Vec<u8>, String>;

impl Case {
    fn all() -> Vec<Self> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/language");
        let mut files: Vec<PathBuf> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.retain(|path| path.to_string_lossy().ends_with(".test.yaml"));
        files.sort();
        assert!(files.len() >= 30, "only {} files of rule tests in {}", files.len(), folder.display());
        files.iter().flat_map(|path| Self::of_file(path)).collect()
    }

    fn of_file(path: &Path) -> Vec<Self> {
        let file: TestFile = serde_saphyr::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        let [rules] = file.rules.as_slice() else { panic!("{}: one rule file is one construct", path.display()) };
        assert!(file.tables.is_empty(), "{}: put the rows of reference tables in a file", path.display());
        let rules = path.with_file_name(rules);
        let is_on_close = load(&rules).rules.rules.iter().all(|rule| match &rule.kind {
            RuleKind::Windowed(windowed) => windowed.emission == Emission::OnClose,
            RuleKind::RowWise(_) | RuleKind::Joined(_) => false,
        });
        let case = |test: &TestCase| Self {
            name: format!("{}: {}", rules.file_name().unwrap().display(), test.name),
            rules: rules.clone(),
            happenings: test.steps.iter().filter_map(|step| happening(test, step)).collect(),
            expected: test.steps.iter().filter_map(|step| step.expect.as_ref()).map(Vec::len).sum(),
            is_on_close,
        };
        file.tests.iter().map(case).collect()
    }

    fn rows(&self) -> impl Iterator<Item = &RowDraft> {
        self.happenings.iter().flat_map(Happening::rows)
    }

    /// When nothing more can happen, by the processing clock.
    fn end(&self) -> EventTime {
        let advance = |happening: &Happening| match happening {
            Happening::Advance(to) => Some(*to),
            Happening::Rows(_) => None,
        };
        let newest = self.rows().map(|row| row.event_time).chain(self.happenings.iter().filter_map(advance)).max();
        newest.unwrap().plus(AFTERWARDS_NS)
    }

    /// Everything on one partition, one record for each row, or `as_said` for each step.
    fn inputs(&self, encode: Encode, as_said: bool) -> Vec<Input> {
        let mut inputs = Vec::new();
        let mut offset = 0;
        for happening in &self.happenings {
            match happening {
                Happening::Rows(rows) => {
                    for of_record in rows.chunks(if as_said { rows.len() } else { 1 }) {
                        inputs.push(Input::Record(arrival(of_record, encode, (0, offset))));
                        offset += 1;
                    }
                }
                Happening::Advance(to) => inputs.push(Input::Tick(to.plus(Tolerances::default().lateness_ns))),
            }
        }
        inputs.push(Input::Tick(self.end()));
        inputs
    }

    /// The rows of each partition. Rows of one of the `keys` lie on one partition, unless all rules speak on close.
    fn dealt(&self, keys: &BTreeSet<String>) -> Vec<Vec<Arrival>> {
        let mut partitions: Vec<Vec<Arrival>> = vec![Vec::new(); PARTITIONS];
        let mut places: BTreeMap<String, usize> = BTreeMap::new();
        for (number, row) in self.rows().enumerate() {
            let key: Vec<_> = keys.iter().map(|key| row.columns.get(key)).collect();
            let next = places.len();
            let place =
                if self.is_on_close { number } else { *places.entry(format!("{key:?}")).or_insert(next) } % PARTITIONS;
            let offset = i64::try_from(partitions[place].len()).unwrap();
            let at = (i32::try_from(place).unwrap(), offset);
            partitions[place].push(arrival(std::slice::from_ref(row), encode_protobuf, at));
        }
        partitions.retain(|of_partition| !of_partition.is_empty());
        partitions
    }

    fn events(&self, inputs: &[Input], is_cut: &mut dyn FnMut() -> bool) -> Vec<EnforcementEvent> {
        events_of_pipeline(&self.rules, inputs, is_cut)
    }

    /// The events of its rows one by one.
    fn each(&self) -> Vec<EnforcementEvent> {
        let events = self.events(&self.inputs(encode_protobuf, false), &mut || true);
        assert!(events.len() >= self.expected, "{}: {} events, {} expected", self.name, events.len(), self.expected);
        events
    }
}

/// The events of a pipeline that ends an epoch at every tick, and after a record if it `is_cut`.
pub(crate) fn events_of_pipeline(
    rules: &Path,
    inputs: &[Input],
    is_cut: &mut dyn FnMut() -> bool,
) -> Vec<EnforcementEvent> {
    let loaded = load(rules);
    let mut pipeline = Pipeline::new(loaded.rules, Arc::clone(&loaded.prices), &settings());
    for (signal, partition) in partitions(inputs) {
        pipeline.assign(TopicPartition::new(topic_of(signal), partition), BEFORE);
    }
    let (mut now, mut decisions) = (BEFORE, Vec::new());
    for input in inputs {
        let is_end = match input {
            Input::Record(arrival) => {
                pipeline.absorb(to_record(arrival), now);
                is_cut()
            }
            Input::Tick(to) => {
                now = ticked(now, *to);
                true
            }
        };
        if is_end {
            decisions.extend(pipeline.end_epoch(now).decisions);
        }
    }
    let failed: Vec<_> = pipeline.status().into_iter().filter_map(|status| status.quarantined).collect();
    assert!(failed.is_empty(), "{}: {failed:?}", rules.display());
    decisions.into_iter().map(|decision| decision.event).collect()
}

fn happening(test: &TestCase, step: &Step) -> Option<Happening> {
    if let Some(to) = step.advance {
        return Some(Happening::Advance(to.0));
    }
    let table = Table::from_name(step.rows.as_ref()?).unwrap();
    let defaults = test.defaults.get(table.name()).cloned().unwrap_or_default();
    let draft = |row: &Row| {
        let mut columns: BTreeMap<String, Value> = defaults.clone().into_iter().chain(row.clone()).collect();
        let own = columns.remove("at").map(|at| EventTime::from_rfc3339(at.as_str().unwrap()).unwrap());
        RowDraft { table, event_time: own.or(step.at.map(|at| at.0)).unwrap(), columns }
    };
    Some(Happening::Rows(step.values.iter().map(draft).collect()))
}

fn arrival(rows: &[RowDraft], encode: Encode, (partition, offset): (i32, i64)) -> Arrival {
    let signal = rows[0].table.signal();
    let payload = Some(encode(signal, rows).unwrap());
    Arrival { signal, partition, offset, timestamp_ms: 0, payload }
}

/// The events of each rule by id: between subjects there is no order.
pub(crate) fn by_id(events: Vec<EnforcementEvent>) -> BTreeMap<String, Vec<Value>> {
    let mut sorted = by_rule(events);
    sorted.values_mut().for_each(|events| events.sort_by_key(|event| event["id"].to_string()));
    sorted
}

/// Without what names records.
fn without_exemplars(mut events: Vec<EnforcementEvent>) -> BTreeMap<String, Vec<Value>> {
    events.iter_mut().for_each(|event| event.data.finding.exemplars.clear());
    by_id(events)
}

#[test]
fn every_construct_gives_the_same_events_however_rows_are_batched_and_encoded() {
    for case in Case::all() {
        let each = case.each();
        let expected = by_rule(each.clone());
        let same = |run: &str, events| assert_same(&format!("{}: {run}", case.name), &expected, &events);
        let inputs = case.inputs(encode_protobuf, false);
        same("one epoch from tick to tick", by_rule(case.events(&inputs, &mut || false)));
        for seed in 0..2 {
            let mut random = fastrand::Rng::with_seed(seed);
            same(&format!("random epochs with seed {seed}"), by_rule(case.events(&inputs, &mut || random.bool())));
        }
        same("JSON", by_rule(case.events(&case.inputs(encode_json, false), &mut || true)));
        if case.is_on_close {
            let as_said = case.events(&case.inputs(encode_protobuf, true), &mut || true);
            let (expected, found) = (without_exemplars(each), without_exemplars(as_said));
            assert_same(&format!("{}: one record for each step", case.name), &expected, &found);
        }
    }
}

/// Of a rule that speaks on update only rows of different subjects lie on different partitions. Even so its events are
/// determined only while no subject is in violation in two running windows at once: which of them is left when the
/// other ends depends on when the slowest partition lets it end. Rules in `language/` keep to that.
#[test]
fn every_construct_gives_the_same_events_however_partitions_are_interleaved() {
    for case in Case::all() {
        let of_event = |event: EnforcementEvent| event.data.selector.matches.into_iter().map(|(column, _)| column);
        let keys: BTreeSet<String> = case.each().into_iter().flat_map(of_event).collect();
        let partitions = case.dealt(&keys);
        let inputs = |arrivals: Vec<Arrival>| -> Vec<Input> {
            arrivals.into_iter().map(Input::Record).chain([Input::Tick(case.end())]).collect()
        };
        let one_after_the_other = by_id(case.events(&inputs(partitions.concat()), &mut || false));
        assert_eq!(one_after_the_other.is_empty(), case.expected == 0, "{}", case.name);
        for seed in 0..20 {
            let mut random = fastrand::Rng::with_seed(seed);
            let events = case.events(&inputs(interleaved(&partitions, seed)), &mut || random.bool());
            let run = format!("{}: interleaved with seed {seed}", case.name);
            assert_same(&run, &one_after_the_other, &by_id(events));
        }
    }
}

#[test]
fn every_construct_gives_the_same_events_when_killed_and_restored_at_every_epoch() {
    for case in Case::all() {
        let events = events_of_the_killed(&case.rules, &case.inputs(encode_protobuf, false));
        assert_same(&format!("{}: killed", case.name), &by_id(case.each()), &by_id(events));
    }
}
