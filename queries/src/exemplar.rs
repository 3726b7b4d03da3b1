//! `exemplar(weight, trace_id, span_id, partition, offset)`: the row that weighs most in a group, or the one that came
//! last.
//!
//! Every windowed rule carries the heaviest beside the author's aggregates, so that a violation can name a trace. Of
//! two rows with the same weight the one with the greater (partition, offset) counts: the result does not depend on the
//! order of merging. Rules that speak on update carry the last one, too: they are judged after every record, so it is a
//! row of the record with which a group has crossed the line. What is merged later has come later.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int32Array, Int64Array, StringViewArray, StringViewBuilder,
    StructArray,
};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Float64Type, Int32Type, Int64Type};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature, Volatility};

/// Which row of a group is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Pick {
    #[default]
    Heaviest,
    Last,
}

pub(crate) const HEAVIEST: &str = "lictor_exemplar";
pub(crate) const LAST: &str = "lictor_last";

impl Pick {
    /// The name of the function, reserved for lictor's own use.
    fn name(self) -> &'static str {
        match self {
            Self::Heaviest => HEAVIEST,
            Self::Last => LAST,
        }
    }
}

/// The fields of the result and of the state, in order.
fn fields() -> Fields {
    Fields::from(vec![
        Field::new("weight", DataType::Float64, true),
        Field::new("trace_id", DataType::Utf8View, true),
        Field::new("span_id", DataType::Utf8View, true),
        Field::new("partition", DataType::Int32, true),
        Field::new("offset", DataType::Int64, true),
    ])
}

#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Exemplar {
    pick: Pick,
    signature: Signature,
}

impl Exemplar {
    pub(crate) fn new(pick: Pick) -> Self {
        let types = fields().iter().map(|f| f.data_type().clone()).collect();
        Self { pick, signature: Signature::exact(types, Volatility::Immutable) }
    }
}

impl AggregateUDFImpl for Exemplar {
    fn name(&self) -> &str {
        self.pick.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Struct(fields()))
    }

    fn accumulator(&self, _: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(OfOneGroup(Picked { rows: vec![None], ..Picked::new(self.pick) })))
    }

    fn state_fields(&self, _: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let name = |f: &FieldRef| Arc::new(f.as_ref().clone().with_name(format!("{}[{}]", self.pick.name(), f.name())));
        Ok(fields().iter().map(name).collect())
    }

    fn groups_accumulator_supported(&self, _: AccumulatorArgs) -> bool {
        true
    }

    fn create_groups_accumulator(&self, _: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(Picked::new(self.pick)))
    }
}

/// The row of a group. Its ids stay where they are until somebody asks for them: most rows give way to another.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Row {
    weight: f64,
    offset: i64,
    partition: i32,
    /// Where its ids are.
    batch: u32,
    row: u32,
}

/// So many batches are kept for the ids in them; then the ids of the groups are copied together.
const BATCHES_MAX: usize = 64;

#[derive(Debug)]
struct Picked {
    pick: Pick,
    rows: Vec<Option<Row>>,
    /// Trace and span ids.
    batches: Vec<[StringViewArray; 2]>,
}

impl Picked {
    fn new(pick: Pick) -> Self {
        Self { pick, rows: Vec::new(), batches: Vec::new() }
    }

    fn absorb(&mut self, values: &[ArrayRef], groups: &[usize], filter: Option<&BooleanArray>, total: usize) {
        if self.batches.len() == BATCHES_MAX {
            self.copy_together();
        }
        self.rows.resize(total.max(self.rows.len()), None);
        let weights = values[0].as_primitive::<Float64Type>();
        let (traces, spans) = (values[1].as_string_view(), values[2].as_string_view());
        let (partitions, offsets) = (values[3].as_primitive::<Int32Type>(), values[4].as_primitive::<Int64Type>());
        let batch = u32::try_from(self.batches.len()).unwrap_or_else(|_| unreachable!("more than {BATCHES_MAX}"));
        for ((&group, i), row) in groups.iter().zip(0..).zip(0_u32..) {
            if traces.is_null(i) || filter.is_some_and(|f| f.is_null(i) || !f.value(i)) {
                continue;
            }
            let weight = if weights.is_null(i) { 0.0 } else { weights.value(i) };
            let place = |r: &Row| (r.partition, r.offset);
            let (partition, offset) = (partitions.value(i), offsets.value(i));
            let is_it = self.rows[group].as_ref().is_none_or(|row| match self.pick {
                Pick::Heaviest => {
                    weight.total_cmp(&row.weight).then_with(|| (partition, offset).cmp(&place(row))).is_gt()
                }
                Pick::Last => true,
            });
            if is_it {
                self.rows[group] = Some(Row { weight, offset, partition, batch, row });
            }
        }
        self.batches.push([traces.clone(), spans.clone()]);
    }

    fn copy_together(&mut self) {
        let [traces, spans] = [self.ids::<32>(&self.rows, 0), self.ids::<16>(&self.rows, 1)];
        self.batches = vec![[traces, spans]];
        for (row, number) in self.rows.iter_mut().zip(0..) {
            if let Some(row) = row {
                (row.batch, row.row) = (0, number);
            }
        }
    }

