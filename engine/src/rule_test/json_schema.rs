//! The JSON Schema of test files, for editors: which steps there are, which columns rows have, which fields events.
//!
//! It is made of what the decoder and the event type say of themselves, so it knows every column with its meaning.

use lictor_schemas::tables::{ColumnDoc, Table, describe};
use serde_json::{Map, Value, json};

use super::NONE;

/// The event's own schema, which is held to the event's type.
pub const EVENT_SCHEMA: &str = include_str!("../../../schemas/enforcement-event.v1.schema.json");

/// The schema of `*.test.yaml`, draft 2020-12.
#[must_use]
pub fn json_schema() -> Value {
    let (event, mut definitions) = event();
    definitions.insert("event".to_owned(), event);
    definitions.insert("test".to_owned(), test());
    definitions.insert("step".to_owned(), step());
    definitions.insert("rows".to_owned(), json!({"type": "array", "items": {"type": "object"}}));
    for table in Table::ALL {
        definitions.insert(row_of(table), row(table));
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "https://github.com/lictor-dev/lictor/schemas/rule-test.v1.schema.json",
        "title": "Tests of lictor rules, *.test.yaml",
        "type": "object",
        "required": ["rules", "tests"],
        "additionalProperties": false,
        "properties": {
            "rules": {
                "description": "The rule files under test, beside this file; of the folder's other files only views \
                                and tables count.",
                "type": "array", "minItems": 1, "items": {"type": "string", "pattern": "\\.sql$"},
            },
            "tables": tables("Reference tables that replace the files' content."),
            "tests": {
                "description": "The tests, each on a fresh pipeline.",
                "type": "array", "items": {"$ref": "#/$defs/test"},
            },
        },
        "$defs": definitions,
    })
}

fn tables(what: &str) -> Value {
    json!({"description": what, "type": "object", "additionalProperties": {"$ref": "#/$defs/rows"}})
}

fn test() -> Value {
    let defaults =
        Table::ALL.map(|table| (table.name().to_owned(), json!({"$ref": format!("#/$defs/{}", row_of(table))})));
    json!({
        "type": "object",
        "required": ["name", "steps"],
        "additionalProperties": false,
        "properties": {
            "name": {"type": "string", "description": "What it shows."},
            "defaults": {
                "description": "Columns that rows of a table have unless they say otherwise.",
                "type": "object",
                "additionalProperties": false,
                "properties": Map::from_iter(defaults),
            },
            "steps": {
                "description": "What happens, in order.",
                "type": "array", "items": {"$ref": "#/$defs/step"},
            },
        },
    })
}

/// The key that says what a step is, and the keys that go with it.
const STEPS: [(&str, &[&str]); 6] = [
    ("rows", &["at", "partition", "values", "late"]),
    ("advance", &[]),
    ("idle", &[]),
    ("tables", &[]),
    ("restart", &[]),
    ("expect", &[]),
];

fn step() -> Value {
    let instant = |what: &str| json!({"type": "string", "format": "date-time", "description": what});
    let expect = json!({
        "description": "Exactly the events since the last `expect`, in any order; fields that are not named are not \
                        compared.",
        "oneOf": [{"const": NONE}, {"type": "array", "items": {"$ref": "#/$defs/event"}}],
    });
    let kind = |(kind, others): (&str, &[&str])| {
        let is_other = |name: &&str| *name != kind && !others.contains(name);
        let all = STEPS.iter().flat_map(|(kind, others)| [*kind].into_iter().chain(others.iter().copied()));
        let refused: Vec<Value> = all.filter(is_other).map(|name| json!({"required": [name]})).collect();
        json!({"required": [kind], "not": {"anyOf": refused}})
    };
    let columns = |table: Table| {
        json!({
            "if": {"properties": {"rows": {"const": table.name()}}, "required": ["rows"]},
            "then": {"properties": {"values": {"items": {"$ref": format!("#/$defs/{}", row_of(table))}}}},
        })
    };
    json!({
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "rows": {
                "description": "Rows of this table arrive, all in one Kafka record.",
                "enum": Table::ALL.map(Table::name),
            },
            "at": instant("The event time of the rows; a row's own `at` comes before it."),
            "partition": {"type": "integer", "minimum": 0, "description": "The input partition they arrive on."},
            "values": {"type": "array", "items": {"type": "object"}, "description": "The rows."},
            "late": {"type": "integer", "minimum": 0, "description": "So many of them come too late to count."},
            "advance": instant("The watermark moves here, as if all partitions were idle."),
            "idle": {
                "type": "string", "pattern": "^[0-9]+ *(ms|s|m|h|d)$",
                "description": "Nothing comes for so long: the clock goes on, and event time with it.",
            },
            "tables": tables("These reference tables change, as with a reload; the others stay as they are."),
            "restart": {
                "const": true,
                "description": "The process is killed, and another one begins with what it has committed.",
            },
            "expect": expect,
        },
        "oneOf": STEPS.map(kind),
        "allOf": Table::ALL.map(columns),
    })
}

