//! Decisions: which changes of a rule's violation set are news.
//!
//! A rule's rows are the violations that hold now. This module keeps, per rule and subject, what was last published,
//! and publishes edges only: a violation appears (`firing`), its result changes (`updated`), the telemetry says that it
//! is over (`resolved`), or its end passes without news (`expired`). A violation that goes on is published again only
//! to move a `valid_until` of which less than half is left, so that controllers never drop what still holds.
//!
//! How long a violation holds, unless its row says so itself with `valid_until`:
//!
//! | the row comes from | it holds until |
//! |---|---|
//! | a closed window | window end + window length + `ttl`, or the next window's end + `ttl` if that is later |
//! | a running window | the window's end |
//! | a row-wise rule, or a session that has ended | the row's event time, or the session's end, + `ttl` |
//!
//! Event time that passes the end of the next window resolves what a closed window has found, whether that window had
//! any rows or not: so it does not matter which groups are judged together.
//!
//! # Life cycle
//!
//! ```text
//!              found                  went on for `for`             nothing holds, `keep_firing_for` is over
//!   inactive ─────────► pending ──────────────────────► firing ─────────────────────────────────────────────► inactive
//!       ▲                  │                             │   ▲
//!       └── does not hold ─┘ (nothing was said)          └───┘ updated: another result, renewed, repeated
//! ```
//!
//! A violation *goes on* while the subject always has a hold. Of a rule that speaks on close these are windows one
//! after the other; it fires with the first window that ends `for` or more after the first one's end. Of rows, and of
//! sessions that ended, each comes before the `ttl` of the one before is over; it fires with the first row `for` or
//! more after the first. A running window is known to violate at every instant, so it fires at that instant, even if no
//! row comes; when it ends, another running window in which the subject is in violation by then carries it on.
//!
//! What does not hold any more is *kept* for `keep_firing_for` before that is said: the published result is the most
//! severe of those that hold or are kept. So an escalation is said at once, and a de-escalation or an end only once it
//! has lasted. What comes back in that time was never gone.
//!
//! A directive that outlives its rule or the rule's mode is *superseded*: whoever removes a rule ends what it has said,
//! and a shadow directive never becomes one to be applied.
//!
//! Invariant: no clock and no I/O. State and events are functions of the calls and their arguments, and the state of a
//! subject is plain serde data: stored and loaded between two calls, it goes on as if nothing had happened. Between two
//! commits everything can be undone. Before something changes about a subject at some time, everything is said that was
//! due until then, so it makes no difference how far time comes in one step.

mod hold;
mod holding;
mod rule;
mod standing;

use std::collections::{BTreeMap, BTreeSet};

use lictor_schemas::event::EnforcementEvent;
use lictor_schemas::genops::PolicyResult;
use lictor_schemas::rule::RuleHeader;
use lictor_schemas::time::{EventTime, Window};
use lictor_schemas::violation::{Subject, Violation};

use hold::{Hold, Slot};
use holding::Context;
use rule::RuleDecisions;

pub use rule::SubjectState;
pub use standing::{AllStanding, Standing};

/// How many subjects of one rule may be in violation at once, unless the configuration says otherwise: at about 2 kB
/// each they take 200 MB, and nobody reads more.
pub const SUBJECTS_MAX: usize = 100_000;

/// One event, and what becomes of its directive.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// What is written to the event log.
    pub event: EnforcementEvent,
    /// What is written to the compacted topic under the event's `directive_id`.
    pub directive: DirectiveRecord,
}

/// The record of the compacted directives topic that goes with an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DirectiveRecord {
    /// The event itself: this is what holds now.
    Put,
    /// A null value: nothing holds any more.
    Tombstone,
}

/// A rule has reached its limit of subjects; those beyond it do not fire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitReport {
    /// The rule's name.
    pub rule: String,
    /// The limit it has reached.
    pub subjects_max: usize,
}

/// A violation that was found in a running window and does not hold any more.
#[derive(Clone, Debug, PartialEq)]
pub struct Cleared {
    /// Whose.
    pub subject: Subject,
    /// The window in which it was found.
    pub window: Window,
    /// The event time of the latest row of its group.
    pub at: EventTime,
}

