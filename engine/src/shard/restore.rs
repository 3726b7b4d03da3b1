//! From a shard's log back to the shard.
//!
//! Records are taken in the order of their offsets. What the manifest says must be what the group has committed; if it
//! is not, the log and the group speak of two different histories, and the process must not guess which is true.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::ipc::reader::StreamReader;
use lictor_connectors::NextOffset;
use lictor_queries::History;
use lictor_schemas::tables::Signal;
use lictor_schemas::time::{EventTime, Window};

use super::dormant::Dormant;
use super::log::{Log, Position, rules_said};
use super::record::{HistorySaid, Key, Manifest, RowsSaid, RuleSaid};
use super::{JudgeSettings, Shard};
use crate::decision::SubjectState;
use crate::exchange::RuleId;
use crate::exchange::route::Place;
use crate::ipc;
use crate::packed::{PackedError, unpack};
use crate::pane::{Pane, PaneError, RestoredRows, logged_schema};
use crate::watermark::{Mark, Watermarks};
use crate::windowed::{Beginning, WindowedState};

/// Why a shard could not be restored. The process must not serve it.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The log and the group disagree.
    #[error(
        "the state log ends at {} and the consumer group has committed {}: state and position are not of one history. \
         Was the group, the state topic or the shuffle topic reset alone? Reset all three, or none",
        said(*logged), said(*committed)
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
    #[error("rule `{rule}`: {error}")]
    Pane {
        /// Which rule.
        rule: String,
        /// What is wrong.
        error: PaneError,
    },
}

fn said(next: Option<NextOffset>) -> String {
    next.map_or_else(|| "nothing".to_owned(), |next| format!("offset {}", next.0))
}