fn row_of(table: Table) -> String {
    format!("row_of_{}", table.name())
}

fn row(table: Table) -> Value {
    let column = |column: ColumnDoc| {
        let unit = if column.unit.is_empty() { String::new() } else { format!(" [{}]", column.unit) };
        let description = format!("{}{unit}", column.doc);
        (column.name.to_owned(), json!({"type": types_of(&column), "description": description}))
    };
    let mut properties: Map<String, Value> = describe(table).into_iter().map(column).collect();
    let at = json!({"type": "string", "format": "date-time", "description": "The row's event time."});
    properties.insert("at".to_owned(), at);
    json!({
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
        "patternProperties": {
            "^attr:.": {"description": "An attribute of the record: attr('…') in rules."},
            "^resource_attr:.": {"description": "An attribute of the resource: resource_attr('…') in rules."},
        },
    })
}

/// What may stand in a test for a value of the column; null is as good as none.
fn types_of(column: &ColumnDoc) -> Value {
    match column.data_type.to_string().as_str() {
        "Int32" | "Int64" => json!(["integer", "null"]),
        "Float64" => json!(["number", "null"]),
        "Boolean" => json!(["boolean", "null"]),
        "Utf8View" => json!(["string", "number", "boolean", "array", "object", "null"]),
        _ => json!(["string", "integer", "null"]),
    }
}

/// What an expectation may say of an event, and the definitions that it needs.
fn event() -> (Value, Map<String, Value>) {
    let schema: Value = serde_json::from_str(EVENT_SCHEMA).unwrap_or_default();
    let mut definitions = schema["$defs"].as_object().cloned().unwrap_or_default();
    let directive = definitions.remove("directive").unwrap_or_default();
    let mut fields = directive["properties"].as_object().cloned().unwrap_or_default();
    fields.remove("selector");
    let instant = json!({"type": "string", "format": "date-time", "description": "Event time of the decision."});
    fields.insert("at".to_owned(), instant.clone());
    fields.insert("time".to_owned(), instant);
    fields.insert("rule".to_owned(), json!({"type": "string", "description": "The rule's name."}));
    let subject = json!({"type": "object", "description": "Whom it is about: column to value, those that are named."});
    fields.insert("subject".to_owned(), subject);
    // An expectation may leave out what an event never does, and say that something is not there.
    let mut definitions = Value::Object(definitions);
    relax(&mut definitions);
    let mut event = json!({"type": "object", "additionalProperties": false, "properties": fields});
    relax(&mut event["properties"]);
    (event, definitions.as_object().cloned().unwrap_or_default())
}

/// Takes out what an expectation need not keep to: fields that must be there, and forms of texts.
fn relax(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            let is_list = |value: &Value| value.is_array() || value.is_string();
            for constraint in ["required", "pattern", "minProperties", "minItems"] {
                if fields.get(constraint).is_some_and(|value| is_list(value) || value.is_number()) {
                    fields.remove(constraint);
                }
            }
            fields.values_mut().for_each(relax);
        }
        Value::Array(items) => items.iter_mut().for_each(relax),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
