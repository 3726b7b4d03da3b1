//! Windows that not all keys share, and what therefore cannot stand above them.
//!
//! Sessions of different keys end at different times, and so do days in different zones. Whatever compares the groups
//! of one window must then be sure to have all of them, and whatever looks back must see windows in the order in which
//! they end.

use std::collections::BTreeSet;

use datafusion::logical_expr::expr::{Sort, WindowFunction};
use datafusion::logical_expr::{Expr, LogicalPlan};

use crate::aggregation::GroupColumn;
use crate::lineage::{Origin, origin};
use crate::shape::{Refusal, refuse};

/// A session can be compared with those of the same key before it, and with nothing else.
pub(crate) fn check_above_sessions(plan: &LogicalPlan, groups: &[GroupColumn]) -> Result<(), Refusal> {
    match plan {
        LogicalPlan::Window(window) => {
            let is_key = |group: &usize| matches!(groups.get(*group), Some(GroupColumn::Key(_)));
            let keys = |call: &WindowFunction| {
                let keys = call.params.partition_by.iter().filter_map(|expr| group_of(expr, &window.input));
                keys.filter(is_key).collect::<BTreeSet<_>>().len()
            };
            let all = (0..groups.len()).filter(is_key).count();
            if window.window_expr.iter().filter_map(window_call).all(|call| keys(call) == all) {
                return Ok(());
            }
            let help = "partition by every key that the sessions are grouped by, or use TUMBLE or HOP";
            refuse("OVER compares sessions of different keys, which do not end together", help, "OVER")
        }
        LogicalPlan::Aggregate(_) | LogicalPlan::Distinct(_) => {
            let help = "use TUMBLE or HOP, or leave it out";
            refuse("a second GROUP BY needs windows that all keys share", help, "GROUP")
        }
        _ => Ok(()),
    }
}

/// Groups that have both bounds in common are judged together, whatever their zones; one bound alone brings windows
/// together that close one after the other.
pub(crate) fn check_above_zones(plan: &LogicalPlan, groups: &[GroupColumn]) -> Result<(), Refusal> {
    match plan {
        LogicalPlan::Aggregate(later) => {
            let bounds = bounds_among(&later.group_expr, &later.input, groups);
            if bounds == (true, true) {
                return Ok(());
            }
            let help = "group by window_start and window_end";
            refuse("windows of different zones may have one bound in common", help, "GROUP")
        }
        LogicalPlan::Window(window) => {
            let calls = window.window_expr.iter().filter_map(window_call);
            calls.into_iter().try_for_each(|call| check_over(call, &window.input, groups))
        }
        _ => Ok(()),
    }
}

fn check_over(call: &WindowFunction, input: &LogicalPlan, groups: &[GroupColumn]) -> Result<(), Refusal> {
    match bounds_among(&call.params.partition_by, input, groups) {
        (true, true) => return Ok(()),
        (false, false) => {}
        _ => {
            let help = "partition by window_start and window_end to stay within one window";
            return refuse("windows of different zones may have one bound in common", help, "PARTITION");
        }
    }
    let is =
        |sort: Option<&Sort>, bound| sort.is_some_and(|s| s.asc && bound_of(&s.expr, input, groups) == Some(bound));
    let order = &call.params.order_by;
    if is(order.first(), GroupColumn::WindowEnd) && (order.len() == 1 || is(order.get(1), GroupColumn::WindowStart)) {
        return Ok(());
    }
    let help = "write ORDER BY window_end, or ORDER BY window_end, window_start";
    refuse("windows of different zones are looked back at in the order in which they end", help, "ORDER")
}

/// Whether the window's start and end are among `exprs`.
fn bounds_among(exprs: &[Expr], input: &LogicalPlan, groups: &[GroupColumn]) -> (bool, bool) {
    let has = |bound| exprs.iter().any(|expr| bound_of(expr, input, groups) == Some(bound));
    (has(GroupColumn::WindowStart), has(GroupColumn::WindowEnd))
}

/// The bound of the window that an expression over `input` is, if it is one.
fn bound_of(expr: &Expr, input: &LogicalPlan, groups: &[GroupColumn]) -> Option<GroupColumn> {
    let group = groups.get(group_of(expr, input)?).copied();
    group.filter(|group| !matches!(group, GroupColumn::Key(_)))
}

/// The group expression that an expression over `input` is, if it is one.
fn group_of(expr: &Expr, input: &LogicalPlan) -> Option<usize> {
    let Expr::Column(column) = expr else { return None };
    match origin(input, column) {
        Origin::Key(group) => Some(group),
        Origin::Window { .. } | Origin::Other => None,
    }
}

fn window_call(expr: &Expr) -> Option<&WindowFunction> {
    match expr {
        Expr::Alias(alias) => window_call(&alias.expr),
        Expr::WindowFunction(call) => Some(call),
        _ => None,
    }
}
