//! From rule files to a rule set, or to all their faults.
//!
//! Said → compiled: files are cut into statements ([`crate::frame`]), heads are checked ([`crate::options`]), queries
//! are planned, understood ([`crate::shape`]) and cut into the stages that the engine runs. A faulty rule is left out
//! and reported; the others compile.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::datatypes::{DataType, Schema};
use arrow::record_batch::RecordBatch;
use datafusion::catalog::TableProvider;
use datafusion::catalog::view::ViewTable;
use datafusion::common::{Column, DataFusionError, Result};
use datafusion::functions_aggregate::expr_fn::{count, max, min};
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::{Aggregate, AggregateUDF, Expr, LogicalPlan, cast, lit};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode, aggregate_expressions};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Span, Token, TokenWithSpan, Word};
use lictor_schemas::genops::closest;
use lictor_schemas::otlp::Wanted;
use lictor_schemas::rule::RuleHeader;
use lictor_schemas::tables::{ATTR_PREFIX, RESOURCE_ATTR_PREFIX, Table, table_schema};

use crate::aggregation::{Aggregation, PlannedAggregate};
use crate::diagnostic::{Diagnostic, TextSpan};
use crate::distribution::distribution;
use crate::exemplar;
use crate::finish::{Finish, plan_finish};
use crate::frame::{self, Emission, GapFillText, RuleText, Statement};
use crate::gap_fill::{self, GapFill};
use crate::options::{duration_ns, header, short_hash};
use crate::reference::{ReferenceDecl, RuleFile, declare};
use crate::row_wise::RowWise;
use crate::rows::Measures;
use crate::scan::Scan;
use crate::session::{Session, only_slot};
use crate::shape::{Refusal, Windowed, analyse, refuse};
use crate::slot::{Slot, SlotTable};
use crate::stage::Stage;
use crate::window::Planning;
use crate::window_spec::WindowSpec;

/// A rule, ready to run.
#[derive(Debug)]
pub struct CompiledRule {
    /// Its head.
    pub header: RuleHeader,
    /// The telemetry table it reads.
    pub table: Table,
    /// How it runs.
    pub kind: RuleKind,
}

/// How a rule runs.
#[derive(Debug)]
pub enum RuleKind {
    /// Every row is judged by itself.
    RowWise(Box<RowWise>),
    /// Rows are summed up per window and group.
    Windowed(Box<WindowedRule>),
}

/// The pieces of a windowed rule.
#[derive(Debug)]
pub struct WindowedRule {
    /// When it speaks.
    pub emission: Emission,
    /// Where telemetry is read.
    pub scan: Scan,
    /// How sums are merged and finished.
    pub aggregation: Arc<Aggregation>,
    /// What makes violations of them.
    pub finish: Finish,
    /// The numbers of the keys that choose the shard on which a group is judged; none if all must be on one.
    pub distribution: Vec<usize>,
    /// Changes whenever partial sums and their states have another meaning: 16 hex digits of a hash of the window, the
    /// emission, everything below and in the aggregate, and the columns of its states. What stands above it may change.
    pub state_id: String,
}

/// All rules of a directory that compile.
#[derive(Debug, Default)]
pub struct RuleSet {
    /// The rules in the order of their files.
    pub rules: Vec<CompiledRule>,
    /// The columns that must be decoded for them.
    pub wanted: Wanted,
    /// Whether nothing was left out: who is not here then was removed.
    pub is_whole: bool,
    references: HashMap<String, Vec<Slot>>,
}

impl RuleSet {
    /// Replaces the content of a reference table for all rules.
    ///
    /// # Errors
    /// A column that a rule reads is missing or has another type; nothing is replaced then.
    pub fn fill_reference(&self, name: &str, rows: &RecordBatch) -> Result<(), String> {
        let slots = self.references.get(name).map(Vec::as_slice).unwrap_or_default();
        for slot in slots {
            slot.narrow(rows).map_err(|e| format!("reference table {name}: {e}"))?;
        }
        slots.iter().try_for_each(|s| s.fill(std::slice::from_ref(rows))).map_err(|e| e.to_string())
    }
}

