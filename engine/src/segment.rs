//! The rows of an epoch between two shipments, and where shipments must be cut.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::TimestampNanosecondType;
use lictor_connectors::TopicPartition;
use lictor_queries::WindowSpec;
use lictor_schemas::tables::{Signal, Table};
use lictor_schemas::time::{EventTime, Window};

/// The rows of one record: so many of each table, in the order of [`Table::ALL`].
#[derive(Clone, Debug)]
pub(crate) struct Run {
    /// Where it was read.
    pub partition: TopicPartition,
    /// What that carries.
    pub signal: Signal,
    /// Its offset.
    pub offset: i64,
    /// Its broker timestamp, if it has one.
    pub stamped: Option<EventTime>,
    /// Its rows per table.
    pub rows: [usize; Table::ALL.len()],
}

/// Decoded rows, of which a growing part has been judged timely or not.
pub(crate) struct Segment {
    tables: BTreeMap<Table, Rows>,
    /// The number of the record at hand.
    turn: u32,
}

/// Rows of a table that count.
pub(crate) struct Timely {
    pub table: Table,
    pub rows: RecordBatch,
    /// For each of them the record that it is of, by a number that grows from record to record.
    pub turns: Vec<u32>,
}

struct Rows {
    batch: RecordBatch,
    /// Where the segment begins.
    start: usize,
    /// Where the record at hand begins.
    at: usize,
    /// For each row since `start`: whether it counts.
    keep: Vec<bool>,
    /// The records of those that count.
    turns: Vec<u32>,
}

impl Segment {
    pub(crate) fn new(batches: Vec<(Table, RecordBatch)>) -> Self {
        let rows = |batch| Rows { batch, start: 0, at: 0, keep: Vec::new(), turns: Vec::new() };
        Self { tables: batches.into_iter().map(|(t, b)| (t, rows(b))).collect(), turn: 0 }
    }

    /// Table and event time of every row of a record, table by table.
    pub(crate) fn times_of(&self, run: &Run) -> Vec<(Table, EventTime)> {
        let mut times = Vec::new();
        for (table, rows) in &self.tables {
            let count = run.rows[*table as usize];
            let Some(column) = rows.batch.column_by_name("event_time").filter(|_| count > 0) else { continue };
            let values = &column.as_primitive::<TimestampNanosecondType>().values()[rows.at..rows.at + count];
            times.extend(values.iter().map(|ns| (*table, EventTime(*ns))));
        }
        times
    }

    /// Records whether the next row of `table` counts.
    pub(crate) fn keep(&mut self, table: Table, counts: bool) {
        if let Some(rows) = self.tables.get_mut(&table) {
            rows.keep.push(counts);
            rows.turns.extend(counts.then_some(self.turn));
        }
    }

    /// Goes on to the next record.
    pub(crate) fn step(&mut self, run: &Run) {
        for (table, rows) in &mut self.tables {
            rows.at += run.rows[*table as usize];
        }
        self.turn += 1;
    }

    /// The rows since the last call that count; the segment begins anew behind them.
    pub(crate) fn take_timely(&mut self) -> Vec<Timely> {
        let mut taken = Vec::new();
        for (table, rows) in &mut self.tables {
            let (keep, turns) = (std::mem::take(&mut rows.keep), std::mem::take(&mut rows.turns));
            let batch = timely(&rows.batch.slice(rows.start, keep.len()), &keep);
            rows.start = rows.at;
            if batch.num_rows() > 0 {
                taken.push(Timely { table: *table, rows: batch, turns });
            }
        }
        taken
    }
}

fn timely(batch: &RecordBatch, keep: &[bool]) -> RecordBatch {
    if keep.iter().all(|k| *k) {
        return batch.clone();
    }
    let filtered = filter_record_batch(batch, &BooleanArray::from(keep.to_vec()));
    filtered.unwrap_or_else(|e| unreachable!("the mask has a value for each of {} rows: {e}", batch.num_rows()))
}

