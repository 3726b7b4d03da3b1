//! What a rule's `observed` measures, in the words of the query: `sum(cost_total)`.

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, Result};
use datafusion::logical_expr::{Expr, LogicalPlan};

use crate::lineage::strip_alias;

/// A formula that is longer is no name for anything.
const METRIC_BYTES_MAX: usize = 200;

/// The formula behind the column `observed` in terms of columns of tables; none if there is no such column, or if the
/// formula is long.
pub(crate) fn metric_of(plan: &LogicalPlan) -> Option<String> {
    let observed = plan.schema().fields().iter().position(|field| field.name() == "observed")?;
    let formula = expanded(plan, observed).and_then(plain).ok()?.to_string();
    let formula = formula.replace("count(1)", "count(*)");
    (formula.len() <= METRIC_BYTES_MAX).then_some(formula)
}

/// The `index`th output column of `plan`, with what it is computed from in its place.
fn expanded(plan: &LogicalPlan, index: usize) -> Result<Expr> {
    match plan {
        LogicalPlan::Projection(p) => within(&p.input, &p.expr[index]),
        LogicalPlan::Aggregate(a) => {
            let measured = a.group_expr.iter().chain(&a.aggr_expr).nth(index);
            measured.map_or_else(|| Ok(named(plan, index)), |expr| within(&a.input, expr))
        }
        LogicalPlan::Window(w) => {
            let passed = w.input.schema().fields().len();
            match index.checked_sub(passed).and_then(|call| w.window_expr.get(call)) {
                Some(call) => within(&w.input, call),
                None => expanded(&w.input, index),
            }
        }
        LogicalPlan::SubqueryAlias(a) => expanded(&a.input, index),
        LogicalPlan::Filter(f) => expanded(&f.input, index),
        LogicalPlan::Join(join) => {
            let column = Column::from(join.schema.qualified_field(index));
            let side = [&join.left, &join.right].into_iter();
            let mut found = side.filter_map(|side| Some((side, side.schema().maybe_index_of_column(&column)?)));
            found.next().map_or_else(|| Ok(named(plan, index)), |(side, index)| expanded(side, index))
        }
        _ => Ok(named(plan, index)),
    }
}

fn within(input: &LogicalPlan, expr: &Expr) -> Result<Expr> {
    let expand = |expr: Expr| match &expr {
        Expr::Column(column) => match input.schema().maybe_index_of_column(column) {
            Some(index) => expanded(input, index).map(Transformed::yes),
            None => Ok(Transformed::no(expr)),
        },
        _ => Ok(Transformed::no(expr)),
    };
    Ok(strip_alias(expr).clone().transform_up(expand)?.data)
}

fn named(plan: &LogicalPlan, index: usize) -> Expr {
    Expr::Column(Column::from_name(plan.schema().field(index).name()))
}

/// Without what the planner says of types.
fn plain(expr: Expr) -> Result<Expr> {
    let strip = |expr: Expr| {
        Ok(match expr {
            Expr::Literal(value, _) => Transformed::yes(Expr::Column(Column::from_name(value.to_string()))),
            Expr::Cast(cast) => Transformed::yes(*cast.expr),
            Expr::TryCast(cast) => Transformed::yes(*cast.expr),
            Expr::Alias(alias) => Transformed::yes(*alias.expr),
            other => Transformed::no(other),
        })
    };
    Ok(expr.transform_up(strip)?.data)
}

#[cfg(test)]
mod tests {
    use crate::{References, RuleFile, compile};

    #[track_caller]
    fn check(query: &str, expected: Option<&str>) {
        let text = format!("CREATE RULE r WITH (action = 'warn', reason_code = 'x_test') AS {query};");
        let (set, faults) = compile(&[RuleFile { file: "r.sql".to_owned(), text }], &References::new());
        assert_eq!(faults, []);
        assert_eq!(set.rules[0].header.metric.as_deref(), expected);
    }

    fn windowed(select: &str, observed: &str) -> String {
        format!(
            "SELECT w.team, w.window_start, w.window_end, {observed} AS observed FROM (
               SELECT s.team, window_start, window_end, {select}
               FROM TUMBLE(spans, event_time, INTERVAL '1 minute') AS s GROUP BY s.team, window_start, window_end
             ) AS w"
        )
    }

    #[test]
    fn an_aggregate_is_named_by_the_columns_of_its_table() {
        check(&windowed("sum(s.cost_total) AS cost", "w.cost"), Some("sum(cost_total)"));
        check(&windowed("count(*) AS calls", "calls"), Some("count(*)"));
        check(
            &windowed("sum(s.cost_total) AS cost, count(*) AS calls", "cost / calls"),
            Some("sum(cost_total) / count(*)"),
        );
        let share = "100 * (w.n + 1)";
        check(&windowed("count(*) AS n", share), Some("100 * (count(*) + 1)"));
    }

    #[test]
    fn a_row_is_measured_by_a_column() {
        check("SELECT team, duration_ms AS observed FROM spans WHERE duration_ms > 5", Some("duration_ms"));
        check(
            "SELECT team, 2 * d AS observed FROM (SELECT team, duration_ms AS d FROM spans)",
            Some("2 * duration_ms"),
        );
    }

    #[test]
    fn without_an_observed_or_with_a_long_one_there_is_none() {
        check("SELECT team FROM spans", None);
        let long = vec!["duration_ms"; 30].join(" + ");
        check(&format!("SELECT team, {long} AS observed FROM spans"), None);
    }
}
