//! From a shard's log back to the shard.
//!
//! Records are taken in the order of their offsets. What the manifest says must be what the group has committed; if it
//! is not, the log and the group speak of two different histories, and the process must not guess which is true.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use lictor_connectors::NextOffset;
use lictor_queries::History;
use lictor_schemas::genops::{Action, ReasonCode};
use lictor_schemas::rule::{Mode, RuleHeader, RuleVersion};
use lictor_schemas::tables::Signal;
use lictor_schemas::time::{EventTime, Window};

use super::dormant::Dormant;
use super::log::{Log, Position, Said, said};
use super::record::StateRecord;
use super::record::{HistorySaid, Key, Manifest, RowsSaid, RuleSaid, StoreSaid};
use super::{JudgeSettings, Shard};
use crate::backfill::{BackfillPlan, Warming};
use crate::decision::{Decision, SubjectState};
use crate::exchange::route::Place;
use crate::exchange::{RuleId, StoreId};
use crate::ipc;
use crate::judge_stage::JudgeStage;
use crate::packed::{PackedError, unpack};
use crate::pane::{Pane, PaneError, RestoredRows, logged_schema};
use crate::store::{Beginning, PaneStore, StorePlan};
use crate::watermark::{Mark, Watermarks};
use crate::windowed::WindowedState;

/// Why a shard could not be restored. The process must not serve it.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The log and the group disagree.
    #[error(
        "the state log ends at {} and the consumer group has committed {}: state and position are not of one history. \
         Was the group, the state topic or the shuffle topic reset alone? Reset all three, or none",
        offset_text(*logged), offset_text(*committed)
    )]
    Mismatch {
        /// What the manifest says; none without a manifest.
        logged: Option<NextOffset>,
        /// What the group has committed.
        committed: Option<NextOffset>,
    },
    /// A record cannot be read.
    #[error("state record {key}: {error}")]
    Record {
        /// Its key.
        key: String,
        /// What is wrong with it.
        error: PackedError,
    },
    /// The log has a key that no version of ours writes: it is somebody else's topic.
    #[error("the state topic has a record with the key `{key}`, which lictor does not write: is it another topic?")]
    Key {
        /// The key.
        key: String,
    },
    /// Rows do not make up a pane.
    #[error("the sums of {rules}: {error}")]
    Pane {
        /// The rules that read them.
        rules: String,
        /// What is wrong.
        error: PaneError,
    },
}

fn offset_text(next: Option<NextOffset>) -> String {
    next.map_or_else(|| "nothing".to_owned(), |next| format!("offset {}", next.0))
}

/// Telemetry of a day is on its topics, or nobody could start anew after a bad day; of how much more nobody tells us.
const SURELY_KEPT_NS: i64 = 86_400_000_000_000;

/// A shard that is being read back.
#[derive(Debug)]
pub struct Restoring {
    settings: Arc<JudgeSettings>,
    place: Place,
    is_retried: bool,
    manifest: Option<Manifest>,
    panes: BTreeMap<(StoreId, u32, Window), RestoredRows>,
    /// Rows of stores that we do not have.
    unknown: Vec<(RowsSaid, Vec<u8>)>,
    histories: BTreeMap<(String, u32), HistoryChunks>,
    heads: BTreeMap<String, Arc<RuleHeader>>,
    subjects: BTreeMap<(String, String), SubjectState>,
    chunks: BTreeMap<Key, u32>,
    bytes: usize,
}

#[derive(Debug, Default)]
struct HistoryChunks {
    seq: u64,
    history: String,
    incarnation: u32,
    batches: BTreeMap<u32, Vec<RecordBatch>>,
}

impl Restoring {
    /// Nothing is read yet. If it `is_retried`, rules that were quarantined begin anew.
    #[must_use]
    pub fn new(settings: &Arc<JudgeSettings>, place: Place, is_retried: bool) -> Self {
        Self {
            settings: Arc::clone(settings),
            place,
            is_retried,
            manifest: None,
            panes: BTreeMap::new(),
            unknown: Vec::new(),
            histories: BTreeMap::new(),
            heads: BTreeMap::new(),
            subjects: BTreeMap::new(),
            chunks: BTreeMap::new(),
            bytes: 0,
        }
    }

