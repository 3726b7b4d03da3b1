//! `lictor verify`: reads the telemetry of an event once more and says whether the event follows from it.

use std::fs;
use std::io::{self, Read as _, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use clap::Args;
use lictor_connectors::{KafkaRestorer, NextOffset, RecordRef, TopicPartition, count_partitions};
use lictor_engine::config::Config;
use lictor_engine::metrics::Metrics;
use lictor_engine::pipeline::{Pipeline, PipelineSettings};
use lictor_engine::rules_dir::{self, LoadedRules};
use lictor_engine::verify::{Verification, needed_from, signals, verify};
use lictor_queries::ReferenceDecl;
use lictor_schemas::event::EnforcementEvent;
use lictor_schemas::time::EventTime;

use super::explain;
use super::topic_tables::TopicTables;

/// How long a broker may take for an answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Records after which windows may close.
const EPOCH_RECORDS: usize = 1_000;
/// Behind the last record time goes on, so that every window of the event closes.
const AFTERWARDS_NS: i64 = 86_400 * 1_000_000_000;
/// The exit code for what cannot be told: the telemetry is gone, or the rule is another.
const UNKNOWN: u8 = 3;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The event as it was published, a CloudEvents JSON message; `-` is standard input.
    event: PathBuf,
    /// The configuration of the deployment that has published it.
    #[arg(short, long)]
    config: PathBuf,
    /// How much telemetry may be held in memory, in MiB.
    #[arg(long, default_value_t = 1_024)]
    memory_max_mib: usize,
}

/// One record of telemetry, held so that all can be replayed in the order in which the broker got them.
struct Held {
    at_ms: i64,
    partition: TopicPartition,
    offset: i64,
    payload: Vec<u8>,
}

/// Offsets that were read.
struct Range {
    partition: TopicPartition,
    from: NextOffset,
    to: NextOffset,
}

/// Ends with 0 if the event follows, with 1 if it does not, with 3 if that cannot be told.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let config = Config::load(&arguments.config)?;
    answer(arguments, &config).map_err(|error| anyhow!(config.redact(&explain(&error))))
}

fn answer(arguments: &Arguments, config: &Config) -> anyhow::Result<ExitCode> {
    let event = read_event(&arguments.event)?;
    let mut loaded = load(config)?;
    let name = &event.data.rule.name;
    let mut out = io::stdout().lock();
    loaded.rules.rules.retain(|rule| rule.header.name == *name);
    let Some(rule) = loaded.rules.rules.first() else {
        writeln!(out, "it cannot be told: there is no rule `{name}` that compiles")?;
        return Ok(ExitCode::from(UNKNOWN));
    };
    if rule.header.version.0 != event.data.rule.version {
        let (theirs, ours) = (&event.data.rule.version, &rule.header.version.0);
        writeln!(out, "it cannot be told: the event is of version {theirs} of `{name}`, the rules have {ours}")?;
        return Ok(ExitCode::from(UNKNOWN));
    }
    let needed_from = needed_from(&loaded.rules, rule, &event);
    let signals = signals(rule);
    let topics = config.topics.signals().into_iter().filter(|(_, signal)| signals.contains(signal));
    let topics: Vec<String> = topics.map(|(topic, _)| topic).collect();
    let mut reader = Reader::new(config, arguments.memory_max_mib << 20)?;
    let settings = config.pipeline_settings();
    let (records, ranges) = reader.read(&topics, (needed_from, &event), &settings)?;
    for Range { partition, from, to } in &ranges {
        writeln!(out, "read      {partition} offsets {} to {}", from.0, to.0 - 1)?;
    }
    if let Some(cut) = &reader.cut {
        writeln!(out, "it cannot be told: telemetry of {cut} was deleted that would be needed")?;
        return Ok(ExitCode::from(UNKNOWN));
    }
    let replayed = replay(load(config)?, name, &settings, &ranges, &records);
    let verification = verify(&event, &replayed, rule, &loaded.rules);
    writeln!(out, "replayed  {} records, {} events of the rule", records.len(), replayed.len())?;
    writeln!(out, "{verification}")?;
    Ok(match verification {
        Verification::Follows | Verification::FollowsWith { .. } => ExitCode::SUCCESS,
        Verification::Differs { .. } | Verification::Absent => ExitCode::FAILURE,
        Verification::Unknown { .. } => ExitCode::from(UNKNOWN),
    })
}

fn read_event(path: &PathBuf) -> anyhow::Result<EnforcementEvent> {
    let mut bytes = Vec::new();
    if path.as_os_str() == "-" {
        io::stdin().read_to_end(&mut bytes).context("cannot read standard input")?;
    } else {
        bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    }
    Ok(EnforcementEvent::from_json(&bytes)?)
}

/// The rules with the reference tables as they are now.
fn load(config: &Config) -> anyhow::Result<LoadedRules> {
    let mut topics = TopicTables::new(config, Arc::new(Metrics::new()), Arc::new(AtomicBool::new(false)));
    let mut read_topic = |decl: &ReferenceDecl| topics.rows(decl);
    let loaded = rules_dir::load_with_topics(&config.rules, config.prices.as_deref(), &mut read_topic)?;
    if let Some(why) = topics.unanswered() {
        bail!(why);
    }
    Ok(loaded)
}

