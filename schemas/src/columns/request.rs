//! What a request says of itself, in the words in which directives select.
//!
//! A gateway asks before there is any telemetry of the call. What it knows are columns by name (`team`), or attributes
//! as its instrumentation calls them (`genops.team`, `gen_ai.request.model`). Both are read here as they would be read
//! from a span, so that a request and the telemetry that a rule has judged name a team or a provider alike.
//!
//! Invariant: values are compared as text; a number has one text, however it was written.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt::Write as _;

use serde_json::{Number, Value};

use super::vocabulary::spelled;
use super::{COLUMNS, ColumnSpec, ExtraSource, Kind, Reading};
use crate::otlp::cell::{read, write_list, write_text};
use crate::otlp::value::Value as Attribute;

/// A column that is called by its own name.
const OWN_NAME: u32 = 0;

/// Reads requests; made once, it costs a look-up per attribute.
#[derive(Debug)]
pub struct RequestReader {
    targets: HashMap<Box<str>, Vec<Target>>,
}

/// A column that an attribute feeds.
#[derive(Clone, Copy, Debug)]
struct Target {
    column: &'static ColumnSpec,
    reading: Reading,
    /// The lowest one of a column counts.
    rank: u32,
}

/// The columns of one request: each has one text, those that say nothing are not there.
///
/// In a hash map, since whoever asks chooses how many there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestColumns<'a> {
    columns: HashMap<&'a str, RequestColumn>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct RequestColumn {
    rank: u32,
    text: String,
}

impl RequestReader {
    /// Knows the canonical columns, the attributes that feed them, and `extra`, which comes before those.
    #[must_use]
    pub fn new(extra: &[ExtraSource]) -> Self {
        let mut targets: HashMap<Box<str>, Vec<Target>> = HashMap::new();
        for column in COLUMNS.iter().filter(|column| !column.tables.is_empty()) {
            let own = extra.iter().filter(|own| own.column == column.name);
            let own = own.map(|own| (own.attribute.as_str(), Reading::Plain));
            // Whether an entity is an agent is said by another attribute of the span.
            let sources = column.sources.iter().filter(|source| !matches!(source.reading, Reading::OfAgent));
            let sources = sources.map(|source| (source.attribute, source.reading));
            let named = [(column.name, Reading::Plain)].into_iter();
            for ((attribute, reading), rank) in named.chain(own).chain(sources).zip(OWN_NAME..) {
                targets.entry(attribute.into()).or_default().push(Target { column, reading, rank });
            }
        }
        Self { targets }
    }

    /// The columns that `attributes` (column or attribute names, scalar values) say something of.
    ///
    /// A name that is no canonical column is also taken as it is: a rule may have a column of its own (`AS tenant`).
    pub fn read<'a>(&self, attributes: impl IntoIterator<Item = (&'a str, &'a Value)>) -> RequestColumns<'a> {
        let mut request = RequestColumns::default();
        for (name, value) in attributes {
            let targets = self.targets.get(name).map_or(&[][..], Vec::as_slice);
            if targets.iter().all(|target| target.rank != OWN_NAME)
                && let Some(text) = selector_text(value)
            {
                request.offer(name, OWN_NAME, text);
            }
            let Some(attribute) = as_attribute(value).filter(|_| !targets.is_empty()) else { continue };
            for target in targets {
                if let Some(text) = target.read(attribute) {
                    request.offer(target.column.name, target.rank, text);
                }
            }
        }
        request
    }
}

impl Target {
    fn read(&self, attribute: Attribute<'_>) -> Option<String> {
        let kind = self.column.kind;
        let (cell, mut text) = (read(kind, self.reading, attribute)?, String::new());
        match kind {
            Kind::List => write_list(&mut text, cell),
            _ => write_text(&mut text, cell),
        }
        let text = spelled(kind, &text).into_owned();
        (kind == Kind::Raw || !text.is_empty()).then_some(text)
    }
}

impl<'a> RequestColumns<'a> {
    /// The text of a column; none if the request says nothing of it.
    #[must_use]
    pub fn get(&self, column: &str) -> Option<&str> {
        self.columns.get(column).map(|said| said.text.as_str())
    }

