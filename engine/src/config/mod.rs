//! The configuration: `lictor.yaml`, read and checked.
//!
//! Said → checked: the YAML is read as text with places ([`said`]), values from the environment and from files are put
//! in ([`Outside`]), then everything is checked ([`check`]) and all faults are reported at once, each with its line.
//! Nothing downstream sees the text.
//!
//! Invariant: a value that came from the environment or from a file, and the value of a property called a password or a
//! secret, is in no message and no `Debug` output of this module.

mod alertmanager;
mod check;
mod console;
pub mod duration;
mod expand;
mod guard;
mod json_schema;
mod said;
mod telemetry;
mod tls;

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fs};

use lictor_connectors::{KafkaProperties, TopicSpec};
use lictor_schemas::columns::ExtraSource;
use lictor_schemas::rule::Mode;
use lictor_schemas::tables::Signal;
use thiserror::Error;

pub use alertmanager::Alertmanagers;
pub use check::{http, instance_id};
pub use console::{ConsoleListen, ConsoleSettings};
pub use expand::Outside;
pub use guard::guard_http;
pub use json_schema::json_schema;

use crate::guard::GuardOptions;
use crate::http::tls::TlsFiles;
use crate::live::LiveOptions;
use crate::outputs::OutputTopics;
use crate::pipeline::PipelineSettings;
use crate::tasks::{Delivery, ReadingOptions, TaskOptions, TaskTopics};
use crate::telemetry::TelemetrySettings;
use crate::watermark::Tolerances;

/// A whole configuration, checked.
#[derive(Clone)]
pub struct Config {
    /// Names this deployment: consumer groups, internal topics, transactional ids and the events' source begin with it.
    pub application_id: String,
    /// Names this instance within the deployment; the same after a restart.
    pub instance_id: String,
    /// Partitions of the internal topics: how many instances can judge at a time. Fixed for life.
    pub shards: u32,
    /// When events become visible.
    pub delivery: Delivery,
    /// In shadow mode no rule's directives are to be applied.
    pub mode: Mode,
    /// For all Kafka clients.
    pub kafka: KafkaProperties,
    /// What is read and written.
    pub topics: Topics,
    /// The rules directory, or one rule file.
    pub rules: PathBuf,
    /// The price table; none means `llm_prices.csv` in the rules directory.
    pub prices: Option<PathBuf>,
    /// In-house attributes that feed canonical columns.
    pub columns: Vec<ExtraSource>,
    /// The tolerances of event time.
    pub time: Tolerances,
    /// When an epoch ends.
    pub epoch: EpochBounds,
    /// What is refused rather than run out of memory or drained into the dead letters.
    pub limits: Limits,
    /// How `lictor guard` answers.
    pub guard: GuardOptions,
    /// Whom directives are told as alerts; none unless they are named.
    pub alertmanager: Option<Alertmanagers>,
    /// Where `/metrics`, `/healthz` and `/readyz` are served; none if they are off.
    pub http: Option<SocketAddr>,
    /// The certificates of the HTTP servers; none if they speak plainly.
    pub tls: Option<TlsFiles>,
    /// Where the console is, and who may look.
    pub console: ConsoleSettings,
    /// How the log is written.
    pub log: LogFormat,
    /// Who is told what lictor measures of itself; none unless somebody is named.
    pub telemetry: Option<TelemetrySettings>,
    /// What is said and not followed, for the log.
    pub notes: Vec<String>,
    secrets: Vec<String>,
}

/// While nothing urgent happens, four commits per second keep a restart short and a quiet cluster quiet.
const COMMIT_EVERY: Duration = Duration::from_millis(250);

/// A coordinator that is being elected, or a transaction of a dead predecessor that has to time out, takes up to 20 s.
const PATIENCE: Duration = Duration::from_secs(60);

/// A group's state may need a message of its own that is larger than the broker's default of 1 MB.
const MESSAGE_BYTES: (&str, &str) = ("max.message.bytes", "8388608");

/// Parcels are read within seconds; a week, as long as telemetry is kept by default, is for the case that nobody
/// judges.
const SHUFFLE_CONFIGS: &[(&str, &str)] = &[("retention.ms", "604800000")];

