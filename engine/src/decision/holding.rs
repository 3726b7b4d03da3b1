//! One subject in violation: what holds, what was published about it, and what must be said next.

use std::collections::BTreeSet;

use lictor_schemas::event::{EnforcementEvent, Finding, Revision, State, WindowBounds, directive_id};
use lictor_schemas::genops::PolicyResult;
use lictor_schemas::rule::RuleHeader;
use lictor_schemas::time::{EventTime, Window};
use lictor_schemas::violation::{Subject, Violation};
use serde::{Deserialize, Serialize};

use super::{Decision, DirectiveRecord};

/// What every event of a rule has in common.
pub(super) struct Context<'a> {
    pub(super) application_id: &'a str,
    pub(super) subjects_max: usize,
    pub(super) rule: &'a RuleHeader,
}

/// Where a violation was found; a subject has at most one per slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Slot {
    /// In the window that closed last.
    Closed,
    /// In a window that is still running.
    Running(WindowBounds),
    /// In a row with this result.
    Row(PolicyResult),
}

/// A violation that holds, and until when.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Hold {
    pub(super) slot: Slot,
    pub(super) finding: Finding,
    pub(super) at: EventTime,
    valid_until: EventTime,
    /// When the telemetry will have had its say again: unless the violation is found anew until then, it is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lapses_at: Option<EventTime>,
}

impl Hold {
    pub(super) fn new(slot: Slot, violation: &Violation, valid_until: EventTime) -> Self {
        let lapses_at = match slot {
            Slot::Running(window) => Some(window.end),
            Slot::Closed | Slot::Row(_) => None,
        };
        Self { slot, finding: Finding::from(violation), at: violation.at, valid_until, lapses_at }
    }

    pub(super) fn lapsing_at(self, at: EventTime) -> Self {
        Self { lapses_at: Some(at), ..self }
    }

    fn has_lapsed(&self, at: EventTime) -> bool {
        self.lapses_at.is_some_and(|lapses_at| lapses_at <= at)
    }

    fn ends_at(&self) -> EventTime {
        self.lapses_at.map_or(self.valid_until, |lapses_at| lapses_at.min(self.valid_until))
    }

    /// The order in which holds are published: severity, then window, then time.
    fn rank(&self) -> (PolicyResult, Option<EventTime>, EventTime) {
        (self.finding.result, self.finding.window.map(|window| window.end), self.at)
    }
}

/// When a directive began, and the how-manieth of this beginning it is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Started {
    /// The start of the window or the time of the row: the same however the rows were batched.
    pub(super) at: EventTime,
    /// The end of that window: until then another directive may begin at the same time.
    pub(super) until: EventTime,
    /// 0 for the first.
    pub(super) nth: u32,
}

/// A subject in violation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Active {
    pub(super) subject: Subject,
    pub(super) started: Started,
    holds: Vec<Hold>,
    published: Published,
}

/// The last event about a subject, as far as the next one depends on it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Published {
    directive_id: String,
    revision: u32,
    result: PolicyResult,
    window: Option<WindowBounds>,
    at: EventTime,
    valid_until: EventTime,
}

impl Published {
    /// From here on less than half of the published validity is left.
    fn half_life(&self) -> EventTime {
        self.at.plus(self.valid_until.0.saturating_sub(self.at.0) / 2)
    }
}

impl Active {
    /// A subject that was not in violation is now; none if nothing holds. `nth` counts the directives that began at the
    /// same time before.
    pub(super) fn fire(
        context: &Context<'_>,
        key: &str,
        subject: Subject,
        holds: Vec<Hold>,
        nth: impl Fn(EventTime) -> u32,
    ) -> Option<(Self, Decision)> {
        let best = holds.iter().max_by_key(|hold| hold.rank())?.clone();
        let window = best.finding.window;
        let started_at = window.map_or(best.at, |window| window.start);
        let until = window.map_or(best.at, |window| window.end);
        let started = Started { at: started_at, until, nth: nth(started_at) };
        let published = Published {
            directive_id: directive_id(&context.rule.name, key, started.at, started.nth),
            revision: 0,
            result: PolicyResult::Allowed,
            window,
            at: best.at,
            valid_until: best.valid_until,
        };
        let mut active = Self { subject, started, holds, published };
        let decision = active.publish(context, State::Firing, best.finding, best.at, best.valid_until);
        Some((active, decision))
    }

