//! The panes of one windowed aggregate: sums that one rule reads, or several.
//!
//! A store knows nothing of what rules make of its sums. Whoever reads it does so between two steps of time: windows
//! that end with the step are looked at by all readers before [`PaneStore::let_go`] lets their panes go.

mod quiet;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use lictor_queries::{Aggregation, Emission, Finish, JoinSide, WindowSpec};
use lictor_schemas::time::{EventTime, Window};

use crate::backfill::Warming;
use crate::blocks::Blocks;
use crate::exchange::route::StoreRoute;
use crate::exchange::{Feeding, RuleId};
use crate::frontier::Frontier;
use crate::pane::{Pane, PaneError, PartialRows};
use crate::running::{RunningSessions, SessionSpec};
use crate::sessions::{self, Ended, PassedPanes};
use crate::windowed::Update;

/// A store, as the rules' text says: the same for every shard.
#[derive(Debug)]
pub struct StorePlan {
    /// Its name in parcels and logs.
    pub state_id: String,
    /// How far the time of its windows has come.
    pub frontier: Frontier,
    /// When its rules speak: the store keeps panes for those that speak on close, whole windows for the others.
    pub emission: Emission,
    /// How partial sums are merged and finished.
    pub aggregation: Arc<Aggregation>,
    /// On which shard each group is judged.
    pub route: StoreRoute,
    /// Whether its groups are the rows of a side of a join, and of which.
    pub side: Option<JoinSide>,
    /// The rules that read it.
    pub readers: Vec<RuleId>,
}

impl StorePlan {
    /// Whether the pane kept at `span` has a part in a window that is open when those up to `closed_to` are closed.
    pub(crate) fn is_open(&self, span: Window, closed_to: EventTime) -> bool {
        match (self.emission, self.aggregation.spec()) {
            (Emission::OnClose, spec) | (_, spec @ WindowSpec::Session { .. }) => spec.last_end_of(span) > closed_to,
            (Emission::OnUpdate, _) => span.end > closed_to,
        }
    }

    /// Whether its rules look at the groups of running windows that have changed.
    fn notes_changes(&self) -> bool {
        let is_session = matches!(self.aggregation.spec(), WindowSpec::Session { .. });
        self.emission == Emission::OnUpdate && !is_session
    }

    /// How its sessions are read if its rules speak on update of them.
    fn sessions_on_update(&self, closed_to: EventTime) -> Option<SessionSpec<'_>> {
        match (self.emission, self.aggregation.spec()) {
            (Emission::OnUpdate, WindowSpec::Session { gap_ns }) => {
                Some(SessionSpec { aggregation: &self.aggregation, gap_ns, closed_to })
            }
            _ => None,
        }
    }
}

/// Since when a store counts: windows that began earlier are not whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Beginning {
    /// Since then, or since the first watermark if that has not come yet.
    Known(Option<EventTime>),
    /// Since whoever reads telemetry has its rules, too; not before then.
    New(EventTime),
    /// Since before it was there: what was read until then is yet to come.
    Warming(Warming),
}

/// The panes of a store, of one shard.
///
/// Between two commits everything can be undone.
#[derive(Debug)]
pub struct PaneStore {
    plan: Arc<StorePlan>,
    /// Panes, or for rules that emit on update whole windows.
    panes: BTreeMap<Window, Pane>,
    /// Windows that end here or earlier are closed.
    closed_to: EventTime,
    beginning: Beginning,
    /// Partial rows that came for closed windows only.
    dropped: u64,
    /// Panes with something new since the last commit.
    touched: BTreeSet<Window>,
    committed: Committed,
    /// Groups of running windows that have changed: several rules look at them.
    changes: Arc<[Changed]>,
    /// Windows that are being closed, finished: several rules look at them.
    finished: BTreeMap<Window, RecordBatch>,
    /// Sessions that are being closed, and at which watermark.
    ended: (EventTime, Vec<Ended>),
    /// Sessions that go on, if rules speak on update.
    running: RunningSessions,
    /// Sessions in panes that time has passed.
    passed: PassedPanes,
    /// Neighbouring panes, merged.
    blocks: Blocks,
}

/// Groups of a running window that have changed.
#[derive(Debug)]
pub(crate) struct Changed {
    pub window: Window,
    /// Their numbers in the pane.
    pub numbers: Vec<usize>,
    /// The groups, finished.
    pub groups: RecordBatch,
}

