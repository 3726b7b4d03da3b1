//! What one rule makes of the windows in its store: what closing or changing them says.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, RecordBatch};
use lictor_queries::{Emission, Finish, GroupRef, History, Observation, WindowSpec};
use lictor_schemas::time::{EventTime, Window};
use lictor_schemas::violation::{Subject, Violation};

use crate::decision::Cleared;
use crate::exchange::StoreId;
use crate::exchange::route::Place;
pub use crate::pane::PaneError;
use crate::pane::PartialRows;
use crate::store::{Changed, PaneStore, StorePlan};

/// The judging half of a windowed rule, as its text says: the same for every shard.
#[derive(Debug)]
pub struct WindowedRule {
    /// Where its sums are.
    pub store: StoreId,
    /// Which of the store's readers it is.
    pub reader: usize,
    /// When it speaks.
    pub emission: Emission,
    /// What finished groups mean.
    pub finish: Finish,
}

/// What a windowed rule remembers besides the sums in its store.
///
/// Between two commits everything can be undone.
#[derive(Debug)]
pub struct WindowedState {
    rule: Arc<WindowedRule>,
    /// The shard whose groups these are.
    place: Place,
    history: History,
    /// Windows that end by then were judged before their sums were lost or were there: they are only looked back at.
    judged_to: EventTime,
    /// Judge all groups of running windows anew: thresholds may be others than before.
    is_judged_anew: bool,
    has_new_history: bool,
    committed: Committed,
    looked_at: LookedAt,
}

/// What the groups of a window measure, as of a moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// The moment: the end of a window that has closed, or how far time had come.
    pub at: EventTime,
    /// Groups of the window.
    pub groups: usize,
    /// How many of them were looked at.
    pub looked_at: usize,
    /// What those measure that come closest to their thresholds, the closest first.
    pub closest: Arc<[Observation]>,
}

/// What a look has come to. Each costs an evaluation, now or when the next window closes.
#[derive(Debug, Default)]
pub(crate) struct Look {
    /// What was seen, if anything.
    pub(crate) seen: Option<Observed>,
}

/// Whether somebody looks at windows that close, and what he has seen. It decides nothing, so it is not undone.
#[derive(Debug, Default)]
struct LookedAt {
    is_wanted: bool,
    seen: Option<Observed>,
}

/// Subjects of one rule that a look returns: more lines nobody can tell apart in a chart.
pub const OBSERVED_MAX: usize = 20;

/// Groups of a running window that a look evaluates: about a millisecond's work.
const LOOKED_AT_MAX: usize = 500;

/// Groups of a window that closes which a look evaluates once more, with the rows that the rule looks back at; of more
/// nothing is seen. The judge stage waits meanwhile, some milliseconds.
const CLOSED_LOOKED_AT_MAX: usize = 2_000;

/// What was there at the last commit and is not any more.
#[derive(Debug)]
struct Committed {
    history: History,
    is_judged_anew: bool,
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
    /// Nothing has been judged yet.
    #[must_use]
    pub fn new(rule: Arc<WindowedRule>, place: Place) -> Self {
        let history = rule.finish.empty_history();
        Self::restored(rule, place, history, false)
    }

    /// The state as a log had it, beside a store that may have running windows.
    pub(crate) fn restored(rule: Arc<WindowedRule>, place: Place, history: History, is_judged_anew: bool) -> Self {
        let committed = Committed { history: history.clone(), is_judged_anew };
        let (judged_to, looked_at) = (EventTime::MIN, LookedAt::default());
        Self { rule, place, history, judged_to, is_judged_anew, has_new_history: false, committed, looked_at }
    }

    /// The state of a rule that has judged windows up to then, beside a store without their sums.
    pub(crate) fn judged_to(self, judged_to: EventTime) -> Self {
        Self { judged_to, ..self }
    }

    /// What is there now stays.
    pub fn commit(&mut self) {
        self.committed.is_judged_anew = self.is_judged_anew;
        if std::mem::take(&mut self.has_new_history) {
            self.committed.history.clone_from(&self.history);
        }
    }

    /// Goes back to the last commit.
    pub fn undo(&mut self) {
        self.is_judged_anew = self.committed.is_judged_anew;
        if std::mem::take(&mut self.has_new_history) {
            self.history.clone_from(&self.committed.history);
        }
    }

    /// Windows that end by then were judged before their sums were there.
    pub(crate) fn is_judged_to(&self) -> EventTime {
        self.judged_to
    }

    /// The rule.
    pub(crate) fn rule(&self) -> &WindowedRule {
        &self.rule
    }

    /// What window functions look back at, if it has changed since the last commit.
    pub(crate) fn new_history(&self) -> Option<&History> {
        self.has_new_history.then_some(&self.history)
    }

    /// The rows of closed windows that window functions look back at.
    pub(crate) fn rows_remembered(&self) -> usize {
        self.history.iter().flatten().map(RecordBatch::num_rows).sum()
    }

    /// Memory of those rows, in bytes.
    pub(crate) fn size_bytes(&self) -> usize {
        self.history.iter().flatten().map(RecordBatch::get_array_memory_size).sum()
    }

