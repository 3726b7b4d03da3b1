//! Whether the events of a step are the expected ones, and what is different if they are not.

use lictor_schemas::event::EnforcementEvent;
use lictor_schemas::time::EventTime;
use serde_json::{Value, json};

use super::Row;
use super::yaml_tree::flow_text;

/// Numbers agree if they differ by less than this share: sums of cents depend on the order of adding.
const TOLERANCE: f64 = 1e-9;

/// What an event is told by, in the order in which it is shown.
const TELLING: [&str; 7] = ["rule", "state", "result", "subject", "observed", "threshold", "at"];

/// The instant of an event: what rows call `at`, too.
const AT: &str = "at";

/// An event as tests name its fields: `rule`, `state`, `subject`, `at`, `window`, and everything of its data.
pub(super) fn fields_of(event: &EnforcementEvent) -> Row {
    let mut fields = match serde_json::to_value(&event.data) {
        Ok(Value::Object(fields)) => fields,
        _ => Row::new(),
    };
    let subject = fields.remove("selector").and_then(|mut s| s.get_mut("match").map(Value::take));
    fields.insert("rule".to_owned(), json!(event.data.rule.name));
    fields.insert("subject".to_owned(), subject.unwrap_or_default());
    let at = json!(event.time.to_rfc3339());
    fields.insert("time".to_owned(), at.clone());
    fields.insert(AT.to_owned(), at);
    fields
}

/// The fields that a new expectation of an event names, in their order.
pub(super) fn telling(event: &Row) -> Vec<(&'static str, Value)> {
    TELLING.iter().filter_map(|name| Some((*name, event.get(*name)?.clone()))).collect()
}

/// What expectations and events have to do with each other. Numbers are those of an expectation and of an event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Comparison {
    /// An expectation that no event meets, and the event that comes closest.
    pub(super) different: Vec<(usize, usize)>,
    /// Expectations without an event.
    pub(super) missing: Vec<usize>,
    /// Events that nobody expected.
    pub(super) unexpected: Vec<usize>,
}

impl Comparison {
    pub(super) fn new(expected: &[Row], events: &[Row]) -> Self {
        let met = matching(expected, events);
        let mut missing: Vec<usize> = (0..expected.len()).filter(|e| !met.contains(&Some(*e))).collect();
        let mut unexpected: Vec<usize> = (0..events.len()).filter(|event| met[*event].is_none()).collect();
        let mut different = Vec::new();
        while let Some((e, event)) = closest(expected, events, &missing, &unexpected) {
            missing.retain(|other| *other != e);
            unexpected.retain(|other| *other != event);
            different.push((e, event));
        }
        different.sort_unstable();
        Self { different, missing, unexpected }
    }

    pub(super) fn is_equal(&self) -> bool {
        self.different.is_empty() && self.missing.is_empty() && self.unexpected.is_empty()
    }

    /// The differences as lines: `-` was expected, `+` was found, anything else is the same.
    pub(super) fn lines(&self, expected: &[Row], events: &[Row]) -> Vec<String> {
        let mut lines = Vec::new();
        for (e, event) in &self.different {
            lines.push("  another event than expected:".to_owned());
            lines.extend(field_lines(&expected[*e], &events[*event]));
        }
        for e in &self.missing {
            lines.push("  no such event:".to_owned());
            lines.extend(in_order(&expected[*e]).map(|(name, value)| format!("- {name}: {}", flow_text(value))));
        }
        for event in &self.unexpected {
            lines.push("  not expected:".to_owned());
            let told = telling(&events[*event]);
            lines.extend(told.iter().map(|(name, value)| format!("+ {name}: {}", flow_text(value))));
        }
        lines
    }
}

/// For each event the expectation that it meets, as many as can be met at a time: one that names few fields leaves the
/// event to one that names more, if it can have another (augmenting paths).
fn matching(expected: &[Row], events: &[Row]) -> Vec<Option<usize>> {
    fn place(e: usize, meets: &[Vec<bool>], met: &mut Vec<Option<usize>>, tried: &mut Vec<bool>) -> bool {
        for event in 0..met.len() {
            if !meets[e][event] || std::mem::replace(&mut tried[event], true) {
                continue;
            }
            if met[event].is_none_or(|other| place(other, meets, met, tried)) {
                met[event] = Some(e);
                return true;
            }
        }
        false
    }
    let meets: Vec<Vec<bool>> =
        expected.iter().map(|e| events.iter().map(|event| is_met(e, event)).collect()).collect();
    let mut met = vec![None; events.len()];
    for e in 0..expected.len() {
        place(e, &meets, &mut met, &mut vec![false; events.len()]);
    }
    met
}

/// Of those that are left, the expectation and the event that have most in common; both must be of one rule and agree
/// in something.
fn closest(expected: &[Row], events: &[Row], missing: &[usize], unexpected: &[usize]) -> Option<(usize, usize)> {
    let mut best: Option<(usize, (usize, usize))> = None;
    for e in missing {
        for event in unexpected {
            let (wanted, found) = (&expected[*e], &events[*event]);
            let is_other = |name: &str| wanted.get(name).is_some_and(|value| found.get(name) != Some(value));
            let common = wanted.iter().filter(|(name, value)| field_agrees(name, value, found)).count();
            if common > 0 && !is_other("rule") && best.is_none_or(|(most, _)| common > most) {
                best = Some((common, (*e, *event)));
            }
        }
    }
    best.map(|(_, pair)| pair)
}

