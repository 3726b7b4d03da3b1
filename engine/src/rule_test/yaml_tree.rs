//! A YAML text as a tree of places: what stands where, so that a part can be rewritten and the rest left as it is; and
//! values as YAML, to be written there.

use std::ops::Range;

use granit_parser::{Event, Parser, Span, StructureStyle};
use serde_json::Value;

/// A value and the bytes that it takes up. A list or a map without brackets ends with its last value: comments and
/// blank lines behind it are not its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) range: Range<usize>,
    pub(super) kind: Kind,
}

/// What a value is; `is_flow` if it stands in brackets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Scalar,
    /// `*name`: what it stands for is written elsewhere.
    Alias,
    List {
        items: Vec<Node>,
        is_flow: bool,
    },
    Map {
        entries: Vec<Entry>,
        is_flow: bool,
    },
}

/// A key of a map and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_range: Range<usize>,
    pub(super) value: Node,
}

impl Node {
    /// The first document of a text; none if it cannot be parsed or is empty.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut reader = Reader { parser: Parser::new_from_str(text) };
        let (event, span) = reader.next()?;
        reader.node(&event, &span)
    }

    pub(super) fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.kind {
            Kind::Map { entries, .. } => entries.iter().find(|entry| entry.key == key),
            Kind::Scalar | Kind::Alias | Kind::List { .. } => None,
        }
    }

    pub(super) fn item(&self, number: usize) -> Option<&Self> {
        match &self.kind {
            Kind::List { items, .. } => items.get(number),
            Kind::Scalar | Kind::Alias | Kind::Map { .. } => None,
        }
    }
}

struct Reader<'a> {
    parser: Parser<'a, granit_parser::StrInput<'a>>,
}

impl<'a> Reader<'a> {
    /// The next event that is part of a value.
    fn next(&mut self) -> Option<(Event<'a>, Range<usize>)> {
        loop {
            let (event, span) = self.parser.next_event()?.ok()?;
            let is_part = event.is_node() || matches!(event, Event::SequenceEnd | Event::MappingEnd);
            if is_part {
                return Some((event, bytes_of(&span)?));
            }
            if event == Event::DocumentEnd {
                return None;
            }
        }
    }

    /// The value that begins with `event`.
    fn node(&mut self, event: &Event<'a>, span: &Range<usize>) -> Option<Node> {
        let (kind, end) = match event {
            Event::Scalar(..) => (Kind::Scalar, span.end),
            Event::SequenceStart(style, ..) => {
                let mut items = Vec::new();
                let closed = loop {
                    let (event, span) = self.next()?;
                    if event == Event::SequenceEnd {
                        break span.end;
                    }
                    items.push(self.node(&event, &span)?);
                };
                let last = items.last().map_or(span.end, |item: &Node| item.range.end);
                let is_flow = *style == StructureStyle::Flow;
                (Kind::List { items, is_flow }, if is_flow { closed } else { last })
            }
            Event::MappingStart(style, ..) => {
                let mut entries = Vec::new();
                let closed = loop {
                    let (event, key_range) = self.next()?;
                    let key = match &event {
                        Event::MappingEnd => break key_range.end,
                        Event::Scalar(key, ..) => key.to_string(),
                        // A key that is no text is none of ours; its value is read all the same.
                        other => self.node(other, &key_range).map(|_| String::new())?,
                    };
                    let (event, span) = self.next()?;
                    entries.push(Entry { key, key_range, value: self.node(&event, &span)? });
                };
                let last =
                    entries.last().map_or(span.end, |entry: &Entry| entry.value.range.end.max(entry.key_range.end));
                let is_flow = *style == StructureStyle::Flow;
                (Kind::Map { entries, is_flow }, if is_flow { closed } else { last })
            }
            _ => (Kind::Alias, span.end),
        };
        Some(Node { range: span.start..end.max(span.start), kind })
    }
}

fn bytes_of(span: &Span) -> Option<Range<usize>> {
    span.byte_range()
}

