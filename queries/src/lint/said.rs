//! What the head of a rule says, and what its rows say: description, owner, action, result, reason code.

use lictor_schemas::genops::{Action, PolicyResult, ReasonCode};

use super::{Lint, Linted, Warning};
use crate::rows::implied_result;

pub(super) fn lint(rule: &Linted<'_>) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let (name, name_span) = (&rule.text.name, rule.text.name_span);
    if rule.text.description.is_empty() {
        let fault = rule.at(name_span, format!("rule `{name}` has no description"));
        let fault = fault.help("write a comment right above it: every event carries it");
        warnings.push(Lint::MissingDescription.warn(fault));
    }
    if rule.head.owner.is_empty() {
        let fault = rule.at(name_span, format!("rule `{name}` has no owner"));
        let fault = fault.help("say whom to ask: owner = 'finops'");
        warnings.push(Lint::MissingOwner.warn(fault));
    }
    warnings.extend(mismatched_action(rule));
    warnings.extend(mismatched_codes(rule));
    warnings
}

/// Results that the action does not let happen, and an action that no result asks for.
fn mismatched_action(rule: &Linted<'_>) -> Vec<Warning> {
    let action = rule.head.action;
    let most = implied_result(action);
    let results: Vec<PolicyResult> = rule.words.results.iter().filter_map(|word| PolicyResult::parse(word)).collect();
    let mut warnings = Vec::new();
    for result in results.iter().filter(|result| **result > most) {
        let message =
            format!("the rule says {result}, and its action is {action}: nothing more than that is asked for");
        let fault = rule.at(rule.word_span(&[result.as_str()]), message);
        let needed = Action::ALL.iter().find(|action| implied_result(**action) == *result).unwrap_or(&Action::Block);
        let help = format!("write action = '{needed}', or say {most}");
        warnings.push(Lint::ActionMismatch.warn(fault.help(help)));
    }
    let strongest = results.iter().max().filter(|_| rule.words.are_all_results);
    if let Some(strongest) = strongest.filter(|strongest| **strongest < most) {
        let message = format!("action = '{action}' is never asked for: the rule says {strongest} at most");
        let fault = rule.at(rule.option_span("action"), message);
        let help = format!("leave `result` out, or let a row say {most}");
        warnings.push(Lint::ActionMismatch.warn(fault.help(help)));
    }
    warnings
}

fn mismatched_codes(rule: &Linted<'_>) -> Vec<Warning> {
    let said = rule.words.reason_codes.iter().filter_map(|word| ReasonCode::parse(word).ok());
    let of_rows: Vec<ReasonCode> = said.filter(|code| *code != rule.head.reason_code).collect();
    let of_head = std::iter::once((rule.head.reason_code.clone(), rule.option_span("reason_code")));
    let of_rows = of_rows.into_iter().map(|code| {
        let span = rule.word_span(&[code.as_str()]);
        (code, span)
    });
    let action = rule.head.action;
    let warn = |(code, span): (ReasonCode, _)| {
        let (why, help) = mismatch(code.as_str(), action)?;
        let fault = rule.at(span, format!("{code} {why}, and the action is {action}")).help(help);
        Some(Lint::ReasonCodeMismatch.warn(fault.note("controllers record the code on each unit of work (GenOps §5)")))
    };
    of_head.chain(of_rows).filter_map(warn).collect()
}

/// Why a code does not go with an action, and what to write instead.
fn mismatch(code: &str, action: Action) -> Option<(&'static str, &'static str)> {
    let is_milder_than = |least: Action| implied_result(action) < implied_result(least);
    if code.starts_with("POLICY_DENY_") && is_milder_than(Action::Block) {
        return Some(("says that work was denied", "write action = 'block', or a code of your own: x_…"));
    }
    if code == "RATE_LIMITED" && is_milder_than(Action::Throttle) {
        return Some(("says that work was slowed down", "write action = 'throttle', or a code of your own: x_…"));
    }
    if code.starts_with("BUDGET_") && action == Action::Notify {
        return Some((
            "is for whoever spends the budget",
            "write action = 'warn', which tells the caller, or a code of your own: x_…",
        ));
    }
    None
}