    /// Takes a text for a column, unless a better source has spoken; of two that are as good, the first stays.
    fn offer(&mut self, name: &'a str, rank: u32, text: String) {
        match self.columns.entry(name) {
            Entry::Occupied(mut said) if rank < said.get().rank => *said.get_mut() = RequestColumn { rank, text },
            Entry::Occupied(_) => {}
            Entry::Vacant(unsaid) => drop(unsaid.insert(RequestColumn { rank, text })),
        }
    }
}

/// The text that the value of a selector is compared as; none for null, a list or an object.
#[must_use]
pub fn selector_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Number(number) => Some(number_text(number)),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// `5` for 5 and for 5.0, as columns write it.
fn number_text(number: &Number) -> String {
    match (number.as_i64(), number.as_f64()) {
        (None, Some(real)) if !number.is_u64() => {
            let mut text = String::new();
            write!(text, "{real}").expect("writing to a string");
            text
        }
        _ => number.to_string(),
    }
}

fn as_attribute(value: &Value) -> Option<Attribute<'_>> {
    match value {
        Value::String(text) => Some(Attribute::Str(text)),
        Value::Bool(flag) => Some(Attribute::Bool(*flag)),
        Value::Number(number) => number.as_i64().map(Attribute::Int).or_else(|| number.as_f64().map(Attribute::Float)),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What a request says of `column`.
    #[track_caller]
    fn check(request: &Value, column: &str, expected: Option<&str>) {
        let extra = [ExtraSource { column: "team".to_owned(), attribute: "acme.cost_center".to_owned() }];
        let attributes = request.as_object().unwrap().iter().map(|(name, value)| (name.as_str(), value));
        assert_eq!(RequestReader::new(&extra).read(attributes).get(column), expected, "{request}");
    }

    #[test]
    fn columns_and_the_attributes_that_feed_them_say_the_same() {
        check(&json!({"team": "docs"}), "team", Some("docs"));
        check(&json!({"genops.team": " docs "}), "team", Some("docs"));
        check(&json!({"gen_ai.request.model": "gpt-4o"}), "request_model", Some("gpt-4o"));
        check(&json!({"model": "gpt-4o"}), "request_model", Some("gpt-4o"));
        check(&json!({"acme.cost_center": "docs"}), "team", Some("docs"));
    }

    #[test]
    fn the_best_source_counts_wherever_it_stands() {
        check(&json!({"genops.team": "b", "team": "a"}), "team", Some("a"));
        check(&json!({"genops.team": "b", "acme.cost_center": "c"}), "team", Some("c"));
        check(&json!({"genops.team": "unknown", "team.id": "d"}), "team", Some("d"));
    }

    #[test]
    fn values_are_spelled_as_in_telemetry() {
        check(&json!({"gen_ai.system": "OpenAI"}), "provider", Some("openai"));
        check(&json!({"provider": "gemini"}), "provider", Some("gcp.gemini"));
        check(&json!({"genops.operation.type": "ai.inference"}), "operation_type", Some("inference"));
        check(&json!({"tool_name": "mcp__github__create_issue"}), "tool_name", Some("create_issue"));
        check(&json!({"data_sensitivity": "Restricted"}), "data_sensitivity", Some("restricted"));
    }

    #[test]
    fn what_says_nothing_is_absent() {
        for value in [json!(null), json!(""), json!("n/a"), json!(["docs"]), json!({"a": 1})] {
            check(&json!({"team": value}), "team", None);
        }
    }

    #[test]
    fn names_of_a_rules_own_are_taken_as_they_are() {
        check(&json!({"tenant": "Acme "}), "tenant", Some("Acme "));
        check(&json!({"model": "GPT"}), "model", Some("GPT"));
        check(&json!({"is_batch": true}), "is_batch", Some("true"));
    }

    #[test]
    fn a_number_has_one_text_however_it_was_written() {
        for value in [json!(5), json!(5.0), json!(5_u64), json!("5"), json!("5.0")] {
            check(&json!({"max_tokens": value}), "max_tokens", selector_text(&value).as_deref());
            check(&json!({"input_tokens": value}), "input_tokens", Some("5"));
        }
        assert_eq!(selector_text(&json!(5.0)).as_deref(), Some("5"));
        assert_eq!(selector_text(&json!(-0.25)).as_deref(), Some("-0.25"));
        assert_eq!(selector_text(&json!(u64::MAX)).as_deref(), Some("18446744073709551615"));
    }
}
