//! What detectors say, as columns.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, StructArray};
use arrow::datatypes::{DataType, Field as ArrowField, Fields};

use super::Detector;

/// One thing that a detector knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    pub name: &'static str,
    pub kind: Kind,
}

/// As what it is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Number,
    Whole,
    Flag,
}

impl Field {
    pub(super) const fn number(name: &'static str) -> Self {
        Self { name, kind: Kind::Number }
    }

    pub(super) const fn whole(name: &'static str) -> Self {
        Self { name, kind: Kind::Whole }
    }

    pub(super) const fn flag(name: &'static str) -> Self {
        Self { name, kind: Kind::Flag }
    }

    fn data_type(self) -> DataType {
        match self.kind {
            Kind::Number => DataType::Float64,
            Kind::Whole => DataType::Int64,
            Kind::Flag => DataType::Boolean,
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "whole numbers are small")]
    fn column(self, numbers: impl Iterator<Item = f64>) -> ArrayRef {
        let known = numbers.map(|n| (!n.is_nan()).then_some(n));
        match self.kind {
            Kind::Number => Arc::new(known.collect::<Float64Array>()),
            Kind::Whole => Arc::new(known.map(|n| n.map(|n| n as i64)).collect::<Int64Array>()),
            Kind::Flag => Arc::new(known.map(|n| n.map(|n| n != 0.0)).collect::<BooleanArray>()),
        }
    }
}

/// What a function gives: the first field of its detector, or all of them.
pub(super) fn data_type(detector: &Detector, is_whole: bool) -> DataType {
    if is_whole { DataType::Struct(fields(detector)) } else { detector.fields[0].data_type() }
}

fn fields(detector: &Detector) -> Fields {
    detector.fields.iter().map(|field| ArrowField::new(field.name, field.data_type(), true)).collect()
}

/// What a detector made of each row, all of its fields, row by row.
#[derive(Debug)]
pub(super) struct Readings {
    numbers: Vec<f64>,
    width: usize,
}

impl Readings {
    pub(super) fn new(detector: &Detector, rows: usize) -> Self {
        let width = detector.fields.len();
        Self { numbers: vec![f64::NAN; rows * width], width }
    }

    pub(super) fn of_row(&mut self, row: usize) -> &mut [f64] {
        &mut self.numbers[row * self.width..(row + 1) * self.width]
    }

    fn field(&self, field: usize) -> impl Iterator<Item = f64> {
        self.numbers.iter().skip(field).step_by(self.width).copied()
    }

    pub(super) fn into_column(self, detector: &Detector, is_whole: bool) -> ArrayRef {
        if !is_whole {
            return detector.fields[0].column(self.field(0));
        }
        let columns = (0..).zip(detector.fields).map(|(n, field)| field.column(self.field(n))).collect();
        Arc::new(StructArray::new(fields(detector), columns, None))
    }
}