    /// Bytes read.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes the next record of the log.
    ///
    /// # Errors
    /// The record is not one of ours, or of a version that we do not know.
    pub fn absorb(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), RestoreError> {
        let text = String::from_utf8_lossy(key);
        self.bytes += key.len() + value.map_or(0, <[u8]>::len);
        let parsed = Key::parse(&text).ok_or_else(|| RestoreError::Key { key: text.to_string() })?;
        let taken = match value {
            Some(value) => self.put(&parsed, value),
            None => {
                self.delete(&parsed);
                Ok(())
            }
        };
        taken.map_err(|error| RestoreError::Record { key: text.into_owned(), error })
    }

    fn put(&mut self, key: &Key, value: &[u8]) -> Result<(), PackedError> {
        self.count(key);
        match key {
            Key::Manifest => self.manifest = Some(unpack(value)?.0),
            Key::Delta { .. } | Key::Bucket { .. } => self.rows(value)?,
            Key::History { rule, level, chunk } => self.history(rule, *level, *chunk, value)?,
            Key::Rule { rule } => {
                let head = serde_json::from_slice(value).map_err(PackedError::malformed)?;
                self.heads.insert(rule.clone(), Arc::new(head));
            }
            Key::Subject { rule, subject } => {
                let state = serde_json::from_slice(value).map_err(PackedError::malformed)?;
                self.subjects.insert((rule.clone(), subject.clone()), state);
            }
        }
        Ok(())
    }

    fn delete(&mut self, key: &Key) {
        match key {
            Key::Rule { rule } => drop(self.heads.remove(rule)),
            Key::Subject { rule, subject } => drop(self.subjects.remove(&(rule.clone(), subject.clone()))),
            Key::History { rule, level, chunk: 0 } => drop(self.histories.remove(&(rule.clone(), *level))),
            _ => {}
        }
        if let Some(first) = first_chunk(key) {
            let (Key::Bucket { chunk, .. } | Key::History { chunk, .. }) = key else { return };
            let count = self.chunks.entry(first).or_default();
            *count = (*count).min(*chunk);
        }
    }

    /// Notes how many chunks there are, so that later ones replace them all.
    fn count(&mut self, key: &Key) {
        let (Some(first), Key::Bucket { chunk, .. } | Key::History { chunk, .. }) = (first_chunk(key), key) else {
            return;
        };
        let count = self.chunks.entry(first).or_default();
        *count = (*count).max(chunk + 1);
    }

    fn rows(&mut self, value: &[u8]) -> Result<(), PackedError> {
        let (heads, mut bytes) = unpack::<Vec<RowsSaid>>(value)?;
        for head in heads {
            let cut_off = || PackedError::malformed("it is cut off");
            let (batch, rest) = bytes.split_at_checked(head.bytes).ok_or_else(cut_off)?;
            bytes = rest;
            let Some(store) = self.settings.names.find_store(&head.state) else {
                if !self.settings.is_whole {
                    self.unknown.push((head, batch.to_vec()));
                }
                continue;
            };
            let aggregation = &self.settings.judging.stores[store.0].aggregation;
            let schema = logged_schema(&aggregation.key_schema(), &aggregation.state_schema());
            let batch = ipc::decode(batch, schema).map_err(PackedError::malformed)?;
            let place = (store, head.incarnation, head.span);
            let rows = self.panes.entry(place).or_insert_with(|| RestoredRows::new(aggregation));
            rows.put(batch.columns());
        }
        Ok(())
    }

    /// Whether a rule is not among ours, and yet may not have been removed.
    fn is_dormant(&self, rule: &str) -> bool {
        !self.settings.is_whole && self.settings.names.find_rule(rule).is_none()
    }

    fn history(&mut self, rule: &str, level: u32, chunk: u32, value: &[u8]) -> Result<(), PackedError> {
        let (head, bytes) = unpack::<HistorySaid>(value)?;
        let of_level = self.histories.entry((rule.to_owned(), level)).or_default();
        if head.seq != of_level.seq {
            let HistorySaid { seq, history, incarnation, .. } = head;
            *of_level = HistoryChunks { seq, history, incarnation, batches: BTreeMap::new() };
        }
        let batches = ipc::decode_stream(bytes).map_err(PackedError::malformed)?;
        of_level.batches.insert(chunk, batches);
        Ok(())
    }

