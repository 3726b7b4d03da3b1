//! Whether the events of a step are the expected ones.

use lictor_schemas::event::EnforcementEvent;
use serde_json::{Value, json};

use super::Row;

/// Numbers agree if they differ by less than this share: sums of cents depend on the order of adding.
const TOLERANCE: f64 = 1e-9;

/// An event as tests name its fields: `rule`, `state`, `subject`, `window`, and everything of its data.
pub(super) fn fields_of(event: &EnforcementEvent) -> Row {
    let mut fields = match serde_json::to_value(&event.data) {
        Ok(Value::Object(fields)) => fields,
        _ => Row::new(),
    };
    let subject = fields.remove("selector").and_then(|mut s| s.get_mut("match").map(Value::take));
    fields.insert("rule".to_owned(), json!(event.data.rule.name));
    fields.insert("subject".to_owned(), subject.unwrap_or_default());
    fields.insert("time".to_owned(), json!(event.time.to_rfc3339()));
    fields
}

/// What is wrong with a step: expectations that no event meets and events that nobody expected. Empty if all is well.
pub(super) fn differences(expected: &[Row], events: &[Row]) -> Vec<String> {
    let mut left: Vec<&Row> = events.iter().collect();
    let mut lines = Vec::new();
    for wanted in expected {
        match left.iter().position(|event| meets(wanted, event)) {
            Some(found) => drop(left.remove(found)),
            None => lines.push(format!("- {}", text_of(wanted))),
        }
    }
    let shown = |event: &Row| {
        let keys = ["rule", "state", "result", "subject", "observed", "threshold", "time"];
        keys.iter().filter_map(|k| Some(((*k).to_owned(), event.get(*k)?.clone()))).collect::<Row>()
    };
    lines.extend(left.into_iter().map(|event| format!("+ {}", text_of(&shown(event)))));
    lines
}

fn text_of(row: &Row) -> String {
    Value::Object(row.clone()).to_string()
}

fn meets(wanted: &Row, event: &Row) -> bool {
    wanted.iter().all(|(name, value)| event.get(name).map_or(value.is_null(), |found| agrees(value, found)))
}

fn agrees(wanted: &Value, found: &Value) -> bool {
    match (wanted, found) {
        (Value::Number(a), Value::Number(b)) => match (a.as_f64(), b.as_f64()) {
            (Some(a), Some(b)) => (a - b).abs() <= TOLERANCE * a.abs().max(b.abs()).max(1.0),
            _ => a == b,
        },
        (Value::Object(a), Value::Object(b)) => meets(a, b),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| agrees(a, b)),
        (a, b) => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(value: Value) -> Row {
        match value {
            Value::Object(row) => row,
            _ => panic!("no object"),
        }
    }

    #[test]
    fn only_named_fields_are_compared_and_order_does_not_matter() {
        let events = [row(json!({"rule": "a", "observed": 0.3})), row(json!({"rule": "b", "observed": 2}))];
        let expected = [row(json!({"rule": "b"})), row(json!({"observed": 0.1 + 0.2}))];
        assert_eq!(differences(&expected, &events), Vec::<String>::new());
    }

    #[test]
    fn what_is_missing_and_what_is_too_much_are_both_said() {
        let lines = differences(&[row(json!({"rule": "a"}))], &[row(json!({"rule": "b", "state": "firing"}))]);
        assert_eq!(lines, [r#"- {"rule":"a"}"#, r#"+ {"rule":"b","state":"firing"}"#]);
    }
}
