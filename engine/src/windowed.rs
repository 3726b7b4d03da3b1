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

/// What a windowed rule knows and remembers.
#[derive(Debug)]
pub struct WindowedState {
    emission: Emission,
    aggregation: Arc<Aggregation>,
    finish: Finish,
    history: History,
    /// By start: panes, or for rules that emit on update whole windows.
    panes: BTreeMap<EventTime, Pane>,
    /// Windows that end here or earlier are closed.
    closed_to: EventTime,
    /// Partial rows that came for closed windows only.
    dropped: u64,
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

/// A window that has ended; with its violations if the rule speaks on close.
pub type Closed = (Window, Option<Vec<Violation>>);

impl WindowedState {
    /// Nothing has been seen yet.
    #[must_use]
    pub fn new(emission: Emission, aggregation: Arc<Aggregation>, finish: Finish) -> Self {
        let history = finish.empty_history();
        let (panes, closed_to) = (BTreeMap::new(), EventTime::MIN);
        Self { emission, aggregation, finish, history, panes, closed_to, dropped: 0 }
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
        self.panes.clear();
        self.history = self.finish.empty_history();
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
        let key_count = self.aggregation.key_schema().fields().len();
        for (start, rows) in rows_of {
            let rows = PartialRows::select(partial, &rows, key_count)?;
            for place in self.places(start, rows.rows) {
                let pane = match self.panes.entry(place) {
                    Entry::Occupied(pane) => pane.into_mut(),
                    Entry::Vacant(free) => free.insert(Pane::try_new(&self.aggregation)?),
                };
                pane.absorb(&self.aggregation, &rows)?;
            }
        }
        Ok(())
    }

    /// Where rows of the pane at `start` are kept: the pane, or every open window that holds it.
    fn places(&mut self, start: EventTime, rows: usize) -> Vec<EventTime> {
        let windows = self.aggregation.spec().windows_at(start).filter(|w| w.end > self.closed_to);
        let open: Vec<EventTime> = windows.map(|w| w.start).collect();
        if open.is_empty() {
            self.dropped += rows as u64;
        }
        match (self.emission, open.is_empty()) {
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
        if self.emission == Emission::OnClose {
            return Ok(None);
        }
        let size = self.aggregation.spec().size_ns;
        let mut whole: Option<Update> = None;
        for (start, pane) in &mut self.panes {
            let changed = pane.take_changed();
            if changed.is_empty() {
                continue;
            }
            let window = Window { start: *start, end: start.plus(size) };
            let of_window = update(pane, &changed, window, &self.aggregation, &self.finish)?;
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
        let spec = self.aggregation.spec();
        let mut closed = Vec::new();
        for window in self.due(watermark) {
            if self.emission == Emission::OnUpdate {
                closed.push((window, None));
                continue;
            }
            let panes: Vec<&Pane> = spec.panes_of(window).filter_map(|p| self.panes.get(&p)).collect();
            let groups = Pane::close(&panes, &self.aggregation, window)?;
            let judged = self.finish.close(&groups, window, &mut self.history)?;
            closed.push((window, Some(judged.into_iter().map(|j| j.violation).collect())));
        }
        self.closed_to = watermark;
        let is_open = |start: EventTime| self.windows_from(start).any(|w| w.end > watermark);
        let open: BTreeSet<EventTime> = self.panes.keys().copied().filter(|s| is_open(*s)).collect();
        self.panes.retain(|start, _| open.contains(start));
        Ok(closed)
    }

    /// The windows with rows that end at or before the watermark and are not closed yet, by their ends.
    fn due(&self, watermark: EventTime) -> Vec<Window> {
        let windows = self.panes.keys().flat_map(|start| self.windows_from(*start));
        let due = windows.filter(|w| w.end <= watermark && w.end > self.closed_to);
        let ordered: BTreeSet<(EventTime, EventTime)> = due.map(|w| (w.end, w.start)).collect();
        ordered.into_iter().map(|(end, start)| Window { start, end }).collect()
    }

    /// The windows that the pane kept at `start` has a part in.
    fn windows_from(&self, start: EventTime) -> impl Iterator<Item = Window> + use<> {
        let spec = self.aggregation.spec();
        let whole = self.emission == Emission::OnUpdate;
        spec.windows_at(start).filter(move |w| !whole || w.start == start)
    }
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
