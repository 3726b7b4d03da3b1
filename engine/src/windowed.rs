//! The windows of one rule: which are open, what is in them, what closing or changing them says.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::TimestampNanosecondType;
use lictor_queries::{Aggregation, Emission, Finish, GroupRef, History};
use lictor_schemas::time::{EventTime, Window};
use lictor_schemas::violation::{Subject, Violation};

pub use crate::pane::PaneError;
use crate::pane::{Pane, PartialRows};

/// The judging half of a windowed rule, as its text says: the same for every shard.
#[derive(Debug)]
pub struct WindowedRule {
    /// When it speaks.
    pub emission: Emission,
    /// How partial sums are merged and finished.
    pub aggregation: Arc<Aggregation>,
    /// What finished groups mean.
    pub finish: Finish,
}

/// What a windowed rule remembers.
///
/// Between two commits everything can be undone.
#[derive(Debug)]
pub struct WindowedState {
    rule: Arc<WindowedRule>,
    history: History,
    /// By start: panes, or for rules that emit on update whole windows.
    panes: BTreeMap<EventTime, Pane>,
    /// Windows that end here or earlier are closed.
    closed_to: EventTime,
    /// Partial rows that came for closed windows only.
    dropped: u64,
    /// Panes with something new since the last commit.
    touched: BTreeSet<EventTime>,
    has_new_history: bool,
    committed: Committed,
}

/// What was there at the last commit and is not any more.
#[derive(Debug)]
struct Committed {
    history: History,
    closed_to: EventTime,
    dropped: u64,
    removed: BTreeMap<EventTime, Pane>,
    /// Panes that were not there.
    created: BTreeSet<EventTime>,
}

/// What has changed in the running windows.
#[derive(Debug)]
pub struct Update {
    /// Subjects that violated the rule and do not any more.
    pub cleared: Vec<(Subject, Window)>,
    /// Changed groups that violate the rule now.
    pub violations: Vec<Violation>,
    /// The latest event time of what changed.
    pub at: EventTime,
}

impl Update {
    fn add(&mut self, other: Self) {
        self.cleared.extend(other.cleared);
        self.violations.extend(other.violations);
        self.at = self.at.max(other.at);
    }
}

/// A window that has ended.
#[derive(Debug)]
pub struct Closed {
    /// The window.
    pub window: Window,
    /// When the one after it ends.
    pub next_end: EventTime,
    /// What holds, if the rule speaks on close.
    pub violations: Option<Vec<Violation>>,
}

impl WindowedState {
    /// Nothing has been seen yet.
    #[must_use]
    pub fn new(rule: Arc<WindowedRule>) -> Self {
        let history = rule.finish.empty_history();
        Self::restored(rule, BTreeMap::new(), history, EventTime::MIN)
    }

    /// The state as a log had it; windows that end at or before `closed_to` are closed.
    pub(crate) fn restored(
        rule: Arc<WindowedRule>,
        panes: BTreeMap<EventTime, Pane>,
        history: History,
        closed_to: EventTime,
    ) -> Self {
        let (removed, created) = (BTreeMap::new(), BTreeSet::new());
        let committed = Committed { history: history.clone(), closed_to, dropped: 0, removed, created };
        let touched = BTreeSet::new();
        Self { rule, history, panes, closed_to, dropped: 0, touched, has_new_history: false, committed }
    }

    /// What is there now stays.
    ///
    /// # Errors
    /// States cannot be copied together.
    pub fn commit(&mut self) -> Result<(), PaneError> {
        for start in std::mem::take(&mut self.touched) {
            self.panes.get_mut(&start).map_or(Ok(()), Pane::commit)?;
        }
        self.committed.removed.clear();
        self.committed.created.clear();
        self.committed.closed_to = self.closed_to;
        self.committed.dropped = self.dropped;
        if std::mem::take(&mut self.has_new_history) {
            self.committed.history.clone_from(&self.history);
        }
        Ok(())
    }