/// The content of reference tables by name: rows, or why they could not be loaded.
pub type References = BTreeMap<String, Result<RecordBatch, String>>;

/// Compiles the files of a rules directory.
///
/// Everything that is wrong is returned, ordered by file and place; rules without a fault are in the rule set.
#[must_use]
pub fn compile(files: &[RuleFile], references: &References) -> (RuleSet, Vec<Diagnostic>) {
    match Compiler::try_new(Planning::Stream) {
        Ok(mut compiler) => {
            compiler.compile(files, references);
            compiler.finish()
        }
        Err(e) => (RuleSet::default(), vec![Diagnostic::from_plan_error("", TextSpan::START, &e)]),
    }
}

/// A rule's query, planned but not cut: what the oracle runs.
pub(crate) struct PlannedRule {
    pub name: String,
    pub plan: LogicalPlan,
}

pub(crate) struct Compiler {
    pub(crate) session: Session,
    pub(crate) tables: HashMap<Table, Arc<SlotTable>>,
    reference_tables: HashMap<String, Arc<SlotTable>>,
    pub(crate) planned: Vec<PlannedRule>,
    set: RuleSet,
    faults: Vec<Diagnostic>,
    planning: Planning,
}

impl Compiler {
    pub(crate) fn try_new(planning: Planning) -> Result<Self> {
        Ok(Self {
            session: Session::try_new(planning)?,
            tables: HashMap::new(),
            reference_tables: HashMap::new(),
            planned: Vec::new(),
            set: RuleSet::default(),
            faults: Vec::new(),
            planning,
        })
    }

    pub(crate) fn compile(&mut self, files: &[RuleFile], references: &References) {
        let mut said: Vec<(&str, Statement)> = Vec::new();
        for file in files {
            let (statements, faults) = frame::parse(&file.file, &file.text);
            self.faults.extend(faults);
            said.extend(statements.into_iter().map(|s| (file.file.as_str(), s)));
        }
        let attributes = said.iter_mut().flat_map(|(_, s)| name_attributes(s)).collect::<BTreeSet<_>>();
        self.register_telemetry(&attributes.into_iter().collect::<Vec<_>>());
        for (file, statement) in &said {
            if let Statement::Table(table) = statement {
                match declare(file, table) {
                    Ok(decl) => self.register_reference(&decl, references),
                    Err(fault) => self.faults.push(*fault),
                }
            }
        }
        self.register_views(&said);
        let mut names: HashMap<String, &str> = HashMap::new();
        for (file, statement) in &said {
            let Statement::Rule(rule) = statement else { continue };
            if let Some(first) = names.insert(rule.name.clone(), file) {
                let message = format!("rule `{}` is already defined in {first}", rule.name);
                self.faults.push(Diagnostic::new(file, rule.name_span, message));
                continue;
            }
            self.rule(file, rule);
        }
    }

    pub(crate) fn reference_tables(&self) -> &HashMap<String, Arc<SlotTable>> {
        &self.reference_tables
    }

    pub(crate) fn first_fault(&self) -> String {
        self.faults.first().map_or_else(|| "no such rule".to_owned(), Diagnostic::summary)
    }

    fn finish(mut self) -> (RuleSet, Vec<Diagnostic>) {
        for (name, table) in &self.reference_tables {
            self.set.references.entry(name.clone()).or_default().extend(table.take_planned());
        }
        self.set.is_whole = self.faults.is_empty();
        self.faults.sort_by(|a, b| (&a.file, a.span.start).cmp(&(&b.file, b.span.start)));
        self.faults.dedup();
        (self.set, self.faults)
    }

    fn register_telemetry(&mut self, attributes: &[String]) {
        for table in Table::ALL {
            let slots = SlotTable::new(table_schema(table, attributes));
            let provider: Arc<SlotTable> = Arc::clone(&slots);
            if let Err(e) = self.session.register(table.name(), provider) {
                self.faults.push(Diagnostic::from_plan_error("", TextSpan::START, &e));
            }
            self.tables.insert(table, slots);
        }
    }

