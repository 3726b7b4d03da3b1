//! What the detectors of one `OVER` remember per key, and how a window's rows move it on.
//!
//! It is a batch like any other history: `[key…, seen, state…]`, one row per key in the order of the keys' bytes, a
//! column of bytes per call. So it is committed, undone, logged and restored as rows are. A key of which no window came
//! for [`Keyed::keep_ns`] is forgotten, and begins anew should it come back: by event time alone, in a batch as well.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, LargeBinaryBuilder, RecordBatch, TimestampNanosecondArray, UInt64Array};
use arrow::compute::{concat, take};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit, TimestampNanosecondType};
use arrow::row::{RowConverter, Rows, SortField};
use datafusion::common::{Result, exec_err};

use super::arguments::Settings;
use super::function::{Inputs, is_forgotten};
use super::readings::Readings;
use super::saved::{Saved, Saving};
use super::{Detector, Sequence};
use crate::compact::compact;

/// A detector that a query calls.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) detector: &'static Detector,
    pub(super) settings: Settings,
    pub(super) is_whole: bool,
    /// The columns of its values.
    pub(super) values: Vec<usize>,
}

/// The detectors of one `OVER`.
#[derive(Debug)]
pub(crate) struct Keyed {
    /// The columns of `PARTITION BY`.
    pub(super) partition: Vec<usize>,
    /// The column that says when a row's window ends.
    pub(super) end: usize,
    pub(super) calls: Vec<Call>,
    /// How long a key is kept of which no window comes.
    pub(super) keep_ns: i64,
}

/// A key while rows are folded.
struct Slot {
    /// Its row among the keys.
    key: usize,
    seen: i64,
    /// Its state as it was, row of the state batch; none of a new key.
    old: Option<usize>,
    /// Its state, once a row has come.
    sequences: Option<Vec<Box<dyn Sequence>>>,
}

impl Keyed {
    /// What each call makes of each row; `state` is moved on. Rows of a key are taken in the order of their windows.
    pub(super) fn fold(&self, arguments: &RecordBatch, state: &mut Option<RecordBatch>) -> Result<Vec<ArrayRef>> {
        let rows = arguments.num_rows();
        let inputs = self.inputs(arguments)?;
        let mut readings: Vec<_> = self.calls.iter().map(|call| Readings::new(call.detector, rows)).collect();
        if let Some(first) = inputs.first().filter(|_| rows > 0) {
            let known = state.as_ref().map_or(0, RecordBatch::num_rows);
            let columns = self.keys(arguments, state.as_ref())?;
            let keys = Keys::new(&columns)?;
            let mut slots = slots_of(state.as_ref(), self.partition.len());
            let mut places: HashMap<&[u8], usize> = (0..known).map(|slot| (keys.bytes(slot), slot)).collect();
            let mut order: Vec<usize> = (0..rows).collect();
            order.sort_by_key(|row| first.end_ns(*row));
            for row in order {
                let key = known + row;
                let slot = *places.entry(keys.bytes(key)).or_insert_with(|| {
                    slots.push(Slot { key, seen: i64::MIN, old: None, sequences: None });
                    slots.len() - 1
                });
                self.refuse_second(&slots[slot], first.end_ns(row))?;
                let sequences = self.begin(&mut slots[slot], first.end_ns(row), state.as_ref())?;
                for ((sequence, input), reading) in sequences.iter_mut().zip(&inputs).zip(&mut readings) {
                    if let Some(input) = input.row(row) {
                        sequence.step(input, reading.of_row(row));
                    }
                }
            }
            let now = (0..rows).map(|row| first.end_ns(row)).max().unwrap_or(i64::MIN);
            *state = Some(self.remember(slots, now, (&columns, &keys), state.as_ref())?);
        }
        let columns = readings.into_iter().zip(&self.calls);
        Ok(columns.map(|(readings, call)| readings.into_column(call.detector, call.is_whole)).collect())
    }

    /// A join between the aggregate and a detector may double rows, which then have no order.
    fn refuse_second(&self, slot: &Slot, end_ns: i64) -> Result<()> {
        if slot.sequences.is_none() || slot.seen != end_ns {
            return Ok(());
        }
        let name = self.calls.first().map_or("a detector", |call| call.detector.name);
        exec_err!(
            "{name}: a key has two rows in the window that ends at {end_ns} ns, which have no order; \
             a joined table may have several rows of a key"
        )
    }

    fn inputs(&self, arguments: &RecordBatch) -> Result<Vec<Inputs>> {
        let inputs = |call: &Call| {
            let values: Vec<ArrayRef> = call.values.iter().map(|n| Arc::clone(arguments.column(*n))).collect();
            Inputs::new(call.detector, &values, arguments.column(self.end))
        };
        self.calls.iter().map(inputs).collect()
    }

    /// The key columns of what is known, and behind them those of the rows.
    fn keys(&self, arguments: &RecordBatch, state: Option<&RecordBatch>) -> Result<Vec<ArrayRef>> {
        let column = |(n, new): (usize, &usize)| {
            let new = arguments.column(*new);
            Ok(match state {
                Some(state) => concat(&[state.column(n).as_ref(), new.as_ref()])?,
                None => Arc::clone(new),
            })
        };
        self.partition.iter().enumerate().map(column).collect()
    }