    /// Goes back to the last commit.
    ///
    /// # Errors
    /// A key that was there cannot be indexed again; the state is no good any more.
    pub fn undo(&mut self) -> Result<(), PaneError> {
        self.panes.append(&mut self.committed.removed);
        for start in std::mem::take(&mut self.committed.created) {
            self.panes.remove(&start);
        }
        for start in std::mem::take(&mut self.touched) {
            self.panes.get_mut(&start).map_or(Ok(()), |pane| pane.undo(&self.rule.aggregation))?;
        }
        self.closed_to = self.committed.closed_to;
        self.dropped = self.committed.dropped;
        if std::mem::take(&mut self.has_new_history) {
            self.history.clone_from(&self.committed.history);
        }
        Ok(())
    }

    /// The panes with groups that are new or changed since the last commit.
    pub(crate) fn touched(&self) -> impl Iterator<Item = (EventTime, &Pane)> {
        self.touched.iter().filter_map(|start| Some((*start, self.panes.get(start)?)))
    }

    /// All panes.
    pub(crate) fn panes(&self) -> impl Iterator<Item = (EventTime, &Pane)> {
        self.panes.iter().map(|(start, pane)| (*start, pane))
    }

    /// What window functions look back at, if it has changed since the last commit.
    pub(crate) fn new_history(&self) -> Option<&History> {
        self.has_new_history.then_some(&self.history)
    }

    /// Groups with state, over all open windows, and the rows of closed ones that window functions look back at.
    pub(crate) fn groups(&self) -> usize {
        let remembered: usize = self.history.iter().flatten().map(RecordBatch::num_rows).sum();
        self.panes.values().map(Pane::len).sum::<usize>() + remembered
    }

    /// Memory of that state, in bytes.
    pub(crate) fn size_bytes(&self) -> usize {
        let remembered: usize = self.history.iter().flatten().map(RecordBatch::get_array_memory_size).sum();
        self.panes.values().map(Pane::size_bytes).sum::<usize>() + remembered
    }

    /// Partial rows that came for closed windows only.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Lets all state go.
    pub(crate) fn clear(&mut self) {
        let all: Vec<EventTime> = self.panes.keys().copied().collect();
        all.into_iter().for_each(|start| self.remove(start));
        self.history = self.rule.finish.empty_history();
        self.has_new_history = true;
    }

    fn remove(&mut self, start: EventTime) {
        if let Some(pane) = self.panes.remove(&start)
            && !self.committed.created.remove(&start)
        {
            self.committed.removed.insert(start, pane);
        }
    }

    /// Sorts the rows of a partial batch into panes.
    ///
    /// # Errors
    /// The states cannot be merged.
    pub fn absorb(&mut self, partial: &RecordBatch) -> Result<(), PaneError> {
        let starts = partial.column(0).as_primitive::<TimestampNanosecondType>();
        let mut rows_of: BTreeMap<EventTime, Vec<u64>> = BTreeMap::new();
        for (row, start) in starts.values().iter().enumerate() {
            rows_of.entry(EventTime(*start)).or_default().push(row as u64);
        }
        let rule = Arc::clone(&self.rule);
        let key_count = rule.aggregation.key_schema().fields().len();
        for (start, rows) in rows_of {
            let rows = PartialRows::select(partial, &rows, key_count)?;
            for place in self.places(start, rows.rows) {
                self.touched.insert(place);
                let pane = match self.panes.entry(place) {
                    Entry::Occupied(pane) => pane.into_mut(),
                    Entry::Vacant(free) => {
                        self.committed.created.insert(place);
                        free.insert(Pane::try_new(&rule.aggregation)?)
                    }
                };
                pane.absorb(&rule.aggregation, &rows)?;
            }
        }
        Ok(())
    }

    /// Where rows of the pane at `start` are kept: the pane, or every open window that holds it.
    fn places(&mut self, start: EventTime, rows: usize) -> Vec<EventTime> {
        let windows = self.rule.aggregation.spec().windows_at(start).filter(|w| w.end > self.closed_to);
        let open: Vec<EventTime> = windows.map(|w| w.start).collect();
        if open.is_empty() {
            self.dropped += rows as u64;
        }
        match (self.rule.emission, open.is_empty()) {
            (Emission::OnClose, false) => vec![start],
            _ => open,
        }
    }

