//! Conditions that more rows can only make true.
//!
//! A budget that is not reached when an epoch's rows have been summed up was not reached by any of them before: so
//! whoever knows that a rule's conditions rise need not judge record by record. What rises is found in the plan:
//! comparisons of sums, counts, maxima and minima with what does not depend on rows, and `AND` and `OR` of them. Sums
//! rise only while what they add is not negative, which the caller looks at.
//!
//! NULL is below everything: an aggregate is NULL until its first value and never again, and a comparison with NULL is
//! not true. A greatest or least float is none that rises: whatever comes after a NaN takes its place.

use std::collections::BTreeSet;

use datafusion::common::tree_node::TreeNode;
use datafusion::common::{Column, JoinType, ScalarValue};
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::{Aggregate, BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator};

/// Where a value goes as rows are added to its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trend {
    Still,
    Up,
    Down,
}

impl Trend {
    fn and(self, other: Self) -> Option<Self> {
        match (self, other) {
            (Self::Still, trend) | (trend, Self::Still) => Some(trend),
            (one, other) => (one == other).then_some(one),
        }
    }

    fn turned(self) -> Self {
        match self {
            Self::Still => Self::Still,
            Self::Up => Self::Down,
            Self::Down => Self::Up,
        }
    }
}

/// Which aggregates of `aggregate` are sums that must not fall for the conditions of `plan`, a query over it, to rise;
/// none if they may fall all the same, or nobody knows.
pub(crate) fn rising(plan: &LogicalPlan, aggregate: &Aggregate) -> Option<Vec<usize>> {
    if !aggregate.aggr_expr.iter().all(is_sequential) {
        return None;
    }
    let mut search = Search { aggregate, sums: BTreeSet::new() };
    search.rises(plan)?;
    Some(search.sums.into_iter().collect())
}

/// Whether it makes no difference, to the last bit, if rows are added one by one or some together.
fn is_sequential(expr: &Expr) -> bool {
    let is_known = |name: &str| matches!(name, "count" | "sum" | "min" | "max" | "avg" | "bool_and" | "bool_or");
    aggregate_function(expr).is_some_and(|function| is_known(function.func.name()))
}

fn aggregate_function(mut expr: &Expr) -> Option<&AggregateFunction> {
    while let Expr::Alias(alias) = expr {
        expr = &alias.expr;
    }
    if let Expr::AggregateFunction(function) = expr { Some(function) } else { None }
}

/// Whether a plan looks at the rows that it is joined with.
fn is_lateral(plan: &LogicalPlan) -> bool {
    matches!(plan, LogicalPlan::Subquery(_)) || plan.inputs().into_iter().any(is_lateral)
}

struct Search<'a> {
    aggregate: &'a Aggregate,
    sums: BTreeSet<usize>,
}

