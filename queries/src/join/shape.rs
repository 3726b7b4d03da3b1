//! What a query says of the join of two streams: which rows can belong together, and for how long they are waited for.
//!
//! Rows of a stream cannot be kept for ever. So the condition must compare a key of both sides for equality and bound
//! how far apart in event time two rows may be; whatever else it says is looked at once two rows have met.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, IntervalUnit, TimeUnit};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, DataFusionError, JoinType, NullEquality, Result, ScalarValue};
use datafusion::logical_expr::expr::Between;
use datafusion::logical_expr::utils::{conjunction, split_conjunction};
use datafusion::logical_expr::{BinaryExpr, Cast, Expr, ExprSchemable, Filter, Join, LogicalPlan, Operator};
use lictor_schemas::tables::Table;

use crate::distinct::EARLIER;
use crate::lineage::telemetry_column;
use crate::shape::{Refusal, check_stateless, reads_telemetry, refuse, table_of};
use crate::usage_leaves::DESCENDANT;

/// What comes out of a join.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JoinKind {
    /// Every pair.
    Inner,
    /// Every pair, and rows of the left side without a partner.
    Left,
    /// Rows of the left side with a partner.
    LeftSemi,
    /// Rows of the left side without a partner.
    LeftAnti,
}

impl JoinKind {
    fn of(join_type: JoinType) -> Option<Self> {
        match join_type {
            JoinType::Inner => Some(Self::Inner),
            JoinType::Left => Some(Self::Left),
            JoinType::LeftSemi => Some(Self::LeftSemi),
            JoinType::LeftAnti => Some(Self::LeftAnti),
            _ => None,
        }
    }
}

/// How far apart two rows may be: the right one's event time minus the left one's, in nanoseconds, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimeBounds {
    /// At least.
    pub from_ns: i64,
    /// At most.
    pub to_ns: i64,
}

/// The join of two streams, understood.
#[derive(Debug)]
pub(crate) struct JoinShape {
    /// The node of the plan.
    pub join: Join,
    pub kind: JoinKind,
    /// The telemetry table of each side.
    pub tables: [Table; 2],
    /// What must be equal, left and right.
    pub keys: Vec<(Expr, Expr)>,
    /// All conditions.
    pub conditions: Vec<Expr>,
    pub bounds: TimeBounds,
    /// Whether rows are joined to find the first of a key: those that agree in everything are one.
    pub is_distinct: bool,
}

/// Puts conditions of one side below the join, where they keep rows from being shipped and kept at all, and what
/// `WHERE` says of both sides of an inner join into it.
pub(crate) fn with_conditions_in_place(plan: LogicalPlan) -> Result<LogicalPlan> {
    let moved = plan.transform_up(|node| match &node {
        LogicalPlan::Join(_) => match stream_join(&node) {
            Some(join) => Placed::of(join).into_plan().map(Transformed::yes),
            None => Ok(Transformed::no(node)),
        },
        LogicalPlan::Filter(filter) => match stream_join(&filter.input) {
            Some(join) => {
                let mut placed = Placed::of(join);
                split_conjunction(&filter.predicate).into_iter().for_each(|condition| placed.add_where(condition));
                placed.into_plan().map(Transformed::yes)
            }
            None => Ok(Transformed::no(node)),
        },
        _ => Ok(Transformed::no(node)),
    })?;
    Ok(moved.data)
}

/// The join of two streams that a node is, if it is one.
fn stream_join(plan: &LogicalPlan) -> Option<&Join> {
    match plan {
        LogicalPlan::Join(join) if reads_telemetry(&join.left) && reads_telemetry(&join.right) => Some(join),
        _ => None,
    }
}

/// The conditions of a join and of the `WHERE` above it, each where it does the most.
struct Placed<'a> {
    join: &'a Join,
    /// Of one side alone.
    below: [Vec<Expr>; 2],
    within: Vec<Expr>,
    above: Vec<Expr>,
}

