//! Conditions that are always true, and such as never are.

use std::sync::Arc;

use datafusion::common::{JoinType, ScalarValue};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Expr, Join, LogicalPlan};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;

use super::branches;
use super::facts::{Constraint, Facts, Range, followed_down};
use super::{Lint, Linted, Warning};
use crate::lineage::has_aggregate;

pub(super) fn lint(rule: &Linted<'_>) -> Vec<Warning> {
    let mut warnings = Vec::new();
    learn(rule, rule.plan, &mut warnings);
    warnings
}

/// What is known of the rows of `plan`; what its conditions have to do with it is noted.
fn learn(rule: &Linted<'_>, plan: &LogicalPlan, warnings: &mut Vec<Warning>) -> Facts {
    let mut of_inputs: Vec<Facts> = plan.inputs().into_iter().map(|input| learn(rule, input, warnings)).collect();
    let known = if let LogicalPlan::Join(join) = plan { side_known(join) } else { Some(0) };
    let of_known = known.filter(|input| *input < of_inputs.len()).map(|input| of_inputs.swap_remove(input));
    let mut facts = of_known.unwrap_or_default();
    match plan {
        LogicalPlan::Filter(filter) => {
            for condition in split_conjunction(&filter.predicate) {
                let warning = judge(rule, &filter.input, condition, &mut facts);
                warnings.extend(warning.filter(|warning| !warnings.contains(warning)));
            }
        }
        LogicalPlan::Projection(projection) => {
            for expr in &projection.expr {
                warnings.extend(branches::lint(rule, &projection.input, expr, &facts));
            }
        }
        // Rows of either side: neither's conditions hold for all. And a group is no row: what its rows are known to be
        // it need not be, though both be called `count(*)`.
        LogicalPlan::Union(_) | LogicalPlan::Aggregate(_) => facts = Facts::default(),
        _ => {}
    }
    facts
}

/// The side of a join whose facts hold for every joined row: the one that columns are followed down into, unless its
/// rows may be missing. Of two sides that count rows nobody could tell apart what is known.
fn side_known(join: &Join) -> Option<usize> {
    let side = [&join.left, &join.right].into_iter().position(|side| has_aggregate(side))?;
    let is_there = match join.join_type {
        JoinType::Inner => true,
        JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => side == 0,
        JoinType::Right | JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => side == 1,
        JoinType::Full => false,
    };
    is_there.then_some(side)
}

/// Judges one condition of rows of `input`, and learns from it.
fn judge(rule: &Linted<'_>, input: &LogicalPlan, condition: &Expr, facts: &mut Facts) -> Option<Warning> {
    let followed = followed_down(input, condition);
    if let Some(is_true) = constant(input, condition) {
        return Some(warn(rule, condition, is_true, None));
    }
    let constraint = Constraint::of(&followed)?;
    let natural = constraint.expr.as_ref().map_or(Range::ALL, |expr| natural_range(rule, expr));
    if natural.and(constraint.range).is_empty() {
        return Some(warn(rule, condition, false, why_never(rule, natural)));
    }
    if natural != Range::ALL && natural.is_within(constraint.range) {
        return Some(warn(rule, condition, true, None));
    }
    let before = facts.of(&constraint.key);
    let left = facts.learn(&constraint.key, natural.and(constraint.range));
    if left.is_empty() && before.is_some_and(|before| !before.is_empty()) {
        let why = "another condition of the rule leaves no value for it";
        return Some(warn(rule, condition, false, Some(why.to_owned())));
    }
    None
}

/// What a condition without columns, or one that is the same for all values, comes to.
fn constant(input: &LogicalPlan, condition: &Expr) -> Option<bool> {
    let context = SimplifyContext::builder().with_schema(Arc::clone(input.schema())).build();
    let simple = ExprSimplifier::new(context).simplify(condition.clone()).ok()?;
    match simple {
        Expr::Literal(ScalarValue::Boolean(value), _) => Some(value.unwrap_or(false)),
        Expr::Literal(ScalarValue::Null, _) => Some(false),
        _ => None,
    }
}

/// The values that an expression can have at all: a count is never negative, and a group without rows is there only if
/// gaps are filled.
pub(super) fn natural_range(rule: &Linted<'_>, expr: &Expr) -> Range {
    let Expr::AggregateFunction(call) = expr else { return Range::ALL };
    if call.func.name() != "count" {
        return Range::ALL;
    }
    let counts_rows = call.params.args.iter().all(|arg| matches!(arg, Expr::Literal(..)));
    let is_plain = counts_rows && call.params.filter.is_none() && rule.text.gap_fill.is_none();
    Range::from(if is_plain { 1.0 } else { 0.0 })
}

fn why_never(rule: &Linted<'_>, natural: Range) -> Option<String> {
    let counts_rows = natural == Range::from(1.0);
    (counts_rows && rule.text.gap_fill.is_none())
        .then(|| "a group has a row at least: nothing says which keys there ought to be".to_owned())
}

fn warn(rule: &Linted<'_>, condition: &Expr, is_true: bool, why: Option<String>) -> Warning {
    let (when, then) = if is_true { ("always", "it leaves nothing out") } else { ("never", "the rule says nothing") };
    let message = format!("`{}` is {when} true: {then}", condition.human_display());
    let fault = rule.at(rule.expr_span(condition, &["HAVING", "QUALIFY", "WHERE", "ON"]), message);
    let fault = match why {
        Some(why) if why.contains("ought to be") => {
            fault.note(why).help("write GAP FILL FROM a reference table, or GAP FILL FOR INTERVAL '1 day'")
        }
        Some(why) => fault.note(why),
        None => fault,
    };
    Lint::ConstantCondition.warn(fault)
}