impl Search<'_> {
    /// Whether more rows never take a row of `plan` away.
    fn rises(&mut self, plan: &LogicalPlan) -> Option<()> {
        match plan {
            LogicalPlan::Aggregate(aggregate) => (aggregate == self.aggregate).then_some(()),
            LogicalPlan::Projection(projection) => self.rises(&projection.input),
            LogicalPlan::SubqueryAlias(alias) => self.rises(&alias.input),
            LogicalPlan::Filter(filter) => {
                self.condition(&filter.predicate, &filter.input)?;
                self.rises(&filter.input)
            }
            LogicalPlan::Join(join) => {
                if is_lateral(&join.left) || is_lateral(&join.right) {
                    return None;
                }
                let sides = [self.is_over(&join.left), self.is_over(&join.right)];
                let over = match (sides, join.join_type) {
                    ([true, false], JoinType::Inner | JoinType::Left) => &join.left,
                    ([false, true], JoinType::Inner | JoinType::Right) => &join.right,
                    _ => return None,
                };
                for (left, right) in &join.on {
                    let still = |trend| (trend == Trend::Still).then_some(());
                    still(self.trend(left, &join.left)?)?;
                    still(self.trend(right, &join.right)?)?;
                }
                // What is joined by a condition that comes true was padded with NULLs before.
                let is_plain = join.filter.is_none() || join.join_type == JoinType::Inner;
                if let Some(filter) = join.filter.as_ref().filter(|_| is_plain) {
                    self.condition(filter, plan)?;
                }
                is_plain.then(|| self.rises(over))?
            }
            _ => None,
        }
    }

    fn condition(&mut self, condition: &Expr, input: &LogicalPlan) -> Option<()> {
        (self.trend(condition, input)? != Trend::Down).then_some(())
    }

    /// Whether the aggregate is in `plan`.
    fn is_over(&self, plan: &LogicalPlan) -> bool {
        let is_it = matches!(plan, LogicalPlan::Aggregate(aggregate) if aggregate == self.aggregate);
        is_it || plan.inputs().into_iter().any(|input| self.is_over(input))
    }

    fn trend(&mut self, expr: &Expr, input: &LogicalPlan) -> Option<Trend> {
        match expr {
            Expr::Alias(alias) => self.trend(&alias.expr, input),
            Expr::Literal(..) => Some(Trend::Still),
            Expr::Column(column) => self.trend_of_column(column, input),
            Expr::Cast(cast) if cast.field.data_type().is_numeric() && is_number(&cast.expr, input) => {
                self.trend(&cast.expr, input)
            }
            Expr::Not(inner) => match self.trend(inner, input)? {
                Trend::Still => Some(Trend::Still),
                Trend::Down => Some(Trend::Up),
                // From NULL over false to true: its opposite is true in between.
                Trend::Up => None,
            },
            Expr::BinaryExpr(binary) => self.trend_of_binary(binary, input),
            other => self.is_still(other, input).then_some(Trend::Still),
        }
    }

    fn trend_of_binary(&mut self, binary: &BinaryExpr, input: &LogicalPlan) -> Option<Trend> {
        let [left, right] = [&binary.left, &binary.right].map(|side| self.trend(side, input));
        let (left, right) = (left?, right?);
        if left == Trend::Still && right == Trend::Still {
            return Some(Trend::Still);
        }
        // Integers wrap around.
        let is_float = [&binary.left, &binary.right].iter().all(|side| is_float(side, input));
        match binary.op {
            Operator::And | Operator::Or => left.and(right),
            Operator::Gt | Operator::GtEq => left.and(right.turned()),
            Operator::Lt | Operator::LtEq => left.turned().and(right),
            Operator::Plus if is_float => left.and(right),
            Operator::Minus if is_float => left.and(right.turned()),
            Operator::Multiply | Operator::Divide if is_float && is_positive(&binary.right) => Some(left),
            Operator::Multiply if is_float && is_positive(&binary.left) => Some(right),
            _ => None,
        }
    }

    /// Whether all columns that an expression reads stand still.
    fn is_still(&mut self, expr: &Expr, input: &LogicalPlan) -> bool {
        let reads_more = |part: &Expr| {
            matches!(
                part,
                Expr::AggregateFunction(_)
                    | Expr::WindowFunction(_)
                    | Expr::ScalarSubquery(_)
                    | Expr::Exists(_)
                    | Expr::InSubquery(_)
            )
        };
        !expr.exists(|part| Ok(reads_more(part))).unwrap_or(true)
            && expr.column_refs().into_iter().all(|column| self.trend_of_column(column, input) == Some(Trend::Still))
    }

    fn trend_of_column(&mut self, column: &Column, input: &LogicalPlan) -> Option<Trend> {
        let index = input.schema().maybe_index_of_column(column)?;
        self.trend_at(index, input)
    }

    /// The trend of an output column of `plan`.
    fn trend_at(&mut self, index: usize, plan: &LogicalPlan) -> Option<Trend> {
        match plan {
            LogicalPlan::Aggregate(aggregate) if aggregate == self.aggregate => {
                match index.checked_sub(aggregate.group_expr.len()) {
                    None => Some(Trend::Still),
                    Some(number) => self.trend_of_aggregate(number),
                }
            }
            // Reference tables do not change within an epoch.
            _ if !self.is_over(plan) => Some(Trend::Still),
            LogicalPlan::Projection(projection) => self.trend(projection.expr.get(index)?, &projection.input),
            LogicalPlan::SubqueryAlias(alias) => self.trend_at(index, &alias.input),
            LogicalPlan::Filter(filter) => self.trend_at(index, &filter.input),
            LogicalPlan::Join(join) => match index.checked_sub(join.left.schema().fields().len()) {
                None => self.trend_at(index, &join.left),
                Some(index) => self.trend_at(index, &join.right),
            },
            _ => None,
        }
    }

    fn trend_of_aggregate(&mut self, number: usize) -> Option<Trend> {
        let AggregateFunction { func, params } = aggregate_function(self.aggregate.aggr_expr.get(number)?)?;
        let has_order = || params.args.iter().all(|value| !is_float(value, &self.aggregate.input));
        match func.name() {
            "count" | "bool_or" => Some(Trend::Up),
            "max" if has_order() => Some(Trend::Up),
            "min" if has_order() => Some(Trend::Down),
            "sum" if !params.distinct => {
                self.sums.insert(number);
                Some(Trend::Up)
            }
            _ => None,
        }
    }
}

