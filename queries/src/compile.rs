//! From rule files to a rule set, or to all their faults.
//!
//! Said → compiled: files are cut into statements ([`crate::frame`]), heads are checked ([`crate::options`]), queries
//! are planned, understood ([`crate::shape`]) and cut into the stages that the engine runs. A faulty rule is left out
//! and reported; the others compile.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use datafusion::catalog::TableProvider;
use datafusion::catalog::view::ViewTable;
use datafusion::common::{DataFusionError, Result};
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::sqlparser::tokenizer::{Span, Token, TokenWithSpan};
use lictor_schemas::otlp::Wanted;
use lictor_schemas::prices::PriceTable;
use lictor_schemas::rule::RuleHeader;
use lictor_schemas::tables::{Table, table_schema};

use crate::aggregation::Aggregation;
use crate::attributes::name_attributes;
use crate::diagnostic::{Diagnostic, TextSpan};
use crate::distinct;
use crate::finish::Finish;
use crate::frame::{self, Emission, RuleText, Statement, WithinText};
use crate::gap_fill;
use crate::join::{self, JoinSide, PlannedJoin, StreamJoin};
use crate::lint::{self, Lint, Linted, Warning};
use crate::metric::metric_of;
use crate::nearest::Known;
use crate::options::{duration_ns, header, refuse_unreachable_for};
use crate::reference::{ReferenceDecl, RuleFile, declare};
use crate::row_wise::RowWise;
use crate::scan::{Scan, ScanPlan};
use crate::sequence::help_for;
use crate::session::Session;
use crate::shape::{Refusal, Source, analyse, refuse};
use crate::slot::{Slot, SlotTable};
use crate::verdict_words::{Words, unknown_words};
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
    /// What its text says besides.
    pub source: RuleSource,
}

/// What a rule's text says for its author's tools.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleSource {
    /// Where its name stands.
    pub name_span: TextSpan,
    /// The words that its rows can say.
    pub words: Words,
    allowed: Vec<String>,
}

impl RuleSource {
    /// Whether the rule's author has silenced a lint.
    #[must_use]
    pub fn allows(&self, lint: Lint) -> bool {
        lint::is_allowed(&self.allowed, lint)
    }

    /// A fault of the rule in `file`, at its name.
    #[must_use]
    pub fn diagnostic(&self, file: &str, message: &str, help: &str) -> Diagnostic {
        Diagnostic::new(file, self.name_span, message).help(help)
    }
}

/// How a rule runs.
#[derive(Debug)]
pub enum RuleKind {
    /// Every row is judged by itself.
    RowWise(Box<RowWise>),
    /// Rows are summed up per window and group.
    Windowed(Box<WindowedRule>),
    /// Rows of two streams are joined first.
    Joined(Box<JoinedRule>),
}

/// The pieces of a rule over the join of two streams.
#[derive(Debug)]
pub struct JoinedRule {
    /// Which rows belong together.
    pub join: Arc<StreamJoin>,
    /// The numbers of the stores that keep the rows of its sides, the left one first.
    pub sides: [usize; 2],
    /// The telemetry tables that they come from.
    pub tables: [Table; 2],
    /// What is done with joined rows.
    pub then: JoinedThen,
}

/// What is done with joined rows.
#[derive(Debug)]
pub enum JoinedThen {
    /// Every row is judged by itself.
    Rows(Box<RowWise>),
    /// They are summed up per window and group.
    Windowed {
        /// Sums them up, where they are joined.
        scan: ScanPlan,
        /// Whose event time the windows follow.
        follows: JoinSide,
        /// What is made of the sums.
        rule: Box<WindowedRule>,
    },
}

/// The pieces of a windowed rule above its sums.
#[derive(Debug)]
pub struct WindowedRule {
    /// The number of its sums among the stores of the rule set.
    pub store: usize,
    /// When it speaks.
    pub emission: Emission,
    /// What makes violations of them.
    pub finish: Finish,
}