/// What was there at the last commit and is not any more.
#[derive(Debug)]
struct Committed {
    closed_to: EventTime,
    beginning: Beginning,
    dropped: u64,
    removed: BTreeMap<Window, Pane>,
    /// Panes that were not there.
    created: BTreeSet<Window>,
}

impl PaneStore {
    /// Nothing has been seen yet.
    #[must_use]
    pub fn new(plan: Arc<StorePlan>) -> Self {
        Self::restored(plan, BTreeMap::new(), (EventTime::MIN, Beginning::Known(None)))
    }

    /// The panes as a log had them: windows that end at or before `closed_to` are closed.
    pub(crate) fn restored(
        plan: Arc<StorePlan>,
        panes: BTreeMap<Window, Pane>,
        (closed_to, beginning): (EventTime, Beginning),
    ) -> Self {
        let (removed, created) = (BTreeMap::new(), BTreeSet::new());
        let committed = Committed { closed_to, beginning: beginning.clone(), dropped: 0, removed, created };
        let (touched, finished, ended) = (BTreeSet::new(), BTreeMap::new(), (EventTime::MIN, Vec::new()));
        let (changes, running, passed) = (Arc::from([]), RunningSessions::default(), PassedPanes::default());
        Self {
            plan,
            panes,
            closed_to,
            beginning,
            dropped: 0,
            touched,
            committed,
            changes,
            finished,
            ended,
            running,
            passed,
            blocks: Blocks::default(),
        }
    }

    /// What it is.
    #[must_use]
    pub fn plan(&self) -> &Arc<StorePlan> {
        &self.plan
    }

    /// What is there now stays.
    ///
    /// # Errors
    /// States cannot be copied together.
    pub fn commit(&mut self) -> Result<(), PaneError> {
        for span in std::mem::take(&mut self.touched) {
            self.panes.get_mut(&span).map_or(Ok(()), Pane::commit)?;
        }
        self.committed.removed.clear();
        self.committed.created.clear();
        self.committed.closed_to = self.closed_to;
        self.committed.beginning.clone_from(&self.beginning);
        self.committed.dropped = self.dropped;
        Ok(())
    }

    /// Goes back to the last commit.
    ///
    /// # Errors
    /// A key that was there cannot be indexed again; the state is no good any more.
    pub fn undo(&mut self) -> Result<(), PaneError> {
        // A pane may have gone and come anew.
        for span in std::mem::take(&mut self.committed.created) {
            self.panes.remove(&span);
        }
        self.panes.append(&mut self.committed.removed);
        for span in std::mem::take(&mut self.touched) {
            self.panes.get_mut(&span).map_or(Ok(()), |pane| pane.undo(&self.plan.aggregation))?;
        }
        self.running = RunningSessions::default();
        (self.passed, self.blocks) = (PassedPanes::default(), Blocks::default());
        self.ended = (EventTime::MIN, Vec::new());
        self.closed_to = self.committed.closed_to;
        self.beginning.clone_from(&self.committed.beginning);
        self.dropped = self.committed.dropped;
        Ok(())
    }

    /// The panes with groups that are new or changed since the last commit.
    pub(crate) fn touched(&self) -> impl Iterator<Item = (Window, &Pane)> {
        self.touched.iter().filter_map(|span| Some((*span, self.panes.get(span)?)))
    }

    /// All panes.
    pub(crate) fn panes(&self) -> impl Iterator<Item = (Window, &Pane)> {
        self.panes.iter().map(|(span, pane)| (*span, pane))
    }

    /// Notes which groups of running windows have changed, for all readers to look at before the next rows come;
    /// nothing for rules that speak on close.
    ///
    /// # Errors
    /// An accumulator refuses.
    pub fn note_changes(&mut self) -> Result<(), PaneError> {
        let aggregation = &self.plan.aggregation;
        if !self.plan.notes_changes() || self.warming().is_some() {
            return Ok(());
        }
        let mut changes = Vec::new();
        for window in &self.touched {
            let Some(pane) = self.panes.get_mut(window) else { continue };
            let numbers = pane.take_changed();
            if !numbers.is_empty() {
                let groups = pane.evaluate(aggregation, &numbers, *window)?;
                changes.push(Changed { window: *window, numbers, groups });
            }
        }
        self.changes = changes.into();
        Ok(())
    }

