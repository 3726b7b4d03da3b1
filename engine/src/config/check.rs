//! From what was said to what is meant: every value read, all faults at once.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lictor_connectors::{ConnectorError, KafkaProperties};
use lictor_schemas::columns::{COLUMNS, ExtraSource, is_mappable};
use lictor_schemas::genops::closest;
use lictor_schemas::otlp::evaluation::Encoding;
use lictor_schemas::rule::Mode;
use serde_saphyr::Location;

use super::duration::parse_ns;
use super::expand::{Outside, expand};
use super::said::{ColumnSaid, ConfigFile, EpochSaid, LimitsSaid, Said, TimeSaid, TopicsSaid};
use super::{Config, EpochBounds, Fault, Limits, LogFormat, Topics, internal_topics};
use crate::outputs::{OtlpTopic, OutputTopics};
use crate::tasks::Delivery;
use crate::watermark::Tolerances;

/// The loop must come round often enough to be seen alive, see `/healthz`.
const LINGER_NS_MAX: i64 = 10_000_000_000;

/// Kafka's own limit on the length of a topic's name.
const TOPIC_NAME_BYTES_MAX: usize = 249;

/// Shorter values are words, not secrets: hiding each `1` would make messages unreadable.
const SECRET_CHARS_MIN: usize = 3;

/// Checks everything; paths count from `folder`.
pub(super) fn check(said: &ConfigFile, folder: &Path, outside: &Outside<'_>) -> Result<Config, Vec<Fault>> {
    let mut reader = Reader { outside, faults: Vec::new(), notes: Vec::new(), secrets: Vec::new() };
    let application_id = reader.or("application_id", said.application_id.as_ref(), "lictor".to_owned(), application_id);
    let instance_id = reader.or("instance_id", said.instance_id.as_ref(), host_name(outside), instance_id);
    let shards = reader.or("shards", said.shards.as_ref(), SHARDS, shards);
    let delivery = reader.or("delivery", said.delivery.as_ref(), Delivery::default(), delivery);
    let mode = reader.or("mode", said.mode.as_ref(), Mode::Enforce, mode);
    let kafka = reader.kafka(said.kafka.as_ref());
    let topics = reader.topics(said.topics.as_ref(), &application_id);
    let rules = reader.rules(said.rules.as_ref(), folder);
    let prices = said.prices.as_ref().and_then(|said| reader.read("prices", said, |text| path(folder, text)));
    let columns = said.columns.iter().flatten().filter_map(|column| reader.column(column)).collect();
    let time = reader.time(said.time.as_ref());
    let epoch = reader.epoch(said.epoch.as_ref());
    let limits = reader.limits(said.limits.as_ref());
    let guard = reader.guard(said.guard.as_ref(), &topics.outputs);
    let alertmanager = said.alertmanager.as_ref().and_then(|said| reader.alertmanager(said));
    let http = reader.or("http", said.http.as_ref(), Some(SocketAddr::from(([127, 0, 0, 1], 8080))), http);
    let tls = said.tls.as_ref().and_then(|said| reader.tls(said, folder));
    let needs_certificate = tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
    let console = reader.console(said.console.as_ref(), needs_certificate);
    let log_format = said.log.as_ref().and_then(|log| log.format.as_ref());
    let log = reader.or("log.format", log_format, LogFormat::default(), log);
    let telemetry = reader.telemetry(said.telemetry.as_ref());
    reader.faults.sort_by_key(|fault| (fault.line, fault.column));
    let (Some(kafka), Some(rules), true) = (kafka, rules, reader.faults.is_empty()) else { return Err(reader.faults) };
    let (notes, secrets) = (reader.notes, reader.secrets);
    Ok(Config {
        application_id,
        instance_id,
        shards,
        delivery,
        mode,
        kafka,
        topics,
        rules,
        prices,
        columns,
        time,
        epoch,
        limits,
        guard,
        alertmanager,
        http,
        tls,
        console,
        log,
        telemetry,
        notes,
        secrets,
    })
}

pub(super) struct Reader<'a> {
    pub(super) outside: &'a Outside<'a>,
    faults: Vec<Fault>,
    /// What is not followed, and is no fault.
    pub(super) notes: Vec<String>,
    secrets: Vec<String>,
}

