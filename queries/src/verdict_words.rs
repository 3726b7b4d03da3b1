//! The words of `result` and `reason_code` that a rule's text says: both are closed sets of GenOps, so a word that is
//! in neither is a fault of the rule, found before it runs.
//!
//! Only constants can be known: literals, in the branches of a `CASE` and what falls back to them, followed down
//! through subqueries and views. What is computed at run time is judged then ([`crate::rows`]).

use datafusion::common::Column;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};
use lictor_schemas::genops::{PolicyResult, ReasonCode, closest};

use crate::diagnostic::Diagnostic;

/// What a rule says in `result` and `reason_code` and must not; `query` is its text, to find the place in.
pub(crate) fn unknown_words(file: &str, query: &[TokenWithSpan], plan: &LogicalPlan) -> Vec<Diagnostic> {
    let mut faults: Vec<Diagnostic> = Vec::new();
    for (i, field) in plan.schema().fields().iter().enumerate() {
        let check = match field.name().as_str() {
            "result" => check_result,
            "reason_code" => check_reason_code,
            _ => continue,
        };
        let mut words = Vec::new();
        words_at(plan, i, &mut words);
        for word in words {
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
fn words_at(plan: &LogicalPlan, index: usize, words: &mut Vec<String>) {
    match plan {
        LogicalPlan::Projection(p) => words_of(&p.input, &p.expr[index], words),
        LogicalPlan::SubqueryAlias(a) => words_at(&a.input, index, words),
        LogicalPlan::Filter(f) => words_at(&f.input, index, words),
        LogicalPlan::Distinct(d) => words_at(d.input(), index, words),
        LogicalPlan::Window(w) if index < w.input.schema().fields().len() => words_at(&w.input, index, words),
        LogicalPlan::Aggregate(a) => {
            a.group_expr.get(index).into_iter().for_each(|key| words_of(&a.input, key, words));
        }
        LogicalPlan::Join(join) => {
            let column = Column::from(join.schema.qualified_field(index));
            [&join.left, &join.right].into_iter().for_each(|side| words_in(side, &column, words));
        }
        _ => {}
    }
}

fn words_in(plan: &LogicalPlan, column: &Column, words: &mut Vec<String>) {
    if let Some(index) = plan.schema().maybe_index_of_column(column) {
        words_at(plan, index, words);
    }
}

fn words_of(input: &LogicalPlan, expr: &Expr, words: &mut Vec<String>) {
    match expr {
        Expr::Literal(value, _) => words.extend(value.try_as_str().flatten().map(str::to_owned)),
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
        _ => {}
    }
}