    /// The shard, if the log and the group agree on where it stands.
    ///
    /// # Errors
    /// [`RestoreError`].
    pub fn finish(mut self, committed: Option<NextOffset>, signals: &[String]) -> Result<Shard, RestoreError> {
        let logged = self.manifest.as_ref().map(Manifest::next);
        if logged != committed {
            return Err(RestoreError::Mismatch { logged, committed });
        }
        let Some(manifest) = self.manifest.take() else { return Ok(Shard::empty(&self.settings, self.place)) };
        let mut position = Position {
            seq: manifest.seq,
            next: logged,
            progress: manifest.progress.clone(),
            chunks: std::mem::take(&mut self.chunks).into_iter().filter(|(_, count)| *count > 0).collect(),
            heads: self.heads.clone(),
            obsolete: Vec::new(),
            owed_bytes: 0,
        };
        let is_retried = |rule: &RuleSaid| self.is_retried && rule.quarantined.is_some();
        let rules = manifest.rules.iter().filter(|rule| !is_retried(rule)).cloned().collect();
        let before = Said { rules, stores: manifest.stores.clone() };
        let marks = manifest.marks.iter().cloned().map(Mark::from);
        let marks: Vec<Mark> = marks.filter(|m| signals.iter().any(|t| **t == *m.partition.topic)).collect();
        let watermarks = Watermarks::from_parts(self.settings.lateness_ns, marks, manifest.watermarks.clone());
        let anew = self.outrun(&manifest, &watermarks);
        let said = said(&self.settings, (&before, &anew), &mut position.progress);
        let stores = self.stores(&said, &manifest, &watermarks)?;
        let states = self.states(&said, &stores, (&manifest, &watermarks));
        let mut stage = self.settings.stage(self.place);
        let quarantined = said.rules.iter().enumerate();
        let quarantined = quarantined.filter_map(|(n, r)| Some((RuleId(n), r.quarantined.clone()?)));
        stage.restore(watermarks, stores, states, quarantined.collect::<Vec<_>>());
        let orphans = self.subjects(&mut stage, (&said, &manifest), &mut position);
        let log = self.log(said, manifest, position);
        Ok(Shard { settings: self.settings, stage, log, orphans, is_dirty: false, newest: None })
    }

    /// Gives the stage what was said of subjects; returns the ends of directives whose rules are no more. If the
    /// deployment only looks, those of rules that do not run end, too: nobody else would take them back.
    fn subjects(
        &mut self,
        stage: &mut JudgeStage,
        (said, manifest): (&Said, &Manifest),
        position: &mut Position,
    ) -> Vec<Decision> {
        let mut orphans = Vec::new();
        let watermark = manifest.watermarks.values().max().copied().unwrap_or(EventTime::MIN);
        let runs = |name: &str| said.rules.iter().any(|rule| rule.name == name && rule.quarantined.is_none());
        for ((rule, subject), state) in std::mem::take(&mut self.subjects) {
            let is_known = self.settings.names.find_rule(&rule).is_some();
            let is_stuck = self.settings.mode == Mode::Shadow && state.is_enforced() && !runs(&rule);
            let is_gone = !is_known && !self.is_dormant(&rule);
            let remains = state.remains(watermark);
            if !(is_gone || is_stuck) {
                if is_known {
                    stage.decisions_mut().restore(&rule, &subject, state);
                }
                continue;
            }
            if remains.as_ref() != Some(&state) {
                let text = |state| serde_json::to_vec(&state).unwrap_or_else(|e| unreachable!("plain JSON: {e}"));
                let key = Key::Subject { rule: rule.clone(), subject };
                position.obsolete.push(StateRecord { key, value: remains.map(text) });
            }
            let head = self.heads.get(&rule).cloned().unwrap_or_else(|| Arc::new(unknown_head(&rule, manifest)));
            orphans.extend(state.superseded(&self.settings.application_id, &head, watermark));
        }
        for (rule, _) in std::mem::take(&mut self.heads) {
            if self.settings.is_whole && self.settings.names.find_rule(&rule).is_none() {
                position.heads.remove(&rule);
                position.obsolete.push(StateRecord { key: Key::Rule { rule }, value: None });
            }
        }
        orphans
    }

