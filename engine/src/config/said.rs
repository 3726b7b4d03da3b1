//! The configuration as it was written: YAML, every value as text with its place.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_saphyr::{DefaultMessageFormatter, MessageFormatter, Spanned};

use super::Fault;

/// A value and where it stands.
pub(super) type Said = Spanned<String>;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ConfigFile {
    pub(super) application_id: Option<Said>,
    pub(super) instance_id: Option<Said>,
    pub(super) shards: Option<Said>,
    pub(super) delivery: Option<Said>,
    pub(super) mode: Option<Said>,
    pub(super) kafka: Option<BTreeMap<String, Said>>,
    pub(super) topics: Option<TopicsSaid>,
    pub(super) rules: Option<Said>,
    pub(super) prices: Option<Said>,
    pub(super) columns: Option<Vec<ColumnSaid>>,
    pub(super) time: Option<TimeSaid>,
    pub(super) epoch: Option<EpochSaid>,
    pub(super) limits: Option<LimitsSaid>,
    pub(super) guard: Option<GuardSaid>,
    pub(super) alertmanager: Option<AlertmanagerSaid>,
    pub(super) http: Option<Said>,
    pub(super) console: Option<ConsoleSaid>,
    pub(super) log: Option<LogSaid>,
    pub(super) tls: Option<TlsSaid>,
    pub(super) telemetry: Option<TelemetrySaid>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct TopicsSaid {
    pub(super) traces: Option<Vec<Said>>,
    pub(super) logs: Option<Vec<Said>>,
    pub(super) metrics: Option<Vec<Said>>,
    pub(super) enforcement: Option<Said>,
    pub(super) directives: Option<Said>,
    pub(super) directives_shadow: Option<Said>,
    pub(super) dead_letter: Option<Said>,
    pub(super) late: Option<Said>,
    pub(super) otlp: Option<Said>,
    pub(super) otlp_encoding: Option<Said>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ColumnSaid {
    pub(super) column: Said,
    pub(super) attribute: Said,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct TimeSaid {
    pub(super) lateness: Option<Said>,
    pub(super) idle_after: Option<Said>,
    pub(super) max_future_skew: Option<Said>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct EpochSaid {
    pub(super) linger: Option<Said>,
    pub(super) rows_max: Option<Said>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct LimitsSaid {
    pub(super) groups_max: Option<Said>,
    pub(super) subjects_max: Option<Said>,
    pub(super) history: Option<Said>,
    pub(super) decode_error_ratio_max: Option<Said>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct GuardSaid {
    pub(super) http: Option<Said>,
    pub(super) on_stale: Option<Said>,
    pub(super) stale_after: Option<Said>,
    pub(super) headers: Option<BTreeMap<String, Said>>,
    pub(super) directives_max: Option<Said>,
    pub(super) decisions: Option<Said>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ConsoleSaid {
    pub(super) listen: Option<Said>,
    pub(super) token: Option<Said>,
    pub(super) allow_reload: Option<Said>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct LogSaid {
    pub(super) format: Option<Said>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct TlsSaid {
    pub(super) cert: Option<Said>,
    pub(super) key: Option<Said>,
    pub(super) client_ca: Option<Said>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct TelemetrySaid {
    pub(super) otlp_endpoint: Option<Said>,
    pub(super) interval: Option<Said>,
    pub(super) headers: Option<BTreeMap<String, Said>>,
    pub(super) attributes: Option<BTreeMap<String, Said>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct AlertmanagerSaid {
    pub(super) urls: Option<Vec<Said>>,
    pub(super) username: Option<Said>,
    pub(super) password: Option<Said>,
    pub(super) resend: Option<Said>,
    pub(super) generator_url: Option<Said>,
}

/// Reads the YAML. Its shape has one fault at a time, as the reader stops there.
pub(super) fn read(text: &str) -> Result<ConfigFile, Fault> {
    // An error would otherwise quote the lines around it, and with them perhaps a password.
    serde_saphyr::from_str(text).map_err(|error| {
        let error = error.without_snippet();
        let (line, column) = error.location().map_or((1, 1), |at| (at.line(), at.column()));
        let message = DefaultMessageFormatter.format_message(error).escape_debug().to_string();
        Fault { line, column, message }
    })
}
