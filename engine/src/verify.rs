//! Whether an event follows from the telemetry that it was made of: the rule, the same code, the rows read once more.
//!
//! An event about a whole window says the same in every replay. One of a rule that speaks on update says how much there
//! was with the record that crossed the line, and records of several partitions come in another order each time: then
//! it follows if the line is crossed in its window, and how much there was is told.

use std::fmt;

use lictor_queries::{CompiledRule, RuleKind, RuleSet, WindowSpec};
use lictor_schemas::event::{EnforcementEvent, Finding};
use lictor_schemas::tables::{Signal, Table};
use lictor_schemas::time::{EventTime, Window};

/// Numbers that were summed up in another order differ in their last digits.
const CLOSE: f64 = 1e-9;

/// What a replay says of an event.
#[derive(Clone, Debug, PartialEq)]
pub enum Verification {
    /// It says the same.
    Follows,
    /// The same subject violates the rule in the same window or at the same time, with another number.
    FollowsWith {
        /// What the replay has found.
        observed: Option<f64>,
    },
    /// The same subject violates the rule there, with another result.
    Differs {
        /// What the replay has found.
        finding: Box<Finding>,
    },
    /// Nothing of the kind happens.
    Absent,
}

impl fmt::Display for Verification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |n: &Option<f64>| n.map_or_else(|| "no number".to_owned(), |n| n.to_string());
        match self {
            Self::Follows => f.write_str("it follows from the telemetry"),
            Self::FollowsWith { observed } => write!(
                f,
                "it follows from the telemetry; in another order of records with {} observed",
                number(observed)
            ),
            Self::Differs { finding } => write!(
                f,
                "it does not follow: the telemetry says {}, {} observed",
                finding.result.as_str(),
                number(&finding.observed)
            ),
            Self::Absent => f.write_str("it does not follow: the telemetry says nothing of the kind"),
        }
    }
}

impl Verification {
    /// Whether the event follows.
    #[must_use]
    pub fn is_right(&self) -> bool {
        matches!(self, Self::Follows | Self::FollowsWith { .. })
    }
}

/// Holds an event against those of a replay of its rule. An event that ends a directive follows if the replay ends one
/// about the same subject at the same time.
#[must_use]
pub fn verify(event: &EnforcementEvent, replayed: &[EnforcementEvent]) -> Verification {
    let data = &event.data;
    let of_subject = replayed
        .iter()
        .filter(|other| other.data.rule.name == data.rule.name && other.data.selector == data.selector)
        .filter(|other| other.data.state.is_ended() == data.state.is_ended());
    if data.state.is_ended() {
        let is_it = |other: &EnforcementEvent| other.data.state == data.state && other.time == event.time;
        return if of_subject.into_iter().any(is_it) { Verification::Follows } else { Verification::Absent };
    }
    let is_there = |other: &&EnforcementEvent| match data.finding.window {
        Some(window) => other.data.finding.window == Some(window),
        None => other.time == event.time,
    };
    let there: Vec<&Finding> = of_subject.filter(is_there).map(|other| &other.data.finding).collect();
    let same_result: Vec<&&Finding> = there.iter().filter(|found| found.result == data.finding.result).collect();
    if same_result.iter().any(|found| is_close(found.observed, data.finding.observed)) {
        return Verification::Follows;
    }
    match (same_result.first(), there.last()) {
        (Some(found), _) => Verification::FollowsWith { observed: found.observed },
        (None, Some(found)) => Verification::Differs { finding: Box::new((*found).clone()) },
        (None, None) => Verification::Absent,
    }
}

fn is_close(a: Option<f64>, b: Option<f64>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => (a - b).abs() <= CLOSE * a.abs().max(b.abs()).max(1.0),
        (a, b) => a == b,
    }
}

/// What a rule reads.
#[must_use]
pub fn signals(rule: &CompiledRule) -> Vec<Signal> {
    let tables: Vec<Table> = match &rule.kind {
        RuleKind::Joined(joined) => joined.tables.to_vec(),
        RuleKind::RowWise(_) | RuleKind::Windowed(_) => vec![rule.table],
    };
    let mut signals: Vec<Signal> = tables.into_iter().map(Table::signal).collect();
    signals.dedup();
    signals
}