/// The names of the fields in which an event is not as expected.
pub(super) fn disagreeing<'a>(wanted: &'a Row, found: &'a Row) -> impl Iterator<Item = &'a String> {
    wanted.iter().filter(|(name, value)| !field_agrees(name, value, found)).map(|(name, _)| name)
}

fn field_lines(wanted: &Row, found: &Row) -> Vec<String> {
    let mut lines = Vec::new();
    for (name, value) in in_order(wanted) {
        let text = flow_text(value);
        if field_agrees(name, value, found) {
            lines.push(format!("  {name}: {text}"));
        } else {
            let other = found.get(name).map_or_else(|| "null".to_owned(), flow_text);
            lines.push(format!("- {name}: {text}"));
            lines.push(format!("+ {name}: {other}"));
        }
    }
    lines
}

/// The telling fields first, the others by name.
fn in_order(row: &Row) -> impl Iterator<Item = (&str, &Value)> {
    let others = row.iter().filter(|(name, _)| !TELLING.contains(&name.as_str())).map(|(n, v)| (n.as_str(), v));
    TELLING.iter().filter_map(|name| Some((*name, row.get(*name)?))).chain(others)
}

fn is_met(wanted: &Row, event: &Row) -> bool {
    wanted.iter().all(|(name, value)| field_agrees(name, value, event))
}

fn field_agrees(name: &str, wanted: &Value, event: &Row) -> bool {
    event.get(name).map_or(wanted.is_null(), |found| agrees(wanted, found))
}

fn agrees(wanted: &Value, found: &Value) -> bool {
    match (wanted, found) {
        (Value::Number(a), Value::Number(b)) => match (a.as_f64(), b.as_f64()) {
            (Some(a), Some(b)) => (a - b).abs() <= TOLERANCE * a.abs().max(b.abs()).max(1.0),
            _ => a == b,
        },
        (Value::Object(a), Value::Object(b)) => is_met(a, b),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| agrees(a, b)),
        (Value::String(a), Value::String(b)) => a == b || is_same_instant(a, b),
        (a, b) => a == b,
    }
}

/// Instants may be written in several ways: `10:00:00Z`, `10:00:00.000Z`, `11:00:00+01:00`.
fn is_same_instant(a: &str, b: &str) -> bool {
    EventTime::from_rfc3339(a).is_ok_and(|a| EventTime::from_rfc3339(b) == Ok(a))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(value: Value) -> Vec<Row> {
        serde_json::from_value(value).unwrap()
    }

    #[track_caller]
    fn check(expected: Value, events: Value, lines: &[&str]) {
        let (expected, events) = (rows(expected), rows(events));
        let comparison = Comparison::new(&expected, &events);
        assert_eq!(comparison.lines(&expected, &events), lines);
        assert_eq!(comparison.is_equal(), lines.is_empty());
    }

    #[test]
    fn only_named_fields_are_compared_and_order_does_not_matter() {
        let events = json!([{"rule": "a", "observed": 0.3}, {"rule": "b", "observed": 2}]);
        check(json!([{"rule": "b"}, {"observed": 0.1 + 0.2}]), events, &[]);
    }

    #[test]
    fn a_vague_expectation_leaves_the_event_that_a_precise_one_needs() {
        let events = json!([{"rule": "a", "observed": 1}, {"rule": "a", "observed": 2}]);
        check(json!([{"rule": "a"}, {"rule": "a", "observed": 1}]), events, &[]);
    }

    #[test]
    fn instants_are_compared_as_instants() {
        let events = json!([{"at": "2026-03-01T10:00:00Z"}]);
        check(json!([{"at": "2026-03-01T11:00:00.000+01:00"}]), events.clone(), &[]);
        let lines = ["  no such event:", "- at: 2026-03-01T10:00:01Z", "  not expected:", "+ at: 2026-03-01T10:00:00Z"];
        check(json!([{"at": "2026-03-01T10:00:01Z"}]), events, &lines);
    }

    #[test]
    fn an_event_that_is_nearly_right_is_compared_field_by_field() {
        let events = json!([{"rule": "a", "result": "WARNING", "observed": 81, "state": "firing"}]);
        let lines = [
            "  another event than expected:",
            "  rule: a",
            "  state: firing",
            "- result: BLOCKED",
            "+ result: WARNING",
            "- unit: USD",
            "+ unit: null",
        ];
        check(json!([{"rule": "a", "state": "firing", "result": "BLOCKED", "unit": "USD"}]), events, &lines);
    }

    #[test]
    fn what_is_missing_and_what_is_too_much_are_both_said() {
        let lines = ["  no such event:", "- rule: a", "  not expected:", "+ rule: b", "+ state: firing"];
        check(json!([{"rule": "a"}]), json!([{"rule": "b", "state": "firing", "mode": "enforce"}]), &lines);
    }

    #[test]
    fn of_several_events_the_closest_one_is_shown() {
        let events =
            json!([{"rule": "a", "subject": {"team": "x"}}, {"rule": "a", "subject": {"team": "y"}, "unit": "s"}]);
        let expected = rows(json!([{"rule": "a", "subject": {"team": "y"}, "unit": "ms"}]));
        let comparison = Comparison::new(&expected, &rows(events));
        assert_eq!((comparison.different, comparison.unexpected), (vec![(0, 1)], vec![0]));
    }
}