/// What every rule has published and not yet taken back.
///
/// In one step of time, call the methods in this order: rows and windows first ([`rows`](Self::rows),
/// [`change`](Self::change), [`replace`](Self::replace), [`close_window`](Self::close_window)), then
/// [`advance`](Self::advance) with the new watermark.
#[derive(Debug)]
pub struct Decisions {
    application_id: String,
    subjects_max: usize,
    rules: BTreeMap<String, RuleDecisions>,
    reports: Vec<LimitReport>,
}

impl Decisions {
    /// Nothing published yet. `application_id` names the engine in the events' `source`; each rule may have
    /// `subjects_max` subjects that are in violation, pending ones included, or were so in a window that still runs.
    #[must_use]
    pub fn new(application_id: &str, subjects_max: usize) -> Self {
        Self { application_id: application_id.to_owned(), subjects_max, rules: BTreeMap::new(), reports: Vec::new() }
    }

    /// A window of an `EMIT ON CLOSE` rule has closed: `violations` are all that hold now, every other subject of the
    /// rule resolves. `next_end` is the end of the window after it. Windows must be closed in the order of their ends.
    pub fn replace(
        &mut self,
        rule: &RuleHeader,
        violations: Vec<Violation>,
        window: Window,
        next_end: EventTime,
    ) -> Vec<Decision> {
        // Windows without rows in between have closed too.
        let mut decisions = self.advance(rule, window.end.plus(-1));
        let mut changes: BTreeMap<String, Change> = BTreeMap::new();
        for (key, active) in &self.of(rule).active {
            let cleared = BTreeSet::from([Slot::Closed]);
            changes.insert(key.clone(), Change { cleared, ..Change::of(active.subject.clone(), window.end) });
        }
        decisions.extend(self.apply_closed(rule, changes, violations, (window, next_end)));
        decisions
    }

    /// As [`replace`](Self::replace), of a window that not all subjects share: of those that are not among the
    /// `violations` nothing is known, and what was found of them is over when the window after theirs ends.
    pub fn put(
        &mut self,
        rule: &RuleHeader,
        violations: Vec<Violation>,
        window: Window,
        next_end: EventTime,
    ) -> Vec<Decision> {
        let mut decisions = self.advance(rule, window.end.plus(-1));
        decisions.extend(self.apply_closed(rule, BTreeMap::new(), violations, (window, next_end)));
        decisions
    }

    /// Adds what was found in a closed window to the changes, and applies them.
    fn apply_closed(
        &mut self,
        rule: &RuleHeader,
        mut changes: BTreeMap<String, Change>,
        violations: Vec<Violation>,
        (window, next_end): (Window, EventTime),
    ) -> Vec<Decision> {
        for violation in violations {
            let valid_until = violation.valid_until.unwrap_or_else(|| end_of_closed(rule, window, next_end));
            let hold = Hold::new(Slot::Closed, &violation, valid_until).lapsing_at(next_end);
            add(&mut changes, hold, violation);
        }
        self.apply(rule, changes)
    }

    /// Groups of running windows of an `EMIT ON UPDATE` rule have changed: those in `cleared` hold no longer, those in
    /// `violations` do; groups that did not change are in neither. What else has changed makes no difference to a
    /// subject, so that it does not matter which groups are judged together.
    ///
    /// A subject may be in violation in several windows at once. What is published is the most severe, and of equals
    /// the one in the latest window.
    pub fn change(&mut self, rule: &RuleHeader, cleared: Vec<Cleared>, violations: Vec<Violation>) -> Vec<Decision> {
        let mut changes: BTreeMap<String, Change> = BTreeMap::new();
        for Cleared { subject, window, at } in cleared {
            let change = changes.entry(subject.to_key()).or_insert_with(|| Change::of(subject, at));
            change.cleared.insert(Slot::Running(window.into()));
            change.at = change.at.max(at);
        }
        for violation in violations {
            let slot = violation.window.map_or(Slot::Row(violation.result), |window| Slot::Running(window.into()));
            let window_end = violation.window.map_or(violation.at.plus(rule.ttl_ns), |window| window.end);
            add(&mut changes, Hold::new(slot, &violation, violation.valid_until.unwrap_or(window_end)), violation);
        }
        let mut decisions = Vec::new();
        for (key, change) in &changes {
            let newest = change.holds.iter().map(|hold| hold.at).max().unwrap_or(change.at);
            decisions.extend(self.advance_subject(rule, key, (newest, true)));
        }
        decisions.extend(self.apply(rule, changes));
        decisions
    }