    fn register_reference(&mut self, decl: &ReferenceDecl, references: &References) {
        let rows = match references.get(&decl.name) {
            Some(Ok(rows)) => rows,
            Some(Err(why)) => {
                let message = format!("reference table `{}` cannot be read", decl.name);
                self.faults.push(Diagnostic::new(&decl.file, decl.location_span, message).note(why));
                return;
            }
            None => {
                let message = format!("reference table `{}` was not loaded", decl.name);
                self.faults.push(Diagnostic::new(&decl.file, decl.location_span, message));
                return;
            }
        };
        if Table::from_name(&decl.name).is_some() || self.reference_tables.contains_key(&decl.name) {
            let message = format!("table `{}` exists already", decl.name);
            self.faults.push(Diagnostic::new(&decl.file, decl.name_span, message));
            return;
        }
        let slots = SlotTable::new(rows.schema());
        let provider: Arc<SlotTable> = Arc::clone(&slots);
        match self.session.register(&decl.name, provider) {
            Ok(()) => drop(self.reference_tables.insert(decl.name.clone(), slots)),
            Err(e) => self.faults.push(Diagnostic::from_plan_error(&decl.file, decl.name_span, &e)),
        }
    }

    /// Views may name each other in any order: plan what can be planned until nothing more can.
    fn register_views(&mut self, said: &[(&str, Statement)]) {
        let mut waiting: Vec<_> = said
            .iter()
            .filter_map(|(file, s)| match s {
                Statement::View { name, name_span, query } => Some((*file, name, *name_span, query)),
                Statement::Rule(_) | Statement::Table(_) => None,
            })
            .collect();
        loop {
            let before = waiting.len();
            let mut faults = Vec::new();
            waiting.retain(|(file, name, span, query)| match self.register_view(name, query) {
                Ok(()) => false,
                Err(e) => {
                    faults.push(self.explain(file, query_span(query, *span), &e));
                    true
                }
            });
            if waiting.is_empty() || waiting.len() == before {
                self.faults.extend(faults);
                return;
            }
        }
    }

    fn register_view(&self, name: &str, query: &[TokenWithSpan]) -> Result<()> {
        let plan = self.session.plan(query)?;
        let view = Arc::new(ViewTable::new(plan, None));
        self.session.register(name, view)
    }

    fn rule(&mut self, file: &str, rule: &RuleText) {
        let head = header(file, rule).map_err(|faults| self.faults.extend(faults)).ok();
        let span = query_span(&rule.query, rule.name_span);
        let plan = match self.session.plan(&rule.query) {
            Ok(plan) => plan,
            Err(e) => {
                let fault = self.explain(file, span, &e);
                self.faults.push(fault);
                return;
            }
        };
        if self.planning == Planning::Batch {
            self.planned.push(PlannedRule { name: rule.name.clone(), plan });
            return;
        }
        let emission = rule.emission.map_or(Emission::OnClose, |e| e.0);
        let shape = match analyse(&plan, emission) {
            Ok(shape) => shape,
            Err(refusal) => return self.refused(file, rule, refusal),
        };
        if let Some(refusal) = gap_fill::refuse_misplaced(rule.gap_fill.is_some(), shape.windowed.as_ref(), emission) {
            return self.refused(file, rule, refusal);
        }
        if let (None, Some((_, span))) = (&shape.windowed, rule.emission) {
            let fault = Diagnostic::new(file, span, "EMIT has no meaning for a rule without a window")
                .help("leave it out: every row is judged as it arrives");
            self.faults.push(fault);
            return;
        }
        let Some(head) = head else { return };
        let kind = match &shape.windowed {
            Some(windowed) => self.windowed(&head, &plan, windowed, rule, shape.table),
            None => self.row_wise(&head, &plan, shape.table),
        };
        match kind {
            Ok(Ok(kind)) => self.set.rules.push(CompiledRule { header: head, table: shape.table, kind }),
            Ok(Err(refusal)) => self.refused(file, rule, refusal),
            Err(e) => self.faults.push(Diagnostic::from_plan_error(file, span, &e)),
        }
    }

