//! Whether an event follows from the telemetry that it was made of: the rule, the same code, the rows read once more.
//!
//! An event about a whole window says the same in every replay. One of a rule that speaks on update says how much there
//! was with the record that crossed the line, and records of several partitions come in another order each time: then
//! it follows if the line is crossed in its window, and how much there was is told. What depends on more than the
//! telemetry that was read is never called wrong: how a directive ended, and what a rule looks back at.

use std::fmt;

use lictor_queries::{CompiledRule, Emission, JoinedThen, RuleKind, RuleSet, WindowSpec};
use lictor_schemas::event::{EnforcementEvent, Finding, Instruction, State};
use lictor_schemas::tables::{Signal, Table};
use lictor_schemas::time::{EventTime, Window};

/// Numbers that were summed up in another order differ in their last digits.
const CLOSE: f64 = 1e-9;

/// What a replay says of an event.
#[derive(Clone, Debug, PartialEq)]
pub enum Verification {
    /// It says the same.
    Follows,
    /// The same subject violates the rule in the same window, with another number: the rule speaks on update.
    FollowsWith {
        /// What the replay has found.
        observed: Option<f64>,
    },
    /// The same subject violates the rule there, and something else is said of it.
    Differs {
        /// What is said in other words.
        fields: Vec<&'static str>,
        /// What the replay has found.
        finding: Box<Finding>,
    },
    /// Nothing of the kind happens.
    Absent,
    /// Telemetry alone does not tell.
    Unknown {
        /// Why.
        why: &'static str,
    },
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
            Self::Differs { fields, finding } => write!(
                f,
                "it does not follow: the telemetry says {}, {} observed, and differs in {}",
                finding.result.as_str(),
                number(&finding.observed),
                fields.join(", ")
            ),
            Self::Absent => f.write_str("it does not follow: the telemetry says nothing of the kind"),
            Self::Unknown { why } => write!(f, "it cannot be told: {why}"),
        }
    }
}

/// Holds an event against those of a replay of its rule.
#[must_use]
pub fn verify(
    event: &EnforcementEvent,
    replayed: &[EnforcementEvent],
    rule: &CompiledRule,
    set: &RuleSet,
) -> Verification {
    let data = &event.data;
    let of_subject: Vec<&EnforcementEvent> = replayed
        .iter()
        .filter(|other| other.data.rule.name == data.rule.name && other.data.selector == data.selector)
        .collect();
    match data.state {
        State::Superseded => return Verification::Unknown { why: "its rule was changed or removed" },
        State::Resolved | State::Expired => {
            let is_it = |other: &&EnforcementEvent| other.data.state == data.state && other.time == event.time;
            let why = "how a directive ends depends on when it began";
            return if of_subject.iter().any(is_it) { Verification::Follows } else { Verification::Unknown { why } };
        }
        State::Firing | State::Updated => {}
    }
    let found: Vec<&&EnforcementEvent> = of_subject.iter().filter(|other| is_there(event, other)).collect();
    let verification = compare(event, &found, rule, &of_subject);
    let is_right = matches!(verification, Verification::Follows | Verification::FollowsWith { .. });
    match looks_back(rule, set) {
        Some(why) if !is_right => Verification::Unknown { why },
        _ => verification,
    }
}

/// Whether `other` says that its subject violates the rule where `event` says so: in the window, or as of a row that
/// still holds.
fn is_there(event: &EnforcementEvent, other: &EnforcementEvent) -> bool {
    if other.data.state.is_ended() {
        return false;
    }
    match (event.data.finding.window, other.data.finding.window) {
        (Some(window), Some(found)) => (window.start, window.end) == (found.start, found.end),
        (None, None) => (other.time..=other.data.valid_until).contains(&event.time),
        _ => false,
    }
}

fn compare(
    event: &EnforcementEvent,
    found: &[&&EnforcementEvent],
    rule: &CompiledRule,
    of_subject: &[&EnforcementEvent],
) -> Verification {
    let finding = &event.data.finding;
    let same_result: Vec<&&&EnforcementEvent> =
        found.iter().filter(|other| other.data.finding.result == finding.result).collect();
    let is_it = |other: &&&&&EnforcementEvent| is_close(other.data.finding.observed, finding.observed);
    let Some(best) = same_result.iter().find(is_it).or(same_result.first()) else {
        return found.last().map_or(Verification::Absent, |other| Verification::Differs {
            fields: vec!["result"],
            finding: Box::new(other.data.finding.clone()),
        });
    };
    let theirs = &best.data.finding;
    let until = of_subject.iter().map(|other| other.data.valid_until).max();
    let is_same_number = is_close(theirs.observed, finding.observed);
    let differs = [
        ("observed", !is_same_number && !speaks_on_update(rule)),
        ("reason_code", theirs.reason_code != finding.reason_code),
        ("threshold", !is_close(theirs.threshold, finding.threshold)),
        ("unit", theirs.unit != finding.unit),
        ("params", is_same_number && theirs.params != finding.params),
        ("action", event.data.action != Instruction::of(rule.header.action, finding.result)),
        ("severity", event.data.severity != rule.header.severity),
        ("valid_until", Some(event.data.valid_until) > until),
    ];
    let fields: Vec<&str> = differs.into_iter().filter(|(_, differs)| *differs).map(|(field, _)| field).collect();
    match (fields.is_empty(), is_same_number) {
        (true, true) => Verification::Follows,
        (true, false) => Verification::FollowsWith { observed: theirs.observed },
        (false, _) => Verification::Differs { fields, finding: Box::new(theirs.clone()) },
    }
}

