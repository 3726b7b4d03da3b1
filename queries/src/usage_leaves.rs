//! `USAGE_LEAVES(spans, wait [, back])`: the spans whose usage may be summed up, whichever records they came in.
//!
//! The column `usage_leaf` looks at one record. This is a join of the spans with all spans of their traces that ended
//! at most `back` before them and `wait` after them: a span stays if it bears usage and none of those that descend from
//! it does ([`crate::join`] says how). In a batch, where all spans of a trace are there at once, they are collected
//! for each span; the time that counts is the same.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::datatypes::DataType;
use datafusion::common::{JoinType, NullEquality, Result, ScalarValue, plan_err};
use datafusion::functions::core::expr_fn::named_struct;
use datafusion::functions_aggregate::array_agg::array_agg_udaf;
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprFunctionExt, Filter, Join, JoinConstraint, LogicalPlan, LogicalPlanBuilder,
    ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, SubqueryAlias, Volatility, WindowFunctionDefinition, col,
    ident, lit,
};

use crate::join::{Family, Kin, instants};
use crate::window::Planning;

/// What the rows are called that may descend from a span.
pub(crate) const DESCENDANT: &str = "__descendant";

/// How it is called.
pub(crate) const SHAPE: &str = "USAGE_LEAVES(spans, wait [, back])";

/// Spans whose parents have not ended by then are decided by what is known: an agent's run is seldom longer, and so
/// long every span with a parent is kept.
const BACK_NS: i64 = 600_000_000_000;

/// How long a span is known to its trace, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Reach {
    /// So long after it ended it is waited for spans below it.
    wait_ns: i64,
    /// Spans below it that ended so long before it are looked for.
    back_ns: i64,
}

impl Reach {
    pub(crate) fn try_new(lengths_ns: &[i64]) -> Result<Self> {
        let (wait_ns, back_ns) = match lengths_ns {
            [wait_ns] => (*wait_ns, BACK_NS),
            [wait_ns, back_ns] => (*wait_ns, *back_ns),
            other => return plan_err!("{SHAPE} takes 2 or 3 arguments, not {}", other.len() + 1),
        };
        if wait_ns < 0 || back_ns < 0 {
            return plan_err!("{SHAPE} takes no negative lengths of time");
        }
        Ok(Self { wait_ns, back_ns })
    }
}

/// The rows of `spans` that count.
pub(crate) fn usage_leaves(planning: Planning, spans: LogicalPlan, reach: Reach) -> Result<LogicalPlan> {
    match planning {
        Planning::Stream => joined(spans, reach),
        Planning::Batch => collected(spans, reach),
    }
}

fn joined(spans: LogicalPlan, reach: Reach) -> Result<LogicalPlan> {
    // A span without a parent that bears no usage is below nothing and links nothing.
    let can_matter = ident("parent_span_id").is_not_null().or(ident("usage_leaf"));
    let known = LogicalPlan::Filter(Filter::try_new(can_matter, Arc::new(spans.clone()))?);
    let known = SubqueryAlias::try_new(Arc::new(known), DESCENDANT)?;
    let bearing = LogicalPlan::Filter(Filter::try_new(ident("usage_leaf"), Arc::new(spans))?);
    let own = |name: &str| {
        let column = bearing.schema().columns().into_iter().find(|column| column.name == name);
        column.map_or_else(|| ident(name), Expr::Column)
    };
    let theirs = |name: &str| col(format!("{DESCENDANT}.{name}"));
    let interval = |ns: i64| lit(ScalarValue::new_interval_mdn(0, 0, ns));
    let conditions = theirs("trace_id")
        .eq(own("trace_id"))
        .and(theirs("event_time").gt_eq(own("event_time") - interval(reach.back_ns)))
        .and(theirs("event_time").lt_eq(own("event_time") + interval(reach.wait_ns)))
        // What can be a descendant or on the way to one; which of them is, whole families say.
        .and(
            theirs("parent_span_id")
                .eq(own("span_id"))
                .or(theirs("parent_span_id").is_not_null())
                .or(theirs("usage_leaf")),
        );
    let join = Join::try_new(
        Arc::new(bearing),
        Arc::new(LogicalPlan::SubqueryAlias(known)),
        Vec::new(),
        Some(conditions),
        JoinType::LeftAnti,
        JoinConstraint::On,
        NullEquality::NullEqualsNothing,
        false,
    )?;
    Ok(LogicalPlan::Join(join))
}

fn collected(spans: LogicalPlan, reach: Reach) -> Result<LogicalPlan> {
    const TRACE: &str = "__trace";
    let columns: Vec<Expr> = spans.schema().columns().into_iter().map(Expr::Column).collect();
    let fields = ["span_id", "parent_span_id", "event_time", "usage_leaf"];
    let span = named_struct(fields.iter().flat_map(|name| [lit(*name), ident(*name)]).collect());
    let collect = WindowFunctionDefinition::AggregateUDF(array_agg_udaf());
    let trace = Expr::from(WindowFunction::new(collect, vec![span])).partition_by(vec![ident("trace_id")]).build()?;
    let below = ScalarUDF::new_from_impl(UsageBelow { reach, signature: Signature::any(3, Volatility::Immutable) });
    let has_usage_below = below.call(vec![ident("span_id"), ident("event_time"), ident(TRACE)]);
    LogicalPlanBuilder::from(spans)
        .window([trace.alias(TRACE)])?
        .filter(ident("usage_leaf").and(ident("trace_id").is_null().or(Expr::Not(Box::new(has_usage_below)))))?
        .project(columns)?
        .build()
}

/// `(span_id, event_time, spans of the trace) → boolean`: whether one that bears usage descends from the span.
#[derive(Debug, PartialEq, Eq, Hash)]
struct UsageBelow {
    reach: Reach,
    signature: Signature,
}

impl ScalarUDFImpl for UsageBelow {
    fn name(&self) -> &'static str {
        "__usage_below"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = args.args.iter().map(|arg| arg.to_array(args.number_rows)).collect::<Result<Vec<ArrayRef>>>()?;
        let (span_ids, traces) = (arrays[0].as_string_view(), arrays[2].as_list::<i32>());
        let has_usage_below = |(row, at): (usize, &i64)| {
            let known = at.saturating_sub(self.reach.back_ns)..=at.saturating_add(self.reach.wait_ns);
            let trace = traces.value(row);
            !span_ids.is_null(row) && family_of(&trace).has_usage_below(span_ids.value(row), &known)
        };
        let found: BooleanArray =
            instants(&arrays[1]).iter().enumerate().map(|span| Some(has_usage_below(span))).collect();
        Ok(ColumnarValue::Array(Arc::new(found)))
    }
}

fn family_of(spans: &ArrayRef) -> Family<'_> {
    let columns = spans.as_struct().columns();
    let (ids, parents) = (columns[0].as_string_view(), columns[1].as_string_view());
    let (times, leaves) = (instants(&columns[2]), columns[3].as_boolean());
    let mut family = Family::default();
    for row in (0..spans.len()).filter(|row| !ids.is_null(*row)) {
        family.add(Kin {
            span_id: ids.value(row),
            parent_span_id: (!parents.is_null(row)).then(|| parents.value(row)),
            at: times[row],
            bears_usage: !leaves.is_null(row) && leaves.value(row),
        });
    }
    family
}
