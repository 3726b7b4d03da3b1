//! Tracks as one stream, in the order in which records came, and cut into chunks.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

use lictor_connectors::{ConnectorError, Recorded, Track};
use lictor_schemas::otlp::first_time;
use lictor_schemas::tables::Signal;
use lictor_schemas::time::EventTime;

use super::{Range, Reading};

/// Records of a chunk: enough that a chunk costs nothing by itself, few enough that several fit in a cache.
const CHUNK_RECORDS_MAX: usize = 512;
/// A chunk is full with so many bytes, too.
const CHUNK_BYTES_MAX: usize = 1024 * 1024;

/// So many records behind the next one of a track are looked at: whether its stamp is the odd one out. Few enough that
/// what waits in memory does not matter, enough that several odd ones in a row are found.
const AHEAD_RECORDS: usize = 8;
/// A track has ended when so many records in a row came at the end of the range or later: one may have a wrong stamp,
/// and so may all that a producer sends at once.
const OVERRUN_RECORDS_MAX: usize = 10_000;

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

/// A track and its next records.
struct Head {
    track: Box<dyn Track>,
    /// When its next record came; `EventTime::MIN` as long as none has said so.
    came: EventTime,
    /// That record and some behind it, with their own stamps.
    next: VecDeque<(Option<EventTime>, Recorded)>,
    /// Records in a row that came at the end of the range or later.
    overrun: usize,
    is_at_end: bool,
}

impl Head {
    fn new(track: Box<dyn Track>) -> Self {
        Self { track, came: EventTime::MIN, next: VecDeque::new(), overrun: 0, is_at_end: false }
    }

    /// When its next record came by its own stamp, never before the one in front of it, and whether that stamp is too
    /// far ahead: most of the records behind it were stamped more than `skew_ns` earlier. It has come with them then,
    /// or all of them would wait for its time.
    fn next_came(&self, skew_ns: i64) -> (EventTime, bool) {
        let Some((Some(stamp), _)) = self.next.front() else { return (self.came, false) };
        if *stamp <= self.came {
            return (self.came, false);
        }
        let others = || self.next.iter().skip(1).filter_map(|(stamp, _)| *stamp);
        let behind = || others().filter(|other| stamp.0.saturating_sub(other.0) > skew_ns);
        match behind().next() {
            Some(next) if 2 * behind().count() > others().count() => (next.max(self.came), true),
            _ => (*stamp, false),
        }
    }
}

/// Merges tracks: of their next records always that which came first. Of each track a few records wait here.
pub(super) struct Merge {
    heads: Vec<Head>,
    /// Of which heads there is a record, by when it came.
    order: BinaryHeap<Reverse<(EventTime, usize)>>,
    signals: BTreeMap<String, Signal>,
    range: Range,
    /// A chunk has no records that came further apart than this: time is told at its end.
    chunk_ns_max: i64,
    /// How far ahead of those behind it a record's stamp may be.
    skew_ns: i64,
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
        (chunk_ns_max, skew_ns): (i64, i64),
    ) -> Self {
        let heads: Vec<Head> = tracks.into_iter().map(Head::new).collect();
        let order = BinaryHeap::with_capacity(heads.len());
        let reading = Reading::default();
        Self { heads, order, signals, range, chunk_ns_max, skew_ns, left: None, reading }
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
        let (mut first, mut last) = (None, self.reading.came.map(|came| came.1));
        while chunk.records.len() < CHUNK_RECORDS_MAX && chunk.bytes < CHUNK_BYTES_MAX {
            let Some((came, record)) = self.next_record()? else { break };
            // What no record of its track has said came with those that are known.
            let known = Some(came).filter(|came| *came != EventTime::MIN).or(last);
            let came = known.unwrap_or(came);
            first = first.or(known);
            if first.is_some_and(|first: EventTime| came.0.saturating_sub(first.0) > self.chunk_ns_max) {
                self.left = Some((came, record));
                break;
            }
            last = known;
            chunk.bytes += record.payload.as_ref().map_or(0, Vec::len);
            chunk.records.push((came, record));
        }
        if chunk.records.is_empty() {
            return Ok(None);
        }
        self.reading.records += chunk.records.len() as u64;
        self.reading.bytes += chunk.bytes as u64;
        if let Some((first, last)) = first.zip(last) {
            chunk.records.iter_mut().for_each(|(came, _)| *came = first.max(*came));
            self.reading.came = Some((self.reading.came.map_or(first, |came| came.0), last));
        }
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
            let next = self.heads[head].next.pop_front();
            self.read_on(head)?;
            match next {
                // Nobody knows that one without any time came outside.
                Some((_, record)) if came == EventTime::MIN || self.range.read_from.is_none_or(|from| came >= from) => {
                    return Ok(Some((came, record)));
                }
                _ => self.reading.outside += 1,
            }
        }
        Ok(None)
    }

    fn read_on(&mut self, head: usize) -> Result<(), ConnectorError> {
        self.look_ahead(head)?;
        let of = &mut self.heads[head];
        if of.next.is_empty() {
            return Ok(());
        }
        let (came, is_ahead) = of.next_came(self.skew_ns);
        of.came = came;
        self.reading.ahead += u64::from(is_ahead);
        self.order.push(Reverse((came, head)));
        Ok(())
    }

    /// Reads until there are enough records to look at. What came at the end of the range or later, by its own stamp,
    /// is left out and says nothing of those behind it.
    fn look_ahead(&mut self, head: usize) -> Result<(), ConnectorError> {
        let head = &mut self.heads[head];
        while head.next.len() <= AHEAD_RECORDS && !head.is_at_end {
            let Some(record) = head.track.read_next()? else {
                head.is_at_end = true;
                break;
            };
            let stamp = stamp(&record, &self.signals);
            if self.range.to.zip(stamp).is_some_and(|(to, stamp)| stamp >= to) {
                self.reading.outside += 1;
                head.overrun += 1;
                head.is_at_end = head.overrun >= OVERRUN_RECORDS_MAX;
                continue;
            }
            head.overrun = 0;
            head.next.push_back((stamp, record));
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