    /// Judges the groups that have changed since the last call, in all windows together; nothing for rules that speak
    /// on close.
    ///
    /// # Errors
    /// The rule's query fails on a group's values.
    pub fn take_update(&mut self) -> Result<Option<Update>, PaneError> {
        let WindowedRule { emission, aggregation, finish } = &*self.rule;
        if *emission == Emission::OnClose {
            return Ok(None);
        }
        let size = aggregation.spec().size_ns;
        let mut whole: Option<Update> = None;
        for (start, pane) in &mut self.panes {
            let changed = pane.take_changed();
            if changed.is_empty() {
                continue;
            }
            let window = Window { start: *start, end: start.plus(size) };
            let of_window = update(pane, &changed, window, aggregation, finish)?;
            match &mut whole {
                Some(whole) => whole.add(of_window),
                None => whole = Some(of_window),
            }
        }
        Ok(whole)
    }

    /// Closes every window that ends at or before the watermark, the earliest first.
    ///
    /// # Errors
    /// The rule's query fails on a group's values.
    pub fn close(&mut self, watermark: EventTime) -> Result<Vec<Closed>, PaneError> {
        if watermark <= self.closed_to {
            return Ok(Vec::new());
        }
        let rule = Arc::clone(&self.rule);
        let spec = rule.aggregation.spec();
        let mut closed = Vec::new();
        for window in self.due(watermark) {
            let next_end = spec.end_after(window);
            if rule.emission == Emission::OnUpdate {
                closed.push(Closed { window, next_end, violations: None });
                continue;
            }
            let panes: Vec<&Pane> = spec.panes_of(window).filter_map(|p| self.panes.get(&p)).collect();
            let groups = Pane::close(&panes, &rule.aggregation, window)?;
            let judged = rule.finish.close(&groups, window, &mut self.history)?;
            self.has_new_history = true;
            let violations = Some(judged.into_iter().map(|j| j.violation).collect());
            closed.push(Closed { window, next_end, violations });
        }
        self.closed_to = watermark;
        let is_open = |start: EventTime| Self::is_open(&rule, start, watermark);
        let over: Vec<EventTime> = self.panes.keys().copied().filter(|s| !is_open(*s)).collect();
        over.into_iter().for_each(|start| self.remove(start));
        Ok(closed)
    }

    /// The windows with rows that end at or before the watermark and are not closed yet, by their ends.
    fn due(&self, watermark: EventTime) -> Vec<Window> {
        let windows = self.panes.keys().flat_map(|start| windows_from(&self.rule, *start));
        let due = windows.filter(|w| w.end <= watermark && w.end > self.closed_to);
        let ordered: BTreeSet<(EventTime, EventTime)> = due.map(|w| (w.end, w.start)).collect();
        ordered.into_iter().map(|(end, start)| Window { start, end }).collect()
    }

    /// Whether the pane kept at `start` has a part in a window that is open when those up to `closed_to` are closed.
    pub(crate) fn is_open(rule: &WindowedRule, start: EventTime, closed_to: EventTime) -> bool {
        windows_from(rule, start).any(|w| w.end > closed_to)
    }
}

/// The windows that the pane kept at `start` has a part in.
fn windows_from(rule: &WindowedRule, start: EventTime) -> impl Iterator<Item = Window> + use<> {
    let spec = rule.aggregation.spec();
    let whole = rule.emission == Emission::OnUpdate;
    spec.windows_at(start).filter(move |w| !whole || w.start == start)
}

/// Judges changed groups of a running window and records which of them violate the rule.
fn update(
    pane: &mut Pane,
    changed: &[usize],
    window: Window,
    aggregation: &Aggregation,
    finish: &Finish,
) -> Result<Update, PaneError> {
    let groups = pane.evaluate(aggregation, changed, window)?;
    let judged = finish.update(&groups, window)?;
    let mut at = judged.iter().map(|j| j.violation.at).max().unwrap_or(window.start);
    let violating: BTreeSet<usize> = judged.iter().filter_map(|j| j.group).map(|g| changed[g.0]).collect();
    let mut cleared = Vec::new();
    for (row, group) in changed.iter().enumerate() {
        let violates = violating.contains(group);
        if pane.set_violating(*group, violates) && !violates {
            cleared.push((finish.subject(&groups, GroupRef(row))?, window));
            at = at.max(finish.latest(&groups, GroupRef(row)).unwrap_or(at).min(window.end));
        }
    }
    let violations = judged.into_iter().map(|j| j.violation).collect();
    Ok(Update { cleared, violations, at })
}
