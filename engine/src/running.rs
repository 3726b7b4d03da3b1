//! Sessions that are still running, for rules that speak on update.
//!
//! A key's rows lie in panes as long as a gap ([`crate::sessions`]), and its rows in panes that follow each other are
//! one session as long as less than a gap lies between them. Which panes a key has rows in is kept beside the panes, so
//! that a key that changes costs a look at its own panes only. It follows from the panes: nothing of it is logged, and
//! after an undo it is made anew.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use arrow::array::{ArrayRef, RecordBatch, UInt64Array};
use arrow::compute::{concat, take, take_record_batch};
use lictor_queries::{Aggregation, Finish, GroupRef, KeyIndex};
use lictor_schemas::time::{EventTime, Window};
use lictor_schemas::violation::Violation;

use crate::decision::Cleared;
use crate::pane::{Pane, PaneError, PartialRows};
use crate::windowed::Update;

/// Which sessions violate a rule is of one rule: its store has no other reader.
const ONLY_READER: usize = 0;

type Panes = BTreeMap<Window, Pane>;

/// Which keys have changed, and where keys have their rows.
#[derive(Debug, Default)]
pub(crate) struct RunningSessions {
    /// None if they are to be looked up in the panes.
    places: Option<Places>,
    /// Keys that have changed since they were judged last, by their numbers, each with the windows of its sessions that
    /// violated the rule then.
    changed: BTreeMap<usize, Vec<Window>>,
}

#[derive(Debug)]
struct Places {
    index: KeyIndex,
    /// For each key the panes that it has rows in, and the number of its group there.
    of_key: Vec<BTreeMap<Window, usize>>,
}

/// What rows of sessions mean: the aggregate, the gap, and up to when sessions have ended.
#[derive(Clone, Copy)]
pub(crate) struct SessionSpec<'a> {
    pub aggregation: &'a Aggregation,
    pub gap_ns: i64,
    pub closed_to: EventTime,
}

/// A key's index keeps keys that are long gone; below this many that is no matter.
const KEYS_MIN: usize = 1_024;

impl RunningSessions {
    /// To be called before rows are put into panes: their keys are about to change. Returns the keys' numbers.
    pub(crate) fn change(
        &mut self,
        panes: &Panes,
        spec: SessionSpec<'_>,
        rows: &PartialRows,
    ) -> Result<Vec<usize>, PaneError> {
        let places = places_of(&mut self.places, panes, spec.aggregation)?;
        let keys = places.intern(&rows.keys, rows.rows)?;
        let new: Vec<usize> = keys.iter().copied().filter(|key| !self.changed.contains_key(key)).collect();
        self.note(panes, spec, new)?;
        Ok(keys)
    }

    /// All keys are to be judged again.
    pub(crate) fn change_all(&mut self, panes: &Panes, spec: SessionSpec<'_>) -> Result<(), PaneError> {
        let places = places_of(&mut self.places, panes, spec.aggregation)?;
        let all = (0..places.of_key.len()).filter(|key| !self.changed.contains_key(key)).collect();
        self.note(panes, spec, all)
    }

    /// Rows of `keys` have been put into the pane `span`, where their groups have these numbers.
    pub(crate) fn put(&mut self, span: Window, keys: &[usize], groups: &[usize]) {
        let Some(places) = &mut self.places else { return };
        for (key, group) in keys.iter().zip(groups) {
            places.of_key[*key].insert(span, *group);
        }
    }

    /// Notes which sessions of keys violate the rule, before they change.
    fn note(&mut self, panes: &Panes, spec: SessionSpec<'_>, keys: Vec<usize>) -> Result<(), PaneError> {
        let Some(places) = &self.places else { return Ok(()) };
        let violates =
            |key: &usize| places.chunks(*key, panes).any(|(_, pane, group)| pane.is_violating(group, ONLY_READER));
        let violating: Vec<usize> = keys.iter().copied().filter(violates).collect();
        self.changed.extend(keys.into_iter().map(|key| (key, Vec::new())));
        for session in Sessions::of(&violating, places, panes, spec)?.all {
            let is_violating = session.chunks.iter().any(|(span, group)| panes[span].is_violating(*group, ONLY_READER));
            self.changed.entry(session.key).or_default().extend(is_violating.then_some(session.window));
        }
        Ok(())
    }

