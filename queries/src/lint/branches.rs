//! Branches of `CASE` that no row comes to: an earlier one takes them all, or a condition of the rule leaves none.
//!
//! The usual case is a warning at 80 % that is written above the block at 100 %: whoever is blocked is above 80 %, too.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::expr::Case;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Expr, LogicalPlan};

use super::conditions::natural_range;
use super::facts::{Constraint, Facts, Range, followed_down};
use super::{Lint, Linted, Warning};

/// What is wrong with the cases in `expr`, of rows of `input` of which `facts` are known.
pub(super) fn lint(rule: &Linted<'_>, input: &LogicalPlan, expr: &Expr, facts: &Facts) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let _ = expr.apply(|e| {
        if let Expr::Case(case) = e
            && case.expr.is_none()
        {
            warnings.extend(of_case(rule, input, case, facts));
        }
        Ok(TreeNodeRecursion::Continue)
    });
    warnings
}

fn of_case(rule: &Linted<'_>, input: &LogicalPlan, case: &Case, facts: &Facts) -> Option<Warning> {
    let mut taken: Vec<Constraint> = Vec::new();
    for (when, then) in &case.when_then_expr {
        let conditions: Vec<Constraint> = split_conjunction(when)
            .into_iter()
            .filter_map(|condition| Constraint::of(&followed_down(input, condition)))
            .collect();
        let known = |c: &Constraint| facts.of(&c.key).unwrap_or(Range::ALL).and(natural(rule, c));
        if conditions.iter().any(|c| known(c).and(c.range).is_empty()) {
            return Some(warn(rule, when, Some(then), "a condition of the rule keeps such rows away"));
        }
        let takes = |c: &Constraint| taken.iter().any(|t| t.key == c.key && known(c).and(c.range).is_within(t.range));
        if conditions.iter().any(takes) {
            return Some(warn(rule, when, Some(then), "an earlier branch takes all such rows"));
        }
        // A branch with more than one condition does not take all rows of any of them.
        if let ([only], [_]) = (conditions.as_slice(), split_conjunction(when).as_slice()) {
            let is_known = facts.of(&only.key).is_some();
            if is_known && known(only).is_within(only.range) {
                return rest_of(rule, case, when);
            }
            taken.push(only.clone());
        }
    }
    None
}

fn natural(rule: &Linted<'_>, constraint: &Constraint) -> Range {
    constraint.expr.as_ref().map_or(Range::ALL, |expr| natural_range(rule, expr))
}

/// What stands behind a branch that takes every row.
fn rest_of(rule: &Linted<'_>, case: &Case, takes_all: &Expr) -> Option<Warning> {
    let at = case.when_then_expr.iter().position(|(when, _)| when.as_ref() == takes_all)?;
    let why = format!("all rows that a condition of the rule lets through are `{}`", takes_all.human_display());
    match case.when_then_expr.get(at + 1) {
        Some((when, then)) => Some(warn(rule, when, Some(then), &why)),
        None => case.else_expr.as_ref().map(|other| warn(rule, other, Some(other), &why)),
    }
}

fn warn(rule: &Linted<'_>, when: &Expr, then: Option<&Expr>, why: &str) -> Warning {
    let said = match then {
        Some(Expr::Literal(value, _)) => value.try_as_str().flatten(),
        _ => None,
    };
    let words: Vec<&str> = said.into_iter().chain(["CASE"]).collect();
    let message = match said {
        Some(word) => format!("the rule never says `{word}` here: no row comes to that branch"),
        None => format!("no row comes to the branch `{}`", when.human_display()),
    };
    let fault = rule.at(rule.word_span(&words), message).note(why);
    Lint::UnreachableBranch.warn(fault.help("put the strictest condition first"))
}
