//! `vec_mean(vector)`: the mean of vectors, such as the centroid of embeddings.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Builder, Int64Array, ListBuilder, StructArray};
use arrow::datatypes::{DataType, Field, Fields, Float64Type, Int64Type};
use datafusion::common::Result;

use super::FunctionDoc;
use super::aggregate::{AggregateSpec, Summarizer};
use super::coerce::{Kind, numbers_type};

pub(super) static VEC_MEAN: AggregateSpec<OfVectors> = AggregateSpec {
    doc: FunctionDoc {
        name: "vec_mean",
        arguments: "vector",
        meaning: "mean of vectors; those with a null, a NaN or an infinity are left out; null if they have several \
                  lengths or more than 8192 numbers",
        source: "component by component",
    },
    takes: &[Kind::Numbers],
    required: 1,
    state_type: sums_type,
    result_type: numbers_type,
    bind: |_| Ok(OfVectors),
};

/// Twice the dimensions of the largest embeddings that are sold.
const DIMENSIONS_MAX: usize = 8192;

fn fields() -> Fields {
    Fields::from(vec![Field::new("n", DataType::Int64, true), Field::new("sums", numbers_type(), true)])
}

fn sums_type() -> DataType {
    DataType::Struct(fields())
}

#[derive(Debug)]
pub(super) struct OfVectors;

/// The sum of some vectors.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Sums {
    #[default]
    None,
    Of {
        n: i64,
        sums: Vec<f64>,
    },
    /// Vectors of several lengths have no mean, whichever came first.
    Unequal,
}

/// How many vectors `Unequal` says it has in Arrow.
const UNEQUAL: i64 = -1;

impl Sums {
    fn add(&mut self, n: i64, vector: &[f64]) {
        match self {
            _ if vector.len() > DIMENSIONS_MAX => *self = Self::Unequal,
            Self::None => *self = Self::Of { n, sums: vector.to_vec() },
            Self::Of { n: own, sums } if sums.len() == vector.len() => {
                *own += n;
                sums.iter_mut().zip(vector).for_each(|(sum, x)| *sum += x);
            }
            Self::Of { .. } | Self::Unequal => *self = Self::Unequal,
        }
    }
}

impl Summarizer for OfVectors {
    type Summary = Sums;

    fn absorb(
        &self,
        arguments: &[ArrayRef],
        rows: &mut dyn Iterator<Item = (usize, usize)>,
        groups: &mut [Sums],
    ) -> Result<()> {
        let lists = arguments[0].as_list::<i32>();
        for (row, group) in rows.filter(|(row, _)| lists.is_valid(*row)) {
            let items = lists.value(row);
            let vector = items.as_primitive::<Float64Type>();
            if vector.null_count() == 0 && vector.values().iter().all(|x| x.is_finite()) {
                groups[group].add(1, vector.values());
            }
        }
        Ok(())
    }

    fn merge(&self, into: &mut Sums, from: &Sums) -> Result<()> {
        match from {
            Sums::None => {}
            Sums::Of { n, sums } => into.add(*n, sums),
            Sums::Unequal => *into = Sums::Unequal,
        }
        Ok(())
    }

    fn states(&self, summaries: &[Sums]) -> Result<ArrayRef> {
        let count = |sums: &Sums| match sums {
            Sums::None => 0,
            Sums::Of { n, .. } => *n,
            Sums::Unequal => UNEQUAL,
        };
        let mut lists = ListBuilder::new(Float64Builder::new());
        for summary in summaries {
            match summary {
                Sums::Of { sums, .. } => lists.append_value(sums.iter().copied().map(Some)),
                Sums::None | Sums::Unequal => lists.append_null(),
            }
        }
        let counts = Int64Array::from_iter_values(summaries.iter().map(count));
        Ok(Arc::new(StructArray::try_new(fields(), vec![Arc::new(counts), Arc::new(lists.finish())], None)?))
    }

    fn of_states(&self, states: &ArrayRef) -> Result<Vec<Sums>> {
        let rows = states.as_struct();
        let (counts, lists) = (rows.column(0).as_primitive::<Int64Type>(), rows.column(1).as_list::<i32>());
        let read = |row: usize| match counts.value(row) {
            _ if rows.is_null(row) => Sums::None,
            0 => Sums::None,
            UNEQUAL => Sums::Unequal,
            n => Sums::Of { n, sums: lists.value(row).as_primitive::<Float64Type>().values().to_vec() },
        };
        Ok((0..rows.len()).map(read).collect())
    }

    fn results(&self, summaries: &[Sums]) -> Result<ArrayRef> {
        let mut lists = ListBuilder::new(Float64Builder::new());
        for summary in summaries {
            match summary {
                Sums::Of { n, sums } => lists.append_value(sums.iter().map(|sum| Some(sum / *n as f64))),
                Sums::None | Sums::Unequal => lists.append_null(),
            }
        }
        Ok(Arc::new(lists.finish()))
    }

    fn size_bytes(&self, summary: &Sums) -> usize {
        if let Sums::Of { sums, .. } = summary { sums.capacity() * size_of::<f64>() } else { 0 }
    }
}