    fn columns(&mut self, emit_to: EmitTo) -> Vec<ArrayRef> {
        let rows = emit_to.take_needed(&mut self.rows);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(rows.iter().map(|r| r.map(|r| r.weight)).collect::<Float64Array>()),
            Arc::new(self.ids::<32>(&rows, 0)),
            Arc::new(self.ids::<16>(&rows, 1)),
            Arc::new(rows.iter().map(|r| r.map(|r| r.partition)).collect::<Int32Array>()),
            Arc::new(rows.iter().map(|r| r.map(|r| r.offset)).collect::<Int64Array>()),
        ];
        if self.rows.is_empty() {
            self.batches.clear();
        }
        columns
    }

    /// One id of each row. Most flushes have a handful of groups, for which a builder's own first block, of 16 KiB,
    /// cost more than everything else that was done for them.
    fn ids<const N: usize>(&self, rows: &[Option<Row>], which: usize) -> StringViewArray {
        const BLOCK_BYTES_MAX: usize = 1 << 20;
        let block_bytes = (rows.len() * N).clamp(N, BLOCK_BYTES_MAX);
        let block_bytes = u32::try_from(block_bytes).unwrap_or(u32::MAX);
        let mut ids = StringViewBuilder::with_capacity(rows.len()).with_fixed_block_size(block_bytes);
        for row in rows {
            let id = row.map(|row| ascii::<N>(self.batches[row.batch as usize][which].value(row.row as usize)));
            ids.append_option(id.as_ref().and_then(|id| std::str::from_utf8(id).ok()));
        }
        ids.finish()
    }
}

/// The first `N` bytes of an id; ids are exactly that long, a shorter one is padded with `0`.
fn ascii<const N: usize>(text: &str) -> [u8; N] {
    let mut bytes = [b'0'; N];
    for (to, from) in bytes.iter_mut().zip(text.bytes()) {
        *to = from;
    }
    bytes
}

impl GroupsAccumulator for Picked {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.absorb(values, group_indices, opt_filter, total_num_groups);
        Ok(())
    }

    fn merge_batch(&mut self, values: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> Result<()> {
        self.absorb(values, group_indices, None, total_num_groups);
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        Ok(Arc::new(StructArray::try_new(fields(), self.columns(emit_to), None)?))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        Ok(self.columns(emit_to))
    }

    fn convert_to_state(&self, values: &[ArrayRef], _: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        Ok(values.to_vec())
    }

    fn size(&self) -> usize {
        self.rows.capacity() * size_of::<Option<Row>>()
    }
}

/// The row of the only group.
#[derive(Debug)]
struct OfOneGroup(Picked);

impl Accumulator for OfOneGroup {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let groups = vec![0; values[0].len()];
        self.0.absorb(values, &groups, None, 1);
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.update_batch(states)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let result = StructArray::try_new(fields(), self.0.columns(EmitTo::All), None)?;
        ScalarValue::try_from_array(&result, 0)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.0.columns(EmitTo::All).iter().map(|column| ScalarValue::try_from_array(column, 0)).collect()
    }

    fn size(&self) -> usize {
        size_of::<Self>() + GroupsAccumulator::size(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(rows: &[(f64, char, i64)]) -> Vec<ArrayRef> {
        let id = |n: usize| rows.iter().map(|r| Some(r.1.to_string().repeat(n))).collect::<StringViewArray>();
        vec![
            Arc::new(rows.iter().map(|r| Some(r.0)).collect::<Float64Array>()),
            Arc::new(id(32)),
            Arc::new(id(16)),
            Arc::new(rows.iter().map(|_| Some(0)).collect::<Int32Array>()),
            Arc::new(rows.iter().map(|r| Some(r.2)).collect::<Int64Array>()),
        ]
    }

    fn winner(pick: Pick, halves: [&[(f64, char, i64)]; 2]) -> (f64, String) {
        let mut merged = Picked::new(pick);
        for half in halves {
            let mut one = Picked::new(pick);
            one.update_batch(&columns(half), &vec![0; half.len()], None, 1).unwrap();
            merged.merge_batch(&one.state(EmitTo::All).unwrap(), &[0], 1).unwrap();
        }
        let row = merged.evaluate(EmitTo::All).unwrap();
        let row = row.as_struct();
        let weight = row.column(0).as_primitive::<Float64Type>().value(0);
        (weight, row.column(1).as_string_view().value(0)[..1].to_owned())
    }

    #[test]
    fn the_heaviest_row_wins_in_either_order_of_merging() {
        let (a, b): (&[_], &[_]) = (&[(1.0, 'a', 1), (9.0, 'b', 2)], &[(9.0, 'c', 3), (2.0, 'd', 4)]);
        assert_eq!(winner(Pick::Heaviest, [a, b]), (9.0, "c".to_owned()));
        assert_eq!(winner(Pick::Heaviest, [b, a]), (9.0, "c".to_owned()));
    }

    #[test]
    fn ids_outlast_the_batches_that_they_came_in() {
        let mut picked = Picked::new(Pick::Heaviest);
        let count = i64::try_from(3 * BATCHES_MAX).unwrap();
        for offset in 0..count {
            let (group, heavy) = (usize::from(offset % 2 == 1), offset < 2);
            let weight = if heavy { 9.0 } else { 1.0 };
            let row = (weight, if heavy { 'a' } else { 'b' }, offset);
            picked.update_batch(&columns(&[row]), &[group], None, 2).unwrap();
            assert!(picked.batches.len() <= BATCHES_MAX);
        }
        let states = picked.state(EmitTo::All).unwrap();
        assert_eq!(states[4].as_primitive::<Int64Type>().values(), &[0, 1]);
        let ids = states[1].as_string_view();
        assert!((0..2).all(|row| ids.value(row) == "a".repeat(32)), "{ids:?}");
        assert!(picked.batches.is_empty());
    }

    #[test]
    fn what_is_merged_last_has_come_last() {
        let (a, b): (&[_], &[_]) = (&[(1.0, 'a', 1), (9.0, 'b', 2)], &[(9.0, 'c', 3), (2.0, 'd', 4)]);
        assert_eq!(winner(Pick::Last, [a, b]), (2.0, "d".to_owned()));
        assert_eq!(winner(Pick::Last, [b, a]), (9.0, "b".to_owned()));
    }
}