impl<'a> Placed<'a> {
    fn of(join: &'a Join) -> Self {
        let mut placed = Self { join, below: [Vec::new(), Vec::new()], within: Vec::new(), above: Vec::new() };
        for condition in join.filter.iter().flat_map(split_conjunction) {
            match (placed.side_of(condition), join.join_type) {
                (Some(1), JoinType::Inner | JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti) => {
                    placed.below[1].push(condition.clone());
                }
                (Some(0), JoinType::Inner | JoinType::LeftSemi) => placed.below[0].push(condition.clone()),
                _ => placed.within.push(condition.clone()),
            }
        }
        placed
    }

    fn add_where(&mut self, condition: &Expr) {
        let to = match (self.side_of(condition), self.join.join_type) {
            (Some(0), JoinType::Inner | JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti) => &mut self.below[0],
            (Some(1), JoinType::Inner) => &mut self.below[1],
            (_, JoinType::Inner) => &mut self.within,
            _ => &mut self.above,
        };
        to.push(condition.clone());
    }

    /// The side that alone has the columns of a condition.
    fn side_of(&self, condition: &Expr) -> Option<usize> {
        let columns = condition.column_refs();
        let sides = [&self.join.left, &self.join.right];
        let has_all = |side: &Arc<LogicalPlan>| columns.iter().all(|column| side.schema().has_column(column));
        if columns.is_empty() { None } else { sides.into_iter().position(has_all) }
    }

    fn into_plan(self) -> Result<LogicalPlan> {
        let filtered = |side: &Arc<LogicalPlan>, conditions: Vec<Expr>| match conjunction(conditions) {
            Some(condition) => Ok(Arc::new(LogicalPlan::Filter(Filter::try_new(condition, Arc::clone(side))?))),
            None => Ok::<_, DataFusionError>(Arc::clone(side)),
        };
        let [of_left, of_right] = self.below;
        let (left, right) = (filtered(&self.join.left, of_left)?, filtered(&self.join.right, of_right)?);
        let join = LogicalPlan::Join(Join { left, right, filter: conjunction(self.within), ..self.join.clone() });
        match conjunction(self.above) {
            Some(condition) => Ok(LogicalPlan::Filter(Filter::try_new(condition, Arc::new(join))?)),
            None => Ok(join),
        }
    }
}

/// The one join of two streams in a plan, if it has any.
pub(crate) fn find(plan: &LogicalPlan) -> Result<Option<JoinShape>, Refusal> {
    let mut found: Vec<Join> = Vec::new();
    let _ = plan.apply(|node| {
        found.extend(stream_join(node).cloned());
        Ok(datafusion::common::tree_node::TreeNodeRecursion::Continue)
    });
    match <[Join; 1]>::try_from(found) {
        Ok([join]) => understand(join).map(Some),
        Err(none) if none.is_empty() => Ok(None),
        Err(_) => refuse("the rule joins more than two streams", "join two, and write a rule for each pair", "JOIN"),
    }
}

fn understand(join: Join) -> Result<JoinShape, Refusal> {
    let Some(kind) = JoinKind::of(join.join_type) else {
        let message = format!("a {} join of two streams has rows that no left row decides", join.join_type);
        return refuse(message, "put the stream that decides first: FROM a LEFT JOIN b", "JOIN");
    };
    if join.null_equality == NullEquality::NullEqualsNull {
        let help = "write a LEFT SEMI or LEFT ANTI JOIN with an equal key and a bound in time";
        return refuse("INTERSECT and EXCEPT of two streams would remember every row", help, "SELECT");
    }
    let tables = [side_table(&join.left)?, side_table(&join.right)?];
    let equal = |(left, right): &(Expr, Expr)| left.clone().eq(right.clone());
    let mut conditions: Vec<Expr> = join.on.iter().map(equal).collect();
    conditions.extend(join.filter.iter().flat_map(split_conjunction).cloned());
    let sides = Sides { left: &join.left, right: &join.right };
    let keys: Vec<_> = conditions.iter().filter_map(|condition| sides.key(condition)).collect();
    if keys.is_empty() {
        let help = "say what two rows have in common: ON b.trace_id = a.trace_id AND …";
        return refuse("the join of two streams compares no key of both for equality", help, "JOIN");
    }
    let bounds = sides.bounds(&conditions)?;
    // With conditions below the alias that names it a side is still called so.
    let is_called =
        |name| matches!(join.right.as_ref(), LogicalPlan::SubqueryAlias(side) if side.alias.table() == name);
    let is_distinct = is_called(EARLIER) || is_called(DESCENDANT);
    Ok(JoinShape { kind, tables, keys, conditions, bounds, join, is_distinct })
}