    fn refused(&mut self, file: &str, rule: &RuleText, refusal: Refusal) {
        let at = refusal.keyword.and_then(|k| find_word(&rule.query, k));
        let gap_fill = rule.gap_fill.as_ref().filter(|_| refusal.keyword == Some("GAP")).map(|said| said.span);
        let at = gap_fill.or(at).or_else(|| rule.emission.filter(|_| refusal.keyword == Some("EMIT")).map(|e| e.1));
        let span = at.map_or_else(|| query_span(&rule.query, rule.name_span), TextSpan::from);
        self.faults.push(Diagnostic::new(file, span, refusal.message).help(refusal.help));
    }

    fn row_wise(&mut self, head: &RuleHeader, plan: &LogicalPlan, table: Table) -> Result<Result<RuleKind, Refusal>> {
        let row_wise = RowWise::try_new(&self.session, head, plan, &self.tables[&table])?;
        Ok(row_wise.map(|r| {
            self.want(table, r.stage());
            RuleKind::RowWise(Box::new(r))
        }))
    }

    fn windowed(
        &mut self,
        head: &RuleHeader,
        plan: &LogicalPlan,
        windowed: &Windowed,
        text: &RuleText,
        table: Table,
    ) -> Result<Result<RuleKind, Refusal>> {
        let emission = text.emission.map_or(Emission::OnClose, |e| e.0);
        let gap_fill = match text.gap_fill.as_ref().map(|said| self.gap_fill(said, windowed)).transpose()? {
            Some(Err(refusal)) => return Ok(Err(refusal)),
            Some(Ok(gap_fill)) => Some(gap_fill),
            None => None,
        };
        let is_session = matches!(windowed.spec, WindowSpec::Session { .. });
        let (extended, measures) = with_measures(&windowed.aggregate, is_session)?;
        if is_session && measures.latest.is_none() {
            let help = "select event_time in the subquery or view";
            return Ok(refuse("the rows of the session do not have their event_time any more", help, "FROM"));
        }
        let telemetry = Arc::clone(&self.tables[&table]);
        telemetry.take_planned();
        let physical = self.session.physical(&LogicalPlan::Aggregate(extended))?;
        let (aggregation, input) = aggregation_of(&head.name, &physical, windowed)?;
        let stage = Stage::new(input, only_slot(&telemetry)?, Arc::clone(&self.session.runner));
        let groups = SlotTable::new(Arc::clone(&aggregation.output_schema));
        let finish = match plan_finish(&self.session, &head.name, plan, windowed, &groups)? {
            Ok(finish) => finish.with(head, measures, gap_fill),
            Err(refusal) => return Ok(Err(refusal)),
        };
        self.want(table, &stage);
        let aggregation = Arc::new(aggregation);
        let scan = Scan::try_new(&head.name, stage, Arc::clone(&aggregation))?;
        let distribution = distribution(plan, windowed, &finish.subject_groups());
        let state_id = state_id(emission, windowed, &aggregation);
        let rule = WindowedRule { emission, scan, aggregation, finish, distribution, state_id };
        Ok(Ok(RuleKind::Windowed(Box::new(rule))))
    }

    /// Where the keys of `GAP FILL` come from.
    fn gap_fill(&self, said: &GapFillText, windowed: &Windowed) -> Result<Result<GapFill, Refusal>> {
        let keep_ns = match said.keep.as_ref().map(|(text, _)| (text, duration_ns(text))) {
            None => None,
            Some((_, Some(ns))) if ns > 0 => Some(ns),
            Some((text, _)) => {
                let help = "write a length of time such as '1 day' or '90 minutes'";
                return Ok(refuse(format!("`{text}` is no length of time"), help, "GAP"));
            }
        };
        let Some((name, _)) = &said.table else { return Ok(Ok(GapFill { expected: None, keep_ns })) };
        let Some(table) = self.reference_tables.get(name) else {
            let known: Vec<&str> = self.reference_tables.keys().map(String::as_str).collect();
            let help = closest(name, &known).map_or_else(
                || "declare it with CREATE EXTERNAL TABLE".to_owned(),
                |near| format!("did you mean `{near}`?"),
            );
            return Ok(refuse(format!("there is no reference table `{name}` to fill gaps from"), help, "GAP"));
        };
        let columns = match gap_fill::key_columns(name, &TableProvider::schema(table.as_ref()), windowed) {
            Ok(columns) => columns,
            Err(refusal) => return Ok(Err(refusal)),
        };
        Ok(Ok(GapFill { expected: Some(table.slot(&columns)?), keep_ns }))
    }

