//! `SELECT DISTINCT ON (key) … WITHIN INTERVAL '…'`: of rows with the same key that follow each other within a length
//! of time, the first.
//!
//! That is a join of the stream with itself: a row counts if no earlier one with its key came within the interval
//! before it. Which of two is earlier is a matter of event time, and of partition and offset if that is the same, so
//! that every replay agrees; of one record's rows at one instant the one with the lower span id. A null key says
//! nothing about what a row is: such rows all count.

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, JoinType, NullEquality, Result, ScalarValue};
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{
    Distinct, DistinctOn, Expr, Join, JoinConstraint, LogicalPlan, Operator, Projection, SubqueryAlias, binary_expr,
    lit,
};

use crate::carry::carry;
use crate::shape::{Refusal, refuse};

/// What the rows are called that may have been earlier.
pub(crate) const EARLIER: &str = "__earlier";

/// Puts a join with itself in place of `DISTINCT ON`; without `WITHIN` there must be none.
pub(crate) fn with_firsts(plan: LogicalPlan, within_ns: Option<i64>) -> Result<Result<LogicalPlan, Refusal>> {
    let Some(within_ns) = within_ns else { return Ok(Ok(plan)) };
    let mut refusal = None;
    let replaced = plan.transform_up(|node| {
        let LogicalPlan::Distinct(Distinct::On(distinct)) = &node else { return Ok(Transformed::no(node)) };
        match first_rows(distinct, within_ns)? {
            Ok(firsts) => Ok(Transformed::yes(firsts)),
            Err(refused) => {
                refusal = Some(refused);
                Ok(Transformed::no(node))
            }
        }
    })?;
    if let Some(refusal) = refusal {
        return Ok(Err(refusal));
    }
    if !replaced.transformed {
        let help = "write SELECT DISTINCT ON (span_id) … WITHIN INTERVAL '10 minutes'";
        return Ok(refuse(
            "WITHIN says how long a row is remembered by DISTINCT ON, and there is none",
            help,
            "WITHIN",
        ));
    }
    Ok(Ok(replaced.data))
}

fn first_rows(distinct: &DistinctOn, within_ns: i64) -> Result<Result<LogicalPlan, Refusal>> {
    if distinct.sort_expr.is_some() {
        let help = "leave ORDER BY out: the first row by event time is kept";
        return Ok(refuse("DISTINCT ON … WITHIN has an order of its own", help, "ORDER"));
    }
    let names: Vec<String> = distinct.input.schema().columns().into_iter().map(|column| column.name).collect();
    if names.iter().collect::<BTreeSet<_>>().len() < names.len() {
        let help = "join in a subquery that gives each column a name of its own";
        return Ok(refuse("DISTINCT ON … WITHIN reads two columns of one name", help, "DISTINCT"));
    }
    let carried = carry(&distinct.input)?;
    let Some((rows, [Some(at), partition, offset, trace, span])) = carried.map(|c| (c.plan, c.columns)) else {
        let help = "leave out what makes other rows of them than they were";
        return Ok(refuse("the rows of DISTINCT ON do not say when they were read", help, "DISTINCT"));
    };
    let order: Vec<Expr> =
        [Some(at.clone()), partition, offset, span, trace].into_iter().flatten().map(Expr::Column).collect();
    let at = Expr::Column(at);
    let since = at.clone() - lit(ScalarValue::new_interval_mdn(0, 0, within_ns));
    let mut conditions = Vec::new();
    for key in &distinct.on_expr {
        conditions.push(key.clone().eq(of_earlier(key.clone())?));
    }
    conditions.push(of_earlier(at.clone())?.gt_eq(since));
    conditions.push(of_earlier(at.clone())?.lt_eq(at));
    conditions.extend(comes_before(&order)?);
    let earlier = SubqueryAlias::try_new(Arc::new(rows.clone()), EARLIER)?;
    let join = Join::try_new(
        Arc::new(rows),
        Arc::new(LogicalPlan::SubqueryAlias(earlier)),
        Vec::new(),
        conjunction(conditions),
        JoinType::LeftAnti,
        JoinConstraint::On,
        NullEquality::NullEqualsNothing,
        false,
    )?;
    let firsts = Projection::try_new(distinct.select_expr.clone(), Arc::new(LogicalPlan::Join(join)))?;
    Ok(Ok(LogicalPlan::Projection(firsts)))
}

/// The same expression of the rows that may have been earlier.
fn of_earlier(expr: Expr) -> Result<Expr> {
    let renamed = expr.transform(|at| match at {
        Expr::Column(column) => Ok(Transformed::yes(Expr::Column(Column::new(Some(EARLIER), column.name)))),
        other => Ok(Transformed::no(other)),
    })?;
    Ok(renamed.data)
}

/// That the other row comes before this one, by the first of these in which they differ.
fn comes_before(order: &[Expr]) -> Result<Option<Expr>> {
    let Some((first, rest)) = order.split_first() else { return Ok(None) };
    let (theirs, own) = (of_earlier(first.clone())?, first.clone());
    let is_before = theirs.clone().lt(own.clone());
    Ok(Some(match comes_before(rest)? {
        Some(later) => is_before.or(binary_expr(theirs, Operator::IsNotDistinctFrom, own).and(later)),
        None => is_before,
    }))
}
