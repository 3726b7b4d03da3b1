//! The JSON Schema of the configuration, for editors: every key with its default and what it is for.
//!
//! The reader takes every value as text ([`super::said`]), so the shapes are written down here; tests hold the keys to
//! those that the reader takes, and the defaults to those that it fills in.

use lictor_schemas::columns::{COLUMNS, is_mappable};
use serde_json::{Map, Value, json};

/// The schema of `lictor.yaml`, draft 2020-12.
#[must_use]
pub fn json_schema() -> Value {
    let mut schema = map(
        "Any value may hold ${env:NAME} and ${file:/path}. Paths count from this file's folder.",
        [root(), inputs_and_outputs(), judging(), asking(), told()].into_iter().flatten(),
    );
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["$id"] = json!("https://github.com/lictor-dev/lictor/schemas/config.v1.schema.json");
    schema["title"] = json!("Configuration of lictor, lictor.yaml");
    schema["required"] = json!(["kafka", "rules"]);
    schema
}

/// A key and what may stand behind it.
type Key = (&'static str, Value);

fn root() -> Vec<Key> {
    vec![
        (
            "application_id",
            text(
                "lictor",
                "Names the deployment: groups, internal topics, transactional ids and event \
                                 sources begin with it; a-z, 0-9, `.`, `_`, `-`.",
            ),
        ),
        (
            "instance_id",
            optional(
                json!({"type": "string"}),
                "Names the instance, the same after a restart; the host's name \
                                 unless it is said.",
            ),
        ),
        (
            "shards",
            number(
                8,
                "Partitions of the internal topics: how many instances can judge at a time. Fixed for \
                          life.",
            ),
        ),
        ("delivery", words(&["exactly_once", "at_least_once"], "When events become visible.")),
        ("mode", words(&["enforce", "shadow"], "shadow: no directive of any rule is to be applied.")),
        (
            "kafka",
            properties(
                "Any librdkafka property; `consumer.`, `producer.`, `admin.` in front make it one \
                              client's own.",
                "bootstrap.servers",
            ),
        ),
        ("rules", optional(json!({"type": "string"}), "The rules directory, or one file.")),
        (
            "prices",
            optional(
                json!({"type": "string"}),
                "The price table; llm_prices.csv in the rules directory unless it \
                            is said.",
            ),
        ),
        ("http", text("127.0.0.1:8080", "Where /metrics, /healthz and /readyz are; `off` for nowhere.")),
        ("log", map("The log, on stderr.", [("format", words(&["text", "json"], "How it is written."))])),
    ]
}

fn inputs_and_outputs() -> Vec<Key> {
    let topics = |default: &str, what: &str| {
        optional(json!({"type": "array", "items": {"type": "string"}, "default": [default]}), what)
    };
    let columns: Vec<&str> = COLUMNS.iter().map(|column| column.name).filter(|name| is_mappable(name)).collect();
    let source = map(
        "An attribute of yours, tried before the built-in ones.",
        [
            ("column", json!({"enum": columns, "description": "The column that it feeds."})),
            ("attribute", json!({"type": "string", "description": "The attribute's name."})),
        ],
    );
    vec![
        (
            "topics",
            map(
                "Topics that are read and written.",
                [
                    ("traces", topics("otlp_spans", "Carry spans.")),
                    ("logs", topics("otlp_logs", "Carry log records.")),
                    ("metrics", topics("otlp_metrics", "Carry metrics.")),
                    ("enforcement", text("lictor.enforcement", "Every event, in order.")),
                    ("directives", text("lictor.directives", "What holds now; compacted.")),
                    ("directives_shadow", text("lictor.directives.shadow", "What would hold now; compacted.")),
                    ("dead_letter", text("lictor.dead-letter", "Records that cannot be decoded.")),
                    ("late", text("lictor.late", "Notes on rows that came too late.")),
                    ("otlp", optional(json!({"type": "string"}), "Events as OTLP log records, if a topic is named.")),
                    ("otlp_encoding", words(&["otlp_proto", "otlp_json"], "How those are written.")),
                ],
            ),
        ),
        ("columns", json!({"type": "array", "items": source, "description": "In-house attributes that feed columns."})),
    ]
}

fn judging() -> Vec<Key> {
    vec![
        (
            "time",
            map(
                "The tolerances of event time.",
                [
                    ("lateness", duration("10s", "How much older than its partition's newest row a row may be.")),
                    ("idle_after", duration("30s", "After how much silence windows stop waiting for a partition.")),
                    ("max_future_skew", duration("5m", "How far a row may be ahead of its broker timestamp.")),
                ],
            ),
        ),
        (
            "epoch",
            map(
                "When an epoch ends, at whatever comes first.",
                [
                    ("linger", duration("25ms", "So long after its first record; 10s at most.")),
                    ("rows_max", number(65_536, "With so many rows.")),
                ],
            ),
        ),
        (
            "limits",
            map(
                "What is refused rather than run out of memory.",
                [
                    ("groups_max", number(1_000_000, "Groups of one rule over its open windows, per shard.")),
                    ("subjects_max", number(100_000, "Directives of one rule that hold at a time, per shard.")),
                    (
                        "history",
                        duration("31d", "How far back telemetry is read once more for a rule that is new or changed."),
                    ),
                    (
                        "decode_error_ratio_max",
                        json!({
                            "type": ["number", "string"], "default": 0.5,
                            "description": "The share of undecodable records, 0 to 1, at which lictor stops.",
                        }),
                    ),
                ],
            ),
        ),
    ]
}

/// Who asks lictor.
fn asking() -> Vec<Key> {
    let headers = texts("Request headers that are columns: header to column.");
    vec![
        (
            "guard",
            map(
                "How `lictor guard` answers.",
                [
                    ("http", text("127.0.0.1:8090", "Where it answers.")),
                    ("on_stale", words(&["allow", "deny"], "What happens to calls while not all is known.")),
                    ("stale_after", duration("30s", "After how long without an answer of the brokers that is.")),
                    ("headers", headers),
                    ("directives_max", number(1_000_000, "Directives held, at about 1 kB each.")),
                    (
                        "decisions",
                        optional(json!({"type": "string"}), "The topic of spans to which stopped calls are written."),
                    ),
                ],
            ),
        ),
        (
            "tls",
            map(
                "TLS of /metrics, the console and the guard: PEM files, read again every minute.",
                [
                    ("cert", optional(json!({"type": "string"}), "The certificate, then those it was signed by.")),
                    ("key", optional(json!({"type": "string"}), "Its key, not encrypted.")),
                    ("client_ca", optional(json!({"type": "string"}), "Who signs clients' certificates.")),
                ],
            ),
        ),
        (
            "console",
            map(
                "The console: what happens, in a browser.",
                [
                    (
                        "listen",
                        optional(json!({"type": "string"}), "Where it is: beside /metrics unless it is said; or off."),
                    ),
                    ("token", optional(json!({"type": "string"}), "What whoever looks must say.")),
                    (
                        "allow_reload",
                        json!({
                            "type": ["boolean", "string"], "default": false,
                            "description": "Whether rules may be read again from there.",
                        }),
                    ),
                ],
            ),
        ),
    ]
}

/// Whom lictor tells.
fn told() -> Vec<Key> {
    vec![
        (
            "telemetry",
            map(
                "Who is told lictor's own metrics and traces, over OTLP/HTTP.",
                [
                    ("otlp_endpoint", optional(json!({"type": "string"}), "The receiver, or off.")),
                    ("interval", duration("10s", "How often it is told; an hour at most.")),
                    ("headers", texts("Sent with every request; secrets: better ${env:…} or ${file:…}.")),
                    ("attributes", texts("Of the resource, such as service.name.")),
                ],
            ),
        ),
        (
            "alertmanager",
            map(
                "Whom directives are told as alerts.",
                [
                    (
                        "urls",
                        optional(json!({"type": "array", "items": {"type": "string"}}), "Each of these is told all."),
                    ),
                    ("username", optional(json!({"type": "string"}), "HTTP basic authentication.")),
                    (
                        "password",
                        optional(json!({"type": "string"}), "HTTP basic authentication; better ${env:…} or ${file:…}."),
                    ),
                    ("resend", duration("1m", "How often what fires is sent again; an hour at most.")),
                    (
                        "generator_url",
                        optional(json!({"type": "string"}), "The link of every alert, with {rule} for the rule."),
                    ),
                ],
            ),
        ),
    ]
}

fn optional(mut shape: Value, what: &str) -> Value {
    shape["description"] = json!(what);
    shape
}

/// Names to texts.
fn texts(what: &str) -> Value {
    json!({"type": "object", "additionalProperties": {"type": "string"}, "description": what})
}

fn text(default: &str, what: &str) -> Value {
    json!({"type": "string", "default": default, "description": what})
}

/// A number, or a reference to one.
fn number(default: u64, what: &str) -> Value {
    json!({"type": ["integer", "string"], "minimum": 0, "default": default, "description": what})
}

fn duration(default: &str, what: &str) -> Value {
    let pattern = r"^([0-9]+ *(ms|s|m|h|d)|.*\$\{.+\}.*)$";
    json!({"type": "string", "pattern": pattern, "default": default, "description": what})
}

/// One of these words, the first unless another is said, or a reference to one.
fn words(words: &[&str], what: &str) -> Value {
    let reference = json!({"type": "string", "pattern": r"\$\{.+\}"});
    json!({"anyOf": [{"enum": words}, reference], "default": words.first(), "description": what})
}

fn properties(what: &str, required: &str) -> Value {
    json!({
        "type": "object", "required": [required], "description": what,
        "additionalProperties": {"type": ["string", "number", "boolean"]},
    })
}

fn map(what: &str, keys: impl IntoIterator<Item = Key>) -> Value {
    let properties: Map<String, Value> = keys.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    json!({"type": "object", "additionalProperties": false, "properties": properties, "description": what})
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::config::{Config, Outside, said};

    /// The keys that the reader takes at a place: it lists them when it meets one that it does not know.
    fn keys_read(yaml: &str) -> Vec<String> {
        let message = said::read(yaml).unwrap_err().message;
        let (_, known) = message.split_once("no_such_key").unwrap_or_else(|| panic!("no list of keys in: {message}"));
        let (_, known) = known.split_once("expected").unwrap_or_else(|| panic!("no list of keys in: {message}"));
        let known = known.trim_start_matches(" one of");
        let is_part = |c: char| c.is_ascii_lowercase() || c == '_';
        let mut keys: Vec<String> =
            known.split(|c| !is_part(c)).filter(|key| !key.is_empty()).map(str::to_owned).collect();
        keys.sort();
        keys
    }

    fn keys_of(schema: &Value) -> Vec<String> {
        let mut keys: Vec<String> = schema["properties"].as_object().unwrap().keys().cloned().collect();
        keys.sort();
        keys
    }

    #[test]
    fn the_schema_has_the_keys_that_the_reader_takes() {
        let schema = json_schema();
        assert_eq!(keys_of(&schema), keys_read("no_such_key: 1"));
        let sections = schema["properties"].as_object().unwrap().iter().filter(|(_, s)| s["properties"].is_object());
        for (name, section) in sections {
            assert_eq!(keys_of(section), keys_read(&format!("{name}: {{no_such_key: 1}}")), "{name}");
        }
        assert_eq!(keys_of(&schema["properties"]["columns"]["items"]), keys_read("columns: [{no_such_key: 1}]"));
    }

    /// What the schema says happens if nothing is said.
    fn defaults(schema: &Value) -> Value {
        let of_key = |(key, value): (&String, &Value)| {
            let default = if value["properties"].is_object() { defaults(value) } else { value.get("default")?.clone() };
            Some((key.clone(), default))
        };
        Value::Object(schema["properties"].as_object().unwrap().iter().filter_map(of_key).collect())
    }

    #[test]
    fn the_defaults_of_the_schema_are_those_that_the_reader_fills_in() {
        let outside = Outside { env: &|_| None, file: &|_| Err(std::io::ErrorKind::NotFound.into()) };
        let config = |mut said: Value| {
            said["kafka"] = json!({"bootstrap.servers": "b:1"});
            said["rules"] = json!("rules");
            said["alertmanager"]["urls"] = json!(["http://a:1"]);
            said["tls"] = json!({"cert": "c", "key": "k"});
            let Config { shards, delivery, mode, topics, time, epoch, limits, guard, alertmanager, http, log, .. } =
                Config::from_yaml(Path::new("lictor.yaml"), &said.to_string(), &outside).unwrap();
            let first = format!("{shards} {delivery:?} {mode:?} {topics:?} {time:?} {epoch:?} {limits:?}");
            format!("{first} {guard:?} {alertmanager:?} {http:?} {log:?}")
        };
        assert_eq!(config(defaults(&json_schema())), config(json!({"alertmanager": {}})));
    }

    #[test]
    fn the_schema_takes_the_shipped_configuration_and_no_misspelt_one() {
        let schema = jsonschema::validator_for(&json_schema()).unwrap();
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/lictor.yaml");
        // What can be set besides stands there, too.
        let text = fs::read_to_string(shipped).unwrap().replace("#- ", "");
        let shipped: Value = serde_saphyr::from_str(&text).unwrap();
        let faults: Vec<String> = schema.iter_errors(&shipped).map(|e| format!("{}: {e}", e.instance_path())).collect();
        assert!(faults.is_empty(), "{faults:#?}");
        let kafka = json!({"bootstrap.servers": "b:1"});
        assert!(schema.is_valid(&json!({"kafka": kafka, "rules": "r", "time": {"lateness": "${env:LATENESS}"}})));
        for bad in [
            json!({"kafka": kafka}),
            json!({"kafka": kafka, "rules": "r", "tiem": {}}),
            json!({"kafka": kafka, "rules": "r", "time": {"lateness": "soon"}}),
            json!({"kafka": kafka, "rules": "r", "mode": "shaddow"}),
            json!({"kafka": {}, "rules": "r"}),
        ] {
            assert!(!schema.is_valid(&bad), "{bad}");
        }
    }
}
