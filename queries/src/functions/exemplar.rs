//! `exemplar(trace_id, span_id, weight)`: the row that weighs most, for evidence.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, StringViewArray, StructArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field, Fields, Float64Type};
use datafusion::common::Result;

use super::FunctionDoc;
use super::aggregate::{AggregateSpec, Summarizer};
use super::coerce::Kind;

pub(super) static EXEMPLAR: AggregateSpec<OfRows> = AggregateSpec {
    doc: FunctionDoc {
        name: "exemplar",
        arguments: "trace_id, span_id, weight",
        meaning: "struct of trace_id, span_id, weight of the row with the greatest weight (of equals the greater ids); \
                  rows without a trace or with a null or NaN weight are left out",
        source: "arg max; every event has exemplars without it",
    },
    takes: &[Kind::Text, Kind::Text, Kind::Number],
    required: 3,
    state_type: row_type,
    result_type: row_type,
    bind: |_| Ok(OfRows),
};

fn fields() -> Fields {
    let text = |name| Field::new(name, DataType::Utf8View, true);
    Fields::from(vec![text("trace_id"), text("span_id"), Field::new("weight", DataType::Float64, true)])
}

fn row_type() -> DataType {
    DataType::Struct(fields())
}

#[derive(Debug)]
pub(super) struct OfRows;

/// A row, if there was one.
pub(super) type Kept = Option<(f64, String, String)>;

fn keep(kept: &mut Kept, weight: f64, trace: &str, span: &str) {
    let is_greater = |(than, than_trace, than_span): &(f64, String, String)| {
        weight.total_cmp(than).then_with(|| (trace, span).cmp(&(than_trace.as_str(), than_span.as_str()))).is_gt()
    };
    if kept.as_ref().is_none_or(is_greater) {
        *kept = Some((weight, trace.to_owned(), span.to_owned()));
    }
}

impl Summarizer for OfRows {
    type Summary = Kept;

    fn absorb(
        &self,
        arguments: &[ArrayRef],
        rows: &mut dyn Iterator<Item = (usize, usize)>,
        groups: &mut [Kept],
    ) -> Result<()> {
        let [traces, spans] = [0, 1].map(|at: usize| arguments[at].as_string_view());
        let weights = arguments[2].as_primitive::<Float64Type>();
        let counts = |(row, _): &(usize, usize)| {
            traces.is_valid(*row) && weights.is_valid(*row) && !weights.value(*row).is_nan()
        };
        for (row, group) in rows.filter(counts) {
            let span = if spans.is_valid(row) { spans.value(row) } else { "" };
            keep(&mut groups[group], weights.value(row), traces.value(row), span);
        }
        Ok(())
    }

    fn merge(&self, into: &mut Kept, from: &Kept) -> Result<()> {
        if let Some((weight, trace, span)) = from {
            keep(into, *weight, trace, span);
        }
        Ok(())
    }

    fn states(&self, summaries: &[Kept]) -> Result<ArrayRef> {
        let text = |of: fn(&(f64, String, String)) -> &str| -> ArrayRef {
            Arc::new(summaries.iter().map(|kept| kept.as_ref().map(of)).collect::<StringViewArray>())
        };
        let weights: Float64Array = summaries.iter().map(|kept| kept.as_ref().map(|row| row.0)).collect();
        let columns = vec![text(|row| &row.1), text(|row| &row.2), Arc::new(weights)];
        let valid = NullBuffer::from_iter(summaries.iter().map(Option::is_some));
        Ok(Arc::new(StructArray::try_new(fields(), columns, Some(valid))?))
    }

    fn of_states(&self, states: &ArrayRef) -> Result<Vec<Kept>> {
        let rows = states.as_struct();
        let [traces, spans] = [0, 1].map(|at| rows.column(at).as_string_view());
        let weights = rows.column(2).as_primitive::<Float64Type>();
        let read = |row: usize| (weights.value(row), traces.value(row).to_owned(), spans.value(row).to_owned());
        Ok((0..rows.len()).map(|row| rows.is_valid(row).then(|| read(row))).collect())
    }

    fn results(&self, summaries: &[Kept]) -> Result<ArrayRef> {
        self.states(summaries)
    }

    fn size_bytes(&self, summary: &Kept) -> usize {
        summary.as_ref().map_or(0, |row| row.1.capacity() + row.2.capacity())
    }
}
