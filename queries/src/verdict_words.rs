//! The words of `result` and `reason_code` that a rule's text says: both are closed sets of GenOps, so a word that is
//! in neither is a fault of the rule, found before it runs.
//!
//! Only constants can be known: literals, in the branches of a `CASE` and what falls back to them, followed down
//! through subqueries and views. What is computed at run time is judged then ([`crate::rows`]).

use datafusion::common::Column;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};
use lictor_schemas::genops::{PolicyResult, ReasonCode, closest};
use lictor_schemas::rule::RuleHeader;

use crate::diagnostic::Diagnostic;
use crate::rows::implied_result;

/// The words that a rule's rows can say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words {
    /// Of `result`, without `ALLOWED`, which is no violation; what the action implies if there is no such column.
    pub results: Vec<String>,
    /// Of `reason_code`; the option's if there is no such column.
    pub reason_codes: Vec<String>,
    /// Whether there are no other results: none is computed from the rows.
    pub(crate) are_all_results: bool,
}

impl Words {
    pub(crate) fn of(plan: &LogicalPlan, head: &RuleHeader) -> Self {
        let said = |name: &str| {
            let column = plan.schema().fields().iter().position(|field| field.name() == name)?;
            let mut words = Found::default();
            words_at(plan, column, &mut words);
            words.said.sort();
            words.said.dedup();
            Some(words)
        };
        let (results, are_all_results) = match said("result") {
            None => (vec![implied_result(head.action).as_str().to_owned()], true),
            Some(Found { said, is_computed }) => (said, !is_computed),
        };
        let reason_codes = said("reason_code").map_or_else(|| vec![head.reason_code.as_str().to_owned()], |f| f.said);
        let is_violation = |word: &String| *word != PolicyResult::Allowed.as_str();
        let results = results.into_iter().filter(is_violation).collect();
        // Where `result` is left out, nothing is said that could be too little.
        let are_all_results = are_all_results && plan.schema().fields().iter().any(|field| field.name() == "result");
        Self { results, reason_codes, are_all_results }
    }
}

/// Whether rows of a rule may say that they are no violation, so that `result` is one condition more.
pub(crate) fn may_be_allowed(plan: &LogicalPlan) -> bool {
    let Some(column) = plan.schema().fields().iter().position(|field| field.name() == "result") else { return false };
    let mut words = Found::default();
    words_at(plan, column, &mut words);
    let is_violation = |word: &String| PolicyResult::parse(word).is_some_and(|result| result != PolicyResult::Allowed);
    words.is_computed || !words.said.iter().all(is_violation)
}

/// The constants that a column can be, and whether it can be something else.
#[derive(Debug, Default)]
struct Found {
    said: Vec<String>,
    is_computed: bool,
}

/// What a rule says in `result` and `reason_code` and must not; `query` is its text, to find the place in.
pub(crate) fn unknown_words(file: &str, query: &[TokenWithSpan], plan: &LogicalPlan) -> Vec<Diagnostic> {
    let mut faults: Vec<Diagnostic> = Vec::new();
    for (i, field) in plan.schema().fields().iter().enumerate() {
        let check = match field.name().as_str() {
            "result" => check_result,
            "reason_code" => check_reason_code,
            _ => continue,
        };
        let mut words = Found::default();
        words_at(plan, i, &mut words);
        for word in words.said {
            let Err(why) = check(&word) else { continue };
            let fault = at_word(file, query, &word, why);
            if !faults.contains(&fault) {
                faults.push(fault);
            }
        }
    }
    faults
}

fn check_result(word: &str) -> Result<(), String> {
    if PolicyResult::parse(word).is_some() {
        return Ok(());
    }
    let known: Vec<&str> = PolicyResult::ALL.iter().rev().map(|result| result.as_str()).collect();
    let hint = match closest(&word.to_uppercase(), &known) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("one of {}", known.join(", ")),
    };
    Err(format!("`{word}` is not a GenOps result: {hint}"))
}

fn check_reason_code(word: &str) -> Result<(), String> {
    ReasonCode::parse(word).map(drop)
}

/// A fault at the first place where the query has the word; at its beginning if a view has it.
fn at_word(file: &str, query: &[TokenWithSpan], word: &str, why: String) -> Diagnostic {
    let is_it = |token: &&TokenWithSpan| matches!(&token.token, Token::SingleQuotedString(text) if text == word);
    let note = "GenOps sections 4 and 5 close the sets: no free text";
    match (query.iter().find(is_it), query.first()) {
        (Some(token), _) => Diagnostic::new(file, token.span, why).note(note),
        (None, Some(first)) => {
            Diagnostic::new(file, first.span, why).note("a view that the rule reads says it").note(note)
        }
        (None, None) => Diagnostic::new(file, crate::diagnostic::TextSpan::START, why).note(note),
    }
}

/// The texts that the `index`th output column of `plan` can be, as far as they are constants.
fn words_at(plan: &LogicalPlan, index: usize, words: &mut Found) {
    match plan {
        LogicalPlan::Projection(p) => words_of(&p.input, &p.expr[index], words),
        LogicalPlan::SubqueryAlias(a) => words_at(&a.input, index, words),
        LogicalPlan::Filter(f) => words_at(&f.input, index, words),
        LogicalPlan::Distinct(d) => words_at(d.input(), index, words),
        LogicalPlan::Window(w) if index < w.input.schema().fields().len() => words_at(&w.input, index, words),
        LogicalPlan::Aggregate(a) => match a.group_expr.get(index) {
            Some(key) => words_of(&a.input, key, words),
            None => words.is_computed = true,
        },
        LogicalPlan::Join(join) => {
            let column = Column::from(join.schema.qualified_field(index));
            let sides = [&join.left, &join.right].into_iter();
            let mut sides = sides.filter(|side| side.schema().maybe_index_of_column(&column).is_some()).peekable();
            words.is_computed |= sides.peek().is_none();
            sides.for_each(|side| words_in(side, &column, words));
        }
        _ => words.is_computed = true,
    }
}

fn words_in(plan: &LogicalPlan, column: &Column, words: &mut Found) {
    match plan.schema().maybe_index_of_column(column) {
        Some(index) => words_at(plan, index, words),
        None => words.is_computed = true,
    }
}

fn words_of(input: &LogicalPlan, expr: &Expr, words: &mut Found) {
    match expr {
        Expr::Literal(value, _) => words.said.extend(value.try_as_str().flatten().map(str::to_owned)),
        Expr::Alias(alias) => words_of(input, &alias.expr, words),
        Expr::Cast(cast) => words_of(input, &cast.expr, words),
        Expr::Column(column) => words_in(input, column, words),
        Expr::Case(case) => {
            let branches = case.when_then_expr.iter().map(|(_, then)| then).chain(&case.else_expr);
            branches.for_each(|branch| words_of(input, branch, words));
        }
        Expr::ScalarFunction(function) if ["coalesce", "nvl"].contains(&function.name()) => {
            function.args.iter().for_each(|arg| words_of(input, arg, words));
        }
        _ => words.is_computed = true,
    }
}