fn is_number(expr: &Expr, input: &LogicalPlan) -> bool {
    expr.get_type(input.schema()).is_ok_and(|data_type| data_type.is_numeric())
}

fn is_float(expr: &Expr, input: &LogicalPlan) -> bool {
    expr.get_type(input.schema()).is_ok_and(|data_type| data_type.is_floating())
}

fn is_positive(expr: &Expr) -> bool {
    let value = match expr {
        Expr::Literal(value, _) => value,
        Expr::Cast(cast) if cast.field.data_type().is_numeric() => return is_positive(&cast.expr),
        _ => return false,
    };
    let zero = ScalarValue::new_zero(&value.data_type());
    zero.is_ok_and(|zero| value.partial_cmp(&zero) == Some(std::cmp::Ordering::Greater))
}

#[cfg(test)]
mod tests {
    use crate::compile::RuleKind;
    use crate::{References, RuleFile, compile};

    /// How many sums must not fall for the condition to rise.
    fn rising(condition: &str) -> Option<usize> {
        let text = format!(
            "CREATE RULE r WITH (action = 'warn', reason_code = 'x_test') AS
             SELECT g.team, g.window_start, g.window_end, g.n AS observed FROM (
               SELECT team, window_start, window_end,
                      count(*) AS n, sum(cost_total) AS usd, sum(input_tokens) AS tokens,
                      max(output_tokens) AS longest, min(output_tokens) AS shortest,
                      max(latency_ms) AS slowest, avg(latency_ms) AS mean
               FROM TUMBLE(spans, event_time, INTERVAL '1 hour') GROUP BY team, window_start, window_end) AS g
             WHERE {condition} EMIT ON UPDATE;"
        );
        let (rules, faults) = compile(&[RuleFile { file: "r.sql".to_owned(), text }], &References::new());
        assert_eq!(faults, [], "{condition}");
        let RuleKind::Windowed(windowed) = &rules.rules[0].kind else { panic!("it sums up") };
        windowed.finish.rising().map(<[usize]>::len)
    }

    #[test]
    fn more_rows_can_only_make_these_true() {
        assert_eq!(rising("g.n >= 5"), Some(0));
        assert_eq!(rising("5 < g.n AND g.team <> 'ops'"), Some(0));
        assert_eq!(rising("g.usd >= 0.8 * 100 OR g.longest > 2000"), Some(1));
        assert_eq!(rising("100 * g.usd / 50 > 80"), Some(1));
        assert_eq!(rising("g.usd - g.shortest > 80 AND g.tokens > 7"), Some(2));
        assert_eq!(rising("g.shortest < 3"), Some(0));
        assert_eq!(rising("NOT (g.n < 5)"), Some(0));
        assert_eq!(rising("NOT (g.shortest >= 5)"), Some(0));
    }

    #[test]
    fn these_may_be_true_for_a_while() {
        assert_eq!(rising("g.n < 5"), None);
        assert_eq!(rising("g.n = 5"), None);
        assert_eq!(rising("g.mean > 100"), None, "a mean falls");
        assert_eq!(rising("g.slowest > 100"), None, "what follows a NaN takes its place");
        assert_eq!(rising("g.usd / g.n > 1"), None);
        assert_eq!(rising("g.usd * -1 < 5"), None, "nobody looks at the sign of what is computed");
        assert_eq!(rising("g.usd IS NULL"), None);
        assert_eq!(rising("g.n % 10 = 3"), None);
        assert_eq!(rising("g.tokens + g.tokens > 7"), None, "integers wrap around");
        assert_eq!(rising("g.n BETWEEN 3 AND 5"), None);
        assert_eq!(rising("NOT (g.usd >= 5)"), None);
    }
}