    /// The state of a key whose next window ends at `end_ns`.
    fn begin<'a>(
        &self,
        slot: &'a mut Slot,
        end_ns: i64,
        state: Option<&RecordBatch>,
    ) -> Result<&'a mut Vec<Box<dyn Sequence>>> {
        let is_anew = is_forgotten((slot.seen > i64::MIN).then_some(slot.seen), end_ns, self.keep_ns);
        slot.seen = end_ns;
        let loaded = match slot.sequences.take().filter(|_| !is_anew) {
            Some(sequences) => sequences,
            None => self.load(slot.old.filter(|_| !is_anew), state)?,
        };
        Ok(slot.sequences.insert(loaded))
    }

    fn load(&self, old: Option<usize>, state: Option<&RecordBatch>) -> Result<Vec<Box<dyn Sequence>>> {
        let mut sequences: Vec<_> = self.calls.iter().map(|call| (call.detector.start)(&call.settings)).collect();
        let (Some(row), Some(state)) = (old, state) else { return Ok(sequences) };
        for (nth, (sequence, call)) in sequences.iter_mut().zip(&self.calls).enumerate() {
            let column = state.column(self.partition.len() + 1 + nth).as_binary::<i64>();
            let mut saved = Saved::new(column.value(row), call.detector.version);
            let loaded = saved.as_mut().and_then(|saved| sequence.load(saved));
            if loaded.is_none() || saved.is_none_or(|saved| !saved.is_at_end()) {
                return exec_err!("what is remembered of {} cannot be read", call.detector.name);
            }
        }
        Ok(sequences)
    }

    /// All keys that are kept as of `now`, in the order of their bytes.
    fn remember(
        &self,
        mut slots: Vec<Slot>,
        now: i64,
        (columns, keys): (&[ArrayRef], &Keys),
        before: Option<&RecordBatch>,
    ) -> Result<RecordBatch> {
        slots.retain(|slot| !is_forgotten(Some(slot.seen), now, self.keep_ns));
        slots.sort_by(|a, b| keys.bytes(a.key).cmp(keys.bytes(b.key)));
        let places = UInt64Array::from_iter_values(slots.iter().map(|slot| slot.key as u64));
        let mut out =
            columns.iter().map(|column| take(column, &places, None).map(compact)).collect::<Result<Vec<_>, _>>()?;
        out.push(Arc::new(TimestampNanosecondArray::from_iter_values(slots.iter().map(|slot| slot.seen))));
        for (nth, call) in self.calls.iter().enumerate() {
            let mut states = LargeBinaryBuilder::new();
            for slot in &slots {
                match (&slot.sequences, slot.old.zip(before)) {
                    (Some(sequences), _) => {
                        let mut saving = Saving::new(call.detector.version);
                        sequences[nth].save(&mut saving);
                        states.append_value(saving.into_bytes());
                    }
                    (None, Some((row, before))) => {
                        states
                            .append_value(before.column(self.partition.len() + 1 + nth).as_binary::<i64>().value(row));
                    }
                    (None, None) => unreachable!("a new key has had a row"),
                }
            }
            out.push(Arc::new(states.finish()));
        }
        Ok(RecordBatch::try_new(self.schema(columns), out)?)
    }

    /// `[key…, seen, state…]`
    fn schema(&self, keys: &[ArrayRef]) -> Arc<Schema> {
        let key = |(n, column): (usize, &ArrayRef)| Field::new(format!("k{n}"), column.data_type().clone(), true);
        let seen = Field::new("seen", DataType::Timestamp(TimeUnit::Nanosecond, None), false);
        let state = |n: usize| Field::new(format!("s{n}"), DataType::LargeBinary, false);
        let states = (0..self.calls.len()).map(state);
        Arc::new(Schema::new(keys.iter().enumerate().map(key).chain([seen]).chain(states).collect::<Vec<_>>()))
    }
}

/// The keys that are known; when they were seen is column `seen`.
fn slots_of(state: Option<&RecordBatch>, seen: usize) -> Vec<Slot> {
    let Some(state) = state else { return Vec::new() };
    let seen = state.column(seen).as_primitive::<TimestampNanosecondType>().values().iter();
    seen.enumerate().map(|(row, seen)| Slot { key: row, seen: *seen, old: Some(row), sequences: None }).collect()
}

/// Keys as bytes; without columns there is one.
struct Keys(Option<Rows>);

impl Keys {
    fn new(columns: &[ArrayRef]) -> Result<Self> {
        if columns.is_empty() {
            return Ok(Self(None));
        }
        let fields = columns.iter().map(|column| SortField::new(column.data_type().clone())).collect();
        Ok(Self(Some(RowConverter::new(fields)?.convert_columns(columns)?)))
    }

    fn bytes(&self, row: usize) -> &[u8] {
        self.0.as_ref().map_or(&[], |rows| rows.row(row).data())
    }
}
