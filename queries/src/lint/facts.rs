//! What is known of the values of an expression: a range of numbers, learnt from comparisons with constants.
//!
//! Expressions are followed down to the aggregate or the table first, so that what `WHERE` says of a subquery's column
//! meets what `CASE` says of the same column two levels above.

use std::collections::BTreeMap;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, ScalarValue};
use datafusion::logical_expr::{BinaryExpr, Expr, LogicalPlan, Operator};

use crate::lineage::{has_aggregate, strip_alias};

/// Numbers from `low` to `high`; the bounds themselves belong to it unless they are open.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Range {
    low: f64,
    low_is_open: bool,
    high: f64,
    high_is_open: bool,
}

impl Range {
    pub(super) const ALL: Self =
        Self { low: f64::NEG_INFINITY, low_is_open: false, high: f64::INFINITY, high_is_open: false };

    pub(super) fn from(low: f64) -> Self {
        Self { low, ..Self::ALL }
    }

    /// The numbers that compare so with `value`.
    fn of(op: Operator, value: f64) -> Option<Self> {
        let (below, above) = (Self { high: value, ..Self::ALL }, Self::from(value));
        Some(match op {
            Operator::Eq => Self { high: value, ..above },
            Operator::Lt => Self { high_is_open: true, ..below },
            Operator::LtEq => below,
            Operator::Gt => Self { low_is_open: true, ..above },
            Operator::GtEq => above,
            _ => return None,
        })
    }

    pub(super) fn and(self, other: Self) -> Self {
        let (low, low_is_open) = match self.low.total_cmp(&other.low) {
            std::cmp::Ordering::Less => (other.low, other.low_is_open),
            std::cmp::Ordering::Greater => (self.low, self.low_is_open),
            std::cmp::Ordering::Equal => (self.low, self.low_is_open || other.low_is_open),
        };
        let (high, high_is_open) = match self.high.total_cmp(&other.high) {
            std::cmp::Ordering::Less => (self.high, self.high_is_open),
            std::cmp::Ordering::Greater => (other.high, other.high_is_open),
            std::cmp::Ordering::Equal => (self.high, self.high_is_open || other.high_is_open),
        };
        Self { low, low_is_open, high, high_is_open }
    }

    pub(super) fn is_empty(self) -> bool {
        self.low > self.high || (self.low >= self.high && (self.low_is_open || self.high_is_open))
    }

    /// Whether every number of `self` is in `other`.
    pub(super) fn is_within(self, other: Self) -> bool {
        self.and(other) == self
    }
}

/// What is known of expressions, by their text.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts(BTreeMap<String, Range>);

impl Facts {
    pub(super) fn of(&self, key: &str) -> Option<Range> {
        self.0.get(key).copied()
    }

    /// Learns one more; the range that is left.
    pub(super) fn learn(&mut self, key: &str, range: Range) -> Range {
        let known = self.0.entry(key.to_owned()).or_insert(Range::ALL);
        *known = known.and(range);
        *known
    }
}

/// What a comparison says of an expression: its text, and its range. `a >= 0.8 * b` says something of `a / b`, as long
/// as `b` is positive, which thresholds are.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Constraint {
    pub(super) key: String,
    pub(super) range: Range,
    /// The expression, if it is compared with a constant.
    pub(super) expr: Option<Expr>,
}

impl Constraint {
    /// Of a comparison that was followed down.
    pub(super) fn of(condition: &Expr) -> Option<Self> {
        let Expr::BinaryExpr(BinaryExpr { left, op, right }) = condition else { return None };
        let ((left_factor, left), (right_factor, right)) = (scaled(left), scaled(right));
        if !(left_factor > 0.0 && right_factor.is_finite()) {
            return None;
        }
        match (left, right) {
            (Some(expr), None) => {
                let range = Range::of(*op, right_factor / left_factor)?;
                Some(Self { key: expr.to_string(), range, expr: Some(expr.clone()) })
            }
            (None, Some(_)) => Self::of(&Expr::BinaryExpr(BinaryExpr {
                left: Box::new(condition_side(condition, false)?),
                op: op.swap()?,
                right: Box::new(condition_side(condition, true)?),
            })),
            (Some(expr), Some(other)) if right_factor > 0.0 && *op != Operator::Eq => {
                let range = Range::of(*op, right_factor / left_factor)?;
                Some(Self { key: format!("{expr} / {other}"), range, expr: None })
            }
            _ => None,
        }
    }
}