/// The panes of some rules.
#[derive(Debug)]
struct Grid {
    signal: Signal,
    spec: WindowSpec,
    /// How far the rule's time is ahead of the signal's.
    shift_ns: i64,
    /// The pane that the rule's time has reached.
    reached: Window,
}

/// Where time, as it advances, changes what rules have to say.
#[derive(Debug, Default)]
pub struct Boundaries {
    /// How each signal's time is cut into panes.
    grids: Vec<Grid>,
    /// For each signal with row-wise rules: after how much time something can expire.
    ttls: Vec<(Signal, i64)>,
    /// Signals of whose time every step is a boundary.
    every_step: BTreeSet<Signal>,
    reached: BTreeMap<Signal, EventTime>,
}

impl Boundaries {
    /// The ends of a rule's windows are boundaries; its time is so far ahead of the signal's.
    pub fn add_windows(&mut self, signal: Signal, spec: WindowSpec, shift_ns: i64) {
        let is_it = |grid: &Grid| grid.signal == signal && grid.spec == spec && grid.shift_ns == shift_ns;
        if !self.grids.iter().any(is_it) {
            let reached = Window { start: EventTime::MIN, end: EventTime::MIN };
            self.grids.push(Grid { signal, spec, shift_ns, reached });
        }
    }

    /// Every step of a signal's time is a boundary: running sessions end at any instant, and only who judges them knows
    /// at which. This costs a shipment for each record that moves time.
    pub fn add_every_step(&mut self, signal: Signal) {
        self.every_step.insert(signal);
    }

    /// A row-wise violation can expire after `ttl_ns`.
    pub fn add_ttl(&mut self, signal: Signal, ttl_ns: i64) {
        self.ttls.push((signal, ttl_ns));
    }

    /// A signal's time goes on from `low`, where it stood when partitions were committed.
    pub(crate) fn resume(&mut self, signal: Signal, low: EventTime) {
        self.reached.insert(signal, low);
        for grid in self.grids.iter_mut().filter(|grid| grid.signal == signal) {
            let at = low.plus(grid.shift_ns);
            // To find the pane of a calendar in all zones costs a look at each of them.
            if at < grid.reached.start || at >= grid.reached.end {
                grid.reached = grid.spec.pane_at(at);
            }
        }
    }

    /// Whether a signal's time, now at `low`, has passed a boundary since it last did.
    pub(crate) fn cross(&mut self, signal: Signal, low: Option<EventTime>) -> bool {
        let Some(low) = low else { return false };
        let Some(before) = self.reached.get(&signal).copied() else {
            self.resume(signal, low);
            return true;
        };
        let mut grids = self.grids.iter().filter(|grid| grid.signal == signal);
        let mut ttls = self.ttls.iter().filter(|t| t.0 == signal).map(|t| t.1);
        let is_end = |grid: &Grid| low.plus(grid.shift_ns) >= grid.reached.end;
        let crossed = low > before
            && (self.every_step.contains(&signal) || grids.any(is_end) || ttls.any(|ttl| low >= before.plus(ttl)));
        if crossed {
            self.resume(signal, low);
        }
        crossed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_window_end_or_an_expiry_cuts_a_segment() {
        let mut boundaries = Boundaries::default();
        boundaries.add_windows(Signal::Traces, WindowSpec::tumbling(10, 0), 0);
        let mut cross = |at| boundaries.cross(Signal::Traces, Some(EventTime(at)));
        assert!(cross(1), "the first time seen is one");
        assert!(!cross(9));
        assert!(cross(10));
        assert!(!cross(10));
        assert!(!cross(5), "time does not go back");
        boundaries.add_ttl(Signal::Traces, 3);
        assert!(boundaries.cross(Signal::Traces, Some(EventTime(13))));
        assert!(!boundaries.cross(Signal::Traces, Some(EventTime(14))));
        boundaries.add_every_step(Signal::Traces);
        assert!(boundaries.cross(Signal::Traces, Some(EventTime(15))));
        assert!(!boundaries.cross(Signal::Traces, Some(EventTime(15))));
    }
}
