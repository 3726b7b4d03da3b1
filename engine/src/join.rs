//! Rows of two streams that meet: what a rule over a join does between its two stores and what it makes of joined rows.
//!
//! The rows of both sides lie in stores, as groups. A new row is looked up on the other side at once, so that a pair is
//! known with its second row. Whether a left row stays alone is known when it is settled; it is looked up once more
//! then, so nothing needs to be remembered of who has met whom.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, UInt64Array};
use arrow::compute::{filter_record_batch, interleave, take, take_record_batch};
use lictor_queries::{
    EvaluationError, JoinKind, JoinSide, Leaves, RowWise, Scan, ScanPlan, StreamJoin, multiplicities,
};
use lictor_schemas::time::{EventTime, Window};

use crate::exchange::StoreId;
use crate::pane::{Pane, PaneError};
use crate::store::PaneStore;
use crate::windowed::WindowedRule;

/// The judging half of a rule over a join, as its text says: the same for every shard.
#[derive(Debug)]
pub struct JoinRule {
    /// Which rows belong together.
    pub join: Arc<StreamJoin>,
    /// Where the rows of its sides are, the left one first.
    pub sides: [StoreId; 2],
    /// What is done with joined rows.
    pub then: JoinThen,
}

/// What is done with joined rows.
#[derive(Debug)]
pub enum JoinThen {
    /// Every row is judged by itself.
    Rows(Box<RowWise>),
    /// They are summed up per window and group.
    Windowed {
        /// Sums them up.
        scan: ScanPlan,
        /// What is made of the sums.
        rule: Arc<WindowedRule>,
    },
}

/// What a rule over a join keeps besides the rows of its sides: nothing that could not be made of them.
#[derive(Debug)]
pub(crate) struct JoinState {
    rule: Arc<JoinRule>,
    lookups: [Lookup; 2],
    scan: Option<Scan>,
    leaves: LeafCounts,
    committed_leaves: LeafCounts,
}

/// How often it was not sure which spans of a trace count; for people who look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeafCounts {
    /// Spans that counted though one above them may have counted before.
    pub late: u64,
    /// Spans that counted unseen because their traces are too large.
    pub unsearched: u64,
}

/// Finds the rows of a side by their keys.
#[derive(Debug, Default)]
struct Lookup {
    panes: BTreeMap<Window, Buckets>,
}

#[derive(Debug, Default)]
struct Buckets {
    /// The numbers of a pane's rows by the hash of their keys.
    by_key: HashMap<u64, Vec<u32>>,
    /// So many rows of the pane are in it.
    rows: usize,
}

/// Joined rows are made in batches of about so many: a key that half of all rows have would fill the memory otherwise.
const PAIRS_MAX: usize = 65_536;

/// Rows that might belong together.
#[derive(Debug, Default)]
struct Candidates {
    /// Which of the rows that are looked up.
    own: Vec<u64>,
    /// With which row of the other side: the number of its pane, and its own in it.
    others: Vec<(usize, usize)>,
}

/// Gets the pairs that meet the conditions, each as often as there are of it, and for all candidates which of the rows
/// that are looked up it has and whether it meets them.
type Visit<'a> = &'a mut dyn FnMut(RecordBatch, &[u64], &BooleanArray);

/// Some rows of a pane.
type Rows<'a> = (Window, &'a Pane, &'a [usize]);

impl Lookup {
    /// Takes in what has come since the last call.
    fn update(&mut self, join: &StreamJoin, side: JoinSide, span: Window, pane: &Pane) -> Result<(), PaneError> {
        let buckets = self.panes.entry(span).or_default();
        if buckets.rows < pane.len() {
            let new: Vec<usize> = (buckets.rows..pane.len()).collect();
            for (hash, row) in join.key_hashes(side, &pane.keys_of(&new)?)?.into_iter().zip(new) {
                buckets.by_key.entry(hash).or_default().push(u32::try_from(row).unwrap_or(u32::MAX));
            }
            buckets.rows = pane.len();
        }
        Ok(())
    }