/// Sums that are kept per window and group. Rules with the same aggregate over the same rows of the same windows read
/// one store, whatever they make of it.
#[derive(Debug)]
pub struct CompiledStore {
    /// Where its rows come from.
    pub feed: Feed,
    /// When its rules speak.
    pub emission: Emission,
    /// How sums are merged and finished.
    pub aggregation: Arc<Aggregation>,
    /// The numbers of the keys that choose the shard on which a group is judged; none if all must be on one.
    pub distribution: Vec<usize>,
    /// Stores with the same text here have groups with the same keys on the same shard.
    pub spread_by: String,
    /// Changes whenever partial sums and their states have another meaning or lie elsewhere: 16 hex digits of a hash of
    /// the window, the emission, everything below and in the aggregate, the columns of its states, and the
    /// distribution. What stands above the aggregate may change.
    pub state_id: String,
}

impl CompiledStore {
    /// Whether its sums can be made of telemetry that was read before: not those of sessions, which have no longest,
    /// nor those of joins, whose rows have met already.
    #[must_use]
    pub fn can_be_warmed(&self) -> bool {
        matches!(self.feed, Feed::Table { .. }) && !matches!(self.aggregation.spec(), WindowSpec::Session { .. })
    }
}

/// Where the rows of a store come from.
#[derive(Debug)]
pub enum Feed {
    /// A telemetry table.
    Table {
        /// Which.
        table: Table,
        /// Reads it.
        scan: Scan,
    },
    /// A telemetry table whose rows are to be joined: they are the groups.
    Side {
        /// Which.
        table: Table,
        /// Reads it.
        scan: Scan,
        /// Whether joined rows are judged after every record.
        is_prompt: bool,
        /// What they are joined by.
        join: Arc<StreamJoin>,
        /// The tables of both sides.
        tables: [Table; 2],
        /// Which of them this is.
        side: JoinSide,
    },
    /// Joined rows: they are summed up where they are joined.
    Joined {
        /// What they are joined by.
        join: Arc<StreamJoin>,
        /// The tables of both sides.
        tables: [Table; 2],
        /// Whose event time their windows follow.
        follows: JoinSide,
    },
}