    /// Judges the running sessions of the keys that have changed; `touch` is told of panes that change by it.
    pub(crate) fn judge(
        &mut self,
        panes: &mut Panes,
        spec: SessionSpec<'_>,
        finish: &Finish,
        touch: &mut dyn FnMut(Window),
    ) -> Result<Option<Update>, PaneError> {
        let changed = std::mem::take(&mut self.changed);
        let Some(places) = self.places.as_ref().filter(|_| !changed.is_empty()) else { return Ok(None) };
        let keys: Vec<usize> = changed.keys().copied().collect();
        let sessions = Sessions::of(&keys, places, panes, spec)?;
        let groups = sessions.evaluate(spec.aggregation)?;
        let (violations, violating) = sessions.judge(&groups, finish)?;
        for (session, violates) in sessions.all.iter().zip(&violating) {
            for (span, group) in &session.chunks {
                let pane = panes.get_mut(span).filter(|pane| pane.is_violating(*group, ONLY_READER) != *violates);
                if let Some(pane) = pane {
                    pane.set_violating(*group, ONLY_READER, *violates);
                    touch(*span);
                }
            }
        }
        let update = sessions.update(&groups, finish, &changed, (violations, &violating))?;
        let live: usize = panes.values().map(Pane::len).sum();
        self.places.take_if(|places| places.of_key.len() > KEYS_MIN.max(2 * live));
        Ok(Some(update))
    }
}

fn places_of<'a>(
    places: &'a mut Option<Places>,
    panes: &Panes,
    aggregation: &Aggregation,
) -> Result<&'a mut Places, PaneError> {
    if places.is_none() {
        let mut found = Places { index: aggregation.key_index()?, of_key: Vec::new() };
        for (span, pane) in panes {
            let rows = pane.all()?;
            let keys = found.intern(&rows.keys, rows.rows)?;
            for (group, key) in keys.into_iter().enumerate() {
                found.of_key[key].insert(*span, group);
            }
        }
        *places = Some(found);
    }
    places.as_mut().ok_or(PaneError::Incomplete)
}

impl Places {
    fn intern(&mut self, keys: &[ArrayRef], rows: usize) -> Result<Vec<usize>, PaneError> {
        let numbers = self.index.intern(keys, rows)?;
        self.of_key.resize_with(self.index.len(), BTreeMap::new);
        Ok(numbers)
    }

    /// The panes that a key has rows in, and its groups there; some that it had rows in are gone.
    fn chunks<'a>(&'a self, key: usize, panes: &'a Panes) -> impl Iterator<Item = (Window, &'a Pane, usize)> {
        self.of_key[key].iter().filter_map(|(span, group)| Some((*span, panes.get(span)?, *group)))
    }
}

/// A running session of a key.
struct RunningSession {
    key: usize,
    window: Window,
    /// How many sessions of the key that are running, too, came before it.
    nth: usize,
    /// Its panes and groups.
    chunks: Vec<(Window, usize)>,
}

/// The running sessions of some keys.
struct Sessions {
    all: Vec<RunningSession>,
    /// What panes have of these keys, one row per key and pane.
    rows: PartialRows,
    /// For each of those rows its session; none if that has ended.
    session_of: Vec<Option<usize>>,
}

impl Sessions {
    fn of(keys: &[usize], places: &Places, panes: &Panes, spec: SessionSpec<'_>) -> Result<Self, PaneError> {
        let mut by_pane: BTreeMap<Window, (Vec<usize>, Vec<usize>)> = BTreeMap::new();
        for key in keys {
            for (span, _, group) in places.chunks(*key, panes) {
                let (keys, groups) = by_pane.entry(span).or_default();
                keys.push(*key);
                groups.push(group);
            }
        }
        let mut parts = Vec::new();
        let mut chunks: Vec<(usize, Window, usize)> = Vec::new();
        for (span, (keys, groups)) in by_pane {
            parts.push(panes[&span].rows(&groups)?);
            chunks.extend(keys.into_iter().zip(groups).map(|(key, group)| (key, span, group)));
        }
        let rows = concatenated(&parts)?;
        if rows.rows == 0 {
            return Ok(Self { all: Vec::new(), rows, session_of: Vec::new() });
        }
        let (earliest, latest) = spec.aggregation.bounds(&rows.states).ok_or(PaneError::Incomplete)?;
        let mut sessions: Vec<RunningSession> = Vec::new();
        let mut newest: HashMap<usize, usize> = HashMap::new();
        let mut numbers = Vec::new();
        for (row, (key, span, group)) in chunks.into_iter().enumerate() {
            let window = Window { start: EventTime(earliest[row]), end: EventTime(latest[row]).plus(spec.gap_ns) };
            let before = newest.get(&key).map(|number| &mut sessions[*number]);
            let number = match before.filter(|before| window.start < before.window.end) {
                Some(before) => {
                    before.window.start = before.window.start.min(window.start);
                    before.window.end = before.window.end.max(window.end);
                    before.chunks.push((span, group));
                    newest[&key]
                }
                None => {
                    sessions.push(RunningSession { key, window, nth: 0, chunks: vec![(span, group)] });
                    sessions.len() - 1
                }
            };
            newest.insert(key, number);
            numbers.push(number);
        }
        Ok(Self::running(sessions, rows, &numbers, spec.closed_to))
    }

