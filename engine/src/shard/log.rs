//! What a commit writes, so that the log stays short without anybody ever rewriting it.
//!
//! Every commit writes the rows it has changed (a *delta*), and in return, in the long run, as many bytes of a rolling
//! snapshot: the next *buckets*, each with all of its rows. When every bucket had its turn a *generation* ends, and the
//! deltas of the generation before last are superfluous, because all they say was written again since; new deltas take
//! their keys, so that compaction removes them. An idle shard writes neither. The log therefore holds at most the state
//! once and the deltas of two generations, and restoring it in the order of its offsets is right whatever compaction
//! has already removed: of two rows of a group the later one is the newer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use lictor_connectors::NextOffset;
use lictor_queries::History;
use lictor_schemas::rule::RuleHeader;
use lictor_schemas::time::Window;

use super::JudgeSettings;
use super::dormant::Dormant;
use super::record::{HistorySaid, Key, Manifest, Progress, RowsSaid, RuleSaid, StateRecord, StoreSaid};
use crate::exchange::parcel::{MarkSaid, Names, PARCEL_BYTES, ROW_BYTES_MAX};
use crate::exchange::route::Hash;
use crate::exchange::{RuleId, StoreId};
use crate::ipc;
use crate::judge_stage::{JudgeStage, RuleState};
use crate::packed::pack;
use crate::pane::{Pane, PaneError};

/// Buckets of a snapshot: a commit writes whole ones, so a 64th of the state at a time.
pub(super) const BUCKETS: u32 = 64;

/// Groups of a pane that lie in one bucket together, by their numbers.
const BLOCK_GROUPS: usize = 4_096;

/// Deltas of a generation: however small they are, a restore must not read more of them.
const DELTAS_MAX: u32 = 2_048;

/// Why a state could not be written.
#[derive(Debug)]
pub(super) struct LogError {
    pub(super) culprit: Culprit,
    pub(super) error: PaneError,
}

/// Whose state it is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Culprit {
    Rule(RuleId),
    Store(StoreId),
}

/// A shard's side of its log.
#[derive(Debug)]
pub(super) struct Log {
    names: Names,
    said: Said,
    dormant: Dormant,
    at: Position,
    committed: Position,
}

/// What the manifest says of the rules and stores of an instance, both in the order of their numbers.
#[derive(Clone, Debug, Default)]
pub(super) struct Said {
    pub(super) rules: Vec<RuleSaid>,
    pub(super) stores: Vec<StoreSaid>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Position {
    pub(super) seq: u64,
    pub(super) next: Option<NextOffset>,
    pub(super) progress: Progress,
    /// How many chunks a bucket or history has in the log.
    pub(super) chunks: BTreeMap<Key, u32>,
    /// The heads of rules that are in the log, by name.
    pub(super) heads: BTreeMap<String, Arc<RuleHeader>>,
    /// Records of rules that are no more.
    pub(super) obsolete: Vec<StateRecord>,
    /// Bytes of deltas for which no buckets were written yet; below zero, buckets are ahead: one may be larger than
    /// many deltas.
    pub(super) owed_bytes: i64,
}

impl Log {
    pub(super) fn new(settings: &JudgeSettings) -> Self {
        let mut position = Position::default();
        let said = said(settings, (&Said::default(), &BTreeSet::new()), &mut position.progress);
        Self::restored(settings.names.clone(), said, Dormant::default(), position)
    }

    pub(super) fn restored(names: Names, said: Said, dormant: Dormant, position: Position) -> Self {
        Self { names, said, dormant, committed: position.clone(), at: position }
    }

    /// Rows lie in other buckets than before: all buckets are written with the next commit.
    pub(super) fn rewrite(&mut self) {
        for position in [&mut self.at, &mut self.committed] {
            position.progress.bucket = 0;
            position.owed_bytes = i64::MAX;
        }
    }

    pub(super) fn committed_next(&self) -> Option<NextOffset> {
        self.committed.next
    }

    pub(super) fn commit(&mut self) {
        self.committed = self.at.clone();
    }

    pub(super) fn undo(&mut self) {
        self.at = self.committed.clone();
    }

    /// The records of one commit; the manifest comes last.
    pub(super) fn changes(&mut self, stage: &JudgeStage, next: NextOffset) -> Result<Vec<StateRecord>, LogError> {
        self.at.seq += 1;
        self.at.next = Some(next);
        let mut records = std::mem::take(&mut self.at.obsolete);
        let written = self.delta(stage, &mut records)?;
        self.buckets(stage, written, &mut records)?;
        self.histories(stage, &mut records)?;
        self.heads(stage, &mut records);
        for (rule, subject, state) in stage.decisions().touched() {
            let key = Key::Subject { rule: rule.to_owned(), subject: subject.to_owned() };
            records.push(StateRecord { key, value: state.map(|state| json_of(&state)) });
        }
        records.push(self.manifest(stage, next));
        Ok(records)
    }