    fn find(&self, span: Window, hash: u64) -> &[u32] {
        self.panes.get(&span).and_then(|buckets| buckets.by_key.get(&hash)).map_or(&[], Vec::as_slice)
    }
}

impl JoinState {
    /// Nothing has met yet.
    pub(crate) fn new(rule: Arc<JoinRule>) -> Self {
        let none = LeafCounts::default();
        Self { rule, lookups: Default::default(), scan: None, leaves: none, committed_leaves: none }
    }

    /// How sure it was of which spans count, since this process has the rule.
    pub(crate) fn leaf_counts(&self) -> LeafCounts {
        self.leaves
    }

    /// What is counted now stays.
    pub(crate) fn commit(&mut self) {
        self.committed_leaves = self.leaves;
    }

    /// The rule.
    pub(crate) fn rule(&self) -> &Arc<JoinRule> {
        &self.rule
    }

    /// Rows may be others than before.
    pub(crate) fn undo(&mut self) {
        self.lookups = Default::default();
        self.scan = None;
        self.leaves = self.committed_leaves;
    }

    /// Sums up joined rows; the partial batches are for the rule's own store.
    pub(crate) fn sum_up(&mut self, plan: &ScanPlan, rows: &RecordBatch) -> Result<Vec<RecordBatch>, EvaluationError> {
        let scan = match &mut self.scan {
            Some(scan) => scan,
            none => none.insert(plan.scan()?),
        };
        scan.absorb(rows)?;
        scan.flush()
    }

    /// The pairs that new rows of a side make.
    pub(crate) fn meet(
        &mut self,
        stores: &[PaneStore],
        side: JoinSide,
        added: &[(Window, Range<usize>)],
    ) -> Result<Vec<RecordBatch>, PaneError> {
        let emits_pairs = matches!(self.rule.join.kind(), JoinKind::Inner | JoinKind::Left);
        let mut joined = Vec::new();
        for (span, rows) in added.iter().filter(|_| emits_pairs) {
            let Some(pane) = self.store(stores, side).pane(*span) else { continue };
            let rows: Vec<usize> = rows.clone().collect();
            self.each_match(stores, side, (*span, pane, &rows), &mut |pairs, _, _| {
                joined.push(pairs);
            })?;
        }
        Ok(joined)
    }

    /// What is known of left rows that are settled now, those in panes that end after `from` and not after `to`, in the
    /// order of their event times.
    pub(crate) fn settle(
        &mut self,
        stores: &[PaneStore],
        (from, to): (EventTime, EventTime),
    ) -> Result<Vec<RecordBatch>, PaneError> {
        let kind = self.rule.join.kind();
        let mut settled = Vec::new();
        let is_silent = kind == JoinKind::Inner || from >= to;
        // Of partners that may have come before the rule was there nobody knows.
        let since = self.store(stores, JoinSide::Right).since().filter(|_| !self.rule.join.is_distinct());
        let back_ns = self.rule.join.bounds().from_ns;
        let is_known = |span: Window| since.is_none_or(|since| span.start.plus(back_ns) >= since);
        let panes = self.store(stores, JoinSide::Left).panes().take_while(|(span, _)| !is_silent && span.end <= to);
        for (span, pane) in panes.filter(|(span, _)| span.end > from) {
            let rows = in_order(&self.rule.join, pane)?;
            let has_met = if self.rule.join.has_families() {
                self.has_usage_below(stores, (span, pane, &rows))?
            } else {
                self.has_partner(stores, (span, pane, &rows))?
            };
            let is_told = |has_met: bool| has_met == (kind == JoinKind::LeftSemi);
            let told: Vec<usize> = rows.iter().zip(&has_met).filter(|(_, m)| is_told(**m)).map(|(r, _)| *r).collect();
            if !told.is_empty() && (kind == JoinKind::LeftSemi || is_known(span)) {
                let times = self.rule.join.left_times(&pane.states_of(&told)?);
                settled.push(repeat(self.rule.join.alone(&pane.keys_of(&told)?)?, &times)?);
            }
        }
        self.forget_gone(stores);
        Ok(settled)
    }

