//! `lictor tail`: enforcement events as they are published, one line each.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use lictor_connectors::{AssignmentChange, KafkaProperties, KafkaSource, Polled, Source};
use lictor_engine::config::Config;
use lictor_engine::outputs::OutputTopics;
use lictor_schemas::event::{EnforcementEvent, State};
use lictor_schemas::genops::PolicyResult;
use lictor_schemas::rule::Mode;

use super::stop_flag;
use super::terminal::{Paint, Painter};

/// How long Ctrl-C may go unnoticed.
const POLL_WAIT: Duration = Duration::from_millis(100);

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The configuration that says where Kafka and the topic are.
    #[arg(short, long, required_unless_present = "bootstrap")]
    config: Option<PathBuf>,
    /// The brokers, as host:port,host:port, instead of a configuration.
    #[arg(long, conflicts_with = "config")]
    bootstrap: Option<String>,
    /// Another topic than that of the enforcement events.
    #[arg(long)]
    topic: Option<String>,
    /// Begin with the oldest event instead of the next one.
    #[arg(long)]
    from_beginning: bool,
    /// Write the messages as they are.
    #[arg(long)]
    json: bool,
}

/// Where the events are.
struct Place {
    properties: KafkaProperties,
    application_id: String,
    topic: String,
}

/// Prints events until it is stopped.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let Place { properties, application_id, topic } = place(arguments)?;
    let start = if arguments.from_beginning { "earliest" } else { "latest" };
    let properties = properties.with("consumer.auto.offset.reset", start)?;
    // A group of its own that never commits: others read undisturbed, and nothing is left behind.
    let group = format!("{application_id}-tail-{:016x}", fastrand::u64(..));
    let mut source = KafkaSource::try_new(&properties, &group, &group, &[topic])?;
    let stop = stop_flag()?;
    let mut printer =
        Printer { to: io::stdout().lock(), painter: Painter::for_stream(&io::stdout()), json: arguments.json };
    while !stop.load(Ordering::Relaxed) {
        let mut printed = Ok(());
        let polled = source.poll(POLL_WAIT, &mut |record| printed = printer.print(record.key, record.payload))?;
        printed?;
        if let Polled::Assignment(AssignmentChange::Revoked(partitions)) = polled {
            source.release(&partitions)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn place(arguments: &Arguments) -> anyhow::Result<Place> {
    let mut place = match (&arguments.config, &arguments.bootstrap) {
        (Some(path), _) => {
            let config = Config::load(path)?;
            let topic = config.topics.outputs.enforcement;
            Place { properties: config.kafka, application_id: config.application_id, topic }
        }
        (None, bootstrap) => {
            let servers = bootstrap.as_deref().context("neither -c nor --bootstrap says where Kafka is")?;
            let said = BTreeMap::from([("bootstrap.servers".to_owned(), servers.to_owned())]);
            let topic = OutputTopics::default().enforcement;
            Place { properties: KafkaProperties::try_new(said)?, application_id: "lictor".to_owned(), topic }
        }
    };
    if let Some(topic) = &arguments.topic {
        place.topic.clone_from(topic);
    }
    Ok(place)
}

struct Printer<W> {
    to: W,
    painter: Painter,
    json: bool,
}

impl<W: Write> Printer<W> {
    /// Prints one message; one that is no event is reported beside them.
    fn print(&mut self, key: Option<&[u8]>, payload: Option<&[u8]>) -> io::Result<()> {
        let key = String::from_utf8_lossy(key.unwrap_or_default());
        match payload {
            Some(payload) if self.json => {
                self.to.write_all(payload)?;
                writeln!(self.to)?;
            }
            Some(payload) => match EnforcementEvent::from_json(payload) {
                Ok(event) => writeln!(self.to, "{}", line(&event, self.painter))?,
                Err(error) => eprintln!("lictor: message {key}: {error}"),
            },
            // On the directives topic: the directive does not hold any more.
            None if self.json => {}
            None => writeln!(self.to, "{}", self.painter.paint(Paint::Dim, &format!("{key} removed")))?,
        }
        self.to.flush()
    }
}

/// An event as a line for people: when, what, who, how much, and the telemetry that shows it.
pub(crate) fn line(event: &EnforcementEvent, painter: Painter) -> String {
    let directive = &event.data;
    let finding = &directive.finding;
    let paint = match (directive.state.is_ended(), finding.result) {
        (true, _) | (_, PolicyResult::Allowed) => Paint::Green,
        (_, PolicyResult::Blocked | PolicyResult::RateLimited) => Paint::Red,
        (_, PolicyResult::Warning) => Paint::Yellow,
    };
    let mut line = format!(
        "{}  {}  {}  {}  {}",
        painter.paint(Paint::Dim, &event.time.to_rfc3339()),
        painter.paint(paint, &format!("{:8}", state(directive.state))),
        painter.paint(Paint::Bold, &directive.rule.name),
        painter.paint(paint, finding.result.as_str()),
        event.to_subject_text(),
    );
    if directive.mode == Mode::Shadow {
        line.push_str("  (shadow)");
    }
    if let Some(measured) = measured(finding.observed, finding.threshold, finding.unit.as_deref()) {
        let _ = write!(line, "  {measured}");
    }
    if let Some(message) = &finding.message {
        let _ = write!(line, "  {}", painter.paint(Paint::Dim, message));
    }
    if let Some(exemplar) = finding.exemplars.first() {
        let trace = format!("trace {} span {}", exemplar.trace_id, exemplar.span_id);
        let _ = write!(line, "  {}", painter.paint(Paint::Dim, &trace));
    }
    line
}

fn state(state: State) -> &'static str {
    match state {
        State::Firing => "FIRING",
        State::Updated => "UPDATED",
        State::Resolved => "RESOLVED",
        State::Expired => "EXPIRED",
        State::Superseded => "SUPERSEDED",
    }
}

/// `observed / threshold unit`, of which each may be missing.
pub(super) fn measured(observed: Option<f64>, threshold: Option<f64>, unit: Option<&str>) -> Option<String> {
    let mut text = format_number(observed?);
    if let Some(threshold) = threshold {
        let _ = write!(text, " / {}", format_number(threshold));
    }
    if let Some(unit) = unit {
        let _ = write!(text, " {unit}");
    }
    Some(text)
}

/// At most four decimals, and no zeros behind them.
fn format_number(number: f64) -> String {
    let text = format!("{number:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use lictor_schemas::event::{Finding, Revision};
    use lictor_schemas::genops::{Action, ReasonCode, Severity};
    use lictor_schemas::rule::{RuleHeader, RuleVersion};
    use lictor_schemas::time::EventTime;
    use lictor_schemas::violation::{Exemplar, Subject, Violation};
    use serde_json::{Map, json};

    use super::*;

    const PLAIN: Painter = Painter { color: false };

    fn event(state: State, mode: Mode) -> EnforcementEvent {
        let at = EventTime::from_rfc3339("2026-03-01T12:00:03.250Z").unwrap();
        let subject = Subject(Map::from_iter([("team".to_owned(), json!("search"))]));
        let exemplar =
            Exemplar { trace_id: "a".repeat(32), span_id: "b".repeat(16), value: 1.0, partition: 0, offset: 0 };
        let violation = Violation {
            subject: subject.clone(),
            result: PolicyResult::Blocked,
            reason_code: ReasonCode::parse("BUDGET_EXCEEDED").unwrap(),
            observed: Some(100.25),
            threshold: Some(100.0),
            unit: Some("USD".to_owned()),
            message: None,
            valid_until: None,
            params: None,
            window: None,
            window_kind: None,
            sample_count: None,
            evidence: Map::new(),
            exemplars: vec![exemplar],
            at,
        };
        let rule = RuleHeader {
            severity: Severity::Critical,
            mode,
            file: "a.sql".to_owned(),
            version: RuleVersion("0".repeat(16)),
            ..RuleHeader::new("team_daily_budget", Action::Block, ReasonCode::parse("BUDGET_EXCEEDED").unwrap())
        };
        let finding = if state.is_ended() { Finding::cleared(None) } else { Finding::from(&violation) };
        let directive_id = "d".repeat(32);
        let revision = Revision {
            directive_id: &directive_id,
            revision: 1,
            state,
            subject: &subject,
            finding,
            mode: rule.mode,
            started_at: Some(at),
            at,
            valid_until: at,
        };
        EnforcementEvent::new("lictor", &rule, revision)
    }

    fn print(json: bool, payload: Option<&[u8]>) -> String {
        let mut printer = Printer { to: Vec::new(), painter: PLAIN, json };
        printer.print(Some(b"key"), payload).unwrap();
        String::from_utf8(printer.to).unwrap()
    }

    #[test]
    fn a_line_says_when_what_who_how_much_and_shows_the_telemetry() {
        let expected = format!(
            "2026-03-01T12:00:03.250Z  FIRING    team_daily_budget  BLOCKED  team=search  100.25 / 100 USD  \
             trace {} span {}",
            "a".repeat(32),
            "b".repeat(16)
        );
        assert_eq!(line(&event(State::Firing, Mode::Enforce), PLAIN), expected);
        let resolved = line(&event(State::Resolved, Mode::Shadow), PLAIN);
        let expected = "2026-03-01T12:00:03.250Z  RESOLVED  team_daily_budget  ALLOWED  team=search  (shadow)";
        assert_eq!(resolved, expected);
    }

    #[test]
    fn colours_tell_what_is_blocked_from_what_is_over() {
        let color = Painter { color: true };
        assert!(line(&event(State::Firing, Mode::Enforce), color).contains("\u{1b}[1;31mBLOCKED"));
        assert!(line(&event(State::Resolved, Mode::Enforce), color).contains("\u{1b}[32mALLOWED"));
    }

    #[test]
    fn messages_are_printed_as_lines_or_as_they_are() {
        let bytes = event(State::Firing, Mode::Enforce).to_json();
        assert!(print(false, Some(&bytes)).starts_with("2026-03-01T12:00:03.250Z  FIRING"));
        assert_eq!(print(true, Some(&bytes)), format!("{}\n", String::from_utf8(bytes).unwrap()));
        assert_eq!(print(false, None), "key removed\n");
        assert_eq!((print(true, None), print(false, Some(b"garbage"))), (String::new(), String::new()));
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(measured(Some(0.1 + 0.2), None, None).unwrap(), "0.3");
        assert_eq!(measured(Some(1200.0), Some(1000.0), Some("ms")).unwrap(), "1200 / 1000 ms");
        assert_eq!(measured(None, Some(1.0), Some("ms")), None);
    }

    #[test]
    fn a_configuration_names_brokers_and_topic_and_the_command_line_the_topic() {
        let dir = tempfile::TempDir::new().unwrap();
        let config = dir.path().join("lictor.yaml");
        let text = "application_id: eu\nkafka: {bootstrap.servers: \"b:1\"}\nrules: r\ntopics: {enforcement: e}\n";
        std::fs::write(&config, text).unwrap();
        let mut arguments =
            Arguments { config: Some(config), bootstrap: None, topic: None, from_beginning: false, json: false };
        let found = place(&arguments).unwrap();
        assert_eq!((found.topic.as_str(), found.application_id.as_str()), ("e", "eu"));
        assert_eq!(found.properties.bootstrap_servers(), "b:1");
        arguments = Arguments { config: None, bootstrap: Some("c:2".into()), topic: Some("t".into()), ..arguments };
        let found = place(&arguments).unwrap();
        assert_eq!((found.topic.as_str(), found.properties.bootstrap_servers()), ("t", "c:2"));
    }
}
