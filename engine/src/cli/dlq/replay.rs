//! `lictor dlq replay`: writes records of dead letters once more, each once.
//!
//! Records and the note that they were replayed become visible in one transaction ([`Done`]), and the transactional id
//! is the same for every replay of a deployment: a second one that is started beside the first ends it.
//!
//! Only letters that were there when the command began are replayed. So what dies again at once is not seen by the
//! same command, and the next one knows it by its mark.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, bail};
use clap::Args;
use lictor_connectors::{
    Consumed, KafkaRestorer, KafkaTransactions, NextOffset, OutsideOfGroup, TopicPartition, TransactionError,
    count_partitions,
};
use lictor_engine::config::{Config, internal_topics};
use lictor_engine::dead_letters::{Account, Done, Fate, Letter, LetterId, Outlet, Replay, Walk};

use super::{Choice, Letters, PATIENCE, Place, replay_id};
use crate::cli::{stop_flag, terminal::plain};

/// Records in a transaction: some milliseconds of work for the broker, and its end costs as much as ten of them.
const BATCH_RECORDS: usize = 500;
/// Bytes in a transaction, so that one of large records ends well within its time.
const BATCH_BYTES: usize = 8 << 20;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// These letters only, as `lictor dlq list` names them: partition:offset of the dead-letter topic.
    letters: Vec<LetterId>,
    #[command(flatten)]
    pub(super) place: Place,
    #[command(flatten)]
    choice: Choice,
    /// Write to this topic instead of where each record was read from.
    #[arg(long, value_name = "TOPIC")]
    to: Option<String>,
    /// Replay so many at most.
    #[arg(long)]
    limit: Option<u64>,
    /// Leave records that were replayed so often and died again.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    replays_max: u32,
    /// Say what would be replayed, and write nothing.
    #[arg(long)]
    dry_run: bool,
}

