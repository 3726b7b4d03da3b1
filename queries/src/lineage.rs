//! Where a column of a plan comes from.
//!
//! The subject of a violation is made of group keys, so the columns of a rule's result are followed down through
//! projections, aliases, joins and later aggregates to the keys of the aggregate over the window.

use datafusion::common::{Column, DFSchema};
use datafusion::logical_expr::{Expr, LogicalPlan};
use lictor_schemas::tables::Table;

use crate::window::window_column;
use crate::window_spec::WindowSpec;

/// What a column is, at the end of the way down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The `n`th group key of the aggregate over the window.
    Key(usize),
    /// A window column, below that aggregate.
    Window { spec: WindowSpec, is_start: bool },
    /// Anything computed, or a column of a table.
    Other,
}

/// Follows `column` down from the output of `plan`.
pub(crate) fn origin(plan: &LogicalPlan, column: &Column) -> Origin {
    match plan.schema().maybe_index_of_column(column) {
        Some(index) => origin_at(plan, index),
        None => Origin::Other,
    }
}

/// Follows the `index`th output column of `plan` down.
pub(crate) fn origin_at(plan: &LogicalPlan, index: usize) -> Origin {
    match plan {
        LogicalPlan::Projection(p) => expr_origin(&p.input, &p.expr[index]),
        LogicalPlan::SubqueryAlias(a) => origin_at(&a.input, index),
        LogicalPlan::Aggregate(a) if !has_aggregate(&a.input) => {
            if index < a.group_expr.len() {
                Origin::Key(index)
            } else {
                Origin::Other
            }
        }
        LogicalPlan::Aggregate(a) => a.group_expr.get(index).map_or(Origin::Other, |e| expr_origin(&a.input, e)),
        LogicalPlan::Filter(f) => origin_at(&f.input, index),
        LogicalPlan::Window(w) if index < w.input.schema().fields().len() => origin_at(&w.input, index),
        LogicalPlan::Distinct(d) => origin_at(d.input(), index),
        LogicalPlan::Join(j) => {
            let (left, right) = (reads_window(&j.left), reads_window(&j.right));
            let name = qualified(j.schema.as_ref(), index);
            match (left, right) {
                (true, _) => origin(&j.left, &name),
                (_, true) => origin(&j.right, &name),
                _ => Origin::Other,
            }
        }
        _ => Origin::Other,
    }
}

fn expr_origin(input: &LogicalPlan, expr: &Expr) -> Origin {
    if let Some((spec, is_start)) = window_column(expr) {
        return Origin::Window { spec, is_start };
    }
    match expr {
        Expr::Column(column) => origin(input, column),
        Expr::Alias(alias) => expr_origin(input, &alias.expr),
        _ => Origin::Other,
    }
}

fn qualified(schema: &DFSchema, index: usize) -> Column {
    Column::from(schema.qualified_field(index))
}

/// What an expression is, whatever it is called.
pub(crate) fn strip_alias(expr: &Expr) -> &Expr {
    match expr {
        Expr::Alias(alias) => strip_alias(&alias.expr),
        other => other,
    }
}

/// The table and the column in it that the `index`th output column of `plan` is, unchanged.
pub(crate) fn source_column(plan: &LogicalPlan, index: usize) -> Option<(String, String)> {
    let of_expr = |input: &LogicalPlan, expr: &Expr| {
        let Expr::Column(column) = strip_alias(expr) else { return None };
        source_column(input, input.schema().maybe_index_of_column(column)?)
    };
    match plan {
        LogicalPlan::TableScan(scan) => {
            Some((scan.table_name.table().to_owned(), plan.schema().field(index).name().clone()))
        }
        LogicalPlan::Projection(p) => of_expr(&p.input, &p.expr[index]),
        LogicalPlan::SubqueryAlias(a) => source_column(&a.input, index),
        LogicalPlan::Filter(f) => source_column(&f.input, index),
        LogicalPlan::Join(join) => {
            let column = qualified(join.schema.as_ref(), index);
            let of_side = |side: &LogicalPlan| source_column(side, side.schema().maybe_index_of_column(&column)?);
            of_side(&join.left).or_else(|| of_side(&join.right))
        }
        _ => None,
    }
}

/// The column of a telemetry table that the `index`th output column of `plan` is, unchanged.
pub(crate) fn telemetry_column(plan: &LogicalPlan, index: usize) -> Option<String> {
    let (table, column) = source_column(plan, index)?;
    Table::from_name(&table).map(|_| column)
}

/// Whether an aggregate over the stream lies in `plan`.
pub(crate) fn has_aggregate(plan: &LogicalPlan) -> bool {
    let below = || plan.inputs().into_iter().any(has_aggregate);
    match plan {
        LogicalPlan::Aggregate(_) => reads_window(plan) || below(),
        _ => below(),
    }
}

/// Whether a window function of `FROM` lies in `plan`.
pub(crate) fn reads_window(plan: &LogicalPlan) -> bool {
    is_window_projection(plan) || plan.inputs().into_iter().any(reads_window)
}

/// Whether `plan` is the projection that adds the window columns.
pub(crate) fn is_window_projection(plan: &LogicalPlan) -> bool {
    matches!(plan, LogicalPlan::Projection(p) if p.expr.iter().any(|e| window_column(e).is_some()))
}

/// The topmost aggregate over the stream, from the result down.
pub(crate) fn top_aggregate(plan: &LogicalPlan) -> Option<&datafusion::logical_expr::Aggregate> {
    match plan {
        LogicalPlan::Aggregate(aggregate) if reads_window(plan) => Some(aggregate),
        _ => plan.inputs().into_iter().find(|p| reads_window(p)).and_then(top_aggregate),
    }
}