/// A small log must be compacted too: with the broker's defaults a segment is closed after a week or a gigabyte, and an
/// open one is never compacted.
const STATE_CONFIGS: &[(&str, &str)] = &[
    ("segment.bytes", "67108864"),
    ("segment.ms", "600000"),
    ("min.cleanable.dirty.ratio", "0.1"),
    ("max.compaction.lag.ms", "3600000"),
    ("delete.retention.ms", "86400000"),
];

/// The topics that only lictor reads and writes: partial sums by shard, and what shards remember.
#[must_use]
pub fn internal_topics(application_id: &str) -> [String; 2] {
    ["shuffle", "state"].map(|purpose| format!("{application_id}.{purpose}"))
}

/// The topics of a deployment. No topic has two purposes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topics {
    /// Carry spans.
    pub traces: Vec<String>,
    /// Carry log records.
    pub logs: Vec<String>,
    /// Carry metrics.
    pub metrics: Vec<String>,
    /// What is written to.
    pub outputs: OutputTopics,
}

impl Default for Topics {
    fn default() -> Self {
        Self {
            traces: vec!["otlp_spans".to_owned()],
            logs: vec!["otlp_logs".to_owned()],
            metrics: vec!["otlp_metrics".to_owned()],
            outputs: OutputTopics::default(),
        }
    }
}

impl Topics {
    /// Which input topic carries which signal.
    #[must_use]
    pub fn signals(&self) -> BTreeMap<String, Signal> {
        let of = |topics: &[String], signal| topics.iter().map(|t| (t.clone(), signal)).collect::<Vec<_>>();
        let all = [of(&self.traces, Signal::Traces), of(&self.logs, Signal::Logs), of(&self.metrics, Signal::Metrics)];
        all.into_iter().flatten().collect()
    }

    /// The topics that are written to, as they must be; one that has to be created gets the broker's own number of
    /// partitions.
    #[must_use]
    pub fn output_specs(&self) -> Vec<TopicSpec> {
        const BROKER_DEFAULT: i32 = -1;
        let OutputTopics { enforcement, directives, directives_shadow, dead_letter, late, otlp } = &self.outputs;
        let topics = [
            (Some(enforcement), false),
            (Some(directives), true),
            (Some(directives_shadow), true),
            (Some(dead_letter), false),
            (Some(late), false),
            (otlp.as_ref().map(|otlp| &otlp.topic), false),
        ];
        let named = topics.into_iter().filter_map(|(name, compacted)| Some((name?, compacted)));
        named.map(|(name, compacted)| TopicSpec::new(name, BROKER_DEFAULT, compacted)).collect()
    }
}

/// When an epoch ends: at whatever comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochBounds {
    /// So long after its first record.
    pub linger: Duration,
    /// With so many rows.
    pub rows_max: usize,
}

impl Default for EpochBounds {
    /// Those of [`LiveOptions`].
    fn default() -> Self {
        let LiveOptions { linger, rows_max, .. } = LiveOptions::default();
        Self { linger, rows_max }
    }
}

/// Bounds of state, and of what may be undecodable.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Groups of one rule over all its open windows.
    pub groups_max: usize,
    /// Directives of one rule that hold at a time.
    pub subjects_max: usize,
    /// How far before the moment at which a rule comes telemetry is read once more for it, in nanoseconds; 0: not at
    /// all.
    pub history_ns: i64,
    /// The share of records, 0 to 1, that may be undecodable before the engine stops.
    pub decode_error_ratio_max: f64,
}

/// As far back as the longest month: a month's budget counts from the first whenever its rule is edited. What a topic
/// does not have any more is not read.
const HISTORY_NS: i64 = 31 * 86_400 * 1_000_000_000;

impl Default for Limits {
    /// Those of [`PipelineSettings`] and [`LiveOptions`].
    fn default() -> Self {
        let PipelineSettings { groups_max, subjects_max, .. } = PipelineSettings::default();
        let LiveOptions { decode_error_ratio_max, .. } = LiveOptions::default();
        Self { groups_max, subjects_max, history_ns: HISTORY_NS, decode_error_ratio_max }
    }
}

/// How the log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Something wrong in a configuration, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// From 1.
    pub line: u64,
    /// In characters, from 1.
    pub column: u64,
    /// What is wrong and what to write instead.
    pub message: String,
}