/// The telemetry table of one side, of which every row must be judged by itself.
fn side_table(side: &LogicalPlan) -> Result<Table, Refusal> {
    let mut at = side;
    loop {
        check_stateless(at)?;
        if crate::lineage::is_window_projection(at) {
            let help = "join the rows first, and put the window around the join";
            return refuse("a side of a stream join has a window", help, "JOIN");
        }
        match at.inputs().into_iter().find(|input| reads_telemetry(input)) {
            Some(below) => at = below,
            None => break,
        }
    }
    table_of(Some(at)).map_or_else(|| refuse("a side of the join reads no telemetry", "name a table", "JOIN"), Ok)
}

struct Sides<'a> {
    left: &'a LogicalPlan,
    right: &'a LogicalPlan,
}

/// `left` times the left event time plus `right` times the right one plus a length of time.
#[derive(Clone, Copy, Default)]
struct Linear {
    left: i64,
    right: i64,
    ns: i64,
}

impl Linear {
    fn plus(self, other: Self, sign: i64) -> Option<Self> {
        let ns = self.ns.checked_add(other.ns.checked_mul(sign)?)?;
        Some(Self { left: self.left + sign * other.left, right: self.right + sign * other.right, ns })
    }
}

impl Sides<'_> {
    /// What is equal on both sides, if that is what a condition says.
    fn key(&self, condition: &Expr) -> Option<(Expr, Expr)> {
        let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = condition else { return None };
        let is_of = |expr: &Expr, side: &DFSchema| {
            let columns: HashSet<&Column> = expr.column_refs();
            !columns.is_empty() && columns.iter().all(|column| side.has_column(column))
        };
        let (a, b) = (self.left.schema(), self.right.schema());
        let (key, other) = if is_of(left, a) && is_of(right, b) {
            (left.as_ref().clone(), right.as_ref().clone())
        } else if is_of(right, a) && is_of(left, b) {
            (right.as_ref().clone(), left.as_ref().clone())
        } else {
            return None;
        };
        let are_alike = key.get_type(a).ok()? == other.get_type(b).ok()?;
        (are_alike && self.linear(&key).is_none()).then_some((key, other))
    }

    /// How far apart two rows may be, from all conditions together.
    fn bounds(&self, conditions: &[Expr]) -> Result<TimeBounds, Refusal> {
        let (mut from_ns, mut to_ns) = (None, None);
        for condition in conditions {
            let (from, to) = self.bound(condition);
            from_ns = from_ns.max(from);
            to_ns = match (to_ns, to) {
                (Some(known), Some(to)) => Some(to.min(known)),
                (known, to) => known.or(to),
            };
        }
        let (Some(from_ns), Some(to_ns)) = (from_ns, to_ns) else {
            let help = "add a bound in both directions: AND b.event_time BETWEEN a.event_time AND a.event_time + \
                        INTERVAL '10 minutes'";
            return refuse(
                "the join of two streams has no bound in time, so rows would be kept for ever",
                help,
                "JOIN",
            );
        };
        if from_ns > to_ns {
            return refuse("no two rows can meet the join's bound in time", "check the signs of the intervals", "JOIN");
        }
        Ok(TimeBounds { from_ns, to_ns })
    }

    /// The bounds that one condition sets.
    fn bound(&self, condition: &Expr) -> (Option<i64>, Option<i64>) {
        match condition {
            Expr::Between(Between { expr, negated: false, low, high }) => {
                let (from, to) = self.comparison(expr, Operator::GtEq, low);
                let (also_from, also_to) = self.comparison(expr, Operator::LtEq, high);
                (from.or(also_from), to.or(also_to))
            }
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => self.comparison(left, *op, right),
            _ => (None, None),
        }
    }

    fn comparison(&self, left: &Expr, op: Operator, right: &Expr) -> (Option<i64>, Option<i64>) {
        let difference = self.linear(left).zip(self.linear(right)).and_then(|(l, r)| l.plus(r, -1));
        let (at_least, at_most, ns) = match difference {
            Some(Linear { left: -1, right: 1, ns }) => (is_lower(op), is_upper(op), -ns),
            Some(Linear { left: 1, right: -1, ns }) => (is_upper(op), is_lower(op), ns),
            _ => return (None, None),
        };
        (at_least.then_some(ns), at_most.then_some(ns))
    }

    /// An instant or length of time as a sum of both event times and a constant.
    fn linear(&self, expr: &Expr) -> Option<Linear> {
        match expr {
            Expr::Column(column) if is_event_time(self.left, column) => Some(Linear { left: 1, ..Linear::default() }),
            Expr::Column(column) if is_event_time(self.right, column) => Some(Linear { right: 1, ..Linear::default() }),
            Expr::Literal(value, _) => Some(Linear { ns: length_ns(value)?, ..Linear::default() }),
            Expr::Cast(Cast { expr, field }) if keeps_nanoseconds(field.data_type()) => self.linear(expr),
            Expr::Alias(alias) => self.linear(&alias.expr),
            Expr::Negative(expr) => Linear::default().plus(self.linear(expr)?, -1),
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::Plus, right }) => {
                self.linear(left)?.plus(self.linear(right)?, 1)
            }
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::Minus, right }) => {
                self.linear(left)?.plus(self.linear(right)?, -1)
            }
            _ => None,
        }
    }
}