/// Reads telemetry that may have had a part in an event.
struct Reader<'a> {
    config: &'a Config,
    log: KafkaRestorer,
    bytes_max: usize,
    bytes: usize,
    /// A partition that does not have all that is needed any more.
    cut: Option<TopicPartition>,
}

impl<'a> Reader<'a> {
    fn new(config: &'a Config, bytes_max: usize) -> anyhow::Result<Self> {
        let (group, client_id) =
            (format!("{}-scan", config.application_id), format!("{}-verify", config.application_id));
        let log = KafkaRestorer::try_new(&config.kafka, &group, &client_id)?;
        Ok(Self { config, log, bytes_max, bytes: 0, cut: None })
    }

    /// The records in the order in which the broker got them.
    fn read(
        &mut self,
        topics: &[String],
        (needed_from, event): (EventTime, &EnforcementEvent),
        settings: &PipelineSettings,
    ) -> anyhow::Result<(Vec<Held>, Vec<Range>)> {
        let skew_ns = settings.tolerances.future_skew_ns;
        let first_ms =
            needed_from.plus(-settings.tolerances.lateness_ns.saturating_add(skew_ns)).0.div_euclid(1_000_000);
        let last_ms = event.data.detected_at.map(|at| at.plus(skew_ns).0.div_euclid(1_000_000));
        let (mut records, mut ranges) = (Vec::new(), Vec::new());
        for partition in self.partitions(topics)? {
            let begin = self.log.begin_of(&partition, PATIENCE)?;
            let first = self.log.offset_at(&partition, first_ms, PATIENCE)?;
            let end = self.log.end_of(&partition, PATIENCE)?;
            let last = last_ms.map(|at_ms| self.log.offset_at(&partition, at_ms, PATIENCE)).transpose()?.flatten();
            let (from, to) = (first.unwrap_or(end), last.unwrap_or(end));
            if begin.0 > 0 && from <= begin {
                self.cut = Some(partition.clone());
            }
            self.read_partition(&partition, (from.max(begin), to), &mut records)?;
            ranges.push(Range { partition, from, to });
        }
        records.sort_by(|a, b| (a.at_ms, &a.partition, a.offset).cmp(&(b.at_ms, &b.partition, b.offset)));
        Ok((records, ranges))
    }

    fn partitions(&self, topics: &[String]) -> anyhow::Result<Vec<TopicPartition>> {
        let counts = count_partitions(&self.config.kafka, topics)?;
        let of_topic = |(topic, count): (&String, Option<i32>)| {
            (0..count.unwrap_or_default()).map(|p| TopicPartition::new(topic, p)).collect::<Vec<_>>()
        };
        Ok(topics.iter().zip(counts).flat_map(of_topic).collect())
    }

    fn read_partition(
        &mut self,
        partition: &TopicPartition,
        (from, to): (NextOffset, NextOffset),
        records: &mut Vec<Held>,
    ) -> anyhow::Result<()> {
        let (bytes, bytes_max) = (&mut self.bytes, self.bytes_max);
        self.log.read_between(partition, from..to, PATIENCE, &mut |record| {
            let payload = record.payload.unwrap_or_default().to_vec();
            *bytes += payload.len();
            let (at_ms, offset) = (record.timestamp_ms, record.offset);
            records.push(Held { at_ms, partition: partition.clone(), offset, payload });
            if *bytes > bytes_max { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        if self.bytes > self.bytes_max {
            bail!("the event's telemetry is more than {} MiB: raise --memory-max-mib", self.bytes_max >> 20);
        }
        Ok(())
    }
}

/// What the rule says of the records.
fn replay(
    mut loaded: LoadedRules,
    name: &str,
    settings: &PipelineSettings,
    ranges: &[Range],
    records: &[Held],
) -> Vec<EnforcementEvent> {
    loaded.rules.rules.retain(|rule| rule.header.name == name);
    let mut pipeline = Pipeline::new(loaded.rules, loaded.prices, settings);
    let begin = EventTime::from_ms(records.first().map_or(0, |record| record.at_ms));
    ranges.iter().for_each(|range| pipeline.assign(range.partition.clone(), begin));
    let (mut events, mut now) = (Vec::new(), begin);
    for (number, Held { at_ms, partition, offset, payload }) in records.iter().enumerate() {
        now = EventTime::from_ms(*at_ms);
        let (topic, payload) = (partition.topic.as_ref(), Some(payload.as_slice()));
        let key = None;
        let record = RecordRef {
            topic,
            partition: partition.partition,
            offset: *offset,
            timestamp_ms: *at_ms,
            key,
            payload,
            ..RecordRef::default()
        };
        pipeline.absorb(record, now);
        if number % EPOCH_RECORDS == EPOCH_RECORDS - 1 {
            events.extend(pipeline.end_epoch(now).decisions);
        }
    }
    events.extend(pipeline.end_epoch(now).decisions);
    events.extend(pipeline.end_epoch(now.plus(AFTERWARDS_NS)).decisions);
    events.into_iter().map(|decision| decision.event).collect()
}
