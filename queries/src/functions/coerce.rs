//! What arguments may be, and which Arrow type they are brought to before a function sees them.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, IntervalUnit, TimeUnit};
use datafusion::common::{Result, plan_err};

use super::FunctionDoc;
use super::hist::hist_type;

/// What an argument is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Hist,
    /// A histogram, or a list of numbers: the sample itself.
    HistOrNumbers,
    Number,
    Int,
    Text,
    /// Anything that has a text, to be told apart by it.
    Key,
    /// Bytes that another function made.
    Sketch,
    Time,
    /// An `INTERVAL`, the difference of two times, or a number of seconds.
    Length,
    Numbers,
    NumberOrNumbers,
    /// A list of text, or of anything that has one.
    Texts,
    /// A list of vectors, or of numbers: vectors of one dimension.
    Vectors,
}

impl Kind {
    /// What it is called in messages.
    fn name(self) -> &'static str {
        match self {
            Self::Hist => "a histogram",
            Self::HistOrNumbers => "a histogram or a list of numbers",
            Self::Number => "a number",
            Self::Int => "a whole number",
            Self::Text => "text",
            Self::Key => "a value, not a list or a struct",
            Self::Sketch => "a sketch",
            Self::Time => "a timestamp",
            Self::Length => "an interval or a number of seconds",
            Self::Numbers => "a list of numbers",
            Self::NumberOrNumbers => "a number or a list of numbers",
            Self::Texts => "a list of text",
            Self::Vectors => "a list of vectors",
        }
    }

    /// The type that an argument of the given type is brought to; none if it does not fit.
    fn target(self, given: &DataType) -> Option<DataType> {
        let is_number = given.is_numeric() || *given == DataType::Null;
        let item = list_item(given);
        match self {
            Self::Hist => (*given == hist_type() || *given == DataType::Null).then(hist_type),
            Self::HistOrNumbers if item.is_some() => Self::Numbers.target(given),
            Self::HistOrNumbers => Self::Hist.target(given),
            Self::Number => is_number.then_some(DataType::Float64),
            Self::Int => (given.is_integer() || *given == DataType::Null).then_some(DataType::Int64),
            Self::Text => (given.is_string() || *given == DataType::Null).then_some(DataType::Utf8View),
            Self::Key => (!given.is_nested()).then_some(DataType::Utf8View),
            Self::Sketch => {
                let is_bytes = given.is_binary() || *given == DataType::Null;
                is_bytes.then_some(DataType::Binary)
            }
            Self::Time => match given {
                DataType::Timestamp(..) | DataType::Null => Some(DataType::Timestamp(TimeUnit::Nanosecond, None)),
                _ => None,
            },
            Self::Length => match given {
                DataType::Interval(_) => Some(DataType::Interval(IntervalUnit::MonthDayNano)),
                DataType::Duration(_) => Some(DataType::Duration(TimeUnit::Nanosecond)),
                _ => is_number.then_some(DataType::Float64),
            },
            Self::Numbers => {
                let is_list = item.is_some_and(|item| item.is_numeric() || *item == DataType::Null);
                (is_list || *given == DataType::Null).then(numbers_type)
            }
            Self::NumberOrNumbers if item.is_some() => Self::Numbers.target(given),
            Self::NumberOrNumbers => Self::Number.target(given),
            Self::Texts => {
                let is_list = item.is_some_and(|item| !item.is_nested());
                (is_list || *given == DataType::Null).then(|| list_type(DataType::Utf8))
            }
            Self::Vectors => match item {
                Some(item) if list_item(item).is_some_and(DataType::is_numeric) => Some(list_type(numbers_type())),
                Some(_) => Self::Numbers.target(given),
                None => (*given == DataType::Null).then(|| list_type(numbers_type())),
            },
        }
    }
}

fn list_item(given: &DataType) -> Option<&DataType> {
    match given {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => Some(item.data_type()),
        _ => None,
    }
}

/// A list of anything.
pub(super) fn list_type(item: DataType) -> DataType {
    DataType::List(Arc::new(Field::new_list_field(item, true)))
}

/// A list of `DOUBLE`.
pub(super) fn numbers_type() -> DataType {
    list_type(DataType::Float64)
}

/// The types that the given arguments are brought to.
pub(super) fn coerce(doc: &FunctionDoc, takes: &[Kind], required: usize, given: &[DataType]) -> Result<Vec<DataType>> {
    let usage = || format!("{}({})", doc.name, doc.arguments);
    if given.len() < required || given.len() > takes.len() {
        return plan_err!("{} arguments are not those of {}", given.len(), usage());
    }
    let fit = |(at, (given, kind)): (usize, (&DataType, &Kind))| match kind.target(given) {
        Some(target) => Ok(target),
        None => plan_err!("argument {} of {} must be {}, and is {given}", at + 1, usage(), kind.name()),
    };
    given.iter().zip(takes).enumerate().map(fit).collect()
}
