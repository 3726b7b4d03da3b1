//! How a formula becomes a function of DataFusion: arguments of a row in, one value out.
//!
//! These run on the few rows that windows have made, so a row at a time is fast enough. Unless a function says
//! otherwise, a null argument makes the result null.

use std::fmt::Debug;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, ListArray, StringViewArray, TimestampNanosecondArray};
use arrow::datatypes::{
    DataType, DurationNanosecondType, Float64Type, Int64Type, IntervalMonthDayNanoType, TimeUnit,
    TimestampNanosecondType,
};
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use super::FunctionDoc;
use super::coerce::{Kind, coerce, numbers_type};
use super::hist::{Hist, HistColumn, hist_type, to_column};

/// An argument or a result in one row.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Null,
    Hist(Hist),
    Number(f64),
    Int(i64),
    Text(String),
    Bytes(Vec<u8>),
    /// Nanoseconds since 1970, UTC.
    Time(i64),
    /// Seconds.
    Length(f64),
    Numbers(Vec<f64>),
    Texts(Vec<String>),
    Vectors(Vec<Vec<f64>>),
}

impl Value {
    pub(super) fn is_null(&self) -> bool {
        *self == Self::Null
    }

    /// A number; NaN if it is none, so that the result becomes null.
    pub(super) fn number(&self) -> f64 {
        match self {
            Self::Number(x) | Self::Length(x) => *x,
            _ => f64::NAN,
        }
    }

    /// A result: infinite where the formula is, null where it is not defined.
    pub(super) fn of(x: f64) -> Self {
        if x.is_nan() { Self::Null } else { Self::Number(x) }
    }
}

/// What a function gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gives {
    Number,
    Numbers,
    Hist,
    Text,
    Time,
}

/// A scalar function.
pub(super) struct ScalarSpec {
    pub(super) doc: FunctionDoc,
    /// The arguments, of which those beyond the required ones may be left out.
    pub(super) takes: &'static [Kind],
    pub(super) required: usize,
    pub(super) gives: Gives,
    pub(super) body: fn(&[Value]) -> Result<Value>,
}

/// What a function works out from the arguments of a row.
type Body = dyn Fn(&[Value]) -> Result<Value> + Send + Sync;

struct Function {
    spec: &'static ScalarSpec,
    signature: Signature,
    /// Whether the body sees nulls.
    sees_nulls: bool,
    body: Arc<Body>,
}

/// The function of a spec.
pub(super) fn udf(spec: &'static ScalarSpec) -> ScalarUDF {
    udf_with(spec, false, Arc::new(spec.body))
}

/// The function of a spec with another body, for those that read what the session was given.
pub(super) fn udf_with(spec: &'static ScalarSpec, sees_nulls: bool, body: Arc<Body>) -> ScalarUDF {
    let signature = Signature::user_defined(Volatility::Immutable);
    ScalarUDF::new_from_impl(Function { spec, signature, sees_nulls, body })
}

impl Debug for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.spec.doc.name)
    }
}

impl PartialEq for Function {
    fn eq(&self, other: &Self) -> bool {
        self.spec.doc.name == other.spec.doc.name
    }
}

impl Eq for Function {}

impl Hash for Function {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.spec.doc.name.hash(state);
    }
}

impl ScalarUDFImpl for Function {
    fn name(&self) -> &str {
        self.spec.doc.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        coerce(&self.spec.doc, self.spec.takes, self.spec.required, types)
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(match self.spec.gives {
            Gives::Number => DataType::Float64,
            Gives::Numbers => numbers_type(),
            Gives::Hist => hist_type(),
            Gives::Text => DataType::Utf8View,
            Gives::Time => DataType::Timestamp(TimeUnit::Nanosecond, None),
        })
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let is_constant = arguments.args.iter().all(|a| matches!(a, ColumnarValue::Scalar(_)));
        let rows = if is_constant { 1 } else { arguments.number_rows };
        let arrays: Vec<ArrayRef> = arguments.args.iter().map(|a| a.to_array(rows)).collect::<Result<_>>()?;
        let columns = arrays.iter().zip(self.spec.takes).map(|(a, kind)| Column::try_new(a, *kind));
        let columns: Vec<Column<'_>> = columns.collect::<Result<_>>()?;
        let mut values = Vec::with_capacity(rows);
        for row in 0..rows {
            let given: Vec<Value> = columns.iter().map(|column| column.get(row)).collect::<Result<_>>()?;
            let is_null = !self.sees_nulls && given.iter().any(Value::is_null);
            values.push(if is_null { Value::Null } else { (self.body)(&given)? });
        }
        let column = column_of(self.spec.gives, &values)?;
        if is_constant {
            return Ok(ColumnarValue::Scalar(datafusion::common::ScalarValue::try_from_array(&column, 0)?));
        }
        Ok(ColumnarValue::Array(column))
    }
}