/// All rules of a directory that compile.
#[derive(Debug, Default)]
pub struct RuleSet {
    /// The rules in the order of their files.
    pub rules: Vec<CompiledRule>,
    /// What they sum up.
    pub stores: Vec<CompiledStore>,
    /// The columns that must be decoded for them.
    pub wanted: Wanted,
    /// Whether nothing was left out: who is not here then was removed.
    pub is_whole: bool,
    /// What is probably not meant, by file and place.
    pub warnings: Vec<Warning>,
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
/// Everything that is wrong is returned, ordered by file and place; rules without a fault are in the rule set. No model
/// has a price for `llm_cost_usd`.
#[must_use]
pub fn compile(files: &[RuleFile], references: &References) -> (RuleSet, Vec<Diagnostic>) {
    compile_some(files, references, &Arc::new(PriceTable::empty()), &|_| true)
}

/// As [`compile`], with prices for `llm_cost_usd`, and of the rules only those of files that are `meant`; views and
/// tables count wherever they stand.
#[must_use]
pub fn compile_some(
    files: &[RuleFile],
    references: &References,
    prices: &Arc<PriceTable>,
    meant: &dyn Fn(&str) -> bool,
) -> (RuleSet, Vec<Diagnostic>) {
    match Compiler::try_new(Planning::Stream, prices) {
        Ok(mut compiler) => {
            compiler.compile(files, references, meant);
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
    pub(crate) reference_tables: HashMap<String, Arc<SlotTable>>,
    pub(crate) planned: Vec<PlannedRule>,
    pub(crate) set: RuleSet,
    /// How many rules read each store.
    pub(crate) readers: HashMap<usize, usize>,
    faults: Vec<Diagnostic>,
    planning: Planning,
}

impl Compiler {
    pub(crate) fn try_new(planning: Planning, prices: &Arc<PriceTable>) -> Result<Self> {
        Ok(Self {
            session: Session::try_new(planning, prices)?,
            tables: HashMap::new(),
            reference_tables: HashMap::new(),
            planned: Vec::new(),
            set: RuleSet::default(),
            readers: HashMap::new(),
            faults: Vec::new(),
            planning,
        })
    }

    pub(crate) fn compile(&mut self, files: &[RuleFile], references: &References, meant: &dyn Fn(&str) -> bool) {
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
        for (file, statement) in said.iter().filter(|(file, _)| meant(file)) {
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

    /// What is wrong with what was compiled.
    pub(crate) fn take_faults(&mut self) -> Vec<Diagnostic> {
        std::mem::take(&mut self.faults)
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
        self.set.warnings.sort_by(|a, b| {
            let place = |w: &Warning| (w.diagnostic.file.clone(), w.diagnostic.span.start, w.lint);
            place(a).cmp(&place(b))
        });
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
                Statement::View { name, name_span, query, within } => Some((*file, name, *name_span, query, within)),
                Statement::Rule(_) | Statement::Table(_) => None,
            })
            .collect();
        loop {
            let before = waiting.len();
            let mut faults = Vec::new();
            waiting.retain(|(file, name, span, query, within)| {
                match self.register_view(name, query, within.as_ref()) {
                    Ok(Ok(())) => false,
                    Ok(Err(refusal)) => {
                        let at = refusal.keyword.and_then(|k| find_word(query, k)).map(TextSpan::from);
                        let at = at.or_else(|| within.as_ref().map(|w| w.1.into()));
                        let at = at.unwrap_or_else(|| query_span(query, *span));
                        faults.push(Diagnostic::new(file, at, refusal.message).help(refusal.help));
                        true
                    }
                    Err(e) => {
                        faults.push(self.explain(file, query, query_span(query, *span), &e));
                        true
                    }
                }
            });
            if waiting.is_empty() || waiting.len() == before {
                self.faults.extend(faults);
                return;
            }
        }
    }

    fn register_view(
        &self,
        name: &str,
        query: &[TokenWithSpan],
        within: Option<&WithinText>,
    ) -> Result<Result<(), Refusal>> {
        let plan = match self.plan(query, within)? {
            Ok(plan) => plan,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let view = Arc::new(ViewTable::new(plan, None));
        self.session.register(name, view).map(Ok)
    }

    /// Plans a query, `DISTINCT ON … WITHIN` resolved.
    fn plan(&self, query: &[TokenWithSpan], within: Option<&WithinText>) -> Result<Result<LogicalPlan, Refusal>> {
        let within_ns = match within.map(|(text, _)| (text, duration_ns(text))) {
            None => None,
            Some((_, Some(ns))) => Some(ns),
            Some((text, None)) => {
                let help = "write a length of time such as '10 minutes'";
                return Ok(refuse(format!("`{text}` is no length of time"), help, "WITHIN"));
            }
        };
        distinct::with_firsts(self.session.plan(query)?, within_ns)
    }

    fn rule(&mut self, file: &str, rule: &RuleText) {
        let head = header(file, rule).map_err(|faults| self.faults.extend(faults)).ok();
        let span = query_span(&rule.query, rule.name_span);
        let plan = match self.plan(&rule.query, rule.within.as_ref()) {
            Ok(Ok(plan)) => plan,
            Ok(Err(refusal)) => return self.refused(file, rule, refusal),
            Err(e) => {
                let fault = self.explain(file, &rule.query, span, &e);
                self.faults.push(fault);
                return;
            }
        };
        if self.planning == Planning::Batch {
            self.planned.push(PlannedRule { name: rule.name.clone(), plan });
            return;
        }
        let unknown = unknown_words(file, &rule.query, &plan);
        if !unknown.is_empty() {
            return self.faults.extend(unknown);
        }
        let emission = rule.emission.map_or(Emission::OnClose, |e| e.0);
        let whole = plan.clone();
        let (plan, join) = match self.joins(plan) {
            Ok(Ok(parts)) => parts,
            Ok(Err(refusal)) => return self.refused(file, rule, refusal),
            Err(e) => return self.faults.push(Diagnostic::from_plan_error(file, span, &e)),
        };
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
        let Some(head) = head.map(|head| RuleHeader { metric: metric_of(&plan), ..head }) else { return };
        let windows = shape.windowed.as_ref().map(|windowed| (emission, &windowed.spec));
        if let Some(fault) = windows.and_then(|windows| refuse_unreachable_for(file, rule, windows, &head)) {
            return self.faults.push(fault);
        }
        let (kind, table) = match (shape.source, &shape.windowed, &join) {
            (Source::Table(table), Some(windowed), _) => (self.windowed(&head, (&plan, windowed), rule, table), table),
            (Source::Table(table), None, _) => (self.row_wise(&head, &plan, table), table),
            (Source::Joined, windowed, Some(join)) => {
                (self.joined(&head, join, windowed.as_ref(), rule), join.shape.tables[0])
            }
            (Source::Joined, _, None) => unreachable!("only a join leaves joined rows behind"),
        };
        match kind {
            Ok(Ok(kind)) => {
                let words = Words::of(&whole, &head);
                let windowed = shape.windowed.as_ref();
                let linted = Linted { file, text: rule, head: &head, plan: &whole, windowed, words: &words };
                self.set.warnings.extend(lint::lint(&linted));
                let source = RuleSource { name_span: rule.name_span.into(), words, allowed: rule.allowed() };
                self.set.rules.push(CompiledRule { header: head, table, kind, source });
            }
            Ok(Err(refusal)) => self.refused(file, rule, refusal),
            Err(e) => self.faults.push(Diagnostic::from_plan_error(file, span, &e)),
        }
    }

    /// A query with joined rows in place of a join of two streams, if it has one.
    fn joins(&self, plan: LogicalPlan) -> Result<Result<(LogicalPlan, Option<PlannedJoin>), Refusal>> {
        let plan = join::with_conditions_in_place(plan)?;
        Ok(match join::find(&plan) {
            Ok(Some(shape)) => {
                let join = join::plan_join(&plan, shape)?;
                Ok((join.query.clone(), Some(join)))
            }
            Ok(None) => Ok((plan, None)),
            Err(refusal) => Err(refusal),
        })
    }

    fn refused(&mut self, file: &str, rule: &RuleText, refusal: Refusal) {
        let at = refusal.keyword.and_then(|k| find_word(&rule.query, k));
        let gap_fill = rule.gap_fill.as_ref().filter(|_| refusal.keyword == Some("GAP")).map(|said| said.span);
        let within = rule.within.as_ref().filter(|_| refusal.keyword == Some("WITHIN")).map(|said| said.1);
        let at = gap_fill
            .or(within)
            .or(at)
            .or_else(|| rule.emission.filter(|_| refusal.keyword == Some("EMIT")).map(|e| e.1));
        let span = at.map_or_else(|| query_span(&rule.query, rule.name_span), TextSpan::from);
        self.faults.push(Diagnostic::new(file, span, refusal.message).help(refusal.help));
    }

    /// A planner's error, with the nearest name when one is unknown.
    fn explain(&self, file: &str, query: &[TokenWithSpan], span: TextSpan, error: &DataFusionError) -> Diagnostic {
        let fault = Diagnostic::from_plan_error(file, span, error);
        let called = fault.message.strip_prefix("Invalid function '").and_then(|rest| rest.split('\'').next());
        if let Some(help) = called.and_then(help_for) {
            return Diagnostic { help: Some(help), ..fault };
        }
        let references = self.reference_tables.values().map(|table| TableProvider::schema(table.as_ref()));
        let of_tables = Table::ALL.into_iter().map(|table| table_schema(table, &[]));
        let columns = of_tables
            .chain(references)
            .flat_map(|schema| schema.fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>());
        let telemetry = Table::ALL.iter().map(|table| table.name().to_owned());
        let known = Known {
            tables: telemetry.chain(self.reference_tables.keys().cloned()).collect(),
            functions: self.session.functions(),
            columns: columns.collect(),
        };
        // The planner does not say where a function of FROM stands.
        let in_from = fault.message.strip_prefix("table function '").and_then(|rest| rest.split('\'').next());
        let place = in_from.and_then(|name| find_word(query, name)).map_or(fault.span, TextSpan::from);
        known.explain(Diagnostic { span: place, ..fault })
    }
}

fn query_span(query: &[TokenWithSpan], fallback: Span) -> TextSpan {
    query.first().map_or(fallback, |t| t.span).into()
}

fn find_word(query: &[TokenWithSpan], word: &str) -> Option<Span> {
    query.iter().find(|t| matches!(&t.token, Token::Word(w) if w.value.eq_ignore_ascii_case(word))).map(|t| t.span)
}