    /// The groups that have changed, as they were noted last.
    pub(crate) fn changes(&self) -> Arc<[Changed]> {
        Arc::clone(&self.changes)
    }

    /// Every reader has looked at what has changed.
    pub fn forget_changes(&mut self) {
        self.changes = Arc::from([]);
    }

    /// All groups of all running windows, as if they had changed.
    pub(crate) fn all_groups(&self) -> Result<Vec<Changed>, PaneError> {
        let all = |(window, pane): (&Window, &Pane)| {
            let numbers: Vec<usize> = (0..pane.len()).collect();
            let groups = pane.evaluate(&self.plan.aggregation, &numbers, *window)?;
            Ok(Changed { window: *window, numbers, groups })
        };
        self.panes.iter().map(all).collect()
    }

    /// The running window that ends next, how many groups it has, and the first of them, finished; at most `max`.
    pub(crate) fn first_groups(&self, max: usize) -> Option<(Window, usize, RecordBatch)> {
        let running = self.panes.iter().filter(|(window, pane)| window.end > self.closed_to && pane.len() > 0);
        let (window, pane) = running.min_by_key(|(window, _)| window.end)?;
        let numbers: Vec<usize> = (0..pane.len().min(max)).collect();
        let groups = pane.evaluate(&self.plan.aggregation, &numbers, *window).ok()?;
        Some((*window, pane.len(), groups))
    }

    /// Records whether a group violates the rule of a reader; returns whether it did before.
    pub(crate) fn set_violating(&mut self, window: Window, (group, reader): (usize, usize), violates: bool) -> bool {
        let Some(pane) = self.panes.get_mut(&window) else { return false };
        let before = pane.set_violating(group, reader, violates);
        if before != violates {
            self.touched.insert(window);
        }
        before
    }

    /// Groups with state, over all open windows.
    pub(crate) fn groups(&self) -> usize {
        self.panes.values().map(Pane::len).sum()
    }

    /// Memory of that state, in bytes.
    pub(crate) fn size_bytes(&self) -> usize {
        let panes: usize = self.panes.values().map(Pane::size_bytes).sum();
        panes + self.passed.size_bytes() + self.blocks.size_bytes()
    }

    /// Windows that began earlier are not whole; none if that is not known yet.
    pub(crate) fn since(&self) -> Option<EventTime> {
        match self.beginning {
            Beginning::Known(since) => since,
            Beginning::New(since) => Some(since),
            Beginning::Warming(_) => None,
        }
    }

    /// What it waits for, if it does: until then its rules are not judged.
    pub(crate) fn warming(&self) -> Option<&Warming> {
        match &self.beginning {
            Beginning::Warming(warming) => Some(warming),
            Beginning::Known(_) | Beginning::New(_) => None,
        }
    }

    /// Somebody has told from where on stores are fed, who has the same stores as we do or others.
    pub(crate) fn feed(&mut self, feeder: u64, feeding: &Feeding, are_ours: bool) {
        if let Beginning::Warming(warming) = &mut self.beginning
            && warming.feed(feeder, &feeding.from, are_ours)
        {
            self.clear();
        }
    }

    /// What it waited for has come, from `since` on.
    pub(crate) fn warm(&mut self, since: EventTime) {
        self.beginning = Beginning::Known(Some(since));
    }

    /// Whoever reads telemetry has the rules of this store, too, and rows up to `high` were read before.
    pub(crate) fn begins(&mut self, high: EventTime) {
        if let Beginning::New(since) = self.beginning {
            self.beginning = Beginning::Known(Some(since.max(high)));
        }
    }

    /// Partial rows that came for closed windows only.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Windows that end here or earlier are closed.
    pub(crate) fn closed_to(&self) -> EventTime {
        self.closed_to
    }

    /// Lets all panes go.
    pub(crate) fn clear(&mut self) {
        let all: Vec<Window> = self.panes.keys().copied().collect();
        all.into_iter().for_each(|span| self.remove(span));
        self.finished.clear();
        self.ended.1.clear();
        self.running = RunningSessions::default();
    }

    fn remove(&mut self, span: Window) {
        self.passed.forget(span);
        self.blocks.forget(span, &self.plan.aggregation);
        if let Some(pane) = self.panes.remove(&span)
            && !self.committed.created.remove(&span)
        {
            self.committed.removed.insert(span, pane);
        }
    }

