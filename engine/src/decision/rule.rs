//! What one rule has said about all its subjects, and what it knew at the last commit.

use std::collections::BTreeMap;

use lictor_schemas::time::{EventTime, Window};
use serde::{Deserialize, Serialize};

use lictor_schemas::rule::RuleHeader;

use super::hold::{Hold, Slot};
use super::holding::{About, Active, Context, Started};
use super::{Change, Decision};

/// What one rule has published and not yet taken back.
#[derive(Debug)]
pub(super) struct RuleDecisions {
    /// By subject key.
    pub(super) active: BTreeMap<String, Active>,
    /// Directives that ended before the running window they began in, by subject key: the next one in that window
    /// needs another id.
    pub(super) ended: BTreeMap<String, Vec<Started>>,
    /// Nothing happens before the watermark gets here; may be too early, never too late.
    pub(super) next_deadline: EventTime,
    pub(super) refused: u64,
    pub(super) is_full: bool,
    /// Whether the rule may be another than the one that made this.
    is_inherited: bool,
    committed: Committed,
}

/// What was known at the last commit and is not any more.
#[derive(Debug)]
struct Committed {
    subjects: BTreeMap<String, SubjectState>,
    next_deadline: EventTime,
    refused: u64,
    is_full: bool,
    is_inherited: bool,
}

/// What a rule remembers of one subject.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SubjectState {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    active: Option<Active>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    ended: Vec<Started>,
}

impl SubjectState {
    fn is_nothing(&self) -> bool {
        self.active.is_none() && self.ended.is_empty()
    }

    /// Whether a directive holds that controllers apply.
    #[must_use]
    pub fn is_enforced(&self) -> bool {
        self.active.as_ref().is_some_and(Active::is_enforced)
    }

    /// What must be remembered when the rule is no more and time has come to `watermark`: if it comes back while a
    /// window is still running, no directive of it may have an id that was there.
    #[must_use]
    pub fn remains(&self, watermark: EventTime) -> Option<Self> {
        let started = self.active.as_ref().and_then(Active::started);
        let all = self.ended.iter().copied().filter(|ended| started.is_none_or(|started| started.at != ended.at));
        let ended: Vec<Started> = all.chain(started).filter(|started| started.until > watermark).collect();
        (!ended.is_empty()).then_some(Self { active: None, ended })
    }

    /// The end of the directive that holds, if one does: `rule`, which has made it, is no more. Time has come to
    /// `watermark`.
    #[must_use]
    pub fn superseded(self, application_id: &str, rule: &RuleHeader, watermark: EventTime) -> Option<Decision> {
        let mut active = self.active?;
        let at = active.latest(rule, watermark);
        active.supersede(&Context { application_id, subjects_max: 0, rule }, at)
    }
}

impl Default for RuleDecisions {
    fn default() -> Self {
        let (next_deadline, refused, is_full, is_inherited) = (EventTime::MAX, 0, false, false);
        let committed = Committed { subjects: BTreeMap::new(), next_deadline, refused, is_full, is_inherited };
        let (active, ended) = (BTreeMap::new(), BTreeMap::new());
        Self { active, ended, next_deadline, refused, is_full, is_inherited, committed }
    }
}

impl RuleDecisions {
    /// What is there now stays.
    pub(super) fn commit(&mut self) {
        let Self { next_deadline, refused, is_full, is_inherited, .. } = *self;
        self.committed = Committed { subjects: BTreeMap::new(), next_deadline, refused, is_full, is_inherited };
    }

    /// Goes back to the last commit.
    pub(super) fn undo(&mut self) {
        for (key, before) in std::mem::take(&mut self.committed.subjects) {
            self.active.remove(&key);
            self.ended.remove(&key);
            self.put(&key, before);
        }
        self.next_deadline = self.committed.next_deadline;
        self.refused = self.committed.refused;
        self.is_full = self.committed.is_full;
        self.is_inherited = self.committed.is_inherited;
    }

    /// Takes over what a log remembers of a subject.
    pub(super) fn restore(&mut self, key: &str, state: SubjectState) {
        self.put(key, state);
        self.next_deadline = EventTime::MIN;
        self.is_inherited = true;
        self.commit();
    }

    /// What is known now of the subjects touched since the last commit.
    pub(super) fn touched(&self) -> impl Iterator<Item = (&str, Option<SubjectState>)> {
        let now = |key: &str| Some(self.state_of(key)).filter(|state| !state.is_nothing());
        self.committed.subjects.keys().map(move |key| (key.as_str(), now(key)))
    }

    fn state_of(&self, key: &str) -> SubjectState {
        SubjectState { active: self.active.get(key).cloned(), ended: self.ended.get(key).cloned().unwrap_or_default() }
    }

    fn put(&mut self, key: &str, state: SubjectState) {
        self.active.extend(state.active.map(|active| (key.to_owned(), active)));
        if !state.ended.is_empty() {
            self.ended.insert(key.to_owned(), state.ended);
        }
    }

    /// To be called before anything about a subject changes.
    fn touch(&mut self, key: &str) {
        if !self.committed.subjects.contains_key(key) {
            self.committed.subjects.insert(key.to_owned(), self.state_of(key));
        }
    }