    fn want(&mut self, table: Table, stage: &Stage) {
        let columns = stage.input_schema().fields().iter().map(|f| f.name().clone());
        self.set.wanted.0.entry(table).or_default().extend(columns);
    }

    /// A planner's error, with the nearest name when a table or function is unknown.
    fn explain(&self, file: &str, span: TextSpan, error: &DataFusionError) -> Diagnostic {
        let fault = Diagnostic::from_plan_error(file, span, error);
        let Some(unknown) = fault.message.strip_prefix("table '").and_then(|m| m.split('\'').next()) else {
            return fault;
        };
        let name = unknown.rsplit('.').next().unwrap_or(unknown).to_owned();
        let known: Vec<&str> =
            Table::ALL.iter().map(|t| t.name()).chain(self.reference_tables.keys().map(String::as_str)).collect();
        let named = Diagnostic { message: format!("there is no table `{name}`"), ..fault };
        match (closest(&name, &known), &named.help) {
            (Some(near), None) => named.help(format!("did you mean `{near}`?")),
            _ => named.note(format!("tables: {}", known.join(", "))),
        }
    }
}

/// Raised when states that look the same mean something else than before.
const STATE_VERSION: u32 = 1;

fn state_id(emission: Emission, windowed: &Windowed, aggregation: &Aggregation) -> String {
    let plan = LogicalPlan::Aggregate(windowed.aggregate.clone());
    let (states, spec) = (aggregation.partial_schema(), windowed.spec);
    short_hash(&format!("{STATE_VERSION} {emission:?} {spec:?} {} {states:?}", plan.display_indent_schema()))
}

/// Puts a column named `attr:key` for every `attr('key')` of a statement; returns the names.
fn name_attributes(statement: &mut Statement) -> Vec<String> {
    let query = match statement {
        Statement::Rule(rule) => &mut rule.query,
        Statement::View { query, .. } => query,
        Statement::Table(_) => return Vec::new(),
    };
    let mut names = Vec::new();
    let mut i = 0;
    while i + 3 < query.len() {
        if let Some(name) = attribute_call(&query[i..i + 4]) {
            let span = Span::new(query[i].span.start, query[i + 3].span.end);
            let word = Word { value: name.clone(), quote_style: Some('"'), keyword: Keyword::NoKeyword };
            query.splice(i..i + 4, [TokenWithSpan { token: Token::Word(word), span }]);
            names.push(name);
        }
        i += 1;
    }
    names
}

fn attribute_call(tokens: &[TokenWithSpan]) -> Option<String> {
    let [function, open, key, close] = tokens else { return None };
    let (Token::Word(function), Token::LParen, Token::SingleQuotedString(key), Token::RParen) =
        (&function.token, &open.token, &key.token, &close.token)
    else {
        return None;
    };
    match function.value.to_lowercase().as_str() {
        "attr" => Some(format!("{ATTR_PREFIX}{key}")),
        "resource_attr" => Some(format!("{RESOURCE_ATTR_PREFIX}{key}")),
        _ => None,
    }
}

fn query_span(query: &[TokenWithSpan], fallback: Span) -> TextSpan {
    query.first().map_or(fallback, |t| t.span).into()
}

fn find_word(query: &[TokenWithSpan], word: &str) -> Option<Span> {
    query.iter().find(|t| matches!(&t.token, Token::Word(w) if w.value.eq_ignore_ascii_case(word))).map(|t| t.span)
}

