//! `max_concurrency(start, end)`: how many intervals overlap at most.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::StructArray;
use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int32Array, Int32Builder, Int64Builder, ListBuilder};
use arrow::datatypes::{DataType, Field, Fields, Int32Type, Int64Type, TimestampNanosecondType};
use datafusion::common::Result;

use super::FunctionDoc;
use super::aggregate::{AggregateSpec, Summarizer};
use super::coerce::{Kind, list_type};

pub(super) static MAX_CONCURRENCY: AggregateSpec<OfIntervals> = AggregateSpec {
    doc: FunctionDoc {
        name: "max_concurrency",
        arguments: "start, end",
        meaning: "most intervals [start, end) that overlap, as DOUBLE; exact up to 4096 different bounds, then bounds \
                  are widened to a grid and it is an upper limit; null bounds and end < start are left out",
        source: "sweep over sorted bounds",
    },
    takes: &[Kind::Time, Kind::Time],
    required: 2,
    state_type: bounds_type,
    result_type: || DataType::Float64,
    bind: |_| Ok(OfIntervals),
};

/// 2,048 calls of one group in one window, at 16 bytes a bound.
const BOUNDS_MAX: usize = 4096;

fn fields() -> Fields {
    let list = |name, item| Field::new(name, list_type(item), true);
    Fields::from(vec![
        Field::new("grid", DataType::Int32, true),
        list("at", DataType::Int64),
        list("starts", DataType::Int32),
        list("ends", DataType::Int32),
    ])
}

fn bounds_type() -> DataType {
    DataType::Struct(fields())
}

#[derive(Debug)]
pub(super) struct OfIntervals;

/// How many intervals start and end at which instant.
///
/// With too many instants all are moved to multiples of `2^grid` nanoseconds, starts down and ends up, and the grid is
/// the finest with which they fit. A coarser grid is a coarsening of every finer one, and no part of the intervals
/// needs a coarser grid than all of them: so the result is the same in whichever order they come.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Bounds {
    grid: u32,
    /// Of each instant: starts, ends.
    at: BTreeMap<i64, (i32, i32)>,
}

/// The coarsest grid: half a century.
const GRID_MAX: u32 = 60;

impl Bounds {
    fn add(&mut self, start: i64, end: i64) {
        if end < start {
            return;
        }
        self.at.entry(floor(start, self.grid)).or_default().0 += 1;
        self.at.entry(ceil(end, self.grid)).or_default().1 += 1;
        self.fit();
    }

    fn add_all(&mut self, other: &Self) {
        self.coarsen(other.grid);
        for (at, (starts, ends)) in &other.at {
            self.put(*at, *starts, *ends);
        }
        self.fit();
    }

    fn put(&mut self, at: i64, starts: i32, ends: i32) {
        if starts > 0 {
            self.at.entry(floor(at, self.grid)).or_default().0 += starts;
        }
        if ends > 0 {
            self.at.entry(ceil(at, self.grid)).or_default().1 += ends;
        }
    }

    fn fit(&mut self) {
        while self.at.len() > BOUNDS_MAX && self.grid < GRID_MAX {
            self.coarsen(self.grid + 1);
        }
    }

    fn coarsen(&mut self, grid: u32) {
        if grid > self.grid {
            self.grid = grid;
            for (at, (starts, ends)) in std::mem::take(&mut self.at) {
                self.put(at, starts, ends);
            }
        }
    }

    /// At one instant, what ends has ended before what starts.
    fn most(&self) -> i64 {
        let mut running = 0_i64;
        let mut most = 0;
        for (starts, ends) in self.at.values() {
            running += i64::from(*starts) - i64::from(*ends);
            most = most.max(running);
        }
        most
    }
}

fn floor(at: i64, grid: u32) -> i64 {
    (at >> grid) << grid
}

fn ceil(at: i64, grid: u32) -> i64 {
    let floor = floor(at, grid);
    if floor == at { at } else { floor.saturating_add(1 << grid) }
}

impl Summarizer for OfIntervals {
    type Summary = Bounds;

    fn absorb(
        &self,
        arguments: &[ArrayRef],
        rows: &mut dyn Iterator<Item = (usize, usize)>,
        groups: &mut [Bounds],
    ) -> Result<()> {
        let [starts, ends] = [0, 1].map(|at: usize| arguments[at].as_primitive::<TimestampNanosecondType>());
        for (row, group) in rows.filter(|(row, _)| starts.is_valid(*row) && ends.is_valid(*row)) {
            groups[group].add(starts.value(row), ends.value(row));
        }
        Ok(())
    }