    pub(super) fn knows(&self, key: &str) -> bool {
        self.active.contains_key(key) || self.ended.contains_key(key)
    }

    pub(super) fn is_full_at(&self, subjects_max: usize) -> bool {
        self.active.len() + self.ended.len() >= subjects_max
    }

    /// How many subjects have a directive.
    pub(super) fn firing(&self) -> usize {
        self.active.values().filter(|active| active.is_firing()).count()
    }

    /// Applies what has changed about one subject: at most one event.
    pub(super) fn apply(&mut self, context: &Context<'_>, key: String, change: Change) -> Option<Decision> {
        self.touch(&key);
        let newest = change.holds.iter().map(|hold| hold.at).max();
        let found_at = change.holds.iter().map(Hold::found_at).max();
        let about = About { context, key: &key, ended: self.ended.get(&key).map_or(&[], Vec::as_slice) };
        let Some(active) = self.active.get_mut(&key) else {
            let (active, decision) = Active::begin(&about, change.subject, change.holds)?;
            self.next_deadline = self.next_deadline.min(active.deadline(context.rule));
            self.active.insert(key, active);
            return decision;
        };
        active.update(context.rule, newest.unwrap_or(change.at).max(change.at), &change.cleared, change.holds);
        let decision = active.settle(&about, newest.unwrap_or(change.at), found_at);
        if !active.is_over() {
            self.next_deadline = self.next_deadline.min(active.deadline(context.rule));
            return decision;
        }
        let started = active.started();
        self.active.remove(&key);
        if change.cleared.iter().any(|slot| matches!(slot, Slot::Running(_))) {
            started.into_iter().for_each(|started| self.remember(key.clone(), started));
        }
        decision
    }

    /// Brings one subject to its state at `to`, see [`Active::advance`].
    pub(super) fn advance_subject(
        &mut self,
        context: &Context<'_>,
        key: &str,
        (to, waits): (EventTime, bool),
    ) -> Vec<Decision> {
        let mut decisions = Vec::new();
        if self.active.get(key).is_none_or(|active| active.deadline(context.rule) > to) {
            return decisions;
        }
        self.touch(key);
        let about = About { context, key, ended: self.ended.get(key).map_or(&[], Vec::as_slice) };
        let Some(active) = self.active.get_mut(key) else { return decisions };
        active.advance(&about, (to, waits), &mut decisions);
        if active.is_over() {
            let started = active.started().filter(|started| started.until > started.at);
            self.active.remove(key);
            started.into_iter().for_each(|started| self.remember(key.to_owned(), started));
        }
        decisions
    }

    pub(super) fn advance(&mut self, context: &Context<'_>, watermark: EventTime) -> Vec<Decision> {
        let is_inherited = std::mem::take(&mut self.is_inherited);
        let is_foreign = |active: &Active| is_inherited && active.is_foreign(context.rule);
        let is_due = |active: &Active| is_foreign(active) || active.deadline(context.rule) <= watermark;
        let due = self.active.iter().filter(|(_, active)| is_due(active)).map(|(key, _)| key);
        let is_past = |starts: &[Started]| starts.iter().any(|started| started.until <= watermark);
        let past = self.ended.iter().filter(|(_, starts)| is_past(starts)).map(|(key, _)| key);
        let keys: Vec<String> = due.chain(past).cloned().collect();
        keys.iter().for_each(|key| self.touch(key));
        let mut decisions = Vec::new();
        let mut over = Vec::new();
        let ended = &self.ended;
        self.active.retain(|key, active| {
            if !is_due(active) {
                return true;
            }
            let about = About { context, key, ended: ended.get(key).map_or(&[], Vec::as_slice) };
            if is_foreign(active) {
                active.adopt(&about, watermark, &mut decisions);
            }
            active.advance(&about, (watermark, false), &mut decisions);
            if active.is_over() {
                over.extend(active.started().map(|started| (key.clone(), started)));
            }
            !active.is_over()
        });
        for (key, started) in over {
            self.remember(key, started);
        }
        self.ended.retain(|_, starts| {
            starts.retain(|started| started.until > watermark);
            !starts.is_empty()
        });
        let deadlines = self.active.values().map(|active| active.deadline(context.rule));
        let untils = self.ended.values().flatten().map(|started| started.until);
        self.next_deadline = deadlines.chain(untils).min().unwrap_or(EventTime::MAX);
        self.is_full &= self.is_full_at(context.subjects_max);
        decisions
    }

    /// The running window that begins where `window` does ends with it now.
    pub(super) fn prolong(&mut self, key: &str, window: Window) {
        let is_it = |started: &Started| started.at == window.start && started.until < window.end;
        if !self.ended.get(key).is_some_and(|starts| starts.iter().any(is_it)) {
            return;
        }
        self.touch(key);
        for started in self.ended.get_mut(key).into_iter().flatten().filter(|started| is_it(started)) {
            started.until = window.end;
        }
    }

    fn remember(&mut self, key: String, started: Started) {
        let starts = self.ended.entry(key).or_default();
        starts.retain(|earlier| earlier.at != started.at);
        starts.push(started);
        self.next_deadline = self.next_deadline.min(started.until);
    }
}
