//! `moments(x)`: count, mean, spread, least and greatest of numbers.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, StructArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field, Fields, Float64Type, Int64Type};
use datafusion::common::Result;

use super::FunctionDoc;
use super::aggregate::{AggregateSpec, Summarizer};
use super::coerce::Kind;

pub(super) static MOMENTS: AggregateSpec<OfNumbers> = AggregateSpec {
    doc: FunctionDoc {
        name: "moments",
        arguments: "x",
        meaning: "struct of n, mean, m2 (sum of squared deviations), min, max, ignored (NaN and infinite values); the \
                  variance is m2 / n; a value that has left a frame leaves no rounding behind",
        source: "Welford 1962; Chan, Golub and LeVeque 1979",
    },
    takes: &[Kind::Number],
    required: 1,
    state_type: moments_type,
    result_type: moments_type,
    bind: |_| Ok(OfNumbers),
};

fn fields() -> Fields {
    let number = |name| Field::new(name, DataType::Float64, true);
    let count = |name| Field::new(name, DataType::Int64, true);
    Fields::from(vec![count("n"), number("mean"), number("m2"), number("min"), number("max"), count("ignored")])
}

fn moments_type() -> DataType {
    DataType::Struct(fields())
}

#[derive(Debug)]
pub(super) struct OfNumbers;

/// What is known of some numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Moments {
    n: i64,
    mean: f64,
    m2: f64,
    min: f64,
    max: f64,
    ignored: i64,
}

impl Default for Moments {
    fn default() -> Self {
        Self { n: 0, mean: 0.0, m2: 0.0, min: f64::INFINITY, max: f64::NEG_INFINITY, ignored: 0 }
    }
}

impl Moments {
    fn add(&mut self, x: f64) {
        if x.is_finite() {
            self.n += 1;
            let before = x - self.mean;
            self.mean += before / self.n as f64;
            self.m2 += before * (x - self.mean);
            self.min = self.min.min(x);
            self.max = self.max.max(x);
        } else {
            self.ignored += 1;
        }
    }

    fn add_all(&mut self, other: &Self) {
        self.ignored += other.ignored;
        if other.n == 0 {
            return;
        }
        if self.n == 0 {
            // The square of a mean beyond 1e154 is infinite, and times no rows not a number.
            *self = Self { ignored: self.ignored, ..*other };
            return;
        }
        let total = (self.n + other.n) as f64;
        let apart = other.mean - self.mean;
        self.mean += apart * (other.n as f64 / total);
        self.m2 += other.m2 + apart * apart * (self.n as f64 * (other.n as f64 / total));
        self.n += other.n;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }

    fn is_nothing(&self) -> bool {
        self.n == 0 && self.ignored == 0
    }
}

impl Summarizer for OfNumbers {
    type Summary = Moments;

    fn absorb(
        &self,
        arguments: &[ArrayRef],
        rows: &mut dyn Iterator<Item = (usize, usize)>,
        groups: &mut [Moments],
    ) -> Result<()> {
        let numbers = arguments[0].as_primitive::<Float64Type>();
        rows.filter(|(row, _)| numbers.is_valid(*row)).for_each(|(row, group)| groups[group].add(numbers.value(row)));
        Ok(())
    }

    fn merge(&self, into: &mut Moments, from: &Moments) -> Result<()> {
        into.add_all(from);
        Ok(())
    }

    fn states(&self, summaries: &[Moments]) -> Result<ArrayRef> {
        let number = |of: fn(&Moments) -> f64| -> ArrayRef {
            let known = summaries.iter().map(|m| (m.n > 0).then(|| of(m)));
            Arc::new(known.collect::<Float64Array>())
        };
        let count =
            |of: fn(&Moments) -> i64| -> ArrayRef { Arc::new(Int64Array::from_iter_values(summaries.iter().map(of))) };
        let columns = vec![
            count(|m| m.n),
            number(|m| m.mean),
            number(|m| m.m2),
            number(|m| m.min),
            number(|m| m.max),
            count(|m| m.ignored),
        ];
        let valid = NullBuffer::from_iter(summaries.iter().map(|m| !m.is_nothing()));
        Ok(Arc::new(StructArray::try_new(fields(), columns, Some(valid))?))
    }

    fn of_states(&self, states: &ArrayRef) -> Result<Vec<Moments>> {
        let rows = states.as_struct();
        let count = |at: usize, row: usize| rows.column(at).as_primitive::<Int64Type>().value(row);
        let number = |at: usize, row: usize| rows.column(at).as_primitive::<Float64Type>().value(row);
        let read = |row: usize| {
            let (n, ignored) = (count(0, row), count(5, row));
            if n == 0 {
                return Moments { ignored, ..Moments::default() };
            }
            Moments { n, mean: number(1, row), m2: number(2, row), min: number(3, row), max: number(4, row), ignored }
        };
        Ok((0..rows.len()).map(|row| if rows.is_null(row) { Moments::default() } else { read(row) }).collect())
    }

    fn results(&self, summaries: &[Moments]) -> Result<ArrayRef> {
        self.states(summaries)
    }

    fn size_bytes(&self, _: &Moments) -> usize {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_great_number_that_is_merged_into_nothing_is_as_it_was() {
        let mut one = Moments { ignored: 1, ..Moments::default() };
        one.add(1e200);
        let mut merged = Moments { ignored: 2, ..Moments::default() };
        merged.add_all(&one);
        assert_eq!(merged, Moments { n: 1, mean: 1e200, m2: 0.0, min: 1e200, max: 1e200, ignored: 3 });
    }
}
