//! `lictor dlq`: what was put aside, one letter, and back to where it came from.

mod list;
mod replay;
mod show;

use std::collections::BTreeMap;
use std::io;
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{anyhow, bail};
use clap::{Args, Subcommand};
use lictor_connectors::{KafkaRestorer, NextOffset, TopicPartition, count_partitions};
use lictor_engine::clock::{Clock as _, SystemClock};
use lictor_engine::config::{Config, LogFormat, Outside, duration};
use lictor_engine::dead_letters::{Done, Letter, LetterId, Selection};
use lictor_schemas::time::EventTime;

use super::explain;

/// How long a broker may take for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Lists dead letters: where each record came from, what was wrong with it, whether it was replayed.
    List(list::Arguments),
    /// Shows one dead letter; what may be somebody's secret only if that is asked for.
    Show(show::Arguments),
    /// Writes the records of dead letters back to where they came from, each once.
    Replay(replay::Arguments),
}

/// Where the dead letters are.
#[derive(Debug, Args)]
struct Place {
    /// The configuration of the deployment that has put them aside.
    #[arg(short, long, required_unless_present = "bootstrap")]
    config: Option<PathBuf>,
    /// The brokers, as host:port,host:port, instead of a configuration; topics have their default names.
    #[arg(long, conflicts_with = "config")]
    bootstrap: Option<String>,
    /// Another topic of dead letters than that of the configuration.
    #[arg(long, value_name = "TOPIC")]
    dead_letter: Option<String>,
}

/// Which of them.
#[derive(Debug, Default, Args)]
struct Choice {
    /// Only of records that were read from this topic.
    #[arg(long)]
    topic: Option<String>,
    /// Only of records that were read from this partition.
    #[arg(long)]
    partition: Option<i32>,
    /// Only of this kind, such as malformed_json.
    #[arg(long)]
    reason: Option<String>,
    /// Only those whose fault in words contains this.
    #[arg(long, value_name = "TEXT")]
    error: Option<String>,
    /// Put aside at this instant (RFC 3339) or later.
    #[arg(long, value_parser = super::recorded::parse_time)]
    from: Option<EventTime>,
    /// Put aside before this instant.
    #[arg(long, value_parser = super::recorded::parse_time)]
    until: Option<EventTime>,
    /// Put aside within the last so long, as in 7d or 12h.
    #[arg(long, value_parser = duration::parse_ns, conflicts_with_all = ["from", "until"])]
    last: Option<i64>,
}

/// Does what the command line says; messages have no secrets of the configuration in them.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    super::run::start_log(LogFormat::Text)?;
    let place = match &arguments.command {
        Command::List(list) => &list.place,
        Command::Show(show) => &show.place,
        Command::Replay(replay) => &replay.place,
    };
    let config = place.config()?;
    let answered = match &arguments.command {
        Command::List(list) => list::run(list, &config),
        Command::Show(show) => show::run(show, &config),
        Command::Replay(replay) => replay::run(replay, &config),
    };
    answered.map_err(|error| {
        // A reader that has gone away is no fault, and must still be seen as that.
        if super::is_broken_pipe(&error) { error } else { anyhow!(config.redact(&explain(&error))) }
    })
}

impl Place {
    fn config(&self) -> anyhow::Result<Config> {
        let mut config = match (&self.config, &self.bootstrap) {
            (Some(path), _) => Config::load(path)?,
            (None, servers) => {
                // JSON is YAML.
                let servers = servers.as_deref().unwrap_or_default();
                let text = serde_json::json!({"kafka": {"bootstrap.servers": servers}, "rules": "."}).to_string();
                let outside = Outside { env: &|_| None, file: &|_| Err(io::ErrorKind::NotFound.into()) };
                Config::from_yaml(Path::new("--bootstrap"), &text, &outside)?
            }
        };
        if let Some(topic) = &self.dead_letter {
            config.topics.outputs.dead_letter.clone_from(topic);
        }
        Ok(config)
    }
}

impl Choice {
    fn selection(&self, letters: &[LetterId]) -> Selection {
        let since = self.last.map(|ns| SystemClock::start().now().plus(-ns));
        Selection {
            letters: letters.to_vec(),
            topic: self.topic.clone(),
            partition: self.partition,
            reason: self.reason.clone(),
            error: self.error.clone(),
            from: since.or(self.from),
            to: self.until,
        }
    }
}

/// The group whose offsets say what was replayed, and the transactional id by which it is.
pub(super) fn replay_id(config: &Config) -> String {
    format!("{}-dlq-replay", config.application_id)
}

/// The dead-letter topic, as it was when the command began.
struct Letters {
    reader: KafkaRestorer,
    /// Partition, what it holds, what of it was replayed.
    partitions: BTreeMap<i32, (Range<NextOffset>, Done)>,
    topic: String,
}

impl Letters {
    fn open(config: &Config) -> anyhow::Result<Self> {
        let (topic, id) = (config.topics.outputs.dead_letter.clone(), replay_id(config));
        let Some(count) = count_partitions(&config.kafka, &[&topic])?.into_iter().flatten().next() else {
            bail!("there is no topic `{topic}`, or it may not be read");
        };
        let reader = KafkaRestorer::try_new(&config.kafka, &id, &id)?;
        let all: Vec<_> = (0..count).map(|partition| TopicPartition::new(&topic, partition)).collect();
        let committed = reader.committed(&all, PATIENCE)?;
        let mut partitions = BTreeMap::new();
        for (partition, committed) in committed {
            let (begin, end) = (reader.begin_of(&partition, PATIENCE)?, reader.end_of(&partition, PATIENCE)?);
            let done = match committed {
                Some(committed) if committed.next > end => bail!(
                    "group `{id}` has replayed {partition} up to offset {}, but it ends at {}: the topic was made \
                     anew. Delete the group to begin anew, too",
                    committed.next.0,
                    end.0
                ),
                Some(committed) => Done::read(committed.next.0, &committed.metadata)?,
                None => Done::default(),
            };
            partitions.insert(partition.partition, (begin..end, done.since(begin.0)));
        }
        Ok(Self { reader, partitions, topic })
    }

    /// Hands over the letters of a partition in their order, from an offset on.
    fn read(
        &mut self,
        partition: i32,
        from: NextOffset,
        absorb: &mut dyn FnMut(Letter) -> ControlFlow<()>,
    ) -> anyhow::Result<()> {
        let Some((held, _)) = self.partitions.get(&partition) else {
            bail!("`{}` has no partition {partition}", self.topic);
        };
        let range = held.start.max(from)..held.end;
        let at = TopicPartition::new(&self.topic, partition);
        self.reader.read_between(&at, range, PATIENCE, &mut |record| absorb(Letter::of(&record)))?;
        Ok(())
    }

    /// Where the letters of a partition begin that were put aside at an instant or later.
    fn first_at(&self, partition: i32, from: Option<EventTime>) -> anyhow::Result<NextOffset> {
        let Some(from) = from else { return Ok(NextOffset(0)) };
        let at = TopicPartition::new(&self.topic, partition);
        let found = self.reader.offset_at(&at, from.to_ms(), PATIENCE)?;
        Ok(found.unwrap_or(NextOffset(i64::MAX)))
    }
}