    /// Takes the cleared slots away and puts the new holds in; says nothing yet.
    pub(super) fn update(&mut self, cleared: &BTreeSet<Slot>, holds: Vec<Hold>) {
        self.holds.retain(|hold| !cleared.contains(&hold.slot));
        for hold in holds {
            match self.holds.iter_mut().find(|held| held.slot == hold.slot) {
                // A row that was read late does not shorten what a newer one has promised.
                Some(held) if matches!(held.slot, Slot::Row(_)) && held.valid_until > hold.valid_until => {}
                Some(held) => *held = hold,
                None => self.holds.push(hold),
            }
        }
    }

    /// The directive that the events are about.
    pub(super) fn directive_id(&self) -> &str {
        &self.published.directive_id
    }

    /// Whether the subject is no longer in violation.
    pub(super) fn is_over(&self) -> bool {
        self.holds.is_empty()
    }

    /// The running windows in which a violation was found that still holds.
    pub(super) fn running(&self) -> impl Iterator<Item = Window> {
        self.holds.iter().filter_map(|hold| match hold.slot {
            Slot::Running(WindowBounds { start, end }) => Some(Window { start, end }),
            Slot::Closed | Slot::Row(_) => None,
        })
    }

    /// Whether a violation was found in `slot` and still holds.
    pub(super) fn has(&self, slot: Slot) -> bool {
        self.holds.iter().any(|hold| hold.slot == slot)
    }

    /// The event that is due at `at`, if there is any, after the telemetry has changed what holds.
    pub(super) fn settle(&mut self, context: &Context<'_>, at: EventTime) -> Option<Decision> {
        self.settle_as(context, at, State::Resolved)
    }

    /// Lets holds end up to `watermark`, one deadline after the other; false when nothing is left of the subject.
    pub(super) fn advance(&mut self, context: &Context<'_>, watermark: EventTime, out: &mut Vec<Decision>) -> bool {
        while !self.is_over() && self.deadline() <= watermark {
            let at = self.deadline();
            // A lapse is news from the telemetry; a validity that runs out is the lack of it.
            let is_news = self.holds.iter().any(|hold| hold.has_lapsed(at));
            self.holds.retain(|hold| hold.ends_at() > at);
            out.extend(self.settle_as(context, at, if is_news { State::Resolved } else { State::Expired }));
        }
        !self.is_over()
    }

    /// The next instant at which something happens to the subject even if no row comes.
    pub(super) fn deadline(&self) -> EventTime {
        let first_end = self.holds.iter().map(Hold::ends_at).min().unwrap_or(EventTime::MAX);
        let is_longer = self.best().is_some_and(|best| best.valid_until > self.published.valid_until);
        if is_longer { first_end.min(self.published.half_life()) } else { first_end }
    }

    fn best(&self) -> Option<&Hold> {
        self.holds.iter().max_by_key(|hold| hold.rank())
    }

    fn settle_as(&mut self, context: &Context<'_>, at: EventTime, ended: State) -> Option<Decision> {
        let Some(best) = self.best() else {
            let finding = Finding::cleared(self.published.window);
            let valid_until = self.published.valid_until.max(at);
            return Some(self.publish(context, ended, finding, at, valid_until));
        };
        let has_changed = best.finding.result != self.published.result;
        let needs_renewal = best.valid_until > self.published.valid_until && at >= self.published.half_life();
        if !has_changed && !needs_renewal {
            return None;
        }
        let (finding, valid_until) = (best.finding.clone(), best.valid_until);
        Some(self.publish(context, State::Updated, finding, at, valid_until))
    }

    fn publish(
        &mut self,
        context: &Context<'_>,
        state: State,
        finding: Finding,
        at: EventTime,
        valid_until: EventTime,
    ) -> Decision {
        self.published.revision += 1;
        self.published.result = finding.result;
        self.published.window = finding.window;
        self.published.at = at;
        self.published.valid_until = valid_until;
        let revision = Revision {
            directive_id: &self.published.directive_id,
            revision: self.published.revision,
            state,
            subject: &self.subject,
            finding,
            at,
            valid_until,
        };
        let event = EnforcementEvent::new(context.application_id, context.rule, revision);
        let directive = if state.is_ended() { DirectiveRecord::Tombstone } else { DirectiveRecord::Put };
        Decision { event, directive }
    }
}