/// Why there is no configuration.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// The file can be read and what it says is wrong.
    #[error("{}", listed(path, faults))]
    Faulty {
        /// The file.
        path: PathBuf,
        /// Everything that is wrong, in the order of the file.
        faults: Vec<Fault>,
    },
}

fn listed(path: &Path, faults: &[Fault]) -> String {
    let mut text = String::new();
    for Fault { line, column, message } in faults {
        let separator = if text.is_empty() { "" } else { "\n" };
        let _ = write!(text, "{separator}{}:{line}:{column}: {message}", path.display());
    }
    text
}

impl Config {
    /// Reads the file at `path`, with what it takes from the environment and from other files.
    ///
    /// # Errors
    /// The file cannot be read, is no YAML of the expected shape, or holds wrong values: all of those are named.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text =
            fs::read_to_string(path).map_err(|source| ConfigError::Unreadable { path: path.to_path_buf(), source })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let file = |named: &Path| fs::read_to_string(folder.join(named));
        Self::from_yaml(path, &text, &Outside { env: &|name| env::var(name).ok(), file: &file })
    }

    /// Checks `text`, which was read at `path`; relative paths in it count from the folder of `path`.
    ///
    /// # Errors
    /// [`ConfigError::Faulty`], with everything that is wrong.
    pub fn from_yaml(path: &Path, text: &str, outside: &Outside<'_>) -> Result<Self, ConfigError> {
        let faulty = |faults| ConfigError::Faulty { path: path.to_path_buf(), faults };
        let said = said::read(text).map_err(|fault| faulty(vec![fault]))?;
        check::check(&said, path.parent().unwrap_or(Path::new("")), outside).map_err(faulty)
    }

    /// What the pipeline must know.
    #[must_use]
    pub fn pipeline_settings(&self) -> PipelineSettings {
        PipelineSettings {
            application_id: self.application_id.clone(),
            signals: self.topics.signals(),
            tolerances: self.time,
            columns: self.columns.clone(),
            groups_max: self.limits.groups_max,
            subjects_max: self.limits.subjects_max,
            reach_ns: self.limits.history_ns,
            mode: self.mode,
        }
    }

    /// What the tasks must know, if they read `inputs`.
    #[must_use]
    pub fn task_options(&self, inputs: Vec<String>) -> TaskOptions {
        let [shuffle, state] = internal_topics(&self.application_id);
        TaskOptions {
            application_id: self.application_id.clone(),
            instance_id: self.instance_id.clone(),
            inputs,
            topics: TaskTopics { shuffle, state, outputs: self.topics.outputs.clone() },
            shards: self.shards,
            delivery: self.delivery,
            reading: ReadingOptions {
                linger: self.epoch.linger,
                rows_max: self.epoch.rows_max,
                commit_every: COMMIT_EVERY,
                patience: PATIENCE,
                decode_error_ratio_max: self.limits.decode_error_ratio_max,
            },
        }
    }

    /// Every topic that is written to, as it must be: those for others to read, then the internal ones.
    #[must_use]
    pub fn topic_specs(&self) -> Vec<TopicSpec> {
        let [shuffle, state] = internal_topics(&self.application_id);
        let shards = i32::try_from(self.shards).unwrap_or(i32::MAX);
        let internal = |name: &str, compacted, configs: &[(&'static str, &str)]| {
            let configs = configs.iter().chain(&[MESSAGE_BYTES]).map(|(name, value)| (*name, (*value).to_owned()));
            TopicSpec { configs: configs.collect(), partitions_fixed: true, ..TopicSpec::new(name, shards, compacted) }
        };
        let mut specs = self.topics.output_specs();
        specs.push(internal(&shuffle, false, SHUFFLE_CONFIGS));
        specs.push(internal(&state, true, STATE_CONFIGS));
        specs
    }

    /// `text` with every secret of this configuration replaced by `***`: for messages of other people's libraries.
    ///
    /// The brokers' addresses stay, wherever they came from: a connection error without one helps nobody.
    #[must_use]
    pub fn redact(&self, text: &str) -> String {
        self.secrets.iter().fold(text.to_owned(), |text, secret| text.replace(secret, "***"))
    }
}

/// Shows whose configuration it is and nothing that could be a secret.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("application_id", &self.application_id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
