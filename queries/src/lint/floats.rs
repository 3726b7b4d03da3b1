//! `=` between floating-point numbers: sums of cents depend on the order in which they were added.

use arrow::datatypes::DataType;
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator};

use super::{Lint, Linted, Warning};

pub(super) fn lint(rule: &Linted<'_>) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let mut pairs: Vec<(Expr, Expr, DFSchema)> = Vec::new();
    let _ = rule.plan.apply(|node| {
        let schema = merge_schema(&node.inputs());
        if let LogicalPlan::Join(join) = node {
            pairs.extend(join.on.iter().map(|(left, right)| (left.clone(), right.clone(), schema.clone())));
        }
        node.apply_expressions(|expr| {
            expr.apply(|e| {
                if let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq | Operator::NotEq, right }) = e {
                    pairs.push((left.as_ref().clone(), right.as_ref().clone(), schema.clone()));
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    });
    for (left, right, schema) in pairs {
        if !(is_inexact(&left, &schema) || is_inexact(&right, &schema)) || is_zero(&left) || is_zero(&right) {
            continue;
        }
        let message = format!(
            "`{}` and `{}` are floating-point numbers, which are rarely equal",
            left.human_display(),
            right.human_display()
        );
        let fault = rule.at(rule.expr_span(&left, &["HAVING", "WHERE", "ON"]), message);
        let help = "compare with >= or <=, or with a distance: abs(a - b) < 0.005";
        let warning = Lint::FloatEquality.warn(fault.help(help));
        if !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }
    warnings
}

/// Whether an expression is a floating-point number by itself, not one that was made of an integer to be compared.
fn is_inexact(expr: &Expr, schema: &DFSchema) -> bool {
    match expr {
        Expr::Cast(cast) => is_inexact(&cast.expr, schema),
        constant if constant.column_refs().is_empty() => false,
        other => matches!(other.get_type(schema), Ok(DataType::Float64 | DataType::Float32)),
    }
}

/// Nothing is exactly nothing.
fn is_zero(expr: &Expr) -> bool {
    super::facts::number(expr) == Some(0.0)
}