    /// Running sessions of an `EMIT ON UPDATE` rule that do not violate it have other ends now: a directive that ended
    /// before such a session is remembered as long as the session goes on.
    pub fn prolong(&mut self, rule: &RuleHeader, sessions: Vec<(Subject, Window)>) {
        let Some(of_rule) = self.rules.get_mut(&rule.name).filter(|of_rule| !of_rule.ended.is_empty()) else { return };
        for (subject, window) in sessions {
            of_rule.prolong(&subject.to_key(), window);
        }
    }

    /// A window of an `EMIT ON UPDATE` rule has ended at `at`: the violations found in it are over.
    pub fn close_window(&mut self, rule: &RuleHeader, window: Window, at: EventTime) -> Vec<Decision> {
        let slot = Slot::Running(window.into());
        let mut changes: BTreeMap<String, Change> = BTreeMap::new();
        for (key, active) in &self.of(rule).active {
            if active.has(slot) {
                let cleared = BTreeSet::from([slot]);
                changes.insert(key.clone(), Change { cleared, ..Change::of(active.subject.clone(), at) });
            }
        }
        let mut decisions = Vec::new();
        for key in changes.keys() {
            decisions.extend(self.advance_subject(rule, key, (at.plus(-1), true)));
        }
        decisions.extend(self.apply(rule, changes));
        decisions
    }

    /// Rows of a rule without windows, in the order in which they were read: each asserts its subject anew.
    ///
    /// A milder row does not end a more severe one that still holds; it takes over when that one's time is up. What has
    /// come to its end before a row is published before the row, wherever the watermark is: a row in time is never
    /// older than the watermark, so how rows are cut into batches makes no difference.
    pub fn rows(&mut self, rule: &RuleHeader, violations: Vec<Violation>) -> Vec<Decision> {
        let asserted = violations.into_iter().flat_map(|violation| {
            let at = violation.at;
            self.assert(rule, violation, at)
        });
        asserted.collect()
    }

    /// Sessions that have ended, in the order of their ends: each asserts its subject anew when it ends.
    ///
    /// What has come to its end before a session is published before it, however far the watermark has come since.
    pub fn sessions(&mut self, rule: &RuleHeader, violations: Vec<Violation>) -> Vec<Decision> {
        let asserted = violations.into_iter().flat_map(|violation| {
            let at = violation.window.map_or(violation.at, |window| window.end);
            self.assert(rule, violation, at)
        });
        asserted.collect()
    }

    /// A violation that holds for the `ttl` from `at` on, if its row does not say how long.
    fn assert(&mut self, rule: &RuleHeader, violation: Violation, at: EventTime) -> Vec<Decision> {
        let mut decisions = self.advance_subject(rule, &violation.subject.to_key(), (at, false));
        let valid_until = violation.valid_until.unwrap_or(at.plus(rule.ttl_ns));
        let mut changes = BTreeMap::new();
        add(&mut changes, Hold::new(Slot::Row(violation.result), &violation, valid_until), violation);
        decisions.extend(self.apply(rule, changes));
        decisions
    }

    /// Event time has reached `watermark`: publishes what has come to its end until then, and what must be renewed.
    ///
    /// One long step gives the same events as many short ones.
    pub fn advance(&mut self, rule: &RuleHeader, watermark: EventTime) -> Vec<Decision> {
        let context = Context { application_id: &self.application_id, subjects_max: self.subjects_max, rule };
        let of_rule = self.rules.get_mut(&rule.name).filter(|of_rule| of_rule.next_deadline <= watermark);
        of_rule.map_or_else(Vec::new, |of_rule| of_rule.advance(&context, watermark))
    }

    /// What is there now stays.
    pub fn commit(&mut self) {
        self.rules.values_mut().for_each(RuleDecisions::commit);
    }

    /// Goes back to the last commit.
    pub fn undo(&mut self) {
        self.rules.values_mut().for_each(RuleDecisions::undo);
        self.reports.clear();
    }

    /// What is known now of the subjects touched since the last commit: rule, subject key, and nothing if there is
    /// nothing to remember any more.
    pub fn touched(&self) -> impl Iterator<Item = (&str, &str, Option<SubjectState>)> {
        self.rules.iter().flat_map(|(rule, of_rule)| of_rule.touched().map(move |(k, s)| (rule.as_str(), k, s)))
    }

    /// Takes over what a log remembers of a subject.
    pub fn restore(&mut self, rule: &str, subject_key: &str, state: SubjectState) {
        self.rules.entry(rule.to_owned()).or_default().restore(subject_key, state);
    }

