//! A view over telemetry, summed up once: the reference tables that drift is measured against.
//!
//! Rules sum windows up and keep their states; a baseline is one pass over recorded telemetry. So the query runs as
//! DataFusion's batch engine runs it, fed batch by batch, and what it keeps is its groups. A histogram becomes text
//! (`hist_text`), because files of reference tables have plain cells.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, StringViewArray};
use arrow::compute::{SortColumn, cast, concat_batches, lexsort_to_indices, take_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::ExecutionPlan;
use lictor_schemas::otlp::Wanted;
use lictor_schemas::prices::PriceTable;
use lictor_schemas::tables::Table;

use crate::EvaluationError;
use crate::compile::{Compiler, References};
use crate::diagnostic::{Diagnostic, TextSpan};
use crate::frame::{self, Statement};
use crate::functions::{HistColumn, hist_to_text, hist_type};
use crate::reference::RuleFile;
use crate::shape::{check_stateless, reads_telemetry};
use crate::slot::Slot;
use crate::stage::Runner;
use crate::window::Planning;

/// A view, planned to run once over recorded telemetry.
#[derive(Debug)]
pub struct Baseline {
    view: String,
    table: Table,
    plan: Arc<dyn ExecutionPlan>,
    telemetry: Slot,
    schema: SchemaRef,
    runner: Runner,
}

/// More groups than this are no baseline but a copy of the telemetry; so many histograms are 100 MB of text.
const ROWS_MAX: usize = 100_000;

/// Groups may be in memory up to this, as much as the histograms of those rows are; more is an error.
const STATE_BYTES_MAX: usize = 1 << 30;

/// Runs plans that keep so much and write nothing to disk.
fn runner() -> Result<Runner> {
    let disk = DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled);
    let runtime = RuntimeEnvBuilder::new().with_memory_limit(STATE_BYTES_MAX, 1.0).with_disk_manager_builder(disk);
    Ok(Runner::try_new(Arc::new(TaskContext::default().with_runtime(runtime.build_arc()?)))?)
}

impl Baseline {
    /// Plans `view` of the files, or their last one.
    ///
    /// # Errors
    /// The files have faults; the view is not there, does not sum one telemetry table up, or has columns that a
    /// reference table cannot have.
    pub fn try_new(
        files: &[RuleFile],
        references: &References,
        prices: &Arc<PriceTable>,
        view: Option<&str>,
    ) -> Result<Self, Vec<Diagnostic>> {
        let of_error = |e: &DataFusionError| vec![Diagnostic::from_plan_error("", TextSpan::START, e)];
        let mut compiler = Compiler::try_new(Planning::Batch, prices).map_err(|e| of_error(&e))?;
        compiler.compile(files, references, &|_| false);
        let faults = compiler.take_faults();
        if !faults.is_empty() {
            return Err(faults);
        }
        let views: Vec<(&str, String, TextSpan)> = files.iter().flat_map(views_of).collect();
        let found = match view {
            Some(name) => views.into_iter().find(|known| known.1 == name),
            None => views.into_iter().next_back(),
        };
        let Some((file, name, span)) = found else {
            let file = files.last().map_or("", |file| file.file.as_str());
            let what = view.map_or_else(|| "a view".to_owned(), |view| format!("a view `{view}`"));
            let fault = Diagnostic::new(file, TextSpan::START, format!("the file does not have {what}"));
            return Err(vec![fault.help("write CREATE VIEW usual AS SELECT project, hist_log(latency_ms) AS h, …")]);
        };
        let fault = |message: String, help: &str| vec![Diagnostic::new(file, span, message).help(help)];
        let plan = compiler.session.rows_of(&name).unwrap_or_else(|| datafusion::common::plan_err!("no view {name}"));
        let plan = plan.map_err(|e| of_error(&e))?;
        let physical = compiler.session.physical(&plan).map_err(|e| of_error(&e))?;
        let mut read = Vec::new();
        for (table, slots) in &compiler.tables {
            read.extend(slots.take_planned().into_iter().map(|slot| (*table, slot)));
        }
        let Ok([(table, telemetry)]) = <[_; 1]>::try_from(read) else {
            let help = "read spans, span_events, logs or metrics, once";
            return Err(fault(format!("the view `{name}` does not read one telemetry table"), help));
        };
        if let Some(message) = unbounded(&plan) {
            let help = "sum it up: SELECT project, hist_log(latency_ms) AS usual FROM spans GROUP BY project";
            return Err(fault(message, help));
        }
        for (name, slots) in compiler.reference_tables() {
            for slot in slots.take_planned() {
                let rows = references.get(name).and_then(|rows| rows.as_ref().ok()).cloned();
                let filled = slot.fill(&rows.into_iter().collect::<Vec<_>>());
                filled.map_err(|e| fault(e.to_string(), "give the columns the types that they are declared with"))?;
            }
        }
        let schema = match written_schema(&physical.schema()) {
            Ok(schema) => schema,
            Err(message) => return Err(fault(message, "select its fields, or a number or a text made of it")),
        };
        let runner = runner().map_err(|e| of_error(&e))?;
        Ok(Self { view: name, table, plan: physical, telemetry, schema, runner })
    }

