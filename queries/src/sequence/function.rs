//! Detectors as DataFusion's window functions: what a query names, and how a batch runs them.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type, TimeUnit, TimestampNanosecondType};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, Result, ScalarValue, exec_err};
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::function::{PartitionEvaluatorArgs, WindowUDFFieldArgs};
use datafusion::logical_expr::{
    Expr, LogicalPlan, PartitionEvaluator, Signature, Volatility, Window, WindowFunctionDefinition, WindowUDF,
    WindowUDFImpl, lit,
};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Literal;
use datafusion::prelude::SessionContext;

use super::arguments::Settings;
use super::readings::{Readings, data_type};
use super::{DETECTORS, Detector, Row, Value};
use crate::lineage::strip_alias;
use crate::window::window_spec_in;

/// What the names of functions end in that give all that a detector knows.
const WHOLE: &str = "_state";

/// A detector under one of its names.
#[derive(Debug)]
pub(super) struct SequenceFunction {
    pub(super) detector: &'static Detector,
    /// Whether it gives all fields.
    pub(super) is_whole: bool,
    name: String,
    signature: Signature,
}

impl PartialEq for SequenceFunction {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for SequenceFunction {}

impl Hash for SequenceFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

/// Makes all detectors known to queries.
pub(crate) fn register(context: &SessionContext) {
    for detector in DETECTORS {
        let kinds = if detector.fields.len() > 1 { [false, true].as_slice() } else { &[false] };
        for is_whole in kinds {
            context.register_udwf(WindowUDF::new_from_impl(SequenceFunction::new(detector, *is_whole)));
        }
    }
}

/// The detector that an expression calls, if it calls one.
pub(super) fn called(expr: &Expr) -> Option<(&WindowFunction, &SequenceFunction)> {
    let Expr::WindowFunction(call) = strip_alias(expr) else { return None };
    let WindowFunctionDefinition::WindowUDF(function) = &call.fun else { return None };
    Some((call, function.inner().downcast_ref::<SequenceFunction>()?))
}

impl SequenceFunction {
    fn new(detector: &'static Detector, is_whole: bool) -> Self {
        let name = format!("{}{}", detector.name, if is_whole { WHOLE } else { "" });
        // Types are checked where a diagnostic can say what is wrong with them.
        Self { detector, is_whole, name, signature: Signature::user_defined(Volatility::Immutable) }
    }
}

/// What a value becomes before a detector sees it; none if it cannot be one.
pub(super) fn coerced(value: Value, given: &DataType) -> Option<DataType> {
    let is_flag = matches!(given, DataType::Boolean | DataType::Null);
    match value {
        Value::Number if given.is_numeric() || *given == DataType::Null => Some(DataType::Float64),
        Value::Share if given.is_numeric() || is_flag => Some(DataType::Float64),
        Value::Flag if is_flag => Some(DataType::Boolean),
        Value::Time if matches!(given, DataType::Timestamp(..)) => {
            Some(DataType::Timestamp(TimeUnit::Nanosecond, None))
        }
        _ => None,
    }
}

impl WindowUDFImpl for SequenceFunction {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, given: &[DataType]) -> Result<Vec<DataType>> {
        let of = |(n, given): (usize, &DataType)| {
            let value = self.detector.values.get(n);
            value.and_then(|value| coerced(*value, given)).unwrap_or_else(|| given.clone())
        };
        Ok(given.iter().enumerate().map(of).collect())
    }

    fn field(&self, arguments: WindowUDFFieldArgs) -> Result<FieldRef> {
        Ok(Arc::new(Field::new(arguments.name(), data_type(self.detector, self.is_whole), true)))
    }

    fn partition_evaluator(&self, arguments: PartitionEvaluatorArgs) -> Result<Box<dyn PartitionEvaluator>> {
        let behind = arguments.input_exprs().get(self.detector.values.len()..).unwrap_or_default();
        let literals: Vec<ScalarValue> = behind.iter().map_while(literal).collect();
        // Behind the settings `with_times` has put when windows end and how long a silent key is kept.
        let Some((keep, said)) = literals.split_last().filter(|_| behind.len() > literals.len()) else {
            return exec_err!("{} runs above a window only", self.name);
        };
        let ScalarValue::Int64(Some(keep_ns)) = keep else { return exec_err!("{}: no time to keep", self.name) };
        let settings = Settings::read(self.detector, said).map_err(DataFusionError::Plan)?;
        let end = self.detector.values.len() + literals.len();
        let SequenceFunction { detector, is_whole, .. } = *self;
        Ok(Box::new(Evaluator { detector, is_whole, settings, keep_ns: *keep_ns, end }))
    }
}