    /// Who was found to be in violation in which window that is still running.
    pub(crate) fn running(&self, rule: &RuleHeader) -> Vec<(Subject, Window)> {
        let active = self.rules.get(&rule.name).into_iter().flat_map(|of_rule| of_rule.active.values());
        active.flat_map(|active| active.running().map(|window| (active.subject.clone(), window))).collect()
    }

    /// How many directives of a rule hold now.
    #[must_use]
    pub fn firing(&self, rule: &str) -> usize {
        self.rules.get(rule).map_or(0, RuleDecisions::firing)
    }

    /// How many violations of a rule have not gone on for long enough yet.
    #[must_use]
    pub fn pending(&self, rule: &str) -> usize {
        self.rules.get(rule).map_or(0, |of_rule| of_rule.active.len() - of_rule.firing())
    }

    /// How many times a subject of a rule could not fire because the limit was reached; only rises.
    #[must_use]
    pub fn refused(&self, rule: &str) -> u64 {
        self.rules.get(rule).map_or(0, |of_rule| of_rule.refused)
    }

    /// The limits reached since the last call; each once until the rule has room again.
    pub fn take_limit_reports(&mut self) -> Vec<LimitReport> {
        std::mem::take(&mut self.reports)
    }

    fn of(&mut self, rule: &RuleHeader) -> &mut RuleDecisions {
        self.rules.entry(rule.name.clone()).or_default()
    }

    fn apply(&mut self, rule: &RuleHeader, changes: BTreeMap<String, Change>) -> Vec<Decision> {
        let context = Context { application_id: &self.application_id, subjects_max: self.subjects_max, rule };
        let of_rule = self.rules.entry(rule.name.clone()).or_default();
        let mut decisions = Vec::new();
        for (key, change) in changes {
            if !change.holds.is_empty() && !of_rule.knows(&key) && of_rule.is_full_at(self.subjects_max) {
                of_rule.refused += 1;
                if !std::mem::replace(&mut of_rule.is_full, true) {
                    self.reports.push(LimitReport { rule: rule.name.clone(), subjects_max: self.subjects_max });
                }
                continue;
            }
            decisions.extend(of_rule.apply(&context, key, change));
        }
        of_rule.is_full &= of_rule.is_full_at(self.subjects_max);
        decisions
    }

    /// Brings one subject to its state at `to`; if it `waits`, windows do not lapse.
    fn advance_subject(&mut self, rule: &RuleHeader, key: &str, (to, waits): (EventTime, bool)) -> Vec<Decision> {
        let context = Context { application_id: &self.application_id, subjects_max: self.subjects_max, rule };
        let of_rule = self.rules.entry(rule.name.clone()).or_default();
        of_rule.advance_subject(&context, key, (to, waits))
    }
}

/// What is new about one subject.
struct Change {
    subject: Subject,
    cleared: BTreeSet<Slot>,
    /// At most one per slot.
    holds: Vec<Hold>,
    /// When it has changed, if nothing holds.
    at: EventTime,
}

impl Change {
    fn of(subject: Subject, at: EventTime) -> Self {
        Self { subject, cleared: BTreeSet::new(), holds: Vec::new(), at }
    }
}

/// Adds a violation to the changes. Of two in one slot (a join that gave two rows) the more severe counts, and a row
/// that says `ALLOWED` is none.
fn add(changes: &mut BTreeMap<String, Change>, hold: Hold, violation: Violation) {
    let change = changes.entry(violation.subject.to_key()).or_insert_with(|| Change::of(violation.subject, hold.at));
    // What is over before it is found is no violation.
    if hold.finding.result == PolicyResult::Allowed || hold.is_over_at(hold.at) {
        change.cleared.insert(hold.slot);
        change.at = change.at.max(hold.at);
        return;
    }
    match change.holds.iter_mut().find(|other| other.slot == hold.slot) {
        Some(other) if other.finding.result < hold.finding.result => *other = hold,
        Some(_) => {}
        None => change.holds.push(hold),
    }
}

/// The window after a short month or day is longer than it.
fn end_of_closed(rule: &RuleHeader, window: Window, next_end: EventTime) -> EventTime {
    window.end.plus(window.end.0.saturating_sub(window.start.0)).max(next_end).plus(rule.ttl_ns)
}

#[cfg(test)]
mod inherited;
#[cfg(test)]
mod life_cycle;
#[cfg(test)]
mod tests;
