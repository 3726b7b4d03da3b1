//! Columns that telemetry rows carry up to a query's result, whether the author selects them or not: when and where a
//! row was read, and of which span it is.

use std::sync::Arc;

use datafusion::common::{Column, Result};
use datafusion::logical_expr::{Expr, Join, LogicalPlan, Projection, SubqueryAlias};

use crate::join::JOINED;
use crate::shape::reads_telemetry;

/// What is carried; tables without spans do not have the last two.
pub(crate) const CARRIED: [&str; 5] = ["event_time", "kafka_partition", "kafka_offset", "trace_id", "span_id"];

/// A plan whose result has the carried columns, too.
pub(crate) struct Carried {
    pub plan: LogicalPlan,
    /// What [`CARRIED`] are called in it.
    pub columns: [Option<Column>; 5],
}

/// Carries the columns from the telemetry up to the result of a stateless plan; none if something on the way cannot let
/// them pass.
pub(crate) fn carry(plan: &LogicalPlan) -> Result<Option<Carried>> {
    if let LogicalPlan::TableScan(scan) = plan {
        let prefix = if scan.table_name.table() == JOINED { "__" } else { "" };
        let named = |name: &str| {
            let column = Column::new(Some(scan.table_name.clone()), format!("{prefix}{name}"));
            plan.schema().has_column(&column).then_some(column)
        };
        return Ok(Some(Carried { plan: plan.clone(), columns: CARRIED.map(named) }));
    }
    let inputs = plan.inputs();
    let Some(at) = inputs.iter().position(|input| reads_telemetry(input)) else { return Ok(None) };
    let Some(Carried { plan: input, columns }) = carry(inputs[at])? else { return Ok(None) };
    let (plan, columns) = match plan {
        LogicalPlan::Projection(projection) => {
            let names = CARRIED.map(|name| Column::from_name(format!("__{name}")));
            // What was carried before comes along by itself.
            let is_there = |name: &Column| projection.schema.has_column(name);
            let named = |(name, column): (&Column, &Option<Column>)| {
                let column = column.clone().filter(|_| !is_there(name))?;
                Some(Expr::Column(column).alias(&name.name))
            };
            let exprs: Vec<Expr> = names.iter().zip(&columns).filter_map(named).collect();
            let exprs = projection.expr.iter().cloned().chain(exprs).collect();
            let mut known = columns.iter().map(Option::is_some);
            let columns = names.map(|name| (known.next() == Some(true) || is_there(&name)).then_some(name));
            (LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(input))?), columns)
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let of_alias = |column: Column| Column::new(Some(alias.alias.clone()), column.name);
            let plan = SubqueryAlias::try_new(Arc::new(input), alias.alias.clone())?;
            (LogicalPlan::SubqueryAlias(plan), columns.map(|column| column.map(of_alias)))
        }
        LogicalPlan::Join(join) => (with_side(join, at, input)?, columns),
        other => {
            let plan = other.with_new_exprs(other.expressions(), vec![input])?;
            (plan, columns)
        }
    };
    let has_all = columns.iter().flatten().all(|column| plan.schema().has_column(column));
    Ok(has_all.then_some(Carried { plan, columns }))
}

fn with_side(join: &Join, at: usize, side: LogicalPlan) -> Result<LogicalPlan> {
    let mut sides = [Arc::clone(&join.left), Arc::clone(&join.right)];
    sides[at] = Arc::new(side);
    let [left, right] = sides;
    let Join { on, filter, join_type, join_constraint, null_equality, null_aware, .. } = join.clone();
    let join = Join::try_new(left, right, on, filter, join_type, join_constraint, null_equality, null_aware)?;
    Ok(LogicalPlan::Join(join))
}