/// Whether a cast to this type leaves instants and lengths of time as they are: one to a date does not.
fn keeps_nanoseconds(data_type: &DataType) -> bool {
    use DataType::{Duration, Interval, Timestamp};
    matches!(
        data_type,
        Timestamp(TimeUnit::Nanosecond, _) | Duration(TimeUnit::Nanosecond) | Interval(IntervalUnit::MonthDayNano)
    )
}

fn is_lower(op: Operator) -> bool {
    matches!(op, Operator::Gt | Operator::GtEq | Operator::Eq)
}

fn is_upper(op: Operator) -> bool {
    matches!(op, Operator::Lt | Operator::LtEq | Operator::Eq)
}

fn is_event_time(side: &LogicalPlan, column: &Column) -> bool {
    let index = side.schema().maybe_index_of_column(column);
    index.and_then(|index| telemetry_column(side, index)).as_deref() == Some("event_time")
}

fn length_ns(value: &ScalarValue) -> Option<i64> {
    match value {
        ScalarValue::IntervalMonthDayNano(Some(length)) if length.months == 0 => {
            i64::from(length.days).checked_mul(86_400_000_000_000)?.checked_add(length.nanoseconds)
        }
        ScalarValue::DurationNanosecond(Some(ns)) => Some(*ns),
        ScalarValue::DurationMicrosecond(Some(us)) => us.checked_mul(1_000),
        ScalarValue::DurationMillisecond(Some(ms)) => ms.checked_mul(1_000_000),
        ScalarValue::DurationSecond(Some(s)) => s.checked_mul(1_000_000_000),
        _ => None,
    }
}