    /// The pane kept at `span`, to be read.
    pub(crate) fn pane(&self, span: Window) -> Option<&Pane> {
        self.panes.get(&span)
    }

    /// The panes that begin neither before `first` nor after `last`.
    pub(crate) fn panes_between(&self, first: EventTime, last: EventTime) -> impl Iterator<Item = (Window, &Pane)> {
        let from = |start| Window { start, end: EventTime::MIN };
        let last = Window { start: last, end: EventTime::MAX };
        self.panes.range(from(first.min(last.start))..=last).map(|(span, pane)| (*span, pane))
    }

    /// Sorts the rows of a partial batch into panes; returns the numbers of the groups that are new, pane by pane.
    ///
    /// # Errors
    /// The states cannot be merged.
    pub fn absorb(&mut self, partial: &RecordBatch) -> Result<Vec<(Window, Range<usize>)>, PaneError> {
        let mut added = Vec::new();
        let plan = Arc::clone(&self.plan);
        for (span, rows) in plan.aggregation.panes_of(partial) {
            let rows = self.timely(PartialRows::select(partial, &rows, &plan.aggregation)?)?;
            if rows.rows == 0 {
                continue;
            }
            let keys = match plan.sessions_on_update(self.closed_to) {
                Some(sessions) => self.running.change(&self.panes, sessions, &rows)?,
                None => Vec::new(),
            };
            for place in self.places(span, rows.rows) {
                let pane = self.pane_to_change(place)?;
                let known = pane.len();
                let groups = pane.absorb(&plan.aggregation, &rows)?;
                if plan.notes_changes() {
                    pane.note_changed(&groups);
                }
                added.push((place, known..pane.len()));
                self.running.put(place, &keys, &groups);
            }
        }
        Ok(added)
    }

    fn pane_to_change(&mut self, place: Window) -> Result<&mut Pane, PaneError> {
        self.touched.insert(place);
        self.passed.forget(place);
        self.blocks.forget(place, &self.plan.aggregation);
        Ok(match self.panes.entry(place) {
            Entry::Occupied(pane) => pane.into_mut(),
            Entry::Vacant(free) => {
                self.committed.created.insert(place);
                free.insert(Pane::try_new(&self.plan.aggregation)?)
            }
        })
    }

    /// The rows that could not be of a session that has ended. Whether others are late the panes tell.
    fn timely(&mut self, rows: PartialRows) -> Result<PartialRows, PaneError> {
        let WindowSpec::Session { .. } = self.plan.aggregation.spec() else { return Ok(rows) };
        let Some((_, latest)) = self.plan.aggregation.bounds(&rows.states) else { return Ok(rows) };
        let timely: Vec<usize> = (0..rows.rows).filter(|row| latest[*row] >= self.closed_to.0).collect();
        self.dropped += (rows.rows - timely.len()) as u64;
        if timely.len() == rows.rows { Ok(rows) } else { Ok(rows.take(&timely)?) }
    }

    /// Where rows of a pane are kept: in the pane, or in every open window that holds it.
    fn places(&mut self, pane: Window, rows: usize) -> Vec<Window> {
        let spec = self.plan.aggregation.spec();
        if spec.last_end_of(pane) <= self.closed_to {
            self.dropped += rows as u64;
            return Vec::new();
        }
        match self.plan.emission {
            Emission::OnClose => vec![pane],
            Emission::OnUpdate => spec.windows_of(pane).into_iter().filter(|w| w.end > self.closed_to).collect(),
        }
    }

    /// The windows that end after `after` and at or before the watermark and are not closed yet, by their ends. Those
    /// without rows only if they are asked for, from the first watermark on, and at most so many.
    pub(crate) fn due(&self, after: EventTime, watermark: EventTime, empty_max: usize) -> Vec<Window> {
        let after = after.max(self.closed_to);
        let spec = self.plan.aggregation.spec();
        if self.plan.emission == Emission::OnUpdate || spec.is_zoned() {
            let ended = self.panes.keys().filter(|w| w.end <= watermark && w.end > after);
            let mut ended: Vec<Window> = ended.copied().collect();
            ended.sort_by_key(|window| (window.end, window.start));
            return ended;
        }
        let mut due = Vec::new();
        let first = self.panes.keys().next().map(|pane| pane.start);
        let from = if empty_max > 0 && after > EventTime::MIN { Some(after) } else { first };
        let Some(from) = from else { return due };
        let mut window = spec.first_ending_after(after.max(from));
        while window.end <= watermark {
            let mut at = window.end;
            if due.len() < empty_max || self.has_rows_in(window) {
                due.push(window);
            } else {
                // One step leads over windows without rows.
                let Some((next, _)) = self.panes.range(Window { start: at, end: EventTime::MIN }..).next() else {
                    break;
                };
                at = at.max(next.start);
            }
            window = spec.first_ending_after(at);
            if window.end <= at {
                // The end of time.
                break;
            }
        }
        due
    }