/// A value as YAML on one line.
pub(super) fn flow_text(value: &Value) -> String {
    match value {
        Value::String(text) if is_plain(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(flow_text).collect::<Vec<_>>().join(", ")),
        Value::Object(fields) => {
            let fields = fields
                .iter()
                .map(|(name, value)| format!("{}: {}", flow_text(&Value::String(name.clone())), flow_text(value)));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(", "))
        }
        Value::Number(number) if number.as_f64().is_some_and(is_whole) => {
            number.to_string().trim_end_matches(".0").to_owned()
        }
        // JSON is YAML.
        other => other.to_string(),
    }
}

fn is_whole(number: f64) -> bool {
    number.fract() == 0.0
}

/// Whether a text needs no quotes, wherever it stands.
fn is_plain(text: &str) -> bool {
    let is_itself =
        |yaml: String| serde_saphyr::from_str::<Vec<Value>>(&yaml).is_ok_and(|read| read == [Value::from(text)]);
    let is_word = text.starts_with(|c: char| c.is_ascii_alphanumeric()) && !text.contains('\n') && !text.ends_with(':');
    is_word && is_itself(format!("[{text}]")) && is_itself(format!("- {text}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const TEXT: &str = "\
a: [1, {b: 'x'}]  # a comment
list:
  - one: 1
    two: {three: 3}
  # between
  - *somewhere

# behind
last: |
  some
  text
";

    #[track_caller]
    fn text_of(node: Option<&Node>) -> &'static str {
        &TEXT[node.unwrap().range.clone()]
    }

    #[test]
    fn every_value_knows_its_bytes() {
        let text = TEXT.replace("*somewhere", "somewhere!");
        let root = Node::parse(&text).unwrap();
        let value = |key: &str| root.entry(key).map(|entry| &entry.value);
        assert_eq!(text_of(value("a")), "[1, {b: 'x'}]");
        assert_eq!(text_of(value("a").and_then(|a| a.item(1))), "{b: 'x'}");
        let list = value("list").unwrap();
        assert_eq!(text_of(list.item(0)), "one: 1\n    two: {three: 3}");
        assert!(text_of(Some(list)).ends_with("- *somewhere"), "{}", text_of(Some(list)));
        assert!(text_of(Some(list)).starts_with("- one"), "{}", text_of(Some(list)));
        let two = list.item(0).and_then(|item| item.entry("two")).unwrap();
        assert_eq!((&TEXT[two.key_range.clone()], text_of(Some(&two.value))), ("two", "{three: 3}"));
    }

    #[test]
    fn a_text_that_is_no_yaml_has_no_tree() {
        assert_eq!(Node::parse("a: [1"), None);
        assert_eq!(Node::parse(""), None);
        assert_eq!(Node::parse("a: *nobody"), None, "an alias of nothing");
    }

    #[test]
    fn an_alias_is_told_from_a_value() {
        let root = Node::parse("a: &x [1]\nb: *x\n").unwrap();
        assert_eq!(root.entry("b").unwrap().value.kind, Kind::Alias);
    }

    #[test]
    fn texts_are_quoted_where_they_must_be() {
        let cases = [
            ("plain", "plain"),
            ("2026-03-01T10:00:00Z", "2026-03-01T10:00:00Z"),
            ("12", "\"12\""),
            ("true", "\"true\""),
            ("", "\"\""),
            ("a, b", "\"a, b\""),
            ("a: b", "\"a: b\""),
            ("a #b", "\"a #b\""),
            ("two\nlines", "\"two\\nlines\""),
            ("has spent 81.00 of its 100 USD", "has spent 81.00 of its 100 USD"),
        ];
        for (text, yaml) in cases {
            assert_eq!(flow_text(&json!(text)), yaml);
        }
        assert_eq!(flow_text(&json!({"a": [1, 2.5, null, "x"]})), "{a: [1, 2.5, null, x]}");
        assert_eq!((flow_text(&json!(3.0)), flow_text(&json!(-0.5))), ("3".to_owned(), "-0.5".to_owned()));
    }
}
