//! What lictor adds to every aggregate of a rule: how many rows, the latest of them, the one that weighs most, and for
//! rules that speak on update the one that came last.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::{Column, Result};
use datafusion::functions_aggregate::expr_fn::{count, max, min};
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::{Aggregate, AggregateUDF, Expr, ExprSchemable, cast, lit};

use crate::exemplar::{Exemplar, Pick};
use crate::frame::Emission;
use crate::lineage::strip_alias;
use crate::rows::Measures;

/// Adds `count`, `latest` and, where ids are at hand, `exemplar` and `last` to an aggregate.
pub(crate) fn with_measures(
    aggregate: &Aggregate,
    is_session: bool,
    emission: Emission,
) -> Result<(Aggregate, Measures)> {
    let input = aggregate.input.schema();
    let find = |name: &str| {
        let found = input.columns().into_iter().filter(|c| c.name == name).collect::<Vec<Column>>();
        <[Column; 1]>::try_from(found).ok().map(|[c]| Expr::Column(c))
    };
    let first = aggregate.group_expr.len() + aggregate.aggr_expr.len();
    let mut exprs = aggregate.aggr_expr.clone();
    let mut measures = Measures { count: first, latest: None, exemplar: None, last: None };
    exprs.push(count(lit(1_i64)).alias("__count"));
    if let Some(time) = find("event_time") {
        measures.latest = Some(aggregate.group_expr.len() + exprs.len());
        exprs.push(max(time.clone()).alias("__latest"));
        if is_session {
            exprs.push(min(time).alias("__earliest"));
        }
    }
    let ids = ["trace_id", "span_id", "kafka_partition", "kafka_offset"].map(find);
    if let [Some(trace), Some(span), Some(partition), Some(offset)] = ids {
        let arguments = vec![weight(aggregate), trace, span, partition, offset];
        let row = |pick: Pick| {
            let udaf = Arc::new(AggregateUDF::new_from_impl(Exemplar::new(pick)));
            Expr::AggregateFunction(AggregateFunction::new_udf(udaf, arguments.clone(), false, None, vec![], None))
        };
        measures.exemplar = Some(aggregate.group_expr.len() + exprs.len());
        exprs.push(row(Pick::Heaviest).alias("__exemplar"));
        if emission == Emission::OnUpdate {
            measures.last = Some(aggregate.group_expr.len() + exprs.len());
            exprs.push(row(Pick::Last).alias("__last"));
        }
    }
    let extended = Aggregate::try_new(Arc::clone(&aggregate.input), aggregate.group_expr.clone(), exprs)?;
    Ok((extended, measures))
}

/// What a row weighs: the number that the rule's first numeric aggregate sums up, else nothing.
fn weight(aggregate: &Aggregate) -> Expr {
    let numeric = aggregate.aggr_expr.iter().find_map(|e| {
        let Expr::AggregateFunction(call) = strip_alias(e) else { return None };
        let first = call.params.args.first()?;
        let data_type = first.get_type(aggregate.input.schema()).ok()?;
        (data_type.is_numeric() && !first.column_refs().is_empty()).then(|| first.clone())
    });
    numeric.map_or_else(|| lit(0.0_f64), |e| cast(e, DataType::Float64))
}