    /// The log goes on, with what rules have left behind that do not compile.
    fn log(&mut self, said: Said, manifest: Manifest, mut position: Position) -> Log {
        let (dormant, known): (Vec<_>, Vec<_>) =
            manifest.rules.into_iter().partition(|rule| self.is_dormant(&rule.name));
        let has_moved = dormant.iter().any(|rule| !rule.is_dormant) || known.iter().any(|rule| rule.is_dormant);
        // The bits of groups are of readers by their numbers, and raw rows lie in other buckets than ours do.
        let has_other_readers =
            |store: &StoreSaid| said.stores.iter().any(|now| now.state == store.state && now.readers != store.readers);
        let has_moved = has_moved || manifest.stores.iter().any(has_other_readers);
        for rule in &dormant {
            tracing::warn!(
                rule = rule.name,
                "the rule does not compile: its state is kept until it does, or is removed"
            );
        }
        forget_removed(&self.settings, &known, &mut position);
        let is_theirs = |store: &StoreSaid| {
            let is_ours = self.settings.names.find_store(&store.state).is_some();
            !is_ours && store.readers.iter().any(|reader| dormant.iter().any(|rule| rule.name == *reader))
        };
        let stores = manifest.stores.iter().filter(|store| is_theirs(store)).cloned().collect();
        let dormant = Dormant::new(dormant, stores, std::mem::take(&mut self.unknown));
        let mut log = Log::restored(self.settings.names.clone(), said, dormant, position);
        if has_moved {
            log.rewrite();
        }
        log
    }

    /// The panes that go on.
    fn stores(
        &mut self,
        said: &Said,
        manifest: &Manifest,
        watermarks: &Watermarks,
    ) -> Result<Vec<PaneStore>, RestoreError> {
        let mut stores = Vec::new();
        let settings = Arc::clone(&self.settings);
        for (number, (said, plan)) in said.stores.iter().zip(settings.judging.stores.iter()).enumerate() {
            let failed = |error| RestoreError::Pane { rules: said.readers.join(", "), error };
            let before = manifest.stores.iter().find(|b| b.state == said.state && b.incarnation == said.incarnation);
            let (beginning, closed_to) = self.beginning(StoreId(number), before, manifest, watermarks);
            let bit = |name: &String| said.readers.iter().position(|reader| reader == name);
            let readers: Vec<Option<usize>> = before.map_or_else(Vec::new, |b| b.readers.iter().map(bit).collect());
            let mut panes = BTreeMap::new();
            let ends = [EventTime::MIN, EventTime::MAX].map(|at| Window { start: at, end: at });
            let [first, last] = ends.map(|span| (StoreId(number), said.incarnation, span));
            let of_store: Vec<_> = self.panes.range(first..=last).map(|(key, _)| *key).collect();
            for key in of_store {
                let Some(rows) = self.panes.remove(&key) else { continue };
                if plan.is_open(key.2, closed_to) && !said.is_lost {
                    panes.insert(key.2, Pane::restored(&plan.aggregation, rows, &readers).map_err(failed)?);
                }
            }
            stores.push(PaneStore::restored(Arc::clone(plan), panes, (closed_to, beginning)));
        }
        Ok(stores)
    }