/// From which event time on rows may have had a part in an event of one of the rules.
#[must_use]
pub fn needed_from(rules: &RuleSet, rule: &CompiledRule, event: &EnforcementEvent) -> EventTime {
    let start = event.data.finding.window.map_or(event.time, |window| window.start);
    match &rule.kind {
        RuleKind::RowWise(_) => start,
        RuleKind::Windowed(windowed) => {
            let spec = rules.stores[windowed.store].aggregation.spec();
            start.plus(-back_ns(spec, start, windowed.finish.rows_back()))
        }
        RuleKind::Joined(joined) => {
            let bounds = joined.join.bounds();
            let reach_ns = bounds.from_ns.abs().max(bounds.to_ns.abs()).saturating_add(joined.join.pane_ns());
            start.plus(-reach_ns)
        }
    }
}

/// How long so many windows before the one that begins at `start` reach back.
fn back_ns(spec: WindowSpec, start: EventTime, rows_back: usize) -> i64 {
    let Window { end, .. } = spec.first_ending_after(start);
    let step_ns = spec.end_after(spec.first_ending_after(start)).0.saturating_sub(end.0);
    i64::try_from(rows_back).unwrap_or(i64::MAX).saturating_mul(step_ns)
}

#[cfg(test)]
mod tests {
    use lictor_schemas::event::{Revision, State, WindowBounds};
    use lictor_schemas::genops::{Action, PolicyResult, ReasonCode, Severity};
    use lictor_schemas::rule::{Mode, RuleHeader, RuleVersion};
    use lictor_schemas::violation::Subject;
    use serde_json::{Map, json};

    use super::*;

    fn event(state: State, result: PolicyResult, observed: f64, at: i64) -> EnforcementEvent {
        let rule = RuleHeader {
            name: "r".to_owned(),
            description: String::new(),
            action: Action::Block,
            reason_code: ReasonCode::parse("BUDGET_EXCEEDED").unwrap(),
            severity: Severity::Warning,
            owner: String::new(),
            mode: Mode::Enforce,
            ttl_ns: 1,
            for_ns: 0,
            keep_firing_for_ns: 0,
            repeat_interval_ns: None,
            file: "r.sql".to_owned(),
            version: RuleVersion("v".to_owned()),
        };
        let window = WindowBounds { start: EventTime(0), end: EventTime(10), kind: None };
        let finding = Finding { result, observed: Some(observed), ..Finding::cleared(Some(window)) };
        let subject = Subject(Map::from_iter([("team".to_owned(), json!("docs"))]));
        let (at, valid_until) = (EventTime(at), EventTime(20));
        let (mode, started_at) = (Mode::Enforce, None);
        let revision = Revision {
            directive_id: "d",
            revision: 1,
            state,
            subject: &subject,
            finding,
            mode,
            started_at,
            at,
            valid_until,
        };
        EnforcementEvent::new("lictor", &rule, revision)
    }

    #[test]
    fn an_event_follows_if_a_replay_says_the_same_of_its_subject_in_its_window() {
        let (blocked, warned) = (PolicyResult::Blocked, PolicyResult::Warning);
        let found = event(State::Firing, blocked, 5.0, 7);
        let check = |other: EnforcementEvent| verify(&found, &[other]);
        assert_eq!(check(event(State::Updated, blocked, 5.000_000_000_1, 9)), Verification::Follows);
        let with = Verification::FollowsWith { observed: Some(6.0) };
        assert_eq!(check(event(State::Firing, blocked, 6.0, 9)), with);
        assert!(matches!(check(event(State::Firing, warned, 5.0, 7)), Verification::Differs { .. }));
        assert_eq!(verify(&found, &[]), Verification::Absent);
        assert!(with.is_right() && !Verification::Absent.is_right());
    }

    #[test]
    fn an_end_follows_if_a_replay_ends_something_at_the_same_time() {
        let allowed = PolicyResult::Allowed;
        let over = event(State::Resolved, allowed, 0.0, 10);
        assert_eq!(verify(&over, &[event(State::Resolved, allowed, 0.0, 10)]), Verification::Follows);
        for other in [event(State::Resolved, allowed, 0.0, 11), event(State::Firing, allowed, 0.0, 10)] {
            assert_eq!(verify(&over, &[other]), Verification::Absent);
        }
    }
}