    /// The heads that have changed.
    fn heads(&mut self, stage: &JudgeStage, records: &mut Vec<StateRecord>) {
        for (rule, _) in stage.states() {
            let (name, head) = (&rule.header.name, &rule.header);
            if self.at.heads.get(name).is_none_or(|known| **known != *head) {
                records.push(StateRecord { key: Key::Rule { rule: name.clone() }, value: Some(json_of(head)) });
                self.at.heads.insert(name.clone(), Arc::new(head.clone()));
            }
        }
    }

    /// The rows that were touched; returns their bytes.
    fn delta(&mut self, stage: &JudgeStage, records: &mut Vec<StateRecord>) -> Result<usize, LogError> {
        let mut rows = RowsWriter::new(&self.names, &self.said.stores);
        for (number, store) in stage.stores().iter().enumerate() {
            // What waits for history begins anew after a restart, and is written when it has come.
            for (span, pane) in store.touched().filter(|_| store.warming().is_none()) {
                rows.add(StoreId(number), span, pane, &pane.touched())?;
            }
        }
        let chunks = rows.finish();
        let written = chunks.iter().map(Vec::len).sum();
        let Progress { generation, delta, .. } = self.at.progress;
        let parity = u8::from(!generation.is_multiple_of(2));
        for (chunk, value) in (0..).zip(chunks) {
            records.push(StateRecord { key: Key::Delta { parity, number: delta, chunk }, value: Some(value) });
        }
        self.at.progress.delta += u32::from(written > 0);
        Ok(written)
    }

    /// The next buckets: in the long run as many bytes as the deltas had, and enough of them that no generation gets
    /// too long.
    fn buckets(&mut self, stage: &JudgeStage, delta: usize, records: &mut Vec<StateRecord>) -> Result<(), LogError> {
        self.at.owed_bytes = self.at.owed_bytes.saturating_add(signed(delta));
        let due = self.at.progress.delta * BUCKETS / DELTAS_MAX;
        if self.at.owed_bytes <= 0 && self.at.progress.bucket >= due {
            return Ok(());
        }
        let blocks = blocks_by_bucket(&self.names, stage);
        while self.at.progress.bucket < BUCKETS && (self.at.owed_bytes > 0 || self.at.progress.bucket < due) {
            let bucket = self.at.progress.bucket;
            let mut rows = RowsWriter::new(&self.names, &self.said.stores);
            for (store, span, pane, block) in blocks.get(&bucket).into_iter().flatten() {
                let groups: Vec<usize> = block.clone().collect();
                rows.add(*store, *span, pane, &groups)?;
            }
            self.dormant.rows_of(bucket).for_each(|(said, bytes)| rows.add_encoded(said.clone(), [bytes.to_vec()]));
            let key = |chunk| Key::Bucket { bucket, chunk };
            self.at.owed_bytes -= signed(self.replace(key, rows.finish(), records));
            self.at.progress.bucket += 1;
        }
        if self.at.progress.bucket == BUCKETS {
            // More than the whole state is never owed.
            self.at.owed_bytes = self.at.owed_bytes.min(0);
            self.at.progress.generation += 1;
            self.at.progress.bucket = 0;
            self.at.progress.delta = 0;
        }
        Ok(())
    }

    fn histories(&mut self, stage: &JudgeStage, records: &mut Vec<StateRecord>) -> Result<(), LogError> {
        for (number, (said, (_, state))) in self.said.rules.clone().iter().zip(stage.states()).enumerate() {
            let Some(history) = state.windowed.as_ref().and_then(|w| w.new_history()) else { continue };
            let failed = |error: ArrowError| LogError { culprit: Culprit::Rule(RuleId(number)), error: error.into() };
            self.history(said, history, records).map_err(failed)?;
        }
        Ok(())
    }

    fn history(
        &mut self,
        rule: &RuleSaid,
        history: &History,
        records: &mut Vec<StateRecord>,
    ) -> Result<(), ArrowError> {
        for (level, rows) in (0..).zip(history) {
            let key = |chunk| Key::History { rule: rule.name.clone(), level, chunk };
            let batches = rows.as_ref().map_or_else(|| Ok(Vec::new()), in_chunks)?;
            let head = HistorySaid {
                seq: self.at.seq,
                chunks: u32::try_from(batches.len()).unwrap_or(u32::MAX),
                history: rule.history.clone().unwrap_or_default(),
                incarnation: rule.incarnation,
            };
            let chunks = batches.iter().map(|bytes| pack(&head, std::slice::from_ref(bytes))).collect();
            self.replace(key, chunks, records);
        }
        Ok(())
    }