    /// The view's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.view
    }

    /// The telemetry table that it reads.
    #[must_use]
    pub fn table(&self) -> Table {
        self.table
    }

    /// The columns that must be decoded for it.
    #[must_use]
    pub fn wanted(&self) -> Wanted {
        let columns: BTreeSet<String> = self.telemetry.schema().fields().iter().map(|f| f.name().clone()).collect();
        Wanted([(self.table, columns)].into())
    }

    /// Sums telemetry up; `rows` are batches of [`Baseline::table`] with at least the wanted columns. The rows of the
    /// result are in the order of their columns, whatever order the telemetry came in.
    ///
    /// # Errors
    /// An expression fails on the data, or the view has too many rows for a reference table.
    pub fn run(
        &self,
        rows: impl Iterator<Item = RecordBatch> + Send + 'static,
    ) -> Result<RecordBatch, EvaluationError> {
        self.telemetry.feed(rows);
        let summed = self.sum_up();
        // Who feeds a plan that has failed before it began would wait for ever.
        self.telemetry.forget_feed();
        summed.map_err(|e| EvaluationError { rule: self.view.clone(), message: e.strip_backtrace() })
    }

    fn sum_up(&self) -> Result<RecordBatch> {
        let batches = self.runner.collect(&self.plan)?;
        let rows = batches.iter().map(RecordBatch::num_rows).sum::<usize>();
        if rows > ROWS_MAX {
            let view = &self.view;
            return datafusion::common::exec_err!("{view} has {rows} rows, more than a baseline's {ROWS_MAX}");
        }
        let whole = concat_batches(&self.plan.schema(), &batches)?;
        let columns = whole.columns().iter().zip(self.schema.fields());
        let columns = columns.map(|(column, field)| written(column, field.data_type())).collect::<Result<Vec<_>>>()?;
        let whole = RecordBatch::try_new(Arc::clone(&self.schema), columns)?;
        let by = |column: &ArrayRef| SortColumn { values: Arc::clone(column), options: None };
        let order = lexsort_to_indices(&whole.columns().iter().map(by).collect::<Vec<_>>(), None)?;
        Ok(take_record_batch(&whole, &order)?)
    }
}

fn views_of(file: &RuleFile) -> Vec<(&str, String, TextSpan)> {
    let (statements, _) = frame::parse(&file.file, &file.text);
    let view = |statement| match statement {
        Statement::View { name, name_span, .. } => Some((file.file.as_str(), name, name_span.into())),
        Statement::Rule(_) | Statement::Table(_) => None,
    };
    statements.into_iter().filter_map(view).collect()
}

/// Why a plan would keep more than groups of the telemetry; none if it does not.
fn unbounded(plan: &LogicalPlan) -> Option<String> {
    let mut innermost = None;
    let _ = plan.apply(|node| {
        if matches!(node, LogicalPlan::Aggregate(_)) && reads_telemetry(node) {
            innermost = Some(node);
        }
        Ok(TreeNodeRecursion::Continue)
    });
    let Some(LogicalPlan::Aggregate(aggregate)) = innermost else {
        return Some("the view does not sum telemetry up: it would copy every row".to_owned());
    };
    let mut refused = None;
    let _ = aggregate.input.apply(|node| {
        refused = refused.take().or(check_stateless(node).err());
        Ok(TreeNodeRecursion::Continue)
    });
    refused.map(|refusal| refusal.message)
}

/// The columns that are written; a column's type or why a reference table cannot have it.
fn written_schema(schema: &Schema) -> Result<SchemaRef, String> {
    let field = |field: &Arc<Field>| {
        let of = match field.data_type() {
            of if *of == hist_type() => DataType::Utf8View,
            DataType::Boolean => DataType::Boolean,
            of if of.is_integer() => DataType::Int64,
            of if of.is_floating() => DataType::Float64,
            DataType::Date32 => DataType::Date32,
            DataType::Timestamp(..) => DataType::Timestamp(TimeUnit::Nanosecond, None),
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Dictionary(..) => DataType::Utf8View,
            of => return Err(format!("column `{}` has type {of}, which reference tables do not have", field.name())),
        };
        Ok(Field::new(field.name(), of, true))
    };
    Ok(Arc::new(Schema::new(schema.fields().iter().map(field).collect::<Result<Vec<_>, _>>()?)))
}