/// An argument of all rows.
enum Column<'a> {
    Hists(HistColumn<'a>),
    Plain(&'a ArrayRef, Kind),
}

impl<'a> Column<'a> {
    fn try_new(column: &'a ArrayRef, kind: Kind) -> Result<Self> {
        match column.data_type() {
            DataType::Struct(_) => Ok(Self::Hists(HistColumn::try_new(column)?)),
            _ => Ok(Self::Plain(column, kind)),
        }
    }

    fn get(&self, row: usize) -> Result<Value> {
        Ok(match self {
            Self::Hists(column) => column.get(row)?.map_or(Value::Null, Value::Hist),
            Self::Plain(column, _) if column.is_null(row) => Value::Null,
            Self::Plain(column, kind) => plain(column, *kind, row),
        })
    }
}

const NANOS_PER_SECOND: f64 = 1e9;
const SECONDS_PER_DAY: f64 = 86_400.0;
/// What a month counts as where a length of time is a number: budgets are compared by rates.
const DAYS_PER_MONTH: f64 = 30.0;

fn plain(column: &ArrayRef, kind: Kind, row: usize) -> Value {
    match column.data_type() {
        DataType::Float64 if kind == Kind::Length => Value::Length(column.as_primitive::<Float64Type>().value(row)),
        DataType::Float64 => Value::Number(column.as_primitive::<Float64Type>().value(row)),
        DataType::Int64 => Value::Int(column.as_primitive::<Int64Type>().value(row)),
        DataType::Utf8View => Value::Text(column.as_string_view().value(row).to_owned()),
        DataType::Binary => Value::Bytes(column.as_binary::<i32>().value(row).to_vec()),
        DataType::Timestamp(..) => Value::Time(column.as_primitive::<TimestampNanosecondType>().value(row)),
        DataType::Duration(_) => {
            Value::Length(column.as_primitive::<DurationNanosecondType>().value(row) as f64 / NANOS_PER_SECOND)
        }
        DataType::Interval(_) => {
            let length = column.as_primitive::<IntervalMonthDayNanoType>().value(row);
            let days = f64::from(length.months) * DAYS_PER_MONTH + f64::from(length.days);
            Value::Length(days * SECONDS_PER_DAY + length.nanoseconds as f64 / NANOS_PER_SECOND)
        }
        DataType::List(_) => list(column.as_list(), row),
        _ => Value::Null,
    }
}

fn list(column: &ListArray, row: usize) -> Value {
    let items = column.value(row);
    match items.data_type() {
        DataType::Float64 => Value::Numbers(numbers(&items)),
        DataType::Utf8 => Value::Texts(items.as_string::<i32>().iter().flatten().map(str::to_owned).collect()),
        DataType::List(_) => {
            let vectors = items.as_list::<i32>();
            Value::Vectors(vectors.iter().flatten().map(|vector| numbers(&vector)).collect())
        }
        _ => Value::Null,
    }
}

/// The numbers of a list; nulls are NaN.
fn numbers(items: &ArrayRef) -> Vec<f64> {
    items.as_primitive::<Float64Type>().iter().map(|x| x.unwrap_or(f64::NAN)).collect()
}

fn column_of(gives: Gives, values: &[Value]) -> Result<ArrayRef> {
    Ok(match gives {
        Gives::Number => Arc::new(Float64Array::from_iter(values.iter().map(|value| match value {
            Value::Number(x) => Some(*x),
            _ => None,
        }))),
        Gives::Numbers => {
            Arc::new(ListArray::from_iter_primitive::<Float64Type, _, _>(values.iter().map(|value| match value {
                Value::Numbers(list) => Some(list.iter().copied().map(Some).collect::<Vec<_>>()),
                _ => None,
            })))
        }
        Gives::Hist => to_column(values.iter().map(|value| match value {
            Value::Hist(hist) => Some(hist),
            _ => None,
        }))?,
        Gives::Text => Arc::new(StringViewArray::from_iter(values.iter().map(|value| match value {
            Value::Text(text) => Some(text),
            _ => None,
        }))),
        Gives::Time => Arc::new(TimestampNanosecondArray::from_iter(values.iter().map(|value| match value {
            Value::Time(at) => Some(*at),
            _ => None,
        }))),
    })
}

/// The finite numbers of a sample.
pub(super) fn finite(sample: &[f64]) -> Vec<f64> {
    sample.iter().copied().filter(|x| x.is_finite()).collect()
}

/// Two arguments that must be of one kind.
pub(super) fn mixed<T>(name: &str) -> Result<T> {
    exec_err!("{name} compares two histograms or two lists of numbers, not one with the other")
}
