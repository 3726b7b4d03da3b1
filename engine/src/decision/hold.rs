//! A violation that was found in one place, and how long it counts.

use lictor_schemas::event::{Finding, State, WindowBounds};
use lictor_schemas::genops::PolicyResult;
use lictor_schemas::time::EventTime;
use lictor_schemas::violation::Violation;
use serde::{Deserialize, Serialize};

/// Where a violation was found; a subject has at most one per slot, besides those that are only kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Slot {
    /// In the window that closed last.
    Closed,
    /// In a window that is still running; by its bounds alone.
    Running(WindowBounds),
    /// In a row with this result.
    Row(PolicyResult),
}

/// A violation that holds, and until when; or one that does not hold any more and goes on firing for a while.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Hold {
    pub(super) slot: Slot,
    pub(super) finding: Finding,
    pub(super) at: EventTime,
    valid_until: EventTime,
    /// When the telemetry will have had its say again: unless the violation is found anew until then, it is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lapses_at: Option<EventTime>,
    /// Set once it does not hold any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kept: Option<Kept>,
}

/// That a violation is over and is not said to be so yet.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Kept {
    until: EventTime,
    /// What is to be said then.
    ended: State,
}

impl Hold {
    pub(super) fn new(slot: Slot, violation: &Violation, valid_until: EventTime) -> Self {
        let lapses_at = match slot {
            Slot::Running(window) => Some(window.end),
            Slot::Closed | Slot::Row(_) => None,
        };
        Self { slot, finding: Finding::from(violation), at: violation.at, valid_until, lapses_at, kept: None }
    }

    pub(super) fn lapsing_at(self, at: EventTime) -> Self {
        Self { lapses_at: Some(at), ..self }
    }

    pub(super) fn result(&self) -> PolicyResult {
        self.finding.result
    }

    pub(super) fn is_kept(&self) -> bool {
        self.kept.is_some()
    }

    /// Whether it was found in a running window and still holds: then what holds is known at every instant, and not
    /// only when a row comes or a window closes.
    pub(super) fn is_running(&self) -> bool {
        self.kept.is_none() && matches!(self.slot, Slot::Running(_))
    }

    /// When it was found: of a closed window that is its end, whenever its last row was.
    pub(super) fn found_at(&self) -> EventTime {
        match (self.slot, self.finding.window) {
            (Slot::Closed, Some(window)) => window.end.max(self.at),
            _ => self.at,
        }
    }

    /// When the telemetry has its say again, if it still holds.
    pub(super) fn lapse(&self) -> Option<EventTime> {
        self.lapses_at.filter(|_| self.kept.is_none())
    }

    pub(super) fn ends_at(&self) -> EventTime {
        let end = self.lapses_at.map_or(self.valid_until, |lapses_at| lapses_at.min(self.valid_until));
        self.kept.map_or(end, |kept| kept.until)
    }

    /// What is to be said if it ends at `at` and nothing else holds: a lapse is news from the telemetry, a validity
    /// that runs out is the lack of it.
    pub(super) fn ended(&self, at: EventTime) -> State {
        let has_lapsed = self.lapses_at.is_some_and(|lapses_at| lapses_at <= at);
        let own = if has_lapsed { State::Resolved } else { State::Expired };
        self.kept.map_or(own, |kept| kept.ended)
    }

    /// Whether it holds no more at `at`.
    pub(super) fn is_over_at(&self, at: EventTime) -> bool {
        self.valid_until <= at
    }

    /// Until when a controller may rely on it: `keep_ns` longer than it holds, lest the directive lapse at a controller
    /// before it is known that it goes on.
    pub(super) fn valid_until(&self, keep_ns: i64) -> EventTime {
        self.kept.map_or(self.valid_until.plus(keep_ns), |kept| kept.until)
    }

    /// It does not hold any more and goes on firing until `until`.
    pub(super) fn kept_until(self, until: EventTime, ended: State) -> Self {
        Self { kept: Some(Kept { until, ended }), ..self }
    }

    /// Whether `other`, which is kept as well, makes no difference beside it.
    pub(super) fn covers(&self, other: &Self) -> bool {
        self.result() >= other.result() && self.ends_at() >= other.ends_at()
    }

    /// Whether a row of the same kind that is `other` has promised more: one that was read late shortens nothing.
    pub(super) fn outlasts(&self, other: &Self) -> bool {
        matches!(self.slot, Slot::Row(_)) && self.valid_until > other.valid_until
    }

    /// The order in which holds are published: severity, whether they still hold, then window, then time.
    pub(super) fn rank(&self) -> (PolicyResult, bool, Option<EventTime>, EventTime) {
        (self.result(), !self.is_kept(), self.finding.window.map(|window| window.end), self.at)
    }
}