    /// For each of some left rows whether a right one meets the conditions.
    fn has_partner(&mut self, stores: &[PaneStore], left: Rows<'_>) -> Result<Vec<bool>, PaneError> {
        let mut has_partner = vec![false; left.2.len()];
        self.each_match(stores, JoinSide::Left, left, &mut |_, own, meets| {
            own.iter().zip(meets).filter(|(_, meets)| *meets == Some(true)).for_each(|(row, _)| {
                has_partner[usize::try_from(*row).unwrap_or(usize::MAX)] = true;
            });
        })?;
        Ok(has_partner)
    }

    /// For each of some left rows, which are spans, whether a span that bears usage descends from it.
    fn has_usage_below(&mut self, stores: &[PaneStore], left: Rows<'_>) -> Result<Vec<bool>, PaneError> {
        let (span, pane, rows) = left;
        let join = Arc::clone(&self.rule.join);
        let keys = pane.keys_of(rows)?;
        let traces: BTreeSet<u64> = join.key_hashes(JoinSide::Left, &keys)?.into_iter().collect();
        let mut of_traces = Vec::new();
        for (span, pane) in self.within_reach(stores, JoinSide::Left, span).collect::<Vec<_>>() {
            let lookup = &mut self.lookups[JoinSide::Right as usize];
            lookup.update(&join, JoinSide::Right, span, pane)?;
            let found = traces.iter().flat_map(|trace| lookup.find(span, *trace));
            let found: Vec<usize> = found.map(|row| *row as usize).collect();
            if !found.is_empty() {
                of_traces.push(pane.keys_of(&found)?);
            }
        }
        let Leaves { counts, late, unsearched } = join.leaves(&keys, &of_traces);
        self.leaves.late += late;
        self.leaves.unsearched += unsearched;
        Ok(counts.into_iter().map(|counts| !counts).collect())
    }

    fn store<'a>(&self, stores: &'a [PaneStore], side: JoinSide) -> &'a PaneStore {
        &stores[self.rule.sides[side as usize].0]
    }

    fn forget_gone(&mut self, stores: &[PaneStore]) {
        for side in JoinSide::BOTH {
            let store = self.store(stores, side);
            self.lookups[side as usize].panes.retain(|span, _| store.pane(*span).is_some());
        }
    }

    /// Looks rows of a pane up on the other side.
    fn each_match(
        &mut self,
        stores: &[PaneStore],
        side: JoinSide,
        (span, pane, rows): Rows<'_>,
        visit: Visit<'_>,
    ) -> Result<(), PaneError> {
        let join = Arc::clone(&self.rule.join);
        let others: Vec<(Window, &Pane)> = self.within_reach(stores, side, span).collect();
        let lookup = &mut self.lookups[side.other() as usize];
        others.iter().try_for_each(|(span, pane)| lookup.update(&join, side.other(), *span, pane))?;
        if others.is_empty() || rows.is_empty() {
            return Ok(());
        }
        let keys = pane.keys_of(rows)?;
        let mut found = Candidates::default();
        for (own, hash) in (0..).zip(join.key_hashes(side, &keys)?) {
            for (number, (span, _)) in others.iter().enumerate() {
                let of_pane = lookup.find(*span, hash).iter().map(|row| (number, *row as usize));
                found.others.extend(of_pane);
            }
            found.own.resize(found.others.len(), own);
            if found.own.len() >= PAIRS_MAX {
                found = visit_candidates(&join, side, (pane, rows, &keys), &others, found, visit)?;
            }
        }
        visit_candidates(&join, side, (pane, rows, &keys), &others, found, visit).map(drop)
    }

    /// The panes of the other side whose rows may be partners of rows in `span`.
    fn within_reach<'a>(
        &self,
        stores: &'a [PaneStore],
        side: JoinSide,
        span: Window,
    ) -> impl Iterator<Item = (Window, &'a Pane)> + use<'a> {
        let bounds = self.rule.join.bounds();
        let (first, last) = match side {
            JoinSide::Left => (span.start.plus(bounds.from_ns), span.end.plus(bounds.to_ns)),
            JoinSide::Right => (span.start.plus(-bounds.to_ns), span.end.plus(-bounds.from_ns)),
        };
        self.store(stores, side.other()).panes_between(first.plus(-self.rule.join.pane_ns()), last)
    }
}

