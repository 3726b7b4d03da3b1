//! Tracks as one stream, in the order in which records came, and cut into chunks.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use lictor_connectors::{ConnectorError, Recorded, Track};
use lictor_schemas::otlp::first_time;
use lictor_schemas::tables::Signal;
use lictor_schemas::time::EventTime;

use super::{Range, Reading};

/// Records of a chunk: enough that a chunk costs nothing by itself, few enough that several fit in a cache.
const CHUNK_RECORDS_MAX: usize = 512;
/// A chunk is full with so many bytes, too.
const CHUNK_BYTES_MAX: usize = 1024 * 1024;

/// Records in a row, each with when it came.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    pub records: Vec<(EventTime, Recorded)>,
    bytes: usize,
}

impl Chunk {
    /// When its first and its last record came.
    pub(super) fn came(&self) -> Option<(EventTime, EventTime)> {
        self.records.first().zip(self.records.last()).map(|(first, last)| (first.0, last.0))
    }
}

/// A track and its next record.
struct Head {
    track: Box<dyn Track>,
    /// When the last record came that was read.
    came: EventTime,
    record: Option<Recorded>,
}

/// Merges tracks: of their next records always that which came first. At most one record of each track waits here.
pub(super) struct Merge {
    heads: Vec<Head>,
    /// Of which heads there is a record, by when it came.
    order: BinaryHeap<Reverse<(EventTime, usize)>>,
    signals: BTreeMap<String, Signal>,
    range: Range,
    /// A chunk has no records that came further apart than this: time is told at its end.
    chunk_ns_max: i64,
    /// What did not go into a chunk any more.
    left: Option<(EventTime, Recorded)>,
    reading: Reading,
}

impl Merge {
    /// Nothing has been read yet. `signals` says what topics carry.
    pub(super) fn new(
        tracks: Vec<Box<dyn Track>>,
        signals: BTreeMap<String, Signal>,
        range: Range,
        chunk_ns_max: i64,
    ) -> Self {
        let head = |track| Head { track, came: EventTime::MIN, record: None };
        let heads: Vec<Head> = tracks.into_iter().map(head).collect();
        let order = BinaryHeap::with_capacity(heads.len());
        let reading = Reading::default();
        Self { heads, order, signals, range, chunk_ns_max, left: None, reading }
    }

    /// Reads the first record of every track.
    ///
    /// # Errors
    /// A track cannot be read.
    pub(super) fn begin(&mut self) -> Result<(), ConnectorError> {
        (0..self.heads.len()).try_for_each(|head| self.read_on(head))
    }

    /// The next chunk; none at the end.
    ///
    /// # Errors
    /// A track cannot be read.
    pub(super) fn next_chunk(&mut self) -> Result<Option<Chunk>, ConnectorError> {
        let mut chunk = Chunk::default();
        while chunk.records.len() < CHUNK_RECORDS_MAX && chunk.bytes < CHUNK_BYTES_MAX {
            let Some((came, record)) = self.next_record()? else { break };
            let first = chunk.records.first().map_or(came, |(first, _)| *first);
            if came.0.saturating_sub(first.0) > self.chunk_ns_max {
                self.left = Some((came, record));
                break;
            }
            chunk.bytes += record.payload.as_ref().map_or(0, Vec::len);
            chunk.records.push((came, record));
        }
        let Some((first, last)) = chunk.came() else { return Ok(None) };
        self.reading.records += chunk.records.len() as u64;
        self.reading.bytes += chunk.bytes as u64;
        self.reading.came = Some((self.reading.came.map_or(first, |came| came.0), last));
        Ok(Some(chunk))
    }

    /// What was read until now.
    pub(super) fn into_reading(self) -> Reading {
        self.reading
    }

    fn next_record(&mut self) -> Result<Option<(EventTime, Recorded)>, ConnectorError> {
        if let Some(left) = self.left.take() {
            return Ok(Some(left));
        }
        while let Some(Reverse((came, head))) = self.order.pop() {
            let record = self.heads[head].record.take();
            if self.range.to.is_some_and(|to| came >= to) {
                // All that follow came later still.
                self.reading.outside += 1;
                continue;
            }
            self.read_on(head)?;
            match record {
                Some(record) if self.range.read_from.is_none_or(|from| came >= from) => {
                    return Ok(Some((came, record)));
                }
                _ => self.reading.outside += 1,
            }
        }
        Ok(None)
    }

    fn read_on(&mut self, head: usize) -> Result<(), ConnectorError> {
        let Head { track, came, record } = &mut self.heads[head];
        *record = track.read_next()?;
        if let Some(record) = record {
            *came = stamp(record, &self.signals).map_or(*came, |stamp| stamp.max(*came));
            self.order.push(Reverse((*came, head)));
        }
        Ok(())
    }
}

/// When a record came, as far as it says so itself.
fn stamp(record: &Recorded, signals: &BTreeMap<String, Signal>) -> Option<EventTime> {
    if record.timestamp_ms > 0 {
        return Some(EventTime::from_ms(record.timestamp_ms));
    }
    let signal = signals.get(record.partition.topic.as_ref())?;
    first_time(*signal, record.payload.as_deref()?)
}