/// Ends with 1 if letters that were meant are left.
pub(super) fn run(arguments: &Arguments, config: &Config) -> anyhow::Result<ExitCode> {
    let replay = Replay {
        selection: arguments.choice.selection(&arguments.letters),
        outlet: outlet(arguments, config)?,
        replays_max: arguments.replays_max,
        dead_letter: config.topics.outputs.dead_letter.clone(),
    };
    // Whoever replays now is known to the brokers before anybody is asked what was replayed.
    let transactions = if arguments.dry_run { None } else { Some(take_over(config)?) };
    let mut letters = Letters::open(config)?;
    let mut out = io::stdout().lock();
    for letter in &arguments.letters {
        match letters.partitions.get(&letter.partition) {
            Some((_, done)) if done.has(letter.offset) => writeln!(out, "{letter} was replayed before")?,
            Some((held, _)) if held.contains(&NextOffset(letter.offset)) => {}
            _ => bail!("`{}` has no letter {letter} (any more)", letters.topic),
        }
    }
    let writer = transactions.map(|transactions| letters.reader.outside_of_group().map(|g| (transactions, g)));
    let writer = writer.transpose()?.map(|(transactions, group)| Writer { transactions, group, records: 0, bytes: 0 });
    let originals = KafkaRestorer::try_new(&config.kafka, &replay_id(config), &replay_id(config))?;
    let left = arguments.limit.unwrap_or(u64::MAX);
    let stop = stop_flag()?;
    let mut run = Run { replay, originals, writer, out, account: Account::default(), durable: 0, left, stop };
    run.all(&mut letters)?;
    writeln!(run.out, "{}", run.account)?;
    if arguments.dry_run {
        writeln!(run.out, "this was a dry run: nothing was written")?;
    }
    Ok(if run.account.has_left() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn take_over(config: &Config) -> anyhow::Result<KafkaTransactions> {
    let id = replay_id(config);
    Ok(KafkaTransactions::try_new(&config.kafka, &id, &id, "dlq", PATIENCE)?)
}

/// Where records go: nowhere that they could be taken for something that lictor has decided.
fn outlet(arguments: &Arguments, config: &Config) -> anyhow::Result<Outlet> {
    let Some(topic) = &arguments.to else {
        return Ok(Outlet::Source(config.topics.signals().into_keys().collect()));
    };
    let outputs = config.topics.output_specs().into_iter().map(|spec| spec.name);
    let written: BTreeSet<String> = outputs.chain(internal_topics(&config.application_id)).collect();
    if written.contains(topic) {
        bail!("`{topic}` is written by lictor itself: what is replayed cannot go there");
    }
    if count_partitions(&config.kafka, &[topic])?.contains(&None) {
        bail!("there is no topic `{topic}`, or it may not be seen");
    }
    Ok(Outlet::Topic(topic.clone()))
}

/// Writes and notes what was written.
struct Writer {
    transactions: KafkaTransactions,
    group: OutsideOfGroup,
    /// Since the last commit.
    records: usize,
    bytes: usize,
}

struct Run<W> {
    replay: Replay,
    /// Reads records again of which a letter does not have all bytes.
    originals: KafkaRestorer,
    /// None in a dry run.
    writer: Option<Writer>,
    out: W,
    account: Account,
    /// How many records are written for good.
    durable: u64,
    /// How many more may be replayed.
    left: u64,
    stop: Arc<AtomicBool>,
}

impl<W: Write> Run<W> {
    fn all(&mut self, letters: &mut Letters) -> anyhow::Result<()> {
        let partitions: Vec<_> = letters.partitions.iter().map(|(p, (_, done))| (*p, done.clone())).collect();
        for (partition, done) in partitions {
            let replayed = self.partition(letters, partition, done);
            if let (Err(_), Some(writer)) = (&replayed, &mut self.writer) {
                // Else readers would wait for its end until it has timed out. The first error is the one to tell.
                writer.transactions.abort().ok();
            }
            replayed.with_context(|| {
                format!("{} records were replayed; say it again to go on with the others", self.durable)
            })?;
        }
        Ok(())
    }

    fn partition(&mut self, letters: &mut Letters, partition: i32, done: Done) -> anyhow::Result<()> {
        let at = TopicPartition::new(&letters.topic, partition);
        let from = NextOffset(done.next());
        let mut walk = Walk::new(done);
        let mut outcome = Ok(());
        letters.read(partition, from, &mut |letter| match self.letter(letter, &mut walk, &at) {
            Ok(flow) => flow,
            Err(error) => {
                outcome = Err(error);
                ControlFlow::Break(())
            }
        })?;
        outcome.and_then(|()| self.commit(&walk, &at))
    }

    fn letter(&mut self, letter: Letter, walk: &mut Walk, at: &TopicPartition) -> anyhow::Result<ControlFlow<()>> {
        if self.left == 0 || self.stop.load(Ordering::Relaxed) {
            return Ok(ControlFlow::Break(()));
        }
        let offset = letter.id.offset;
        let was_done = walk.was_done(offset);
        let fate = match self.replay.fate(&letter, was_done) {
            Fate::Replayed if !walk.has_room_for(offset) => Fate::NoRoom,
            Fate::Replayed => self.write(letter)?,
            other => other,
        };
        walk.note(offset, was_done || fate == Fate::Replayed);
        self.account.add(fate);
        self.left -= u64::from(fate == Fate::Replayed);
        if self.writer.as_ref().is_some_and(|writer| writer.records >= BATCH_RECORDS || writer.bytes >= BATCH_BYTES) {
            self.commit(walk, at)?;
        }
        Ok(ControlFlow::Continue(()))
    }

    fn write(&mut self, letter: Letter) -> anyhow::Result<Fate> {
        let id = letter.id;
        let Some(whole) = self.whole(letter)? else { return Ok(Fate::Gone) };
        let (message, partition) = self.replay.message(whole);
        let bytes = message.payload.as_ref().map_or(0, Vec::len);
        let Some(writer) = &mut self.writer else {
            let place = partition.map_or_else(String::new, |partition| format!("[{partition}]"));
            writeln!(self.out, "{id} → {}{place}  {bytes} B", plain(&message.topic))?;
            return Ok(Fate::Replayed);
        };
        match writer.transactions.publish(&message, partition) {
            Ok(()) => {
                writer.records += 1;
                writer.bytes += bytes;
                Ok(Fate::Replayed)
            }
            Err(TransactionError::TooLarge { .. }) => Ok(Fate::TooLarge),
            Err(error) => Err(error.into()),
        }
    }

    /// The letter with what it goes without, from the record itself; none if that is not to be had.
    fn whole(&mut self, letter: Letter) -> anyhow::Result<Option<Letter>> {
        if letter.omitted.is_nothing() {
            return Ok(Some(letter));
        }
        let Some(origin) = letter.origin.as_ref().filter(|_| !letter.is_part()) else { return Ok(None) };
        let begin = self.originals.begin_of(&origin.partition, PATIENCE)?;
        let end = self.originals.end_of(&origin.partition, PATIENCE)?;
        let offset = NextOffset(origin.offset);
        if offset < begin || offset >= end {
            return Ok(None);
        }
        let mut found = None;
        let range = offset..NextOffset::after(origin.offset);
        self.originals.read_between(&origin.partition, range, PATIENCE, &mut |record| {
            found = (record.offset == offset.0).then(|| Letter::of(&record));
            ControlFlow::Break(())
        })?;
        Ok(found.map(|record| Letter { key: record.key, payload: record.payload, headers: record.headers, ..letter }))
    }

    /// Makes what was written since the last commit visible, with the note that it was.
    fn commit(&mut self, walk: &Walk, at: &TopicPartition) -> anyhow::Result<()> {
        let Some(writer) = self.writer.as_mut().filter(|writer| writer.records > 0) else { return Ok(()) };
        let done = walk.done();
        let noted = Consumed { partition: at.clone(), next: NextOffset(done.next()), metadata: done.text() };
        writer.transactions.commit_outside_of_group(&[noted], &writer.group)?;
        self.durable += writer.records as u64;
        (writer.records, writer.bytes) = (0, 0);
        Ok(())
    }
}
