//! From a join as the text says it to the pieces that run.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, Result, ScalarValue};
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan, LogicalPlanBuilder, col, lit};
use lictor_schemas::tables::Table;

use super::shape::{JoinKind, JoinShape, TimeBounds};
use super::{JoinSide, KinColumns, SideLayout, StreamJoin};
use crate::aggregation::GroupColumn;
use crate::carry::{CARRIED, Carried, carry};
use crate::lineage::{source_column, telemetry_column};
use crate::options::short_hash;
use crate::session::{Session, scan_as};
use crate::shape::{Refusal, Windowed, refuse};
use crate::slot::SlotTable;
use crate::usage_leaves::DESCENDANT;
use crate::window::{pane_start, window_argument};
use crate::window_spec::WindowSpec;

/// The name of the table of joined rows.
pub(crate) const JOINED: &str = "__joined";

/// A query over joined rows instead of two streams.
pub(crate) struct PlannedJoin {
    pub shape: JoinShape,
    /// The joined rows: `c0`, `c1`, … are the columns of both sides, then come the carried ones.
    pub rows: Arc<SlotTable>,
    /// The query with a scan of the joined rows in place of the join.
    pub query: LogicalPlan,
}

/// A side of a join, as an aggregate whose groups are its rows.
pub(crate) struct SidePlan {
    pub table: Table,
    pub windowed: Windowed,
}

/// The names that carried columns have in joined rows.
pub(crate) fn carried_fields() -> Vec<Field> {
    let types = [
        DataType::Timestamp(TimeUnit::Nanosecond, None),
        DataType::Int32,
        DataType::Int64,
        DataType::Utf8View,
        DataType::Utf8View,
    ];
    CARRIED.iter().zip(types).map(|(name, data_type)| Field::new(format!("__{name}"), data_type, true)).collect()
}

/// Puts a scan of joined rows in place of the join of `plan`.
pub(crate) fn plan_join(plan: &LogicalPlan, shape: JoinShape) -> Result<PlannedJoin> {
    let sides = [&shape.join.left, &shape.join.right].into_iter().flat_map(|side| side.schema().fields().iter());
    let fields = sides.enumerate().map(|(i, field)| Field::new(format!("c{i}"), field.data_type().clone(), true));
    let rows = SlotTable::new(Arc::new(Schema::new(fields.chain(carried_fields()).collect::<Vec<_>>())));
    let scan = scan_as(JOINED, &rows, &shape.join.schema)?;
    let node = LogicalPlan::Join(shape.join.clone());
    let query = plan
        .clone()
        .transform_down(|at| Ok(if at == node { Transformed::complete(scan.clone()) } else { Transformed::no(at) }))?;
    Ok(PlannedJoin { shape, rows, query: query.data })
}

impl PlannedJoin {
    fn left_width(&self) -> usize {
        self.shape.join.left.schema().fields().len()
    }

    /// The number that a condition's column has among the joined rows' columns.
    fn place(&self, column: &Column) -> Option<usize> {
        let left = self.shape.join.left.schema().maybe_index_of_column(column);
        let right = || self.shape.join.right.schema().maybe_index_of_column(column);
        left.or_else(|| Some(right()? + self.left_width()))
    }

    /// The columns of both sides that are looked at: those that the query `reads`, and those of the conditions.
    fn looked_at(&self, reads: &SchemaRef) -> BTreeSet<usize> {
        let read = reads.fields().iter().filter_map(|field| field.name().strip_prefix('c')?.parse().ok());
        let compared = self.shape.conditions.iter().flat_map(Expr::column_refs);
        read.chain(compared.filter_map(|column| self.place(column))).collect()
    }

    /// The length of the panes that rows are kept in: at most a minute, and a 60th of the time they are waited for, but
    /// no less than 100 ms, because a pane's end cuts a shipment.
    fn pane_ns(&self) -> i64 {
        let TimeBounds { from_ns, to_ns } = self.shape.bounds;
        (to_ns.saturating_sub(from_ns) / 60).clamp(100_000_000, 60_000_000_000)
    }