fn speaks_on_update(rule: &CompiledRule) -> bool {
    let emission = match &rule.kind {
        RuleKind::RowWise(_) => None,
        RuleKind::Windowed(windowed) => Some(windowed.emission),
        RuleKind::Joined(joined) => match &joined.then {
            JoinedThen::Rows(_) => None,
            JoinedThen::Windowed { rule, .. } => Some(rule.emission),
        },
    };
    emission == Some(Emission::OnUpdate)
}

/// Why what is not found in a replay may be right all the same.
fn looks_back(rule: &CompiledRule, set: &RuleSet) -> Option<&'static str> {
    match &rule.kind {
        RuleKind::RowWise(_) => None,
        RuleKind::Joined(_) => Some("joined rows depend on more than was read"),
        RuleKind::Windowed(windowed) if windowed.finish.rows_back() > 0 => {
            Some("the rule looks back at earlier windows, and more of them may count than were read")
        }
        RuleKind::Windowed(windowed) if windowed.finish.gap_fill().is_some() => {
            Some("whom gaps are filled for depends on more than was read")
        }
        RuleKind::Windowed(windowed) => match set.stores[windowed.store].aggregation.spec() {
            WindowSpec::Session { .. } => Some("a session may have begun before what was read"),
            _ => None,
        },
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
    let header = &rule.header;
    let held_ns = header.for_ns.saturating_add(header.keep_firing_for_ns);
    let start = event.data.finding.window.map_or(event.time, |window| window.start).plus(-held_ns);
    match &rule.kind {
        RuleKind::RowWise(_) => start.plus(-header.ttl_ns),
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
    use lictor_queries::{References, RuleFile, compile};
    use lictor_schemas::event::{Revision, WindowBounds};
    use lictor_schemas::genops::{Action, PolicyResult, ReasonCode};
    use lictor_schemas::rule::{Mode, RuleHeader, RuleVersion};
    use lictor_schemas::violation::Subject;
    use serde_json::{Map, json};

    use super::*;

    fn event(state: State, result: PolicyResult, observed: f64, at: i64) -> EnforcementEvent {
        let rule = RuleHeader {
            file: "r.sql".to_owned(),
            version: RuleVersion("v".to_owned()),
            ..RuleHeader::new("r", Action::Block, ReasonCode::parse("BUDGET_EXCEEDED").unwrap())
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

    /// A rule of windows that speaks on close or on update.
    fn compiled(emit: &str) -> RuleSet {
        let text = format!(
            "CREATE RULE r WITH (action = 'block', reason_code = 'BUDGET_EXCEEDED') AS
             SELECT team, window_start, window_end, count(*) AS observed
             FROM TUMBLE(spans, event_time, INTERVAL '1 day')
             GROUP BY team, window_start, window_end EMIT ON {emit};"
        );
        let (rules, faults) = compile(&[RuleFile { file: "r.sql".into(), text }], &References::new());
        assert_eq!(faults, []);
        rules
    }

    fn check(emit: &str, event: &EnforcementEvent, replayed: &[EnforcementEvent]) -> Verification {
        let rules = compiled(emit);
        verify(event, replayed, &rules.rules[0], &rules)
    }

    #[test]
    fn an_event_follows_if_a_replay_says_the_same_of_its_subject_in_its_window() {
        let (blocked, warned) = (PolicyResult::Blocked, PolicyResult::Warning);
        let found = event(State::Firing, blocked, 5.0, 7);
        let other = event(State::Updated, blocked, 5.000_000_000_1, 9);
        assert_eq!(check("CLOSE", &found, &[other]), Verification::Follows);
        let more = [event(State::Firing, blocked, 6.0, 9)];
        assert_eq!(check("UPDATE", &found, &more), Verification::FollowsWith { observed: Some(6.0) });
        let fields = |verification: Verification| match verification {
            Verification::Differs { fields, .. } => fields,
            other => panic!("{other}"),
        };
        assert_eq!(fields(check("CLOSE", &found, &more)), ["observed"], "a whole window has one sum");
        assert_eq!(fields(check("CLOSE", &found, &[event(State::Firing, warned, 5.0, 7)])), ["result"]);
        assert_eq!(check("CLOSE", &found, &[]), Verification::Absent);
        let mut forged = found.clone();
        forged.data.valid_until = EventTime(99);
        forged.data.action = Instruction::Warn;
        forged.data.finding.threshold = Some(1.0);
        assert_eq!(fields(check("CLOSE", &forged, &[found])), ["threshold", "action", "valid_until"]);
    }

    #[test]
    fn an_end_follows_if_a_replay_ends_something_at_the_same_time_and_is_never_called_wrong() {
        let allowed = PolicyResult::Allowed;
        let over = event(State::Resolved, allowed, 0.0, 10);
        assert_eq!(check("CLOSE", &over, &[event(State::Resolved, allowed, 0.0, 10)]), Verification::Follows);
        for other in [event(State::Resolved, allowed, 0.0, 11), event(State::Firing, allowed, 0.0, 10)] {
            assert!(matches!(check("CLOSE", &over, &[other]), Verification::Unknown { .. }));
        }
        let superseded = event(State::Superseded, allowed, 0.0, 10);
        assert!(matches!(check("CLOSE", &superseded, &[]), Verification::Unknown { .. }));
    }
}