    /// Whether a window has a row.
    pub(crate) fn has_rows_in(&self, window: Window) -> bool {
        self.panes.range(self.plan.aggregation.spec().panes_in(window)).next().is_some()
    }

    /// All groups of a window, each once.
    pub(crate) fn rows_of(&mut self, window: Window) -> Result<PartialRows, PaneError> {
        self.blocks.rows_of(window, &self.panes, &self.plan.aggregation)
    }

    /// All groups of a window that is being closed, finished; for all readers once.
    pub(crate) fn finished(&mut self, window: Window) -> Result<RecordBatch, PaneError> {
        if let Some(finished) = self.finished.get(&window) {
            return Ok(finished.clone());
        }
        let PartialRows { keys, states, .. } = self.rows_of(window)?;
        let finished = self.plan.aggregation.evaluate(&keys, &states, window)?;
        if self.plan.readers.len() > 1 {
            self.finished.insert(window, finished.clone());
        }
        Ok(finished)
    }

    /// Judges the running sessions of the keys that have changed, or of all.
    ///
    /// # Errors
    /// The rule's query fails on a session's values.
    pub(crate) fn judge_sessions(
        &mut self,
        finish: &Finish,
        is_judged_anew: bool,
    ) -> Result<Option<Update>, PaneError> {
        let plan = Arc::clone(&self.plan);
        let Some(sessions) = plan.sessions_on_update(self.closed_to) else { return Ok(None) };
        if is_judged_anew {
            self.running.change_all(&self.panes, sessions)?;
        }
        let mut touch = |span| self.touched.extend([span]);
        self.running.judge(&mut self.panes, sessions, finish, &mut touch)
    }

    /// Takes the sessions that have ended at the watermark, for all readers to look at; what goes on is moved on. To be
    /// called by each reader: only the first call of a step does something.
    ///
    /// # Errors
    /// States cannot be merged.
    pub fn end_sessions(&mut self, watermark: EventTime) -> Result<(), PaneError> {
        let WindowSpec::Session { gap_ns } = self.plan.aggregation.spec() else { return Ok(()) };
        if watermark <= self.closed_to || watermark == self.ended.0 {
            return Ok(());
        }
        let mut touch = |span| self.touched.extend([span]);
        let times = (gap_ns, self.closed_to, watermark);
        let panes = (&mut self.panes, &mut self.passed);
        let ended = sessions::take_ended(panes, &self.plan.aggregation, times, &mut touch)?;
        self.ended = (watermark, if self.plan.emission == Emission::OnUpdate { Vec::new() } else { ended });
        Ok(())
    }

    /// The sessions that are being closed.
    pub(crate) fn ended(&self) -> &[Ended] {
        &self.ended.1
    }

    /// Every reader has looked at what ends at the watermark: what has no part in an open window goes.
    pub fn let_go(&mut self, watermark: EventTime) {
        self.finished.clear();
        self.ended.1.clear();
        if watermark <= self.closed_to || self.warming().is_some() {
            return;
        }
        // Of a side it only matters whether it came later than others.
        if self.beginning == Beginning::Known(None) && self.plan.side.is_none() {
            self.beginning = Beginning::Known(Some(watermark));
        }
        self.closed_to = watermark;
        let is_over = |span: &Window| !self.plan.is_open(*span, watermark);
        let all = self.panes.keys().copied();
        let over: Vec<Window> = match self.plan.aggregation.spec().is_zoned() {
            true => all.filter(is_over).collect(),
            // In the order of their starts panes are over one after the other.
            false => all.take_while(is_over).collect(),
        };
        over.into_iter().for_each(|span| self.remove(span));
    }
}