    /// Lets everything go.
    pub(crate) fn clear(&mut self) {
        self.history = self.rule.finish.empty_history();
        self.has_new_history = true;
    }

    /// The sums that must not fall, if it is then certain that a group which does not violate the rule did not violate
    /// it before its last rows either; none if that is not certain, or all groups are to be judged anyhow.
    pub(crate) fn rising(&self) -> Option<Vec<usize>> {
        let is_known = self.rule.emission == Emission::OnUpdate && !self.is_judged_anew;
        is_known.then(|| self.rule.finish.rising().map(<[usize]>::to_vec)).flatten()
    }

    /// Which of some finished groups of a running window violate the rule.
    ///
    /// # Errors
    /// The rule's query fails on a group's values.
    pub(crate) fn violating(&self, groups: &RecordBatch, window: Window) -> Result<Vec<usize>, PaneError> {
        let judged = self.rule.finish.update(groups, window)?;
        Ok(judged.iter().filter_map(|judged| judged.group).map(|group| group.0).collect())
    }

    /// Judges the groups that have changed, in all windows together; nothing for rules that speak on close.
    ///
    /// # Errors
    /// The rule's query fails on a group's values.
    pub fn take_update(&mut self, store: &mut PaneStore) -> Result<Option<Update>, PaneError> {
        if self.rule.emission == Emission::OnClose {
            return Ok(None);
        }
        let is_judged_anew = std::mem::take(&mut self.is_judged_anew);
        if let WindowSpec::Session { .. } = store.plan().aggregation.spec() {
            return store.judge_sessions(&self.rule.finish, is_judged_anew);
        }
        let changes = if is_judged_anew { store.all_groups()?.into() } else { store.changes() };
        let mut whole: Option<Update> = None;
        for change in changes.iter() {
            let of_window = self.update(change, store)?;
            match &mut whole {
                Some(whole) => whole.add(of_window),
                None => whole = Some(of_window),
            }
        }
        Ok(whole)
    }

    /// Judges all groups, window by window in the order of their ends, of windows that were not judged before; nothing
    /// for rules that speak on close.
    ///
    /// # Errors
    /// The rule's query fails on a group's values.
    pub(crate) fn judge_all(&mut self, store: &mut PaneStore) -> Result<Vec<(Window, Update)>, PaneError> {
        if self.rule.emission == Emission::OnClose {
            return Ok(Vec::new());
        }
        self.is_judged_anew = false;
        let mut all = store.all_groups()?;
        all.retain(|of_window| of_window.window.end > self.judged_to);
        all.sort_by_key(|of_window| (of_window.window.end, of_window.window.start));
        all.iter().map(|of_window| Ok((of_window.window, self.update(of_window, store)?))).collect()
    }

    /// Judges changed groups of a running window, and records in the store which of them violate the rule.
    fn update(&self, change: &Changed, store: &mut PaneStore) -> Result<Update, PaneError> {
        let Changed { window, numbers, groups } = change;
        let finish = &self.rule.finish;
        let judged = finish.update(groups, *window)?;
        let violating: BTreeSet<usize> = judged.iter().filter_map(|j| j.group).map(|g| numbers[g.0]).collect();
        let mut cleared = Vec::new();
        for (row, group) in numbers.iter().enumerate() {
            let violates = violating.contains(group);
            if store.set_violating(*window, (*group, self.rule.reader), violates) && !violates {
                let subject = finish.subject(groups, GroupRef(row))?;
                let at = finish.latest(groups, GroupRef(row)).unwrap_or(window.end).min(window.end);
                cleared.push(Cleared { subject, window: *window, at });
            }
        }
        let violations = judged.into_iter().map(|j| j.violation).collect();
        Ok(Update { cleared, violations, calm: Vec::new() })
    }

    /// What every window says that ends at or before the watermark, the earliest first. Sessions are judged by
    /// [`WindowedState::close_sessions`].
    ///
    /// # Errors
    /// The rule's query fails on a group's values.
    pub fn close(&mut self, store: &mut PaneStore, watermark: EventTime) -> Result<Vec<Closed>, PaneError> {
        self.close_between(store, self.judged_to, watermark)
    }

    /// Remembers what windows had that were judged before.
    ///
    /// # Errors
    /// The rule's query fails on a group's values.
    pub(crate) fn look_back(&mut self, store: &mut PaneStore) -> Result<(), PaneError> {
        self.close_between(store, EventTime::MIN, self.judged_to).map(drop)
    }