/// A shard that is being read back.
#[derive(Debug)]
pub struct Restoring {
    settings: Arc<JudgeSettings>,
    place: Place,
    is_retried: bool,
    manifest: Option<Manifest>,
    panes: BTreeMap<(RuleId, u32, Window), RestoredRows>,
    /// Rows of rules that we do not have.
    unknown: Vec<(RowsSaid, Vec<u8>)>,
    histories: BTreeMap<(String, u32), HistoryChunks>,
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
            Key::Subject { rule, subject } => {
                let state = serde_json::from_slice(value).map_err(PackedError::malformed)?;
                self.subjects.insert((rule.clone(), subject.clone()), state);
            }
        }
        Ok(())
    }

    fn delete(&mut self, key: &Key) {
        match key {
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
            if self.is_dormant(&head.rule) {
                self.unknown.push((head, batch.to_vec()));
                continue;
            }
            let Some(rule) = self.rule_with_state(&head) else { continue };
            let Some(windowed) = &self.settings.rules[rule.0].windowed else { continue };
            let aggregation = &windowed.aggregation;
            let schema = logged_schema(&aggregation.key_schema(), &aggregation.state_schema());
            let batch = ipc::decode(batch, schema).map_err(PackedError::malformed)?;
            let place = (rule, head.incarnation, head.span);
            let rows = self.panes.entry(place).or_insert_with(|| RestoredRows::new(aggregation));
            rows.put(batch.columns());
        }
        Ok(())
    }

    /// Whether a rule is not among ours, and yet may not have been removed.
    fn is_dormant(&self, rule: &str) -> bool {
        !self.settings.is_whole && self.settings.names.find(rule).is_none()
    }

    fn rule_with_state(&self, head: &RowsSaid) -> Option<RuleId> {
        let rule = self.settings.names.find(&head.rule)?;
        let (state, _) = self.settings.names.name(rule).windowed.as_ref()?;
        (*state == head.state).then_some(rule)
    }

    fn history(&mut self, rule: &str, level: u32, chunk: u32, value: &[u8]) -> Result<(), PackedError> {
        let (head, bytes) = unpack::<HistorySaid>(value)?;
        let of_level = self.histories.entry((rule.to_owned(), level)).or_default();
        if head.seq != of_level.seq {
            let HistorySaid { seq, history, incarnation, .. } = head;
            *of_level = HistoryChunks { seq, history, incarnation, batches: BTreeMap::new() };
        }
        let reader = StreamReader::try_new(Cursor::new(bytes), None).map_err(PackedError::malformed)?;
        let batches = reader.collect::<Result<Vec<_>, _>>().map_err(PackedError::malformed)?;
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
        let position = Position {
            seq: manifest.seq,
            next: logged,
            progress: manifest.progress.clone(),
            chunks: std::mem::take(&mut self.chunks).into_iter().filter(|(_, count)| *count > 0).collect(),
            obsolete: Vec::new(),
            owed_bytes: 0,
        };
        let is_retried = |rule: &RuleSaid| self.is_retried && rule.quarantined.is_some();
        let known: Vec<RuleSaid> = manifest.rules.iter().filter(|rule| !is_retried(rule)).cloned().collect();
        let (rules, mut position) = rules_said(&self.settings, &known, position);
        let marks = manifest.marks.iter().cloned().map(Mark::from);
        let marks: Vec<Mark> = marks.filter(|m| signals.iter().any(|t| **t == *m.partition.topic)).collect();
        let watermarks = Watermarks::from_parts(self.settings.lateness_ns, marks, manifest.watermarks.clone());
        let states = self.states(&rules, &manifest)?;
        let mut stage = self.settings.stage(self.place);
        let quarantined = rules.iter().enumerate();
        let quarantined = quarantined.filter_map(|(n, r)| Some((RuleId(n), r.quarantined.clone()?)));
        stage.restore(watermarks, states, quarantined.collect::<Vec<_>>());
        let mut orphans = Vec::new();
        for ((rule, subject), state) in std::mem::take(&mut self.subjects) {
            if self.is_dormant(&rule) {
                continue;
            }
            if self.settings.names.find(&rule).is_some() {
                stage.decisions_mut().restore(&rule, &subject, state);
            } else {
                orphans.extend(state.directive_id().map(str::to_owned));
                position.obsolete.push(Key::Subject { rule, subject });
            }
        }
        let (dormant, known): (Vec<_>, Vec<_>) =
            manifest.rules.into_iter().partition(|rule| self.is_dormant(&rule.name));
        let has_moved = dormant.iter().any(|rule| !rule.is_dormant) || known.iter().any(|rule| rule.is_dormant);
        for rule in &dormant {
            tracing::warn!(
                rule = rule.name,
                "the rule does not compile: its state is kept until it does, or is removed"
            );
        }
        forget_removed(&self.settings, &known, &mut position);
        let dormant = Dormant::new(dormant, std::mem::take(&mut self.unknown));
        let mut log = Log::restored(self.settings.names.clone(), rules, dormant, position);
        if has_moved {
            log.rewrite();
        }
        Ok(Shard { settings: self.settings, stage, log, orphans, is_dirty: false, newest: None })
    }

    /// The windowed rules' states that go on.
    fn states(
        &mut self,
        rules: &[RuleSaid],
        manifest: &Manifest,
    ) -> Result<Vec<(RuleId, WindowedState)>, RestoreError> {
        let mut states = Vec::new();
        let settings = Arc::clone(&self.settings);
        for (number, (said, rule)) in rules.iter().zip(settings.rules.iter()).enumerate() {
            let Some(windowed) = &rule.windowed else { continue };
            let closed_to = watermark(manifest, rule.signal);
            let failed = |error| RestoreError::Pane { rule: said.name.clone(), error };
            let mut panes = BTreeMap::new();
            let ends = [EventTime::MIN, EventTime::MAX].map(|at| Window { start: at, end: at });
            let [first, last] = ends.map(|span| (RuleId(number), said.incarnation, span));
            let of_rule: Vec<_> = self.panes.range(first..=last).map(|(key, _)| *key).collect();
            for key in of_rule {
                let Some(rows) = self.panes.remove(&key) else { continue };
                if WindowedState::is_open(windowed, key.2, closed_to) && said.quarantined.is_none() {
                    panes.insert(key.2, Pane::restored(&windowed.aggregation, rows).map_err(failed)?);
                }
            }
            let history = self.history_of(said, windowed.finish.empty_history());
            let was_there = |b: &RuleSaid| b.name == said.name && b.incarnation == said.incarnation && !b.is_dormant;
            let beginning = if manifest.rules.iter().any(was_there) {
                Beginning::Known(said.since)
            } else {
                Beginning::New(high(manifest, rule.signal).max(closed_to))
            };
            let times = (closed_to, beginning);
            let state = WindowedState::restored(Arc::clone(windowed), self.place, panes, history, times);
            states.push((RuleId(number), state));
        }
        Ok(states)
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

/// The newest row of a signal that was read.
fn high(manifest: &Manifest, signal: Signal) -> EventTime {
    let of_signal = manifest.marks.iter().cloned().map(Mark::from).filter(|mark| mark.signal == signal);
    of_signal.filter_map(|mark| mark.high).max().unwrap_or(EventTime::MIN)
}

fn watermark(manifest: &Manifest, signal: Signal) -> EventTime {
    manifest.watermarks.get(&signal).copied().unwrap_or(EventTime::MIN)
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
    let is_removed = |rule: &str| settings.names.find(rule).is_none();
    for rule in before.iter().filter(|r| is_removed(&r.name)) {
        tracing::info!(rule = rule.name, "the rule was removed: its state and its directives are withdrawn");
    }
    let is_removed = |rule: &str| settings.is_whole && is_removed(rule);
    let levels = |rule: &str| {
        let windowed = settings.rules.iter().find(|r| r.header.name == rule).and_then(|r| r.windowed.as_ref());
        windowed.map_or(0, |windowed| windowed.finish.empty_history().len())
    };
    let is_known = |rule: &str| settings.names.find(rule).is_some();
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
        position.obsolete.extend((0..count).map(|chunk| Key::History { rule: rule.clone(), level, chunk }));
    }
}