impl Reader<'_> {
    pub(super) fn fault(&mut self, at: Option<Location>, message: String) {
        let (line, column) = at.map_or((1, 1), |at| (at.line(), at.column()));
        self.faults.push(Fault { line, column, message });
    }

    /// The text of a value with its references replaced.
    pub(super) fn text(&mut self, key: &str, said: &Said) -> Option<String> {
        match expand(&said.value, self.outside) {
            Ok(expanded) => {
                // Whoever cannot reach the brokers must see which.
                let is_address = key.ends_with("bootstrap.servers");
                let is_named_secret = ["password", "secret"].iter().any(|word| key.to_ascii_lowercase().contains(word));
                if !is_address {
                    self.hide(expanded.secrets);
                }
                if is_named_secret {
                    self.hide(vec![expanded.text.clone()]);
                }
                Some(expanded.text)
            }
            Err(message) => {
                self.fault(Some(said.referenced), format!("{key}: {message}"));
                None
            }
        }
    }

    pub(super) fn hide(&mut self, secrets: Vec<String>) {
        self.secrets.extend(secrets.into_iter().filter(|secret| secret.chars().count() >= SECRET_CHARS_MIN));
    }

    /// Reads a value; `parse` says what is wrong without repeating the value.
    pub(super) fn read<T>(&mut self, key: &str, said: &Said, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let text = self.text(key, said)?;
        match parse(&text) {
            Ok(value) => Some(value),
            Err(reason) => {
                self.fault(Some(said.referenced), format!("{key}: `{}` {reason}", said.value));
                None
            }
        }
    }

    /// Reads a value that may be left out.
    pub(super) fn or<T>(
        &mut self,
        key: &str,
        said: Option<&Said>,
        default: T,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> T {
        said.and_then(|said| self.read(key, said, parse)).unwrap_or(default)
    }

    fn kafka(&mut self, said: Option<&BTreeMap<String, Said>>) -> Option<KafkaProperties> {
        let Some(said) = said else {
            self.fault(None, "kafka: is missing: write at least kafka: {bootstrap.servers: \"host:port\"}".to_owned());
            return None;
        };
        let faults_before = self.faults.len();
        let mut properties = BTreeMap::new();
        for (name, value) in said {
            let Some(text) = self.text(&format!("kafka.{name}"), value) else { continue };
            // Each by itself first, so that all of them are reported.
            match KafkaProperties::from_bootstrap("unknown").with(name, &text) {
                Ok(_) => drop(properties.insert(name.clone(), text)),
                Err(error) => self.fault(Some(value.referenced), error.to_string()),
            }
        }
        if self.faults.len() > faults_before {
            return None;
        }
        match KafkaProperties::try_new(properties) {
            Ok(properties) => Some(properties),
            Err(error) => {
                let named = match &error {
                    ConnectorError::Property { name, .. } => said.get(name),
                    _ => None,
                };
                let at = named.or_else(|| said.values().next()).map(|value| value.referenced);
                self.fault(at, error.to_string());
                None
            }
        }
    }

    fn topics(&mut self, said: Option<&TopicsSaid>, application_id: &str) -> Topics {
        let Topics { traces, logs, metrics, outputs } = Topics::default();
        let nothing = TopicsSaid::default();
        let said = said.unwrap_or(&nothing);
        let mut taken = Taken::default();
        for internal in internal_topics(application_id) {
            taken.0.insert(internal, ("an internal topic of lictor", None));
        }
        let topics = Topics {
            traces: self.inputs("topics.traces", said.traces.as_deref(), traces, &mut taken),
            logs: self.inputs("topics.logs", said.logs.as_deref(), logs, &mut taken),
            metrics: self.inputs("topics.metrics", said.metrics.as_deref(), metrics, &mut taken),
            outputs: self.outputs(said, outputs, &mut taken),
        };
        if topics.signals().is_empty() {
            self.fault(None, "topics: no topic is read: name one under traces, logs or metrics".to_owned());
        }
        topics
    }

    fn inputs(
        &mut self,
        key: &'static str,
        said: Option<&[Said]>,
        default: Vec<String>,
        taken: &mut Taken,
    ) -> Vec<String> {
        let topics: Vec<(String, Option<Location>)> = match said {
            Some(said) => said
                .iter()
                .filter_map(|topic| Some((self.read(key, topic, topic_name)?, Some(topic.referenced))))
                .collect(),
            None => default.into_iter().map(|topic| (topic, None)).collect(),
        };
        for (topic, at) in &topics {
            self.take(key, topic, *at, taken);
        }
        topics.into_iter().map(|(topic, _)| topic).collect()
    }

    fn outputs(&mut self, said: &TopicsSaid, default: OutputTopics, taken: &mut Taken) -> OutputTopics {
        let OutputTopics { enforcement, directives, directives_shadow, dead_letter, late, .. } = default;
        let shadow = said.directives_shadow.as_ref();
        OutputTopics {
            enforcement: self.output("topics.enforcement", said.enforcement.as_ref(), enforcement, taken),
            directives: self.output("topics.directives", said.directives.as_ref(), directives, taken),
            directives_shadow: self.output("topics.directives_shadow", shadow, directives_shadow, taken),
            dead_letter: self.output("topics.dead_letter", said.dead_letter.as_ref(), dead_letter, taken),
            late: self.output("topics.late", said.late.as_ref(), late, taken),
            otlp: self.otlp(said, taken),
        }
    }

    /// None if the topic is not named.
    fn otlp(&mut self, said: &TopicsSaid, taken: &mut Taken) -> Option<OtlpTopic> {
        let key = "topics.otlp_encoding";
        let encoding = self.or(key, said.otlp_encoding.as_ref(), Encoding::default(), encoding);
        let topic = self.read("topics.otlp", said.otlp.as_ref()?, topic_name)?;
        self.take("topics.otlp", &topic, said.otlp.as_ref().map(|said| said.referenced), taken);
        Some(OtlpTopic { topic, encoding })
    }

    fn output(&mut self, key: &'static str, said: Option<&Said>, default: String, taken: &mut Taken) -> String {
        let topic = self.or(key, said, default, topic_name);
        self.take(key, &topic, said.map(|said| said.referenced), taken);
        topic
    }

    /// Refuses a topic that serves another purpose already.
    fn take(&mut self, key: &'static str, topic: &str, at: Option<Location>, taken: &mut Taken) {
        let Some((other, other_at)) = taken.0.insert(topic.to_owned(), (key, at)) else { return };
        let is_input = |key: &str| ["topics.traces", "topics.logs", "topics.metrics"].contains(&key);
        let why = match (is_input(other), is_input(key)) {
            (true, false) => "lictor would read what it writes, for ever",
            (true, true) => "a topic carries one signal",
            _ => "each output has its own form and retention",
        };
        // What was written down is at fault, not the default it runs into.
        let message = format!("{key}: topic `{topic}` is also {other}: {why}");
        self.fault(at.or(other_at), message);
    }

    fn rules(&mut self, said: Option<&Said>, folder: &Path) -> Option<PathBuf> {
        match said {
            Some(said) => self.read("rules", said, |text| path(folder, text)),
            None => {
                self.fault(None, "rules: is missing: write the path of the rules directory".to_owned());
                None
            }
        }
    }

    fn column(&mut self, said: &ColumnSaid) -> Option<ExtraSource> {
        let column = self.read("columns.column", &said.column, column_name);
        let attribute = self.read("columns.attribute", &said.attribute, not_empty);
        Some(ExtraSource { column: column?, attribute: attribute? })
    }

    fn time(&mut self, said: Option<&TimeSaid>) -> Tolerances {
        let nothing = TimeSaid::default();
        let (said, default) = (said.unwrap_or(&nothing), Tolerances::default());
        Tolerances {
            lateness_ns: self.or("time.lateness", said.lateness.as_ref(), default.lateness_ns, parse_ns),
            idle_after_ns: self.or(
                "time.idle_after",
                said.idle_after.as_ref(),
                default.idle_after_ns,
                positive_ns(i64::MAX),
            ),
            future_skew_ns: self.or(
                "time.max_future_skew",
                said.max_future_skew.as_ref(),
                default.future_skew_ns,
                positive_ns(i64::MAX),
            ),
        }
    }

    fn epoch(&mut self, said: Option<&EpochSaid>) -> EpochBounds {
        let nothing = EpochSaid::default();
        let (said, default) = (said.unwrap_or(&nothing), EpochBounds::default());
        let linger = said.linger.as_ref().and_then(|l| self.read("epoch.linger", l, positive_ns(LINGER_NS_MAX)));
        EpochBounds {
            linger: linger.map_or(default.linger, |ns| Duration::from_nanos(ns.unsigned_abs())),
            rows_max: self.or("epoch.rows_max", said.rows_max.as_ref(), default.rows_max, count),
        }
    }

    fn limits(&mut self, said: Option<&LimitsSaid>) -> Limits {
        let nothing = LimitsSaid::default();
        let (said, default) = (said.unwrap_or(&nothing), Limits::default());
        Limits {
            groups_max: self.or("limits.groups_max", said.groups_max.as_ref(), default.groups_max, count),
            subjects_max: self.or("limits.subjects_max", said.subjects_max.as_ref(), default.subjects_max, count),
            history_ns: self.or("limits.history", said.history.as_ref(), default.history_ns, parse_ns),
            decode_error_ratio_max: self.or(
                "limits.decode_error_ratio_max",
                said.decode_error_ratio_max.as_ref(),
                default.decode_error_ratio_max,
                ratio,
            ),
        }
    }
}