    fn close_between(
        &mut self,
        store: &mut PaneStore,
        after: EventTime,
        watermark: EventTime,
    ) -> Result<Vec<Closed>, PaneError> {
        let rule = Arc::clone(&self.rule);
        let plan = Arc::clone(store.plan());
        let is_session = matches!(plan.aggregation.spec(), WindowSpec::Session { .. });
        if is_session || watermark <= store.closed_to() {
            return Ok(Vec::new());
        }
        let since = store.since().unwrap_or(watermark);
        let empty_max = rule.finish.gap_fill().map_or(0, |_| FILLED_WINDOWS_MAX);
        let mut closed = Vec::new();
        for window in store.due(after, watermark, empty_max) {
            if rule.emission == Emission::OnUpdate {
                closed.push(Closed { window, next_end: window.end, violations: None });
                continue;
            }
            let is_filled = window.start >= since && self.may_fill_gaps();
            if !is_filled && !store.has_rows_in(window) {
                continue;
            }
            let groups = self.groups_of(store, window, is_filled)?;
            self.look_at(&groups, window);
            let judged = rule.finish.close(&groups, window, &mut self.history)?;
            self.has_new_history = true;
            let violations = Some(judged.into_iter().map(|j| j.violation).collect());
            closed.push(Closed { window, next_end: plan.aggregation.spec().end_after(window), violations });
        }
        Ok(closed)
    }

    /// What groups measure: of a rule that speaks on update those of the running window that ends next, of another
    /// those of the window that has closed since the last look, and the next one is asked for. None if nothing was
    /// asked for that was not before, and for sessions.
    pub(crate) fn observe(&mut self, store: &PaneStore, now: EventTime) -> Option<Look> {
        if matches!(store.plan().aggregation.spec(), WindowSpec::Session { .. }) || store.warming().is_some() {
            return None;
        }
        if self.rule.emission == Emission::OnClose {
            let was_wanted = std::mem::replace(&mut self.looked_at.is_wanted, true);
            let seen = self.looked_at.seen.take();
            return (seen.is_some() || !was_wanted).then_some(Look { seen });
        }
        let (window, groups, rows) = store.first_groups(LOOKED_AT_MAX)?;
        // A look must not stop a rule: without its filters a query may fail on what they keep from it.
        let found = self.rule.finish.observe(&rows, window, &self.rule.finish.empty_history(), OBSERVED_MAX);
        let Ok(closest) = found else { return Some(Look::default()) };
        // As events are: of the row that came last, which is ahead of the watermark.
        let latest = (0..rows.num_rows()).filter_map(|row| self.rule.finish.latest(&rows, GroupRef(row))).max();
        let at = latest.unwrap_or(now).min(window.end);
        Some(Look { seen: Some(Observed { at, groups, looked_at: rows.num_rows(), closest }) })
    }

    /// Sees what groups of a window measure that is being closed, if somebody wants to know.
    fn look_at(&mut self, groups: &RecordBatch, window: Window) {
        let rows = groups.num_rows();
        let is_wanted = std::mem::take(&mut self.looked_at.is_wanted);
        if !is_wanted || rows + self.rows_remembered() > CLOSED_LOOKED_AT_MAX {
            return;
        }
        let closest = self.rule.finish.observe(groups, window, &self.history, OBSERVED_MAX).ok();
        self.looked_at.seen =
            closest.map(|closest| Observed { at: window.end, groups: rows, looked_at: rows, closest });
    }

    /// The violations in sessions that have ended, in the order of their ends; none for a rule with other windows.
    ///
    /// # Errors
    /// The rule's query fails on a group's values.
    pub fn close_sessions(&mut self, store: &PaneStore) -> Result<Vec<Violation>, PaneError> {
        let mut violations: Vec<Violation> = Vec::new();
        let finish = &self.rule.finish;
        for ended in store.ended() {
            self.has_new_history |= finish.rows_back() > 0;
            let judged = finish.close_sessions(&ended.groups, &ended.windows, &mut self.history)?;
            violations.extend(judged.into_iter().map(|judged| judged.violation));
        }
        violations.sort_by_key(|violation| (violation.window.map(|window| window.end), violation.subject.to_key()));
        Ok(violations)
    }

    /// All groups of a window, finished, with those that gaps are filled with.
    fn groups_of(&mut self, store: &mut PaneStore, window: Window, is_filled: bool) -> Result<RecordBatch, PaneError> {
        let (Some(gap_fill), Some(known)) = (self.rule.finish.gap_fill(), self.history.last_mut()) else {
            return store.finished(window);
        };
        let plan = Arc::clone(store.plan());
        let StorePlan { aggregation, route, .. } = &*plan;
        let PartialRows { keys, states, rows } = store.rows_of(window)?;
        let Place { shard, shards } = self.place;
        let is_ours = |keys: &[ArrayRef], rows: usize| {
            let of_rows = route.shards_of(keys, rows, shards)?;
            Ok(of_rows.into_iter().map(|of_row| Some(of_row == shard as usize)).collect())
        };
        let keys = gap_fill.fill(aggregation, (&keys, rows), (window, is_filled), known, &is_ours)?;
        let filled = keys.first().map_or(rows, |key| key.len());
        let states = aggregation.with_empty_groups(states, filled - rows)?;
        Ok(aggregation.evaluate(&keys, &states, window)?)
    }

    /// Whether keys without rows are in a window that is whole: in others nobody knows whether they had some.
    fn may_fill_gaps(&self) -> bool {
        let known = self.history.last().and_then(Option::as_ref);
        self.rule.finish.gap_fill().is_some_and(|gap_fill| gap_fill.may_fill(known))
    }
}