    /// Since when a store counts, and up to when its windows are closed.
    fn beginning(
        &self,
        number: StoreId,
        before: Option<&StoreSaid>,
        manifest: &Manifest,
        watermarks: &Watermarks,
    ) -> (Beginning, EventTime) {
        let plan = &self.settings.judging.stores[number.0];
        let closed_to = plan.frontier.at(watermarks);
        // Nobody has fed it for a while.
        let is_dormant = |b: &StoreSaid| {
            let is_of_dormant = |name: &String| manifest.rules.iter().any(|rule| rule.is_dormant && rule.name == *name);
            b.readers.iter().all(is_of_dormant)
        };
        if let Some(before) = before.filter(|before| !before.is_warming && !is_dormant(before)) {
            return (Beginning::Known(before.since), closed_to);
        }
        let has_no_sums = before.is_none_or(|before| before.is_warming);
        if let Some(backfill) = self.filler(number, closed_to).filter(|_| has_no_sums) {
            let judged_to = plan.readers.iter().filter_map(|rule| self.judged_to(*rule, manifest)).min();
            let judged_to = judged_to.unwrap_or(closed_to).min(closed_to);
            let finishes = plan.readers.iter().filter_map(|rule| self.settings.judging.rules[rule.0].windowed());
            let rows_back = finishes.map(|windowed| windowed.finish.rows_back()).max().unwrap_or_default();
            let spec = plan.aggregation.spec();
            let (warming, closed_to) = Warming::begin(judged_to, spec, rows_back, backfill.reach_ns);
            return (Beginning::Warming(warming), closed_to);
        }
        let high = plan.frontier.signals().map(|signal| high(manifest, signal)).max();
        (Beginning::New(high.unwrap_or(EventTime::MIN).max(closed_to)), closed_to)
    }

    /// How history is summed up for a store, if it can be and time has come to something.
    fn filler(&self, store: StoreId, closed_to: EventTime) -> Option<&BackfillPlan> {
        let can_fill = |backfill: &&BackfillPlan| backfill.scans.contains_key(&store) && closed_to > EventTime::MIN;
        self.settings.backfill.as_ref().filter(can_fill)
    }

    /// Whether everything that a store and its readers know is surely on the topics: not the sums of months, nor what
    /// gaps are filled with, nor what a detector has learnt.
    fn can_begin_anew(&self, store: StoreId, closed_to: EventTime) -> bool {
        let plan = &self.settings.judging.stores[store.0];
        let Some(backfill) = self.filler(store, closed_to) else { return false };
        let spec = plan.aggregation.spec();
        let (Some(length_ns), Some(step_ns)) = (spec.length_ns_max(), spec.step_ns_max()) else { return false };
        let reach_ns = backfill.reach_ns.min(SURELY_KEPT_NS);
        let mut finishes = plan.readers.iter().filter_map(|rule| self.settings.judging.rules[rule.0].windowed());
        finishes.all(|windowed| {
            let back_ns = i64::try_from(windowed.finish.rows_back()).unwrap_or(i64::MAX).saturating_mul(step_ns);
            windowed.finish.gap_fill().is_none() && length_ns.saturating_add(back_ns) <= reach_ns
        })
    }

    /// Up to when a rule has judged windows, if it has waited for history since.
    fn judged_to(&self, rule: RuleId, manifest: &Manifest) -> Option<EventTime> {
        let name = self.settings.names.rule(rule);
        manifest.rules.iter().find(|before| before.name == name)?.judged_to
    }

    /// The stores that have let go of windows which one of their rules, waiting elsewhere, has not judged, and that can
    /// be summed up anew without losing anything.
    fn outrun(&self, manifest: &Manifest, watermarks: &Watermarks) -> BTreeSet<StoreId> {
        let is_outrun = |(number, plan): &(StoreId, &Arc<StorePlan>)| {
            let closed_to = plan.frontier.at(watermarks);
            let is_missed = |judged_to: EventTime| plan.aggregation.spec().pane_at(judged_to).end <= closed_to;
            let is_known = manifest.stores.iter().any(|b| b.state == plan.state_id && !b.is_warming);
            let mut judged_to = plan.readers.iter().filter_map(|rule| self.judged_to(*rule, manifest));
            is_known && self.can_begin_anew(*number, closed_to) && judged_to.any(is_missed)
        };
        let stores = (0..).map(StoreId).zip(self.settings.judging.stores.iter());
        stores.filter(is_outrun).map(|(number, _)| number).collect()
    }