/// The topics met so far: which key names them, and where.
#[derive(Default)]
struct Taken(BTreeMap<String, (&'static str, Option<Location>)>);

fn application_id(text: &str) -> Result<String, String> {
    let is_allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
    if text.is_empty() || !text.chars().all(is_allowed) {
        return Err("names consumer groups and event sources: use a-z, 0-9, `.`, `_` and `-`".to_owned());
    }
    Ok(text.to_owned())
}

/// As many instances can judge at a time; few enough that a commit on a quiet night touches few partitions.
const SHARDS: u32 = 8;

/// Every commit may touch all of them.
const SHARDS_MAX: u32 = 1_024;

fn shards(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(shards) if (1..=SHARDS_MAX).contains(&shards) => Ok(shards),
        _ => Err(format!("is not a whole number from 1 to {SHARDS_MAX}")),
    }
}

fn delivery(text: &str) -> Result<Delivery, String> {
    match text {
        "exactly_once" => Ok(Delivery::ExactlyOnce),
        "at_least_once" => Ok(Delivery::AtLeastOnce),
        _ => Err("is neither `exactly_once` nor `at_least_once`".to_owned()),
    }
}

fn encoding(text: &str) -> Result<Encoding, String> {
    match text {
        "otlp_proto" => Ok(Encoding::Protobuf),
        "otlp_json" => Ok(Encoding::Json),
        _ => Err("is neither `otlp_proto` nor `otlp_json`".to_owned()),
    }
}

fn mode(text: &str) -> Result<Mode, String> {
    Mode::parse(text).ok_or_else(|| "is neither `enforce` nor `shadow`".to_owned())
}

/// Checks the name of an instance.
///
/// # Errors
/// What is wrong with it.
pub fn instance_id(text: &str) -> Result<String, String> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if text.is_empty() || !text.chars().all(is_allowed) {
        return Err("names transactions and group members: use a-z, A-Z, 0-9, `.`, `_` and `-`".to_owned());
    }
    Ok(text.to_owned())
}

