//! Which groups of a rule must be judged in one place.
//!
//! When several instances share the work, a group's partial sums go to the shard that the values of the rule's
//! *distribution keys* choose. Rows that a subject, an `OVER` or a second `GROUP BY` brings together must meet there,
//! so only group keys that all of those have may choose; if there is none, the whole rule is judged on one shard.

use std::collections::BTreeSet;

use datafusion::logical_expr::{Expr, LogicalPlan};

use crate::aggregation::GroupColumn;
use crate::lineage::{Origin, origin, reads_window, strip_alias};
use crate::shape::Windowed;

/// The distribution keys, as numbers of keys; `subject` are the group expressions that make the rule's subject.
pub(crate) fn distribution(plan: &LogicalPlan, windowed: &Windowed, subject: &[usize]) -> Vec<usize> {
    let key = |group: &usize| match windowed.groups.get(*group) {
        Some(GroupColumn::Key(n)) => Some(*n),
        _ => None,
    };
    let mut keys: BTreeSet<usize> = subject.iter().filter_map(key).collect();
    let mut at = plan;
    while !is_windowed_aggregate(at, windowed) {
        for together in brought_together(at) {
            let in_one_place: BTreeSet<usize> = together.iter().filter_map(|e| group_of(at, e)).collect();
            let in_one_place: BTreeSet<usize> = in_one_place.iter().filter_map(key).collect();
            keys.retain(|k| in_one_place.contains(k));
        }
        let Some(below) = at.inputs().into_iter().find(|p| reads_window(p)) else { break };
        at = below;
    }
    let mut keys: Vec<usize> = keys.into_iter().collect();
    // The order in which a query names its keys says nothing.
    keys.sort_by_key(|key| name_of(windowed, *key));
    keys
}

fn name_of(windowed: &Windowed, key: usize) -> String {
    let groups = windowed.groups.iter().zip(&windowed.aggregate.group_expr);
    let mut of_key = groups.filter(|(group, _)| **group == GroupColumn::Key(key));
    of_key.next().map_or_else(String::new, |(_, expr)| strip_alias(expr).to_string())
}

fn is_windowed_aggregate(plan: &LogicalPlan, windowed: &Windowed) -> bool {
    matches!(plan, LogicalPlan::Aggregate(aggregate) if *aggregate == windowed.aggregate)
}

/// The lists of expressions on each of which a node brings rows together.
fn brought_together(plan: &LogicalPlan) -> Vec<&[Expr]> {
    match plan {
        LogicalPlan::Aggregate(later) => vec![later.group_expr.as_slice()],
        LogicalPlan::Window(window) => {
            let calls = window.window_expr.iter().filter_map(|e| match strip_alias(e) {
                Expr::WindowFunction(call) => Some(call.params.partition_by.as_slice()),
                _ => None,
            });
            calls.collect()
        }
        _ => Vec::new(),
    }
}

/// The group expression of the windowed aggregate that an expression over a node's input stands for.
fn group_of(plan: &LogicalPlan, expr: &Expr) -> Option<usize> {
    let Expr::Column(column) = strip_alias(expr) else { return None };
    let input = plan.inputs().into_iter().find(|p| reads_window(p))?;
    match origin(input, column) {
        Origin::Key(group) => Some(group),
        Origin::Window { .. } | Origin::Other => None,
    }
}