/// Evaluates the conditions on candidates; returns an empty list to go on with.
fn visit_candidates(
    join: &StreamJoin,
    side: JoinSide,
    (pane, rows, keys): (&Pane, &[usize], &[ArrayRef]),
    panes: &[(Window, &Pane)],
    found: Candidates,
    visit: Visit<'_>,
) -> Result<Candidates, PaneError> {
    if found.own.is_empty() {
        return Ok(found);
    }
    let indices = UInt64Array::from(found.own.clone());
    let own: Vec<ArrayRef> = keys.iter().map(|key| take(key, &indices, None)).collect::<Result<_, _>>()?;
    let mut rows_of: Vec<Vec<usize>> = vec![Vec::new(); panes.len()];
    let mut places = Vec::with_capacity(found.others.len());
    for (pane, row) in &found.others {
        places.push((*pane, rows_of[*pane].len()));
        rows_of[*pane].push(*row);
    }
    let (mut keys_of, mut states_of) = (Vec::new(), Vec::new());
    for ((_, pane), rows) in panes.iter().zip(&rows_of) {
        keys_of.push(pane.keys_of(rows)?);
        states_of.push(pane.states_of(rows)?);
    }
    let (theirs, their_states) = (interleaved(&keys_of, &places)?, interleaved(&states_of, &places)?);
    let (pairs, meets) = match side {
        JoinSide::Left => join.pairs(&own, &theirs)?,
        JoinSide::Right => join.pairs(&theirs, &own)?,
    };
    let own_rows: Vec<usize> = found.own.iter().filter_map(|n| rows.get(usize::try_from(*n).ok()?)).copied().collect();
    let times: Vec<i64> = repeated(&pane.states_of(&own_rows)?)
        .into_iter()
        .zip(repeated(&their_states))
        .zip(&meets)
        .filter(|(_, meets)| *meets == Some(true))
        .map(|((own, theirs), _)| own * theirs)
        .collect();
    visit(repeat(filter_record_batch(&pairs, &meets)?, &times)?, &found.own, &meets);
    Ok(Candidates::default())
}

/// Columns whose rows lie in several batches.
fn interleaved(batches: &[Vec<ArrayRef>], places: &[(usize, usize)]) -> Result<Vec<ArrayRef>, PaneError> {
    let width = batches.first().map_or(0, Vec::len);
    let column = |c: usize| {
        let parts: Vec<&dyn Array> = batches.iter().map(|batch| batch[c].as_ref()).collect();
        Ok(interleave(&parts, places)?)
    };
    (0..width).map(column).collect()
}

/// How many times each row is there.
fn repeated(states: &[ArrayRef]) -> Vec<i64> {
    multiplicities(states).values().to_vec()
}

/// Every row as many times as it is there.
fn repeat(batch: RecordBatch, times: &[i64]) -> Result<RecordBatch, PaneError> {
    if times.iter().all(|times| *times == 1) {
        return Ok(batch);
    }
    let each = |(row, times): (u64, &i64)| std::iter::repeat_n(row, usize::try_from(*times).unwrap_or_default());
    let rows: UInt64Array = (0..).zip(times).flat_map(each).collect();
    Ok(take_record_batch(&batch, &rows)?)
}

/// The rows of a pane in the order of their event times.
fn in_order(join: &StreamJoin, pane: &Pane) -> Result<Vec<usize>, PaneError> {
    let mut rows: Vec<usize> = (0..pane.len()).collect();
    let keys = pane.keys_of(&rows)?;
    let times = join.times(JoinSide::Left, &keys);
    rows.sort_by_key(|row| times[*row]);
    Ok(rows)
}