/// The machine's name, which in a cluster is the pod's: another one for each instance, and the same after a restart.
fn host_name(outside: &Outside<'_>) -> String {
    let read = (outside.file)(Path::new("/proc/sys/kernel/hostname")).ok();
    let named = read.or_else(|| (outside.env)("HOSTNAME")).unwrap_or_default();
    let name: String = named.trim().chars().filter(|c| c.is_ascii_alphanumeric() || "._-".contains(*c)).collect();
    if name.is_empty() { "instance".to_owned() } else { name }
}

pub(super) fn topic_name(text: &str) -> Result<String, String> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let is_name = !text.is_empty() && text.len() <= TOPIC_NAME_BYTES_MAX && text.chars().all(is_allowed);
    if !is_name || text == "." || text == ".." {
        return Err("is not a topic name: Kafka takes 1 to 249 of a-z, A-Z, 0-9, `.`, `_` and `-`".to_owned());
    }
    Ok(text.to_owned())
}

fn column_name(text: &str) -> Result<String, String> {
    if is_mappable(text) {
        return Ok(text.to_owned());
    }
    let known: Vec<&str> = COLUMNS.iter().map(|column| column.name).filter(|name| is_mappable(name)).collect();
    let hint =
        closest(text, &known).map_or_else(|| "see `lictor schema`".to_owned(), |c| format!("did you mean `{c}`?"));
    Err(format!("is not a column that attributes can feed: {hint}"))
}

pub(super) fn not_empty(text: &str) -> Result<String, String> {
    if text.trim().is_empty() { Err("is empty".to_owned()) } else { Ok(text.to_owned()) }
}

pub(super) fn path(folder: &Path, text: &str) -> Result<PathBuf, String> {
    not_empty(text).map(|text| folder.join(text))
}

pub(super) fn positive_ns(ns_max: i64) -> impl Fn(&str) -> Result<i64, String> {
    move |text| match parse_ns(text)? {
        0 => Err("must be longer than nothing".to_owned()),
        ns if ns > ns_max => Err(format!("is longer than {}", super::duration::format_ns(ns_max))),
        ns => Ok(ns),
    }
}

pub(super) fn count(text: &str) -> Result<usize, String> {
    match text.replace('_', "").parse() {
        Ok(count) if count > 0 => Ok(count),
        _ => Err("is not a whole number of at least 1".to_owned()),
    }
}

fn ratio(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(ratio),
        _ => Err("is not a number from 0 to 1".to_owned()),
    }
}

/// Reads an address, or `off`.
///
/// # Errors
/// What is wrong with it.
pub fn http(text: &str) -> Result<Option<SocketAddr>, String> {
    if text == "off" {
        return Ok(None);
    }
    let address =
        text.parse().map_err(|_| "is not an IP address and port such as 127.0.0.1:8080, nor `off`".to_owned());
    address.map(Some)
}

fn log(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err("is neither `text` nor `json`".to_owned()),
    }
}