    fn merge(&self, into: &mut Bounds, from: &Bounds) -> Result<()> {
        into.add_all(from);
        Ok(())
    }

    fn states(&self, summaries: &[Bounds]) -> Result<ArrayRef> {
        let mut at = ListBuilder::new(Int64Builder::new());
        let [mut starts, mut ends] = [0, 1].map(|_| ListBuilder::new(Int32Builder::new()));
        for bounds in summaries {
            at.append_value(bounds.at.keys().copied().map(Some));
            starts.append_value(bounds.at.values().map(|n| Some(n.0)));
            ends.append_value(bounds.at.values().map(|n| Some(n.1)));
        }
        let grid = summaries.iter().map(|bounds| i32::try_from(bounds.grid).unwrap_or_default());
        let grid = Int32Array::from_iter_values(grid);
        let columns: Vec<ArrayRef> =
            vec![Arc::new(grid), Arc::new(at.finish()), Arc::new(starts.finish()), Arc::new(ends.finish())];
        Ok(Arc::new(StructArray::try_new(fields(), columns, None)?))
    }

    fn of_states(&self, states: &ArrayRef) -> Result<Vec<Bounds>> {
        let rows = states.as_struct();
        let grids = rows.column(0).as_primitive::<Int32Type>();
        let [at, starts, ends] = [1, 2, 3].map(|column| rows.column(column).as_list::<i32>());
        let read = |row: usize| {
            if rows.is_null(row) {
                return Bounds::default();
            }
            let (at, starts, ends) = (at.value(row), starts.value(row), ends.value(row));
            let [starts, ends] = [&starts, &ends].map(|list| list.as_primitive::<Int32Type>().values());
            let counts = starts.iter().copied().zip(ends.iter().copied());
            let at = at.as_primitive::<Int64Type>().values().iter().copied().zip(counts).collect();
            Bounds { grid: u32::try_from(grids.value(row)).unwrap_or_default(), at }
        };
        Ok((0..rows.len()).map(read).collect())
    }

    fn results(&self, summaries: &[Bounds]) -> Result<ArrayRef> {
        let most = summaries.iter().map(|bounds| (!bounds.at.is_empty()).then(|| bounds.most() as f64));
        Ok(Arc::new(most.collect::<Float64Array>()))
    }

    fn size_bytes(&self, summary: &Bounds) -> usize {
        summary.at.len() * size_of::<(i64, (i32, i32))>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(intervals: &[(i64, i64)]) -> Bounds {
        let mut bounds = Bounds::default();
        intervals.iter().for_each(|(start, end)| bounds.add(*start, *end));
        bounds
    }

    #[test]
    fn what_ends_when_another_starts_does_not_overlap_it() {
        assert_eq!(of(&[(0, 10), (10, 20), (5, 10)]).most(), 2);
        assert_eq!(of(&[(0, 10), (9, 20), (5, 10), (12, 12), (30, 3)]).most(), 3);
        assert_eq!(of(&[(-5, 5), (-1, 1)]).most(), 2);
    }

    #[test]
    fn beyond_the_limit_it_is_the_same_upper_limit_in_any_order() {
        let mut random = fastrand::Rng::with_seed(11);
        let mut draw = || (random.i64(0..3_600_000_000_000), random.i64(0..900_000_000));
        let mut intervals: Vec<_> = (0..9_000).map(|_| draw()).map(|(start, length)| (start, start + length)).collect();
        let whole = of(&intervals);
        assert!(whole.grid > 0 && whole.at.len() <= BOUNDS_MAX);
        let mut exact: Vec<(i64, i64)> = intervals.iter().flat_map(|i| [(i.0, 1), (i.1, -1)]).collect();
        exact.sort_unstable();
        let most = exact
            .iter()
            .scan(0, |running, (_, step)| {
                *running += step;
                Some(*running)
            })
            .max()
            .unwrap();
        assert!(whole.most() >= most && whole.most() <= 2 * most + 4, "{} of {most}", whole.most());
        random.shuffle(&mut intervals);
        let (left, right) = intervals.split_at(2_000);
        let mut parts = of(left);
        parts.add_all(&of(right));
        assert_eq!(parts, whole);
    }
}