    /// The sides, given what the query reads of joined rows.
    pub(crate) fn sides(&self, reads: &SchemaRef) -> Result<Result<[SidePlan; 2], Refusal>> {
        let looked_at = self.looked_at(reads);
        let (left, right) = (self.side(JoinSide::Left, &looked_at)?, self.side(JoinSide::Right, &looked_at)?);
        Ok(left.and_then(|left| Ok([left, right?])))
    }

    fn side(&self, side: JoinSide, looked_at: &BTreeSet<usize>) -> Result<Result<SidePlan, Refusal>> {
        let (input, first) = match side {
            JoinSide::Left => (&self.shape.join.left, 0),
            JoinSide::Right => (&self.shape.join.right, self.left_width()),
        };
        let Some(Carried { plan, columns: carried }) = carry(input)? else {
            let help = "leave out what makes other rows of them than they were";
            return Ok(refuse("a side of the join does not say when its rows were read", help, "JOIN"));
        };
        let spec = WindowSpec::tumbling(self.pane_ns(), 0);
        let Some(time) = carried[0].clone() else {
            return Ok(refuse("a side of the join has no event_time", "select it", "JOIN"));
        };
        let keys = self.shape.keys.iter().map(|(left, right)| if side == JoinSide::Left { left } else { right });
        let mut exprs = vec![pane_start(Expr::Column(time), spec).alias("__pane")];
        exprs.extend(keys.enumerate().map(|(n, key)| key.clone().alias(format!("__key{n}"))));
        let fields = input.schema().columns();
        let own = looked_at.iter().filter(|i| (first..first + fields.len()).contains(i));
        exprs.extend(own.map(|i| Expr::Column(fields[i - first].clone()).alias(format!("c{i}"))));
        let nothing = || lit(ScalarValue::Utf8View(None));
        let column = |column: Option<Column>| column.map_or_else(nothing, Expr::Column);
        exprs.extend(CARRIED.iter().zip(carried).map(|(name, c)| column(c).alias(format!("__{name}"))));
        let rows = LogicalPlanBuilder::from(plan).project(exprs)?.build()?;
        let groups: Vec<Expr> = rows.schema().columns().into_iter().map(Expr::Column).collect();
        let numbered = (0..groups.len() - 1).map(GroupColumn::Key);
        let group_columns = std::iter::once(GroupColumn::WindowStart).chain(numbered).collect();
        let aggregate = Aggregate::try_new(Arc::new(rows), groups, vec![count(lit(1_i64)).alias("__count")])?;
        let windowed = Windowed { spec, aggregate, groups: group_columns, levels: Vec::new() };
        Ok(Ok(SidePlan { table: self.shape.tables[side as usize], windowed }))
    }

    /// What runs, given what the query reads of joined rows.
    pub(crate) fn runtime(&self, session: &Session, rule: &str, reads: &SchemaRef) -> Result<StreamJoin> {
        let looked_at = self.looked_at(reads);
        let columns = self.rows_schema();
        let fields = looked_at.iter().map(|i| columns.field(*i).clone()).chain(carried_fields());
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let places = |expr: &Expr| {
            let moved = expr.clone().transform(|at| {
                let place = if let Expr::Column(column) = &at { self.place(column) } else { None };
                Ok(place.map_or(Transformed::no(at), |i| Transformed::yes(col(format!("c{i}")))))
            });
            moved.map(|moved| moved.data)
        };
        let conditions = self.shape.conditions.iter().map(places).collect::<Result<Vec<_>>>()?;
        let condition = conjunction(conditions).unwrap_or_else(|| lit(true));
        let predicate =
            session.state().create_physical_expr(condition, &DFSchema::try_from(schema.as_ref().clone())?)?;
        let width = self.left_width();
        let of_left = looked_at.iter().filter(|i| **i < width).count();
        let layout = |columns| SideLayout { keys: self.shape.keys.len(), columns };
        let layouts = [layout(of_left), layout(looked_at.len() - of_left)];
        let kin = self.kin_columns(&looked_at);
        let JoinShape { kind, bounds, is_distinct, .. } = self.shape;
        let (rule, pane_ns) = (rule.to_owned(), self.pane_ns());
        Ok(StreamJoin { rule, kind, bounds, pane_ns, is_distinct, layouts, kin, predicate, schema })
    }