    /// Writes chunks over those that are there, and tombstones over those that are too many; returns the bytes.
    fn replace(&mut self, key: impl Fn(u32) -> Key, chunks: Vec<Vec<u8>>, records: &mut Vec<StateRecord>) -> usize {
        let count = u32::try_from(chunks.len()).unwrap_or(u32::MAX);
        let before = self.at.chunks.remove(&key(0)).unwrap_or_default();
        if count > 0 {
            self.at.chunks.insert(key(0), count);
        }
        let written = chunks.iter().map(Vec::len).sum();
        let puts = (0..).zip(chunks).map(|(chunk, value)| StateRecord { key: key(chunk), value: Some(value) });
        records.extend(puts);
        records.extend((count..before).map(|chunk| StateRecord { key: key(chunk), value: None }));
        written
    }

    fn manifest(&mut self, stage: &JudgeStage, next: NextOffset) -> StateRecord {
        let (marks, watermarks) = stage.watermarks().parts();
        let now = |(rule, (said, (_, state))): (RuleId, (&RuleSaid, (_, &RuleState)))| RuleSaid {
            quarantined: state.quarantined.clone(),
            judged_to: stage.awaits_from(rule),
            ..said.clone()
        };
        let rules = (0..).map(RuleId).zip(self.said.rules.iter().zip(stage.states())).map(now);
        let stores = (0..).map(StoreId).zip(self.said.stores.iter().zip(stage.stores()));
        let stores = stores.map(|(store, (said, panes))| StoreSaid {
            since: panes.since(),
            is_lost: !stage.is_read(store),
            is_warming: panes.warming().is_some(),
            ..said.clone()
        });
        let manifest = Manifest {
            seq: self.at.seq,
            next_offset: next.0,
            marks: marks.map(MarkSaid::from).collect(),
            watermarks: watermarks.clone(),
            rules: rules.chain(self.dormant.rules().iter().cloned()).collect(),
            stores: stores.chain(self.dormant.stores().iter().cloned()).collect(),
            progress: self.at.progress.clone(),
        };
        StateRecord { key: Key::Manifest, value: Some(pack(&manifest, &[])) }
    }
}

/// What is to be said of an instance's rules and stores. Those that were there `before` with the same state keep their
/// incarnation, all others get a new one, and so do stores that begin anew and their readers.
pub(super) fn said(
    settings: &JudgeSettings,
    (before, anew): (&Said, &BTreeSet<StoreId>),
    progress: &mut Progress,
) -> Said {
    let mut said = Said::default();
    let mut next_incarnation = || {
        progress.incarnation += 1;
        progress.incarnation
    };
    for rule in settings.judging.rules.iter() {
        let name = rule.header.name.clone();
        let states: Vec<&str> =
            rule.stores().into_iter().map(|store| settings.names.store(store).state.as_str()).collect();
        let state = (!states.is_empty()).then(|| states.join(" "));
        let version = rule.header.version.0.clone();
        let is_it = |b: &&RuleSaid| b.name == name && b.state == state;
        // A quarantined rule has lost its state: a new version of it begins anew.
        let known = before.rules.iter().find(is_it).filter(|b| b.quarantined.is_none() || b.version == version);
        let goes_on = known.filter(|_| !rule.stores().iter().any(|store| anew.contains(store)));
        let incarnation = goes_on.map_or_else(&mut next_incarnation, |known| known.incarnation);
        let quarantined = known.and_then(|known| known.quarantined.clone());
        let history = rule.windowed().map(|w| w.finish.history_id());
        let (is_dormant, judged_to) = (false, None);
        said.rules.push(RuleSaid { name, version, state, history, incarnation, quarantined, is_dormant, judged_to });
    }
    for (number, plan) in (0..).map(StoreId).zip(settings.judging.stores.iter()) {
        let is_read = plan.readers.iter().any(|rule| said.rules[rule.0].quarantined.is_none());
        let state = plan.state_id.clone();
        let known = before.stores.iter().find(|b| b.state == state).filter(|b| !(b.is_lost && is_read));
        let known = known.filter(|_| !anew.contains(&number));
        let incarnation = known.map_or_else(&mut next_incarnation, |known| known.incarnation);
        let mut readers: Vec<String> = plan.readers.iter().map(|rule| said.rules[rule.0].name.clone()).collect();
        if !settings.is_whole {
            // Who may be mended will want the sums, too.
            let of_known = known.iter().flat_map(|known| &known.readers);
            readers.extend(of_known.filter(|name| settings.names.find_rule(name).is_none()).cloned());
        }
        let since = known.and_then(|known| known.since);
        let is_warming = known.is_some_and(|known| known.is_warming);
        said.stores.push(StoreSaid { state, incarnation, since, is_lost: !is_read, readers, is_warming });
    }
    said
}

fn json_of(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_else(|e| unreachable!("plain JSON: {e}"))
}

fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

type Block<'a> = (StoreId, Window, &'a Pane, std::ops::Range<usize>);

