//! The windows of one rule: which are open, what is in them, what closing or changing them says.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, RecordBatch};
use lictor_queries::{Aggregation, Emission, Finish, GroupRef, History, WindowSpec};
use lictor_schemas::time::{EventTime, Window};
use lictor_schemas::violation::{Subject, Violation};

use crate::decision::Cleared;
use crate::exchange::route::{Place, RuleRoute};
pub use crate::pane::PaneError;
use crate::pane::{Pane, PartialRows};
use crate::running::{RunningSessions, SessionSpec};
use crate::sessions;

/// The judging half of a windowed rule, as its text says: the same for every shard.
#[derive(Debug)]
pub struct WindowedRule {
    /// When it speaks.
    pub emission: Emission,
    /// How partial sums are merged and finished.
    pub aggregation: Arc<Aggregation>,
    /// What finished groups mean.
    pub finish: Finish,
    /// On which shard each group is judged.
    pub route: RuleRoute,
}

/// What a windowed rule remembers.
///
/// Between two commits everything can be undone.
#[derive(Debug)]
pub struct WindowedState {
    rule: Arc<WindowedRule>,
    /// The shard whose groups these are.
    place: Place,
    history: History,
    /// Panes, or for rules that emit on update, and for calendars of the rows' zones, whole windows.
    panes: BTreeMap<Window, Pane>,
    /// Windows that end here or earlier are closed.
    closed_to: EventTime,
    /// Since when windows are whole.
    beginning: Beginning,
    /// Judge all groups of running windows anew: thresholds may be others than before.
    is_judged_anew: bool,
    /// Partial rows that came for closed windows only.
    dropped: u64,
    /// Panes with something new since the last commit.
    touched: BTreeSet<Window>,
    has_new_history: bool,
    /// Of rules that speak on update of sessions.
    running: RunningSessions,
    committed: Committed,
}

/// Since when a rule counts: windows that began earlier are not whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beginning {
    /// Since then, or since the first watermark if that has not come yet.
    Known(Option<EventTime>),
    /// Since whoever reads has the rule, too; not before then.
    New(EventTime),
}

/// What was there at the last commit and is not any more.
#[derive(Debug)]
struct Committed {
    history: History,
    closed_to: EventTime,
    beginning: Beginning,
    is_judged_anew: bool,
    dropped: u64,
    removed: BTreeMap<Window, Pane>,
    /// Panes that were not there.
    created: BTreeSet<Window>,
}

/// What has changed in the running windows.
#[derive(Debug)]
pub struct Update {
    /// Subjects that violated the rule and do not any more.
    pub cleared: Vec<Cleared>,
    /// Changed groups that violate the rule now.
    pub violations: Vec<Violation>,
    /// Sessions that go on and do not violate the rule.
    pub calm: Vec<(Subject, Window)>,
}

impl Update {
    fn add(&mut self, other: Self) {
        self.cleared.extend(other.cleared);
        self.violations.extend(other.violations);
        self.calm.extend(other.calm);
    }
}

/// In one step of time gaps are filled in so many windows: who jumps further was away, or a clock was wrong, and
/// nobody wants to be told of every minute.
const FILLED_WINDOWS_MAX: usize = 1_000;

/// A window that has ended.
#[derive(Debug)]
pub struct Closed {
    /// The window.
    pub window: Window,
    /// When the one after it ends, of a rule that speaks on close.
    pub next_end: EventTime,
    /// What holds, if the rule speaks on close.
    pub violations: Option<Vec<Violation>>,
}

impl WindowedState {
    /// Nothing has been seen yet.
    #[must_use]
    pub fn new(rule: Arc<WindowedRule>, place: Place) -> Self {
        let history = rule.finish.empty_history();
        Self::restored(rule, place, BTreeMap::new(), history, (EventTime::MIN, Beginning::Known(None)))
    }