    /// Where right rows that may be descendants of the left ones say so.
    fn kin_columns(&self, looked_at: &BTreeSet<usize>) -> Option<KinColumns> {
        let of_right = |name: &str| {
            let place = self.place(&Column::new(Some(DESCENDANT), name))?;
            looked_at.iter().filter(|i| **i >= self.left_width()).position(|i| *i == place)
        };
        Some(KinColumns { parent_span_id: of_right("parent_span_id")?, usage_leaf: of_right("usage_leaf")? })
    }

    fn rows_schema(&self) -> SchemaRef {
        datafusion::catalog::TableProvider::schema(self.rows.as_ref())
    }

    /// The number among the joined rows' columns of the `index`th column of `plan`, a part of the query.
    fn joined_column(plan: &LogicalPlan, index: usize) -> Option<usize> {
        let (table, column) = source_column(plan, index)?;
        (table == JOINED).then(|| column.strip_prefix('c')?.parse().ok()).flatten()
    }

    /// The keys of the join by which rows may be spread over shards, if what has the values of these `columns` of
    /// `plan` must be in one place.
    pub(crate) fn distribution(&self, plan: &LogicalPlan, columns: &[usize]) -> Vec<usize> {
        let together: BTreeSet<usize> = columns.iter().filter_map(|i| Self::joined_column(plan, *i)).collect();
        let is_there = |key: &Expr| match key {
            Expr::Column(column) => self.place(column).is_some_and(|place| together.contains(&place)),
            _ => false,
        };
        // A row without a partner has nothing on the right.
        let may_be_right = self.shape.kind == JoinKind::Inner;
        let keys = self.shape.keys.iter().enumerate();
        keys.filter(|(_, (left, right))| is_there(left) || (may_be_right && is_there(right))).map(|(n, _)| n).collect()
    }

    /// Whose event time the windows of the query follow.
    pub(crate) fn followed(&self) -> Result<JoinSide, Refusal> {
        let side = window_argument(&self.query).and_then(|(input, column)| {
            let place = Self::joined_column(input, input.schema().maybe_index_of_column(column)?)?;
            let (side, plan, first) = if place < self.left_width() {
                (JoinSide::Left, &self.shape.join.left, 0)
            } else {
                (JoinSide::Right, &self.shape.join.right, self.left_width())
            };
            (telemetry_column(plan, place - first)? == "event_time").then_some(side)
        });
        match side {
            Some(JoinSide::Right) if self.shape.kind != JoinKind::Inner => {
                let help = "use the left side's event_time";
                refuse("rows without a partner have no event_time of the right side to be windowed by", help, "FROM")
            }
            Some(side) => Ok(side),
            None => refuse(
                "windows over a join follow the event_time of one of its sides",
                "select it in the subquery or view: SELECT a.event_time, …",
                "FROM",
            ),
        }
    }

    /// Changes whenever other rows belong together, or the same ones for another time.
    pub(crate) fn id(&self, reads: &SchemaRef) -> String {
        let JoinShape { join, kind, bounds, keys, conditions, .. } = &self.shape;
        let sides = [&join.left, &join.right].map(|side| side.display_indent_schema().to_string());
        let looked_at = self.looked_at(reads);
        short_hash(&format!(
            "join 1 {kind:?} {bounds:?} {} {keys:?} {conditions:?} {sides:?} {looked_at:?}",
            self.pane_ns()
        ))
    }
}
