//! What commands that read recorded telemetry are told about it: where it is, and which of it is meant.

mod progress;
pub(super) mod sources;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::bail;
use clap::Args;
use lictor_engine::backtest::Range;
use lictor_engine::config::{Config, Outside, duration};
use lictor_schemas::tables::Signal;
use lictor_schemas::time::EventTime;

pub(super) use self::progress::Bar;
use self::sources::Offsets;
pub(super) use self::sources::Sources;

/// Where telemetry is, and from when until when it counts.
#[derive(Debug, Args)]
pub(super) struct Telemetry {
    /// The configuration of the deployment whose telemetry is read: brokers, topics, columns, tolerances.
    #[arg(short, long)]
    config: Option<PathBuf>,
    /// The brokers, as host:port,host:port, if there is no configuration: otlp_spans, otlp_logs, otlp_metrics are read.
    #[arg(long, conflicts_with_all = ["config", "files"])]
    bootstrap: Option<String>,
    /// Recorded OTLP in place of topics: files and folders of JSON lines, JSON documents, protobuf; also .gz and .zst.
    #[arg(long, num_args = 1.., value_name = "PATH")]
    files: Vec<PathBuf>,
    /// What protobuf files hold, if their bytes do not tell: traces, logs or metrics.
    #[arg(long, value_parser = parse_signal, requires = "files", conflicts_with = "bootstrap")]
    signal: Option<Signal>,
    /// From when telemetry counts, by when the brokers got it (of files: when it happened): 2026-03-01T08:00Z.
    #[arg(long, value_parser = parse_time)]
    from: Option<EventTime>,
    /// Until when.
    #[arg(long, value_parser = parse_time)]
    to: Option<EventTime>,
    /// The last so long until now, as in 7d or 12h.
    #[arg(long, value_parser = duration::parse_ns, conflicts_with_all = ["from", "to"])]
    last: Option<i64>,
}

#[derive(Debug, Args)]
pub(super) struct Recorded {
    #[command(flatten)]
    telemetry: Telemetry,
    /// Only these records, as in otlp_spans[0]=100..200; may be repeated.
    #[arg(long, value_name = "TOPIC[PARTITION]=FROM..TO", conflicts_with = "files")]
    offsets: Vec<Offsets>,
    /// How much telemetry before the beginning is read, so that windows are whole and rules can look back.
    #[arg(long, value_parser = duration::parse_ns, default_value = "0s")]
    lead: i64,
    /// Threads that decode; by default one less than the machine has cores.
    #[arg(long)]
    decoders: Option<usize>,
}

pub(super) fn parse_signal(text: &str) -> Result<Signal, String> {
    Signal::parse(text).ok_or_else(|| "is none of traces, logs and metrics".to_owned())
}

/// RFC 3339, also without seconds, or a date: its midnight in UTC.
pub(super) fn parse_time(text: &str) -> Result<EventTime, String> {
    let whole = match (text.len(), text.get(16..)) {
        (10, _) => format!("{text}T00:00:00Z"),
        (_, Some(zone)) if !zone.starts_with(':') => format!("{}:00{zone}", &text[..16]),
        _ => text.to_owned(),
    };
    EventTime::from_rfc3339(&whole)
        .map_err(|_| "is no instant: write 2026-03-01, 2026-03-01T08:00Z or 2026-03-01T08:00:00+01:00".to_owned())
}

impl Telemetry {
    /// The configuration that was named, else the defaults with `rules`.
    pub(super) fn config(&self, rules: &Path) -> anyhow::Result<Config> {
        config_or_default(self.config.as_deref(), rules, self.bootstrap.as_deref())
    }

    /// Whether files are read, and nobody is asked.
    pub(super) fn is_files(&self) -> bool {
        !self.files.is_empty()
    }

    /// # Errors
    /// Nothing says where telemetry is.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        if self.config.is_none() && self.bootstrap.is_none() && self.files.is_empty() {
            bail!("nothing says where telemetry is: name a configuration (-c), --bootstrap or --files");
        }
        Ok(())
    }

    /// The stretch of time that is meant; nothing before it is read.
    pub(super) fn range(&self, now: EventTime) -> anyhow::Result<Range> {
        let (from, to) = bounds_of(self.last, (self.from, self.to), now)?;
        Ok(Range { read_from: from, from, to })
    }

    /// Opens what is to be read: of topics those that carry `wanted`, and of those only `offsets`, if there are any.
    pub(super) fn open(
        &self,
        config: &Config,
        (bound, wanted): (&BTreeMap<String, Signal>, &[Signal]),
        range: &Range,
        offsets: &[Offsets],
    ) -> anyhow::Result<Sources> {
        if self.files.is_empty() {
            sources::topics(config, wanted, range, offsets)
        } else {
            sources::files(&self.files, bound, self.signal)
        }
    }
}

impl Recorded {
    /// Where it is and when.
    pub(super) fn telemetry(&self) -> &Telemetry {
        &self.telemetry
    }