    /// The state as a log had it: windows that end at or before `closed_to` are closed.
    pub(crate) fn restored(
        rule: Arc<WindowedRule>,
        place: Place,
        panes: BTreeMap<Window, Pane>,
        history: History,
        (closed_to, beginning): (EventTime, Beginning),
    ) -> Self {
        let (removed, created) = (BTreeMap::new(), BTreeSet::new());
        let (history_then, is_judged_anew) = (history.clone(), !panes.is_empty());
        let committed =
            Committed { history: history_then, closed_to, beginning, is_judged_anew, dropped: 0, removed, created };
        let touched = BTreeSet::new();
        Self {
            rule,
            place,
            history,
            panes,
            closed_to,
            beginning,
            is_judged_anew,
            dropped: 0,
            touched,
            has_new_history: false,
            running: RunningSessions::default(),
            committed,
        }
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
        self.committed.beginning = self.beginning;
        self.committed.is_judged_anew = self.is_judged_anew;
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
        for span in std::mem::take(&mut self.committed.created) {
            self.panes.remove(&span);
        }
        for span in std::mem::take(&mut self.touched) {
            self.panes.get_mut(&span).map_or(Ok(()), |pane| pane.undo(&self.rule.aggregation))?;
        }
        self.running = RunningSessions::default();
        self.closed_to = self.committed.closed_to;
        self.beginning = self.committed.beginning;
        self.is_judged_anew = self.committed.is_judged_anew;
        self.dropped = self.committed.dropped;
        if std::mem::take(&mut self.has_new_history) {
            self.history.clone_from(&self.committed.history);
        }
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

    /// Windows that began earlier are not whole; none if that is not known yet.
    pub(crate) fn since(&self) -> Option<EventTime> {
        match self.beginning {
            Beginning::Known(since) => since,
            Beginning::New(since) => Some(since),
        }
    }

    /// Whoever reads has this rule, too, and rows up to `high` were read before.
    pub(crate) fn begins(&mut self, high: EventTime) {
        if let Beginning::New(since) = self.beginning {
            self.beginning = Beginning::Known(Some(since.max(high)));
        }
    }

    /// The rule's windows.
    pub(crate) fn spec(&self) -> WindowSpec {
        self.rule.aggregation.spec()
    }

    /// Partial rows that came for closed windows only.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Lets all state go.
    pub(crate) fn clear(&mut self) {
        let all: Vec<Window> = self.panes.keys().copied().collect();
        all.into_iter().for_each(|span| self.remove(span));
        self.running = RunningSessions::default();
        self.history = self.rule.finish.empty_history();
        self.has_new_history = true;
    }

    fn remove(&mut self, span: Window) {
        if let Some(pane) = self.panes.remove(&span)
            && !self.committed.created.remove(&span)
        {
            self.committed.removed.insert(span, pane);
        }
    }

    /// Sorts the rows of a partial batch into panes.
    ///
    /// # Errors
    /// The states cannot be merged.
    pub fn absorb(&mut self, partial: &RecordBatch) -> Result<(), PaneError> {
        let rule = Arc::clone(&self.rule);
        for (span, rows) in rule.aggregation.panes_of(partial) {
            let rows = self.timely(PartialRows::select(partial, &rows, &rule.aggregation)?)?;
            if rows.rows == 0 {
                continue;
            }
            let keys = match sessions_on_update(&rule, self.closed_to) {
                Some(sessions) => self.running.change(&self.panes, sessions, &rows)?,
                None => Vec::new(),
            };
            for place in self.places(span, rows.rows) {
                self.touched.insert(place);
                let pane = match self.panes.entry(place) {
                    Entry::Occupied(pane) => pane.into_mut(),
                    Entry::Vacant(free) => {
                        self.committed.created.insert(place);
                        free.insert(Pane::try_new(&rule.aggregation)?)
                    }
                };
                let groups = pane.absorb(&rule.aggregation, &rows)?;
                self.running.put(place, &keys, &groups);
            }
        }
        Ok(())
    }

    /// The rows that could not be of a session that has ended. Whether others are late the panes tell.
    fn timely(&mut self, rows: PartialRows) -> Result<PartialRows, PaneError> {
        let WindowSpec::Session { .. } = self.rule.aggregation.spec() else { return Ok(rows) };
        let Some((_, latest)) = self.rule.aggregation.bounds(&rows.states) else { return Ok(rows) };
        let timely: Vec<usize> = (0..rows.rows).filter(|row| latest[*row] >= self.closed_to.0).collect();
        self.dropped += (rows.rows - timely.len()) as u64;
        if timely.len() == rows.rows { Ok(rows) } else { Ok(rows.take(&timely)?) }
    }

    /// Where rows of a pane are kept: in the pane, or in every open window that holds it.
    fn places(&mut self, pane: Window, rows: usize) -> Vec<Window> {
        let spec = self.rule.aggregation.spec();
        if spec.last_end_of(pane) <= self.closed_to {
            self.dropped += rows as u64;
            return Vec::new();
        }
        match self.rule.emission {
            Emission::OnClose => vec![pane],
            Emission::OnUpdate => spec.windows_of(pane).into_iter().filter(|w| w.end > self.closed_to).collect(),
        }
    }

    /// Judges the groups that have changed since the last call, in all windows together; nothing for rules that speak
    /// on close.
    ///
    /// # Errors
    /// The rule's query fails on a group's values.
    pub fn take_update(&mut self) -> Result<Option<Update>, PaneError> {
        let WindowedRule { emission, aggregation, finish, .. } = &*self.rule;
        if *emission == Emission::OnClose {
            return Ok(None);
        }
        let is_judged_anew = std::mem::take(&mut self.is_judged_anew);
        if let Some(sessions) = sessions_on_update(&self.rule, self.closed_to) {
            if is_judged_anew {
                self.running.change_all(&self.panes, sessions)?;
            }
            let mut touch = |span| self.touched.extend([span]);
            return self.running.judge(&mut self.panes, sessions, finish, &mut touch);
        }
        if is_judged_anew {
            self.panes.values_mut().for_each(Pane::change_all);
            self.touched.extend(self.panes.keys());
        }
        let mut whole: Option<Update> = None;
        for window in &self.touched {
            let Some(pane) = self.panes.get_mut(window) else { continue };
            let changed = pane.take_changed();
            if changed.is_empty() {
                continue;
            }
            let of_window = update(pane, &changed, *window, aggregation, finish)?;
            match &mut whole {
                Some(whole) => whole.add(of_window),
                None => whole = Some(of_window),
            }
        }
        Ok(whole)
    }

    /// Closes every window that ends at or before the watermark, the earliest first; sessions are closed by
    /// [`WindowedState::close_sessions`].
    ///
    /// # Errors
    /// The rule's query fails on a group's values.
    pub fn close(&mut self, watermark: EventTime) -> Result<Vec<Closed>, PaneError> {
        if watermark <= self.closed_to {
            return Ok(Vec::new());
        }
        if self.beginning == Beginning::Known(None) {
            self.beginning = Beginning::Known(Some(watermark));
        }
        let rule = Arc::clone(&self.rule);
        let spec = rule.aggregation.spec();
        let mut closed = Vec::new();
        for window in self.due(watermark) {
            if rule.emission == Emission::OnUpdate {
                closed.push(Closed { window, next_end: window.end, violations: None });
                continue;
            }
            if !self.fills_gaps(window) && self.panes.range(spec.panes_in(window)).next().is_none() {
                continue;
            }
            let groups = self.groups_of(window)?;
            let judged = rule.finish.close(&groups, window, &mut self.history)?;
            self.has_new_history = true;
            let violations = Some(judged.into_iter().map(|j| j.violation).collect());
            closed.push(Closed { window, next_end: spec.end_after(window), violations });
        }
        self.let_go(watermark);
        Ok(closed)
    }

    /// The violations in sessions that have ended at the watermark, in the order of their ends; none for a rule with
    /// other windows.
    ///
    /// # Errors
    /// The rule's query fails on a group's values.
    pub fn close_sessions(&mut self, watermark: EventTime) -> Result<Vec<Violation>, PaneError> {
        let rule = Arc::clone(&self.rule);
        let WindowSpec::Session { gap_ns } = rule.aggregation.spec() else { return Ok(Vec::new()) };
        if watermark <= self.closed_to {
            return Ok(Vec::new());
        }
        let WindowedRule { emission, aggregation, finish, .. } = &*rule;
        let mut judge = |ended: &PartialRows, windows: &[Window]| {
            if *emission == Emission::OnUpdate {
                return Ok(Vec::new());
            }
            let groups = aggregation.evaluate_each(&ended.keys, &ended.states, windows)?;
            self.has_new_history |= finish.rows_back() > 0;
            let judged = finish.close_sessions(&groups, windows, &mut self.history)?;
            Ok(judged.into_iter().map(|judged| judged.violation).collect())
        };
        let mut touch = |span| self.touched.extend([span]);
        let times = (gap_ns, self.closed_to, watermark);
        let violations = sessions::close(&mut self.panes, aggregation, times, &mut judge, &mut touch)?;
        self.let_go(watermark);
        Ok(violations)
    }

    /// Time has passed what has no part in an open window.
    fn let_go(&mut self, watermark: EventTime) {
        self.closed_to = watermark;
        let is_over = |span: &Window| !Self::is_open(&self.rule, *span, watermark);
        let all = self.panes.keys().copied();
        let over: Vec<Window> = match self.rule.aggregation.spec().is_zoned() {
            true => all.filter(is_over).collect(),
            // In the order of their starts panes are over one after the other.
            false => all.take_while(is_over).collect(),
        };
        over.into_iter().for_each(|span| self.remove(span));
    }

    /// All groups of a window, finished.
    fn groups_of(&mut self, window: Window) -> Result<RecordBatch, PaneError> {
        let rule = Arc::clone(&self.rule);
        let spec = rule.aggregation.spec();
        let panes: Vec<&Pane> = self.panes.range(spec.panes_in(window)).map(|(_, pane)| pane).collect();
        let PartialRows { mut keys, mut states, rows } = Pane::merged(&panes, &rule.aggregation)?;
        let is_filled = self.fills_gaps(window);
        if let (Some(gap_fill), Some(known)) = (rule.finish.gap_fill(), self.history.last_mut()) {
            let Place { shard, shards } = self.place;
            let is_ours = |keys: &[ArrayRef], rows: usize| {
                let of_rows = rule.route.shards_of(keys, rows, shards)?;
                Ok(of_rows.into_iter().map(|of_row| Some(of_row == shard as usize)).collect())
            };
            keys = gap_fill.fill(&rule.aggregation, (&keys, rows), (window, is_filled), known, &is_ours)?;
            let filled = keys.first().map_or(rows, |key| key.len());
            states = rule.aggregation.with_empty_groups(states, filled - rows)?;
        }
        Ok(rule.aggregation.evaluate(&keys, &states, window)?)
    }

    /// Whether keys without rows are in a window: in one that is not whole nobody knows whether they had some.
    fn fills_gaps(&self, window: Window) -> bool {
        let known = self.history.last().and_then(Option::as_ref);
        let is_whole = self.since().is_some_and(|since| window.start >= since);
        is_whole && self.rule.finish.gap_fill().is_some_and(|gap_fill| gap_fill.may_fill(known))
    }

    /// The windows that end at or before the watermark and are not closed yet, by their ends; those without rows only
    /// if gaps are filled, from the first watermark on.
    fn due(&self, watermark: EventTime) -> Vec<Window> {
        let spec = self.rule.aggregation.spec();
        if self.rule.emission == Emission::OnUpdate || spec.is_zoned() {
            let ended = self.panes.keys().filter(|w| w.end <= watermark && w.end > self.closed_to);
            let mut ended: Vec<Window> = ended.copied().collect();
            ended.sort_by_key(|window| (window.end, window.start));
            return ended;
        }
        let mut due = Vec::new();
        let first = self.panes.keys().next().map(|pane| pane.start);
        let is_every = self.rule.finish.gap_fill().is_some();
        let from = if is_every && self.closed_to > EventTime::MIN { Some(self.closed_to) } else { first };
        let Some(from) = from else { return due };
        let mut window = spec.first_ending_after(self.closed_to.max(from));
        while window.end <= watermark {
            let mut at = window.end;
            let is_every = is_every && due.len() < FILLED_WINDOWS_MAX;
            if is_every || self.panes.range(spec.panes_in(window)).next().is_some() {
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

    /// Whether the pane kept at `span` has a part in a window that is open when those up to `closed_to` are closed.
    pub(crate) fn is_open(rule: &WindowedRule, span: Window, closed_to: EventTime) -> bool {
        match (rule.emission, rule.aggregation.spec()) {
            (Emission::OnClose, spec) | (_, spec @ WindowSpec::Session { .. }) => spec.last_end_of(span) > closed_to,
            (Emission::OnUpdate, _) => span.end > closed_to,
        }
    }
}

/// How the sessions of a rule are read that speaks on update of them.
fn sessions_on_update(rule: &WindowedRule, closed_to: EventTime) -> Option<SessionSpec<'_>> {
    match (rule.emission, rule.aggregation.spec()) {
        (Emission::OnUpdate, WindowSpec::Session { gap_ns }) => {
            Some(SessionSpec { aggregation: &rule.aggregation, gap_ns, closed_to })
        }
        _ => None,
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
    let violating: BTreeSet<usize> = judged.iter().filter_map(|j| j.group).map(|g| changed[g.0]).collect();
    let mut cleared = Vec::new();
    for (row, group) in changed.iter().enumerate() {
        let violates = violating.contains(group);
        if pane.set_violating(*group, violates) && !violates {
            let subject = finish.subject(&groups, GroupRef(row))?;
            let at = finish.latest(&groups, GroupRef(row)).unwrap_or(window.end).min(window.end);
            cleared.push(Cleared { subject, window, at });
        }
    }
    let violations = judged.into_iter().map(|j| j.violation).collect();
    Ok(Update { cleared, violations, calm: Vec::new() })
}