    /// What the windowed rules remember besides.
    fn states(
        &mut self,
        said: &Said,
        stores: &[PaneStore],
        (manifest, watermarks): (&Manifest, &Watermarks),
    ) -> Vec<(RuleId, WindowedState)> {
        let mut states = Vec::new();
        let settings = Arc::clone(&self.settings);
        for (number, (said, rule)) in said.rules.iter().zip(settings.judging.rules.iter()).enumerate() {
            let Some(windowed) = rule.windowed() else { continue };
            let history = self.history_of(said, windowed.finish.empty_history());
            let store = &stores[windowed.store.0];
            let state = WindowedState::restored(Arc::clone(windowed), self.place, history, store.groups() > 0);
            let state = match store.warming() {
                Some(_) => {
                    let closed_to = store.plan().frontier.at(watermarks);
                    let judged_to = self.judged_to(RuleId(number), manifest).unwrap_or(closed_to);
                    state.judged_to(judged_to.min(closed_to))
                }
                None => state,
            };
            states.push((RuleId(number), state));
        }
        states
    }

    fn history_of(&mut self, said: &RuleSaid, empty: History) -> History {
        let mut of_level = |level: u32| {
            let chunks = self.histories.remove(&(said.name.clone(), level))?;
            let is_it = said.history.as_ref() == Some(&chunks.history) && chunks.incarnation == said.incarnation;
            let batches: Vec<RecordBatch> = chunks.batches.into_values().flatten().collect();
            let schema = batches.first().filter(|_| is_it)?.schema();
            concat_batches(&schema, &batches).ok()
        };
        (0..).zip(empty).map(|(level, _)| of_level(level)).collect()
    }
}

/// What can be said of a removed rule whose log is of a version that did not write heads.
fn unknown_head(rule: &str, manifest: &Manifest) -> RuleHeader {
    let said = manifest.rules.iter().find(|said| said.name == rule);
    let reason_code = ReasonCode::parse("x_unknown").unwrap_or_else(|why| unreachable!("{why}"));
    RuleHeader {
        version: RuleVersion(said.map_or_else(|| "unknown".to_owned(), |said| said.version.clone())),
        ..RuleHeader::new(rule, Action::Notify, reason_code)
    }
}

/// The newest row of a signal that was read.
fn high(manifest: &Manifest, signal: Signal) -> EventTime {
    let of_signal = manifest.marks.iter().cloned().map(Mark::from).filter(|mark| mark.signal == signal);
    of_signal.filter_map(|mark| mark.high).max().unwrap_or(EventTime::MIN)
}

fn first_chunk(key: &Key) -> Option<Key> {
    match key {
        Key::Bucket { bucket, .. } => Some(Key::Bucket { bucket: *bucket, chunk: 0 }),
        Key::History { rule, level, .. } => Some(Key::History { rule: rule.clone(), level: *level, chunk: 0 }),
        _ => None,
    }
}

/// The histories of rules that are no more, and of levels that rules do not have any more, are taken out of the log.
fn forget_removed(settings: &JudgeSettings, before: &[RuleSaid], position: &mut Position) {
    let is_removed = |rule: &str| settings.names.find_rule(rule).is_none();
    for rule in before.iter().filter(|r| is_removed(&r.name)) {
        tracing::info!(rule = rule.name, "the rule was removed: its state and its directives are withdrawn");
    }
    let is_removed = |rule: &str| settings.is_whole && is_removed(rule);
    let levels = |rule: &str| {
        let windowed = settings.judging.rules.iter().find(|r| r.header.name == rule).and_then(|r| r.windowed());
        windowed.map_or(0, |windowed| windowed.finish.empty_history().len())
    };
    let is_known = |rule: &str| settings.names.find_rule(rule).is_some();
    let is_gone = |rule: &str, level: u32| is_removed(rule) || (is_known(rule) && level as usize >= levels(rule));
    let removed: Vec<(Key, u32)> = position
        .chunks
        .iter()
        .filter(|(key, _)| matches!(key, Key::History { rule, level, .. } if is_gone(rule, *level)))
        .map(|(key, count)| (key.clone(), *count))
        .collect();
    for (key, count) in removed {
        position.chunks.remove(&key);
        let Key::History { rule, level, .. } = key else { continue };
        let gone = (0..count).map(|chunk| Key::History { rule: rule.clone(), level, chunk });
        position.obsolete.extend(gone.map(|key| StateRecord { key, value: None }));
    }
}
