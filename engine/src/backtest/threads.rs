//! Who does what at the same time: one thread reads and merges, some decode, one judges for each rule set.
//!
//! Chunks are dealt to the decoders in turn and taken from them in turn, so that their order is that of the merge. All
//! channels are bounded: who is slow is waited for, and memory holds some chunks for each thread.

use std::collections::{BTreeMap, BTreeSet};
use std::panic;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, ScopedJoinHandle};

use lictor_connectors::{ConnectorError, TopicPartition};
use lictor_queries::RuleSet;
use lictor_schemas::otlp::{Decoder, Wanted};
use lictor_schemas::prices::PriceTable;
use lictor_schemas::tables::{Signal, Table};
use lictor_schemas::time::EventTime;

use super::merge::{Chunk, Merge};
use super::replay::{Batch, Replay};
use super::{Account, Backtest, Failure, Outcome, Reading, Witness};
use crate::decoding::Decoding;
use crate::pipeline::PipelineSettings;

/// Chunks that wait in front of a thread: one that it works on next, and one more that hides a hiccup.
pub(super) const WAITING_MAX: usize = 2;

/// What a chunk has become: one batch for each way of decoding.
type Batches = Vec<Batch>;

/// Who judges, and which of the ways of decoding is theirs.
type Judge = (SyncSender<(Arc<Batches>, usize)>, usize);

/// Replays the telemetry under all rule sets; `witnesses` see the events, one for each set. Once `stop` is set nothing
/// more is read, and what was read is judged as if it were all.
///
/// # Errors
/// A track cannot be read to its end. What witnesses have seen by then is a part of what there is.
pub fn run(
    backtest: Backtest,
    expected: &BTreeSet<TopicPartition>,
    witnesses: Vec<&mut dyn Witness>,
    stop: &AtomicBool,
) -> Result<Outcome, Failure> {
    let Backtest { tracks, range, sets, settings, leaves_open, decoders } = backtest;
    let decoders = decoders.max(1);
    let ways = Ways::of(&sets);
    let bounds_ns = (chunk_ns_max(&settings), settings.tolerances.future_skew_ns);
    let merge = Merge::new(tracks, settings.signals.clone(), range, bounds_ns);
    thread::scope(|scope| {
        let (mut to_decode, mut decoded) = (Vec::new(), Vec::new());
        for _ in 0..decoders {
            let (chunks, to) = sync_channel(WAITING_MAX);
            let (batches, from) = sync_channel(WAITING_MAX);
            let decoding = ways.decoding(&settings);
            scope.spawn(move || decode(decoding, &to, &batches));
            to_decode.push(chunks);
            decoded.push(from);
        }
        let reader = scope.spawn(move || read(merge, &to_decode, stop));
        let (mut judges, mut to_judge) = (Vec::new(), Vec::new());
        for ((set, witness), way) in sets.into_iter().zip(witnesses).zip(&ways.of_set) {
            let (batches, from) = sync_channel::<(Arc<Batches>, usize)>(WAITING_MAX);
            let settings = &settings;
            judges.push(scope.spawn(move || {
                let mut replay = Replay::new(set, settings, range, (witness, stop));
                let mut is_first = true;
                for (batches, way) in &from {
                    let batch = batches[way].clone();
                    // Without any time there is none from which windows could wait.
                    if batch.came.0 != EventTime::MIN && std::mem::take(&mut is_first) {
                        replay.expect(expected, batch.came.0);
                    }
                    replay.take(batch);
                }
                replay.conclude(leaves_open)
            }));
            to_judge.push((batches, *way));
        }
        deal(&decoded, &to_judge);
        drop(to_judge);
        let accounts = judges.into_iter().map(joined).collect::<Vec<Account>>();
        // The decoders end when nobody takes anything from them any more.
        drop(decoded);
        let reading = joined(reader)?;
        Ok(Outcome { reading, accounts })
    })
}

/// What a thread has made; its panic is ours.
pub(super) fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panicked| panic::resume_unwind(panicked))
}

/// A silent partition must be seen to be silent: time is told twice as often as it falls idle.
pub(super) fn chunk_ns_max(settings: &PipelineSettings) -> i64 {
    (settings.tolerances.idle_after_ns / 2).max(1)
}

/// Reads to the end and deals chunks out in turn.
pub(super) fn read(mut merge: Merge, to: &[SyncSender<Chunk>], stop: &AtomicBool) -> Result<Reading, ConnectorError> {
    merge.begin()?;
    for decoder in to.iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            return Ok(Reading { is_stopped: true, ..merge.into_reading() });
        }
        let Some(chunk) = merge.next_chunk()? else { break };
        if decoder.send(chunk).is_err() {
            break;
        }
    }
    Ok(merge.into_reading())
}

fn decode(mut ways: Vec<Decoding>, from: &Receiver<Chunk>, to: &SyncSender<Batches>) {
    for chunk in from {
        let Some(came) = chunk.came() else { continue };
        let batches = ways.iter_mut().map(|decoding| {
            for (at, record) in &chunk.records {
                decoding.absorb(record.lend(), *at);
            }
            Batch { decoded: decoding.take(), came }
        });
        if to.send(batches.collect()).is_err() {
            return;
        }
    }
}

/// Takes chunks from the decoders in turn until there are no more, and gives each to all who judge.
fn deal(decoded: &[Receiver<Batches>], to: &[Judge]) {
    for from in decoded.iter().cycle() {
        let Ok(batches) = from.recv() else { return };
        let batches = Arc::new(batches);
        for (judge, way) in to {
            // One that has panicked says so when it is joined.
            let _ = judge.send((Arc::clone(&batches), *way));
        }
    }
}

/// The ways in which telemetry is decoded: one for all rule sets that reckon by the same prices.
struct Ways {
    ways: Vec<(Wanted, Arc<PriceTable>)>,
    /// The way of each set.
    of_set: Vec<usize>,
}

impl Ways {
    fn of(sets: &[(RuleSet, Arc<PriceTable>)]) -> Self {
        let mut ways: Vec<(Wanted, Arc<PriceTable>)> = Vec::new();
        let mut of_set = Vec::new();
        for (rules, prices) in sets {
            let known = ways.iter().position(|(_, theirs)| theirs == prices);
            let way = known.unwrap_or_else(|| {
                ways.push((Wanted(BTreeMap::new()), Arc::clone(prices)));
                ways.len() - 1
            });
            let wanted: &mut BTreeMap<Table, BTreeSet<String>> = &mut ways[way].0.0;
            for (table, columns) in &rules.wanted.0 {
                wanted.entry(*table).or_default().extend(columns.iter().cloned());
            }
            of_set.push(way);
        }
        Self { ways, of_set }
    }

    fn decoding(&self, settings: &PipelineSettings) -> Vec<Decoding> {
        let signals: &BTreeMap<String, Signal> = &settings.signals;
        let decoding = |(wanted, prices): &(Wanted, Arc<PriceTable>)| {
            Decoding::new(Decoder::new(wanted, &settings.columns, Arc::clone(prices)), signals.clone())
        };
        self.ways.iter().map(decoding).collect()
    }
}
