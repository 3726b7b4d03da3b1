//! What a recorded file is: told by its name if that is enough, else by its first bytes.

use lictor_schemas::tables::Signal;
use serde_json::{Map, Value};

/// How the records of a file are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// JSON; whether of lines or of documents shows when the first line has been read.
    Json,
    /// JSON, one object per line.
    JsonLines,
    /// JSON objects over several lines each.
    JsonDocuments,
    /// Protobuf messages, each after its length in four big-endian bytes.
    Frames,
    /// One protobuf message and nothing else.
    BareMessage,
}

/// The first byte of every OTLP export message that is not empty: field 1, length-delimited.
const FIELD_ONE: u8 = 0x0a;

/// The shape of a file with this extension and these first bytes; `None` if it can be neither. The head of an empty
/// file is empty, and any shape does.
///
/// A frame is told from a bare message by its first byte. As the length of a frame, `0x0a` would mean 160 MB and more,
/// which no exporter writes; a bare message begins with nothing else.
pub(super) fn shape_of(extension: Option<&str>, head: &[u8]) -> Option<Shape> {
    match extension.map(str::to_ascii_lowercase).as_deref() {
        Some("json" | "jsonl" | "ndjson") => return Some(Shape::Json),
        Some("pb" | "binpb" | "protobuf" | "proto" | "bin") => return protobuf_shape(head),
        _ => {}
    }
    let is_text = head.iter().all(|byte| *byte >= b' ' || matches!(byte, b'\n' | b'\r' | b'\t'));
    match head.trim_ascii_start().first() {
        Some(b'{') if is_text => Some(Shape::Json),
        _ => protobuf_shape(head),
    }
}

fn protobuf_shape(head: &[u8]) -> Option<Shape> {
    match head.first() {
        None | Some(&FIELD_ONE) => Some(Shape::BareMessage),
        Some(0..FIELD_ONE) => Some(Shape::Frames),
        Some(_) => None,
    }
}

/// The signal of an OTLP/JSON object, by its root key; `None` if it has none of them.
pub(super) fn signal_of_json(json: &[u8]) -> Option<Signal> {
    // Exporters write one root key, so the first one nearly always tells without parsing the rest.
    first_key(json).and_then(signal_of_key).or_else(|| {
        let object: Map<String, Value> = serde_json::from_slice(json).ok()?;
        object.keys().find_map(|key| signal_of_key(key.as_bytes()))
    })
}

fn first_key(json: &[u8]) -> Option<&[u8]> {
    let inside = json.trim_ascii_start().strip_prefix(b"{")?;
    let key = inside.trim_ascii_start().strip_prefix(b"\"")?;
    key.split(|byte| *byte == b'"').next()
}

fn signal_of_key(key: &[u8]) -> Option<Signal> {
    match key {
        b"resourceSpans" | b"resource_spans" => Some(Signal::Traces),
        b"resourceLogs" | b"resource_logs" => Some(Signal::Logs),
        b"resourceMetrics" | b"resource_metrics" => Some(Signal::Metrics),
        _ => None,
    }
}

/// How deep we are in a JSON text, fed piece by piece.
#[derive(Default)]
pub(super) struct Nesting {
    depth: u32,
    is_in_string: bool,
    is_escaped: bool,
}

impl Nesting {
    /// Reads on.
    pub(super) fn feed(&mut self, json: &[u8]) {
        for byte in json {
            match (self.is_in_string, byte) {
                (true, _) if self.is_escaped => self.is_escaped = false,
                (true, b'\\') => self.is_escaped = true,
                (_, b'"') => self.is_in_string = !self.is_in_string,
                (false, b'{' | b'[') => self.depth += 1,
                (false, b'}' | b']') => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
        }
    }

    /// Whether everything that was opened is closed.
    pub(super) fn is_closed(&self) -> bool {
        self.depth == 0 && !self.is_in_string
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_shape(extension: Option<&str>, head: &[u8], expected: Option<Shape>) {
        assert_eq!(shape_of(extension, head), expected, "{extension:?} {head:?}");
    }

    #[test]
    fn the_extension_decides_and_then_the_first_bytes() {
        check_shape(Some("jsonl"), b"anything", Some(Shape::Json));
        check_shape(Some("JSON"), b"{", Some(Shape::Json));
        check_shape(None, b" \n{\"resourceSpans\"", Some(Shape::Json));
        check_shape(Some("pb"), b"\x0a\x05", Some(Shape::BareMessage));
        check_shape(Some("binpb"), b"\0\0\x01\x05\x0a", Some(Shape::Frames));
        check_shape(None, b"\0\0\x01\x05\x0a", Some(Shape::Frames));
        check_shape(Some("pb"), b"{", None);
        check_shape(None, b"PAR1", None);
        check_shape(None, b"", Some(Shape::BareMessage));
    }

    #[test]
    fn a_bare_message_whose_length_looks_like_a_brace_is_no_json() {
        // Field 1 with 123 bytes begins like a line feed and a brace; the next tag tells.
        check_shape(None, b"\x0a\x7b\x0a\x02", Some(Shape::BareMessage));
        check_shape(Some("pb"), b"\x0a{\"", Some(Shape::BareMessage));
    }

    #[test]
    fn the_root_key_is_found_behind_others_and_in_snake_case() {
        assert_eq!(signal_of_json(b" { \"resourceLogs\": []}"), Some(Signal::Logs));
        assert_eq!(signal_of_json(b"{\"resource_metrics\":[]}"), Some(Signal::Metrics));
        assert_eq!(signal_of_json(br#"{"schemaUrl":"x","resourceSpans":[]}"#), Some(Signal::Traces));
        assert_eq!(signal_of_json(br#"{"spans":"resourceSpans"}"#), None);
        assert_eq!(signal_of_json(b"[1]"), None);
        assert_eq!(signal_of_json(b""), None);
    }

    #[test]
    fn braces_in_strings_do_not_nest() {
        let mut nesting = Nesting::default();
        nesting.feed(br#"{"a":"}\"}{"#);
        assert!(!nesting.is_closed());
        nesting.feed(br#"","b":[1]}"#);
        assert!(nesting.is_closed());
    }
}