    /// The stretch of time that is meant, and the lead before it.
    pub(super) fn range(&self, now: EventTime) -> anyhow::Result<Range> {
        let range = self.telemetry.range(now)?;
        if range.from.is_none() && self.lead > 0 {
            bail!("--lead says how much is read before --from or --last, and neither is there");
        }
        Ok(Range { read_from: range.from.map(|from| from.plus(-self.lead)), ..range })
    }

    /// As [`Telemetry::open`].
    pub(super) fn open(
        &self,
        config: &Config,
        what: (&BTreeMap<String, Signal>, &[Signal]),
        range: &Range,
    ) -> anyhow::Result<Sources> {
        self.telemetry.open(config, what, range, &self.offsets)
    }

    /// How many threads decode.
    pub(super) fn decoders(&self) -> usize {
        self.decoders.unwrap_or_else(|| thread::available_parallelism().map_or(1, |n| n.get() - 1))
    }
}

/// The configuration that was named, else the defaults with `rules` and the brokers that were named.
pub(super) fn config_or_default(
    config: Option<&Path>,
    rules: &Path,
    bootstrap: Option<&str>,
) -> anyhow::Result<Config> {
    if let Some(path) = config {
        return Ok(Config::load(path)?);
    }
    let servers = bootstrap.unwrap_or("127.0.0.1:9092");
    // JSON is YAML.
    let text = serde_json::json!({"kafka": {"bootstrap.servers": servers}, "rules": rules});
    let outside = Outside { env: &|_| None, file: &|_| Err(io::ErrorKind::NotFound.into()) };
    Ok(Config::from_yaml(Path::new("--bootstrap"), &text.to_string(), &outside)?)
}

/// From when until when, if `last_ns` does not say how long until `now`.
pub(super) fn bounds_of(
    last_ns: Option<i64>,
    (from, to): (Option<EventTime>, Option<EventTime>),
    now: EventTime,
) -> anyhow::Result<(Option<EventTime>, Option<EventTime>)> {
    let (from, to) = match last_ns {
        Some(last_ns) => (Some(now.plus(-last_ns)), Some(now)),
        None => (from, to),
    };
    if let (Some(from), Some(to)) = (from, to)
        && from >= to
    {
        bail!("--from {from} is not before --to {to}");
    }
    Ok((from, to))
}

/// A range in words: `from … to …`.
pub(super) fn range_text(range: &Range) -> String {
    match (range.from, range.to) {
        (Some(from), Some(to)) => format!("from {from} to {to}"),
        (Some(from), None) => format!("from {from} on"),
        (None, Some(to)) => format!("until {to}"),
        (None, None) => "at all".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct CommandLine {
        #[command(flatten)]
        recorded: Recorded,
    }

    fn parse(arguments: &[&str]) -> Recorded {
        CommandLine::try_parse_from(["x"].iter().chain(arguments)).unwrap().recorded
    }

    #[test]
    fn times_may_be_short() {
        let at = |text| EventTime::from_rfc3339(text).unwrap();
        assert_eq!(parse_time("2026-03-01").unwrap(), at("2026-03-01T00:00:00Z"));
        assert_eq!(parse_time("2026-03-01T08:30Z").unwrap(), at("2026-03-01T08:30:00Z"));
        assert_eq!(parse_time("2026-03-01T08:30+01:00").unwrap(), at("2026-03-01T07:30:00Z"));
        assert_eq!(parse_time("2026-03-01T08:30:15.5Z").unwrap(), at("2026-03-01T08:30:15.5Z"));
        for wrong in ["", "today", "2026-13-01", "2026-03-01T08:30", "2026-03-01T08:30:15", "ääääääääää"] {
            assert!(parse_time(wrong).unwrap_err().starts_with("is no instant: write "), "{wrong}");
        }
    }

    #[test]
    fn the_last_days_are_until_now_and_the_lead_is_before_them() {
        let now = EventTime::from_rfc3339("2026-03-08T00:00:00Z").unwrap();
        let range = parse(&["--bootstrap", "b:1", "--last", "7d", "--lead", "1d"]).range(now).unwrap();
        let days = [range.read_from, range.from, range.to].map(|at| at.unwrap().to_rfc3339()[..10].to_owned());
        assert_eq!(days, ["2026-02-28", "2026-03-01", "2026-03-08"]);
        assert!(parse(&["--bootstrap", "b:1", "--lead", "1d"]).range(now).is_err());
    }

    #[test]
    fn brokers_alone_are_configuration_enough() {
        let config = parse(&["--bootstrap", "b:1,c:2"]).telemetry().config(Path::new("some rules")).unwrap();
        assert_eq!((config.kafka.bootstrap_servers(), config.rules), ("b:1,c:2", PathBuf::from("some rules")));
        assert_eq!(config.topics.signals().len(), 3);
    }
}