/// Which blocks of groups lie in which bucket.
fn blocks_by_bucket<'a>(names: &Names, stage: &'a JudgeStage) -> BTreeMap<u32, Vec<Block<'a>>> {
    let mut buckets: BTreeMap<u32, Vec<Block<'_>>> = BTreeMap::new();
    for (store, panes) in (0..).map(StoreId).zip(stage.stores()) {
        for (span, pane) in panes.panes().filter(|_| panes.warming().is_none()) {
            for first in (0..pane.len()).step_by(BLOCK_GROUPS) {
                let block = (first / BLOCK_GROUPS).to_le_bytes();
                let hash = Hash::of_span(&names.store(store).state, span).add(&block);
                let groups = first..(first + BLOCK_GROUPS).min(pane.len());
                buckets.entry(hash.bucket(BUCKETS)).or_default().push((store, span, pane, groups));
            }
        }
    }
    buckets
}

/// Gathers rows of many panes into as few records as possible.
struct RowsWriter<'a> {
    names: &'a Names,
    stores: &'a [StoreSaid],
    heads: Vec<RowsSaid>,
    /// What the heads describe, so many bytes.
    pieces: Vec<Vec<u8>>,
    bytes: usize,
    chunks: Vec<Vec<u8>>,
}

impl<'a> RowsWriter<'a> {
    fn new(names: &'a Names, stores: &'a [StoreSaid]) -> Self {
        Self { names, stores, heads: Vec::new(), pieces: Vec::new(), bytes: 0, chunks: Vec::new() }
    }

    fn add(&mut self, store: StoreId, span: Window, pane: &Pane, groups: &[usize]) -> Result<(), LogError> {
        if groups.is_empty() {
            return Ok(());
        }
        let failed = |error| LogError { culprit: Culprit::Store(store), error };
        let batch = pane.logged(groups).map_err(failed)?;
        let pieces = ipc::encode(&batch).map_err(|error| failed(error.into()))?;
        let bytes = pieces.iter().map(Vec::len).sum();
        if bytes > PARCEL_BYTES && groups.len() > 1 {
            let (first, second) = groups.split_at(groups.len() / 2);
            self.add(store, span, pane, first)?;
            return self.add(store, span, pane, second);
        }
        if bytes > ROW_BYTES_MAX {
            return Err(failed(PaneError::TooLarge { bytes, max: ROW_BYTES_MAX }));
        }
        let (state, incarnation) = (self.names.store(store).state.clone(), self.stores[store.0].incarnation);
        self.add_encoded(RowsSaid { state, incarnation, span, bytes }, pieces);
        Ok(())
    }

    fn add_encoded(&mut self, said: RowsSaid, pieces: impl IntoIterator<Item = Vec<u8>>) {
        if self.bytes + said.bytes > PARCEL_BYTES {
            self.end_chunk();
        }
        self.bytes += said.bytes;
        self.heads.push(said);
        self.pieces.extend(pieces);
    }

    fn end_chunk(&mut self) {
        if !self.heads.is_empty() {
            self.chunks.push(pack(&std::mem::take(&mut self.heads), &std::mem::take(&mut self.pieces)));
            self.bytes = 0;
        }
    }

    fn finish(mut self) -> Vec<Vec<u8>> {
        self.end_chunk();
        self.chunks
    }
}

/// A batch with its schema, in pieces that fit a message.
fn in_chunks(batch: &RecordBatch) -> Result<Vec<Vec<u8>>, ArrowError> {
    let columns: Vec<ArrayRef> = batch.columns().iter().map(ipc::own_buffers).collect();
    let owned = RecordBatch::try_new(batch.schema(), columns)?;
    let mut bytes = Vec::new();
    let mut writer = StreamWriter::try_new(&mut bytes, &owned.schema())?;
    writer.write(&owned)?;
    writer.finish()?;
    drop(writer);
    let rows = batch.num_rows();
    if bytes.len() <= PARCEL_BYTES || rows < 2 {
        return Ok(vec![bytes]);
    }
    let mut chunks = in_chunks(&batch.slice(0, rows / 2))?;
    chunks.extend(in_chunks(&batch.slice(rows / 2, rows - rows / 2))?);
    Ok(chunks)
}