/// Adds `count`, `latest` and, where ids are at hand, `exemplar` to an aggregate.
fn with_measures(aggregate: &Aggregate, is_session: bool) -> Result<(Aggregate, Measures)> {
    let input = aggregate.input.schema();
    let find = |name: &str| {
        let found = input.columns().into_iter().filter(|c| c.name == name).collect::<Vec<Column>>();
        <[Column; 1]>::try_from(found).ok().map(|[c]| Expr::Column(c))
    };
    let first = aggregate.group_expr.len() + aggregate.aggr_expr.len();
    let mut exprs = aggregate.aggr_expr.clone();
    let mut measures = Measures { count: first, latest: None, exemplar: None };
    exprs.push(count(lit(1_i64)).alias("__count"));
    if let Some(time) = find("event_time") {
        measures.latest = Some(aggregate.group_expr.len() + exprs.len());
        exprs.push(max(time.clone()).alias("__latest"));
        if is_session {
            exprs.push(min(time).alias("__earliest"));
        }
    }
    let ids = ["trace_id", "span_id", "kafka_partition", "kafka_offset"].map(find);
    if let [Some(trace), Some(span), Some(partition), Some(offset)] = ids {
        measures.exemplar = Some(aggregate.group_expr.len() + exprs.len());
        let arguments = vec![weight(aggregate), trace, span, partition, offset];
        let udaf = Arc::new(AggregateUDF::new_from_impl(exemplar::Exemplar::new()));
        let call = AggregateFunction::new_udf(udaf, arguments, false, None, vec![], None);
        exprs.push(Expr::AggregateFunction(call).alias("__exemplar"));
    }
    let extended = Aggregate::try_new(Arc::clone(&aggregate.input), aggregate.group_expr.clone(), exprs)?;
    Ok((extended, measures))
}

/// What a row weighs: the number that the rule's first numeric aggregate sums up, else nothing.
fn weight(aggregate: &Aggregate) -> Expr {
    let numeric = aggregate.aggr_expr.iter().find_map(|e| {
        let mut e = e;
        while let Expr::Alias(alias) = e {
            e = &alias.expr;
        }
        let Expr::AggregateFunction(call) = e else { return None };
        let first = call.params.args.first()?;
        use datafusion::logical_expr::ExprSchemable;
        let data_type = first.get_type(aggregate.input.schema()).ok()?;
        (data_type.is_numeric() && !first.column_refs().is_empty()).then(|| first.clone())
    });
    numeric.map_or_else(|| lit(0.0_f64), |e| cast(e, DataType::Float64))
}

/// Takes a planned aggregate apart: what to evaluate per row, how to merge, what feeds it.
fn aggregation_of(
    rule: &str,
    plan: &Arc<dyn ExecutionPlan>,
    windowed: &Windowed,
) -> Result<(Aggregation, Arc<dyn ExecutionPlan>)> {
    let mut at = Arc::clone(plan);
    let mut above = None;
    if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
        above = Some(projection.expr().iter().map(|e| Arc::clone(&e.expr)).collect());
        at = Arc::clone(projection.input());
    }
    let raw_schema = at.schema();
    let aggregate = innermost_aggregate(&at)?;
    let group_by = aggregate.group_expr();
    if group_by.expr().len() != windowed.groups.len() {
        return datafusion::common::internal_err!("the planner changed the group keys");
    }
    let groups = windowed.groups.iter().copied().zip(group_by.expr().iter().map(|(e, _)| Arc::clone(e))).collect();
    let planned = PlannedAggregate {
        spec: windowed.spec,
        groups,
        aggregates: aggregate.aggr_expr().to_vec(),
        arguments: aggregate_expressions(aggregate.aggr_expr(), &AggregateMode::Partial, 0)?,
        filters: aggregate.filter_expr().to_vec(),
        above,
        raw_schema: nullable(&raw_schema),
        output_schema: nullable(&plan.schema()),
    };
    Ok((Aggregation::try_new(rule, planned)?, Arc::clone(aggregate.input())))
}

fn innermost_aggregate(plan: &Arc<dyn ExecutionPlan>) -> Result<&AggregateExec> {
    let Some(aggregate) = plan.downcast_ref::<AggregateExec>() else {
        return datafusion::common::internal_err!("the planner made {} of the aggregate", plan.name());
    };
    match aggregate.mode() {
        AggregateMode::Single | AggregateMode::SinglePartitioned | AggregateMode::Partial => Ok(aggregate),
        _ => innermost_aggregate(aggregate.input()),
    }
}

/// Group keys and aggregates may be null at run time whatever the planner proved.
fn nullable(schema: &Schema) -> Arc<Schema> {
    Arc::new(Schema::new(schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect::<Vec<_>>()))
}