fn written(column: &ArrayRef, as_type: &DataType) -> Result<ArrayRef> {
    if *column.data_type() != hist_type() {
        return Ok(cast(column, as_type)?);
    }
    let hists = HistColumn::try_new(column)?;
    let text = |row: usize| Ok(hists.get(row)?.as_ref().map(hist_to_text));
    Ok(Arc::new((0..column.len()).map(text).collect::<Result<StringViewArray>>()?))
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::Int64Type;
    use lictor_schemas::tables::table_schema;

    use super::*;

    fn planned(text: &str, view: Option<&str>) -> Result<Baseline, String> {
        let files = [RuleFile { file: "b.sql".into(), text: text.into() }];
        let baseline = Baseline::try_new(&files, &References::new(), &Arc::new(PriceTable::empty()), view);
        baseline.map_err(|faults| faults.iter().map(Diagnostic::summary).collect::<Vec<_>>().join("\n"))
    }

    /// Spans of teams with tokens.
    fn spans(rows: &[(&str, i64)]) -> RecordBatch {
        let all = table_schema(Table::Spans, &[]);
        let fields = ["team", "output_tokens"].map(|name| all.field_with_name(name).unwrap().clone());
        let teams = StringViewArray::from_iter_values(rows.iter().map(|row| row.0));
        let tokens = Int64Array::from_iter_values(rows.iter().map(|row| row.1));
        RecordBatch::try_new(Arc::new(Schema::new(fields.to_vec())), vec![Arc::new(teams), Arc::new(tokens)]).unwrap()
    }

    #[test]
    fn batches_are_summed_up_by_group_and_histograms_become_text() {
        let baseline = planned(
            "CREATE VIEW usual AS SELECT team, hist_log(output_tokens) AS shape, count(*) AS calls,
                 freq_map(team) AS teams FROM spans GROUP BY team",
            None,
        )
        .unwrap();
        assert_eq!((baseline.name(), baseline.table()), ("usual", Table::Spans));
        assert_eq!(baseline.wanted().0[&Table::Spans], ["output_tokens", "team"].map(str::to_owned).into());
        let batches = [spans(&[("b", 200), ("a", 100)]), spans(&[("b", 200)]), spans(&[])];
        let rows = baseline.run(batches.into_iter()).unwrap();
        let text = |column: &str| rows[column].as_string_view().iter().flatten().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(text("team"), ["a", "b"]);
        assert_eq!(text("shape")[1], r#"{"buckets":[302],"counts":[2],"sub":8}"#);
        assert_eq!(text("teams")[1], r#"{"counts":[2],"keys":["b"]}"#);
        assert_eq!(rows["calls"].as_primitive::<Int64Type>().values(), &[1, 2]);
    }

    #[test]
    fn a_view_is_found_by_its_name() {
        let text = "CREATE VIEW one AS SELECT team, count(*) AS n FROM spans GROUP BY team;
            CREATE VIEW two AS SELECT count(*) AS n FROM one;
            CREATE RULE r WITH (action = 'warn', reason_code = 'x_r') AS SELECT team FROM spans WHERE cost_total > 5;";
        assert_eq!(planned(text, None).unwrap().name(), "two");
        assert_eq!(planned(text, Some("one")).unwrap().name(), "one");
        assert_eq!(planned(text, Some("three")).unwrap_err(), "b.sql:1:1: the file does not have a view `three`");
    }

    #[test]
    fn what_is_no_table_of_groups_is_refused() {
        #[track_caller]
        fn check(query: &str, expected: &str) {
            let fault = planned(&format!("CREATE VIEW v AS {query}"), None).unwrap_err();
            assert!(fault.contains(expected), "{fault}");
        }
        check("SELECT team FROM spans", "does not sum telemetry up");
        check("SELECT 1 AS n", "does not read one telemetry table");
        check("SELECT s.team FROM spans AS s JOIN logs AS l ON l.trace_id = s.trace_id", "one telemetry table");
        check("SELECT team, moments(cost_total) AS m FROM spans GROUP BY team", "column `m` has type Struct");
        check(
            "SELECT sum(n) AS n FROM (SELECT row_number() OVER (ORDER BY event_time) AS n FROM spans)",
            "OVER needs window results",
        );
        check("SELECT temm FROM spans GROUP BY temm", "temm");
    }
}