fn literal(expr: &Arc<dyn PhysicalExpr>) -> Option<ScalarValue> {
    expr.downcast_ref::<Literal>().map(|literal| literal.value().clone())
}

/// Folds a partition from its start.
#[derive(Debug)]
struct Evaluator {
    detector: &'static Detector,
    is_whole: bool,
    settings: Settings,
    keep_ns: i64,
    /// Which argument says when a row's window ends.
    end: usize,
}

impl PartitionEvaluator for Evaluator {
    fn evaluate_all(&mut self, values: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
        let inputs = Inputs::new(self.detector, &values[..self.detector.values.len()], &values[self.end])?;
        let mut readings = Readings::new(self.detector, rows);
        let mut sequence = (self.detector.start)(&self.settings);
        let mut before = None;
        for row in 0..rows {
            let end_ns = inputs.end_ns(row);
            if is_forgotten(before.replace(end_ns), end_ns, self.keep_ns) {
                sequence = (self.detector.start)(&self.settings);
            }
            if let Some(input) = inputs.row(row) {
                sequence.step(input, readings.of_row(row));
            }
        }
        Ok(readings.into_column(self.detector, self.is_whole))
    }
}

/// Whether a key whose last window ended `before` has begun anew with one that ends at `end_ns`.
pub(super) fn is_forgotten(before: Option<i64>, end_ns: i64, keep_ns: i64) -> bool {
    before.is_some_and(|before| before.saturating_add(keep_ns) < end_ns)
}

/// The values of a detector, row by row.
#[derive(Debug)]
pub(super) struct Inputs {
    detector: &'static Detector,
    numbers: Vec<Float64Array>,
    times: Option<ArrayRef>,
    ends: ArrayRef,
}

impl Inputs {
    /// `ends` are instants.
    pub(super) fn new(detector: &'static Detector, values: &[ArrayRef], ends: &ArrayRef) -> Result<Self> {
        let is_time = |(value, _): &(&Value, &ArrayRef)| **value == Value::Time;
        let (times, numbers): (Vec<_>, Vec<_>) = detector.values.iter().zip(values).partition(is_time);
        let number = |column: &ArrayRef| Ok(cast(column, &DataType::Float64)?.as_primitive::<Float64Type>().clone());
        let numbers = numbers.into_iter().map(|(_, column)| number(column)).collect::<Result<_>>()?;
        let times = times.first().map(|(_, column)| instants(column)).transpose()?;
        Ok(Self { detector, numbers, times, ends: instants(ends)? })
    }

    pub(super) fn end_ns(&self, row: usize) -> i64 {
        self.ends.as_primitive::<TimestampNanosecondType>().value(row)
    }

    /// The values of a row; none if they are to be ignored.
    pub(super) fn row(&self, row: usize) -> Option<Row> {
        let number = |n: usize| match self.numbers.get(n) {
            Some(column) if column.is_null(row) => f64::NAN,
            Some(column) => column.value(row),
            None => 0.0,
        };
        let time_ns = match &self.times {
            Some(times) if times.is_null(row) => return None,
            Some(times) => times.as_primitive::<TimestampNanosecondType>().value(row),
            None => 0,
        };
        let row = Row { x: number(0), y: number(1), time_ns, end_ns: self.end_ns(row) };
        self.detector.takes(&row).then_some(row)
    }
}

fn instants(column: &ArrayRef) -> Result<ArrayRef> {
    Ok(cast(column, &DataType::Timestamp(TimeUnit::Nanosecond, None))?)
}

/// A plan for a batch, in which detectors are told when windows end and how long silent keys are kept: what a stream
/// knows anyway.
pub(crate) fn with_times(plan: LogicalPlan) -> Result<LogicalPlan> {
    let Some(spec) = window_spec_in(&plan) else { return Ok(plan) };
    let keep = lit(super::keep_ns(spec));
    let timed = |expr: &Expr, schema_name: &str| {
        let Some((call, _)) = called(expr) else { return expr.clone() };
        let Some(order) = call.params.order_by.first() else { return expr.clone() };
        let mut call = call.clone();
        call.params.args.extend([keep.clone(), order.expr.clone()]);
        Expr::from(call).alias(schema_name)
    };
    let plan = plan.transform_up(|node| {
        let LogicalPlan::Window(window) = node else { return Ok(Transformed::no(node)) };
        let inputs = window.input.schema().fields().len();
        let names = window.schema.fields().iter().skip(inputs).map(|field| field.name());
        let exprs = window.window_expr.iter().zip(names).map(|(expr, name)| timed(expr, name)).collect();
        let window = LogicalPlan::Window(Window::try_new(exprs, Arc::clone(&window.input))?);
        Ok(Transformed::new(window, true, TreeNodeRecursion::Continue))
    })?;
    Ok(plan.data)
}
