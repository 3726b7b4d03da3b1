//! The worked examples, the type and the JSON Schema, held together.

use std::collections::BTreeSet;

use super::tests::{rule, schema_errors};
use super::*;
use crate::rule::RuleVersion;

const EXAMPLES: [(&str, &str); 3] = [
    ("row_wise_block", include_str!("../../examples/row_wise_block.json")),
    ("budget_escalation", include_str!("../../examples/budget_escalation.json")),
    ("resolved_in_shadow", include_str!("../../examples/resolved_in_shadow.json")),
];

fn examples() -> impl Iterator<Item = (&'static str, Value, EnforcementEvent)> {
    EXAMPLES.into_iter().map(|(name, text)| {
        let event = EnforcementEvent::from_json(text.as_bytes()).unwrap_or_else(|error| panic!("{name}: {error}"));
        (name, serde_json::from_str(text).unwrap(), event)
    })
}

#[test]
fn examples_are_read_and_written_as_they_stand_and_satisfy_the_schema() {
    for (name, text, event) in examples() {
        let written: Value = serde_json::from_slice(&event.to_json()).unwrap();
        assert_eq!(written, text, "{name}");
        assert_eq!(schema_errors(&text), Vec::<String>::new(), "{name}");
    }
}

/// When the directives of the examples began: window start or row, as [`directive_id`] has it.
const BEGAN: [&str; 3] = ["2026-03-01T10:00:01.250Z", "2026-03-01T00:00:00Z", "2026-03-01T15:40:00Z"];

#[test]
fn examples_say_what_their_rules_would_say() {
    for ((name, _, expected), began) in examples().zip(BEGAN) {
        let data = expected.data.clone();
        let RuleReference { name: of_rule, version, file, owner, description } = data.rule.clone();
        let (severity, version, metric) = (data.severity, RuleVersion(version), data.metric);
        let header = RuleHeader { name: of_rule, version, file, owner, description, severity, metric, ..rule() };
        let subject = Subject(data.selector.matches);
        let began = EventTime::from_rfc3339(began).unwrap();
        let revision = Revision {
            directive_id: &directive_id((&header.name, data.mode), &subject.to_key(), began, 0),
            revision: data.revision,
            state: data.state,
            subject: &subject,
            finding: data.finding,
            mode: data.mode,
            started_at: data.started_at,
            at: data.valid_from,
            valid_until: data.valid_until,
        };
        let mut event = EnforcementEvent::new("prod-eu", &header, revision);
        event.data.detected_at = expected.data.detected_at;
        assert_eq!(event, expected, "{name}");
    }
}

/// The paths of all properties that a schema names; array items have no step of their own.
fn properties(schema: &Value, whole: &Value, path: &str, out: &mut BTreeSet<String>) {
    let reference = schema["$ref"].as_str().and_then(|reference| reference.strip_prefix('#'));
    let schema = reference.map_or(schema, |pointer| whole.pointer(pointer).unwrap());
    if let Some(items) = schema.get("items") {
        properties(items, whole, path, out);
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}/{name}");
        properties(property, whole, &path, out);
        out.insert(path);
    }
}

/// The paths of all fields of a value.
fn fields(value: &Value, path: &str, out: &mut BTreeSet<String>) {
    value.as_array().into_iter().flatten().for_each(|item| fields(item, path, out));
    for (name, field) in value.as_object().into_iter().flatten() {
        let path = format!("{path}/{name}");
        fields(field, &path, out);
        out.insert(path);
    }
}

#[test]
fn examples_show_every_property_of_the_schema() {
    let (mut known, mut shown) = (BTreeSet::new(), BTreeSet::new());
    let schema: Value = serde_json::from_str(JSON_SCHEMA).unwrap();
    properties(&schema, &schema, "", &mut known);
    examples().for_each(|(_, text, _)| fields(&text, "", &mut shown));
    assert!(known.len() > 45, "{known:?}");
    assert_eq!(known.difference(&shown).collect::<Vec<_>>(), Vec::<&String>::new());
    let is_free = |path: &&String| {
        ["/data/evidence/", "/data/params/", "/data/selector/match/"].iter().any(|free| path.starts_with(free))
    };
    let unknown: Vec<_> = shown.difference(&known).filter(|path| !is_free(path)).collect();
    assert_eq!(unknown, Vec::<&String>::new());
}

#[test]
fn a_word_outside_its_closed_set_is_refused_by_type_and_schema() {
    let words = ["reason_code", "result", "state", "mode", "action", "severity"];
    for (name, text, _) in examples() {
        for word in words.iter().filter(|word| text["data"].get(**word).is_some()) {
            let mut message = text.clone();
            message["data"][*word] = json!("FREE TEXT");
            assert!(EnforcementEvent::from_json(message.to_string().as_bytes()).is_err(), "{name}: {word}");
            assert!(!schema_errors(&message).is_empty(), "{name}: {word}");
        }
    }
    let mut message = examples().nth(1).unwrap().1;
    message["data"]["window"]["kind"] = json!("daily");
    assert!(EnforcementEvent::from_json(message.to_string().as_bytes()).is_err());
    assert!(!schema_errors(&message).is_empty());
}

/// Published by the first version: nothing it lacks is required.
#[test]
fn an_event_without_what_was_added_later_is_read() {
    let (_, mut message, event) = examples().nth(1).unwrap();
    let data = message["data"].as_object_mut().unwrap();
    assert!(data.remove("started_at").is_some() && data.remove("metric").is_some());
    message["data"]["window"].as_object_mut().unwrap().remove("kind");
    assert_eq!(schema_errors(&message), Vec::<String>::new());
    let read = EnforcementEvent::from_json(message.to_string().as_bytes()).unwrap();
    assert_eq!((read.id, read.data.started_at), (event.id, None));
    assert_eq!(read.data.finding.window.unwrap().kind, None);
}