    /// Of all sessions those that have not ended, numbered for each key.
    fn running(sessions: Vec<RunningSession>, rows: PartialRows, numbers: &[usize], closed_to: EventTime) -> Self {
        let (mut all, mut seen, mut number_now) = (Vec::new(), HashMap::new(), Vec::new());
        for session in sessions {
            let is_running = session.window.end > closed_to;
            number_now.push(is_running.then_some(all.len()));
            if is_running {
                let nth: &mut usize = seen.entry(session.key).or_default();
                all.push(RunningSession { nth: *nth, ..session });
                *nth += 1;
            }
        }
        Self { all, rows, session_of: numbers.iter().map(|number| number_now[*number]).collect() }
    }

    /// The sessions, finished: one row for each.
    fn evaluate(&self, aggregation: &Aggregation) -> Result<RecordBatch, PaneError> {
        let rows: Vec<usize> = (0..self.rows.rows).filter(|row| self.session_of[*row].is_some()).collect();
        let running = self.rows.take(&rows)?;
        let sessions: Vec<usize> = self.session_of.iter().copied().flatten().collect();
        let mut first_row: Vec<Option<u64>> = vec![None; self.all.len()];
        for (row, session) in (0..).zip(&sessions) {
            first_row[*session].get_or_insert(row);
        }
        let first_row = UInt64Array::from(first_row);
        let keys = running.keys.iter().map(|key| take(key, &first_row, None)).collect::<Result<Vec<_>, _>>()?;
        let states = aggregation.merge(&[&running.states], &[&sessions], self.all.len())?;
        let windows: Vec<Window> = self.all.iter().map(|session| session.window).collect();
        Ok(aggregation.evaluate_each(&keys, &states, &windows)?)
    }

    /// The violations, and which sessions violate the rule. A key's sessions are judged one after the other, since a
    /// violation is found in its group by its subject.
    fn judge(&self, groups: &RecordBatch, finish: &Finish) -> Result<(Vec<Violation>, Vec<bool>), PaneError> {
        let (mut violations, mut violating) = (Vec::new(), vec![false; self.all.len()]);
        for nth in 0..=self.all.iter().map(|session| session.nth).max().unwrap_or_default() {
            let of_round: Vec<usize> = (0..self.all.len()).filter(|number| self.all[*number].nth == nth).collect();
            let rows: UInt64Array = of_round.iter().map(|number| *number as u64).collect();
            let windows: Vec<Window> = of_round.iter().map(|number| self.all[*number].window).collect();
            for judged in finish.update_sessions(&take_record_batch(groups, &rows)?, &windows)? {
                judged.group.into_iter().for_each(|GroupRef(row)| violating[of_round[row]] = true);
                violations.push(judged.violation);
            }
        }
        Ok((violations, violating))
    }

    /// What is new, given the windows that `changed` sessions had when they violated the rule.
    fn update(
        &self,
        groups: &RecordBatch,
        finish: &Finish,
        changed: &BTreeMap<usize, Vec<Window>>,
        (violations, violating): (Vec<Violation>, &[bool]),
    ) -> Result<Update, PaneError> {
        let mut update = Update { cleared: Vec::new(), violations, calm: Vec::new() };
        let mut held: BTreeMap<usize, BTreeSet<Window>> = BTreeMap::new();
        for (session, _) in self.all.iter().zip(violating).filter(|(_, violates)| **violates) {
            held.entry(session.key).or_default().insert(session.window);
        }
        for (number, session) in self.all.iter().enumerate() {
            let group = GroupRef(number);
            let before = changed.get(&session.key).filter(|_| session.nth == 0);
            if violating[number] && before.is_none_or(Vec::is_empty) {
                continue;
            }
            let subject = finish.subject(groups, group)?;
            let is_held = |window: &Window| held.get(&session.key).is_some_and(|held| held.contains(window));
            let cleared = before.into_iter().flatten().filter(|window| !is_held(window));
            let at = finish.latest(groups, group).unwrap_or(session.window.end);
            update.cleared.extend(cleared.map(|window| Cleared { subject: subject.clone(), window: *window, at }));
            if !violating[number] {
                update.calm.push((subject, session.window));
            }
        }
        Ok(update)
    }
}

fn concatenated(parts: &[PartialRows]) -> Result<PartialRows, PaneError> {
    let Some(first) = parts.first() else { return Ok(PartialRows { keys: vec![], states: vec![], rows: 0 }) };
    let column = |n: usize, of: fn(&PartialRows) -> &Vec<ArrayRef>| {
        concat(&parts.iter().map(|part| of(part)[n].as_ref()).collect::<Vec<_>>())
    };
    let keys = (0..first.keys.len()).map(|n| column(n, |part| &part.keys)).collect::<Result<_, _>>()?;
    let states = (0..first.states.len()).map(|n| column(n, |part| &part.states)).collect::<Result<_, _>>()?;
    Ok(PartialRows { keys, states, rows: parts.iter().map(|part| part.rows).sum() })
}