fn condition_side(condition: &Expr, is_left: bool) -> Option<Expr> {
    let Expr::BinaryExpr(BinaryExpr { left, right, .. }) = condition else { return None };
    Some(if is_left { left.as_ref().clone() } else { right.as_ref().clone() })
}

/// A factor and what it is applied to; nothing if the expression is a number.
fn scaled(expr: &Expr) -> (f64, Option<&Expr>) {
    if let Some(number) = number(expr) {
        return (number, None);
    }
    match expr {
        Expr::Cast(cast) if matches!(cast.field.data_type(), DataType::Float64) => scaled(&cast.expr),
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Multiply, right }) => match (scaled(left), scaled(right)) {
            ((factor, None), (other, Some(expr))) | ((other, Some(expr)), (factor, None)) => {
                (factor * other, Some(expr))
            }
            _ => (1.0, Some(expr)),
        },
        other => (1.0, Some(strip_alias(other))),
    }
}

/// A number that is written down.
pub(super) fn number(expr: &Expr) -> Option<f64> {
    match expr {
        Expr::Literal(value, _) if value.data_type().is_numeric() => match value.cast_to(&DataType::Float64) {
            Ok(ScalarValue::Float64(number)) => number,
            _ => None,
        },
        Expr::Cast(cast) => number(&cast.expr),
        Expr::Negative(inner) => number(inner).map(|number| -number),
        _ => None,
    }
}

/// `expr` over the output of `plan`, its columns replaced by what they are made of, down to the aggregate's own
/// expressions or the table's columns.
pub(super) fn followed_down(plan: &LogicalPlan, expr: &Expr) -> Expr {
    let followed = expr.clone().transform_up(|e| {
        Ok(match &e {
            Expr::Column(column) => Transformed::yes(definition(plan, column)),
            _ => Transformed::no(e),
        })
    });
    followed.map_or_else(|_| expr.clone(), |followed| followed.data)
}

fn definition(plan: &LogicalPlan, column: &Column) -> Expr {
    let as_it_is = || Expr::Column(Column { spans: Default::default(), ..column.clone() });
    let Some(index) = plan.schema().maybe_index_of_column(column) else { return as_it_is() };
    let same_of = |input: &LogicalPlan| definition(input, &Column::from(input.schema().qualified_field(index)));
    match plan {
        LogicalPlan::Projection(p) => followed_down(&p.input, strip_alias(&p.expr[index])),
        LogicalPlan::SubqueryAlias(a) => same_of(&a.input),
        LogicalPlan::Filter(f) => definition(&f.input, column),
        LogicalPlan::Distinct(d) => same_of(d.input()),
        LogicalPlan::Window(w) if index < w.input.schema().fields().len() => definition(&w.input, column),
        LogicalPlan::Aggregate(a) => match a.group_expr.iter().chain(&a.aggr_expr).nth(index) {
            Some(made_of) => followed_down(&a.input, strip_alias(made_of)),
            None => as_it_is(),
        },
        // Columns of two sides that read one table would look the same below.
        LogicalPlan::Join(join) => {
            let side = [&join.left, &join.right].into_iter().find(|side| has_aggregate(side));
            let side = side.filter(|side| side.schema().maybe_index_of_column(column).is_some());
            side.map_or_else(as_it_is, |side| definition(side, column))
        }
        _ => as_it_is(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_meet_in_what_both_hold() {
        let range = |op, value| Range::of(op, value).unwrap();
        let (over, under) = (range(Operator::Gt, 5.0), range(Operator::LtEq, 5.0));
        assert!(over.and(under).is_empty(), "5 is not over 5");
        assert!(!range(Operator::GtEq, 5.0).and(under).is_empty(), "5 is both");
        assert!(range(Operator::Gt, 6.0).is_within(over) && !over.is_within(range(Operator::Gt, 6.0)));
        assert!(over.is_within(range(Operator::GtEq, 5.0)) && !range(Operator::GtEq, 5.0).is_within(over));
        assert!(range(Operator::Eq, 3.0).is_within(Range::from(3.0)));
        assert_eq!(Range::of(Operator::NotEq, 1.0), None);
    }

    #[test]
    fn what_is_learnt_adds_up() {
        let mut facts = Facts::default();
        facts.learn("a", Range::from(3.0));
        assert!(facts.learn("a", Range::of(Operator::Lt, 3.0).unwrap()).is_empty());
        assert_eq!(facts.of("b"), None);
    }
}
