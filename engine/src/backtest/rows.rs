//! The telemetry as rows of one table, for who sums it up once: read and decoded as for a replay, without time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use arrow::array::RecordBatch;
use lictor_connectors::Track;
use lictor_schemas::otlp::{Decoder, Wanted};
use lictor_schemas::prices::PriceTable;
use lictor_schemas::tables::{Signal, Table};

use super::merge::{Chunk, Merge};
use super::threads::{WAITING_MAX, chunk_ns_max, joined, read};
use super::{Failure, Range, Reading};
use crate::decoding::Decoding;
use crate::pipeline::PipelineSettings;
use crate::scan_stage::ScanCounts;

/// Which rows of which telemetry.
pub struct Rows<'a> {
    /// The telemetry.
    pub tracks: Vec<Box<dyn Track>>,
    /// Of which records that came before its beginning or at its end or later are left out.
    pub range: Range,
    /// The table, and its columns.
    pub table: Table,
    /// Those of all tables that are decoded.
    pub wanted: Wanted,
    /// What tokens cost.
    pub prices: Arc<PriceTable>,
    /// Topics, in-house columns, tolerances.
    pub settings: &'a PipelineSettings,
}

/// Reads the telemetry while `take` takes its rows, batch by batch in the order in which they came. Once `stop` is set
/// nothing more is read.
///
/// # Errors
/// A track cannot be read to its end: what was taken is a part of what there is.
pub fn rows<T>(
    of: Rows<'_>,
    take: impl FnOnce(Receiver<RecordBatch>) -> T,
    stop: &AtomicBool,
) -> Result<(T, Reading, ScanCounts), Failure> {
    let Rows { tracks, range, table, wanted, prices, settings } = of;
    let signals: &BTreeMap<String, Signal> = &settings.signals;
    let decoding = Decoding::new(Decoder::new(&wanted, &settings.columns, prices), signals.clone());
    let bounds_ns = (chunk_ns_max(settings), settings.tolerances.future_skew_ns);
    let merge = Merge::new(tracks, signals.clone(), range, bounds_ns);
    thread::scope(|scope| {
        let (chunks, to_decode) = sync_channel(WAITING_MAX);
        let (batches, decoded) = sync_channel(WAITING_MAX);
        let reader = scope.spawn(move || read(merge, &[chunks], stop));
        let decoder = scope.spawn(move || decode(decoding, table, &to_decode, &batches));
        let taken = take(decoded);
        let counts = joined(decoder);
        Ok((taken, joined(reader)?, counts))
    })
}

/// Decodes to the end, or until nobody takes anything any more.
fn decode(mut decoding: Decoding, table: Table, from: &Receiver<Chunk>, to: &SyncSender<RecordBatch>) -> ScanCounts {
    let mut counts = ScanCounts::default();
    for chunk in from {
        for (at, record) in &chunk.records {
            decoding.absorb(record.lend(), *at);
        }
        let decoded = decoding.take();
        counts.add(decoded.counts);
        let of_table = decoded.batches.into_iter().filter(|(of, rows)| *of == table && rows.num_rows() > 0);
        for (_, rows) in of_table {
            *counts.rows_used.entry(table).or_default() += rows.num_rows() as u64;
            if to.send(rows).is_err() {
                return counts;
            }
        }
    }
    counts
}
