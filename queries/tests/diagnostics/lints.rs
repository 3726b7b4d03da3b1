//! What compiles and is probably not meant.

use lictor_queries::{Lint, Warning, compile};

use super::{HERE, file, loaded, position};

/// What is found in the rule of a file: name, message, and help.
type Found = (Lint, String, Option<String>);

fn warnings(text: &str) -> Vec<Warning> {
    let (set, faults) = compile(&[file("r.sql", text)], &loaded());
    let rendered: String = faults.iter().map(|fault| fault.render(text, false)).collect();
    assert!(faults.is_empty(), "{rendered}");
    set.warnings
}

/// A rule with everything that a head should have, and these options besides.
fn rule(options: &str, query: &str) -> String {
    format!("{}-- Says something.\nCREATE RULE r WITH ({options}, owner = 'finops') AS\n{query};", super::BUDGETS)
}

const WARN: &str = "action = 'warn', reason_code = 'x_test'";

/// The one warning of a file, which must begin at the mark and underline `underlined`.
#[track_caller]
fn found(marked: &str, underlined: &str) -> Found {
    let at = marked.find(HERE).expect("a mark");
    let text = marked.replacen(HERE, "", 1);
    let warnings = warnings(&text);
    let rendered: String = warnings.iter().map(|warning| warning.render(&text, false)).collect();
    assert_eq!(warnings.len(), 1, "{rendered}");
    let Warning { lint, diagnostic } = warnings.into_iter().next().unwrap();
    assert_eq!(diagnostic.span.start, position(&text, at), "{rendered}");
    assert_eq!(diagnostic.span.end, position(&text, at + underlined.len()), "{rendered}");
    (lint, diagnostic.message, diagnostic.help)
}

#[track_caller]
fn clean(text: &str) {
    let warnings = warnings(text);
    let rendered: String = warnings.iter().map(|warning| warning.render(text, false)).collect();
    assert!(warnings.is_empty(), "{rendered}");
}

/// Calls per minute of a team, those `having` it.
fn per_minute(select: &str, having: &str) -> String {
    format!(
        "SELECT s.team, window_start, window_end, {select} FROM TUMBLE(spans, event_time, INTERVAL '1 minute') AS s
         GROUP BY s.team, window_start, window_end {having}"
    )
}

#[test]
fn a_rule_says_what_it_is_for_and_whom_to_ask() {
    let bare = "CREATE RULE /*here*/r WITH (action = 'warn', reason_code = 'x_test', owner = 'a') AS
        SELECT s.team FROM spans AS s;";
    assert_eq!(found(bare, "r").0, Lint::MissingDescription);
    let orphan = "-- Says.\nCREATE RULE /*here*/r WITH (action = 'warn', reason_code = 'x_test') AS
        SELECT s.team FROM spans AS s;";
    let (lint, message, help) = found(orphan, "r");
    assert_eq!((lint, message.as_str()), (Lint::MissingOwner, "rule `r` has no owner"));
    assert_eq!(help.as_deref(), Some("say whom to ask: owner = 'finops'"));
    clean(&rule(WARN, "SELECT s.team FROM spans AS s"));
}

#[test]
fn a_comment_silences_lints_by_name_and_is_no_description() {
    let bare = "CREATE RULE r WITH (action = 'warn', reason_code = 'x_test') AS SELECT s.team FROM spans AS s;";
    clean(&format!("-- lictor: allow(missing_description, missing_owner)\n{bare}"));
    let unknown = format!("-- Says.\n/*here*/-- lictor: allow(missing_owner, missing_test, mising_test)\n{bare}");
    let (lint, message, help) = found(&unknown, "-- lictor: allow(missing_owner, missing_test, mising_test)");
    assert_eq!((lint, message.as_str()), (Lint::UnknownAllow, "there is no lint `mising_test`"));
    assert_eq!(help.as_deref(), Some("write -- lictor: allow(missing_test)"));
}

#[test]
fn conditions_that_are_always_or_never_true_are_found() {
    let always = rule(WARN, &per_minute("count(*) AS observed", "/*here*/HAVING count(*) >= 0"));
    let (lint, message, _) = found(&always, "HAVING");
    assert_eq!(lint, Lint::ConstantCondition);
    assert!(message.ends_with("is always true: it leaves nothing out"), "{message}");

    let silence = rule(WARN, &per_minute("count(*) AS observed", "/*here*/HAVING count(*) = 0"));
    let (lint, message, help) = found(&silence, "HAVING");
    assert!(lint == Lint::ConstantCondition && message.ends_with("is never true: the rule says nothing"), "{message}");
    assert_eq!(help.as_deref(), Some("write GAP FILL FROM a reference table, or GAP FILL FOR INTERVAL '1 day'"));
    let filled = per_minute("count(*) AS observed", "HAVING count(*) = 0 GAP FILL FOR INTERVAL '1 day'");
    clean(&rule(WARN, &filled));
    clean(&rule(WARN, &per_minute("count(*) AS observed", "HAVING count(s.cost_total) = 0")));
    clean(&rule(WARN, &per_minute("count(*) AS observed", "HAVING count(*) >= 2")));

    let literal = rule(WARN, "SELECT s.team FROM spans AS s /*here*/WHERE 1 = 1 AND s.team = 'a'");
    assert_eq!(found(&literal, "WHERE").0, Lint::ConstantCondition);
}

#[test]
fn conditions_that_contradict_each_other_are_found_across_subqueries() {
    let row = rule(WARN, "SELECT s.team FROM spans AS s WHERE s.cost_total > 10 AND /*here*/s.cost_total < 5");
    assert_eq!(found(&row, "s.cost_total").0, Lint::ConstantCondition);
    let inner = per_minute("sum(s.cost_total) AS cost", "HAVING sum(s.cost_total) > 10");
    let query = format!(
        "SELECT c.team, c.window_start, c.window_end, c.cost AS observed FROM ({inner}) AS c WHERE /*here*/c.cost <= 10"
    );
    let (lint, message, _) = found(&rule(WARN, &query), "c.cost");
    assert!(lint == Lint::ConstantCondition && message.contains("never true"), "{message}");
    clean(&rule(WARN, &query.replace("/*here*/", "").replace("c.cost <= 10", "c.cost <= 11")));
}

#[test]
fn what_is_known_of_rows_is_not_known_of_their_groups() {
    let busy = "(SELECT s.team, s.request_model, window_start, window_end, count(*) AS calls
        FROM TUMBLE(spans, event_time, INTERVAL '1 minute') AS s
        GROUP BY s.team, s.request_model, window_start, window_end HAVING count(*) > 10) AS c";
    let query = |having: &str| {
        format!(
            "SELECT c.team, c.window_start, c.window_end, count(*) AS observed FROM {busy}
             GROUP BY c.team, c.window_start, c.window_end HAVING {having}"
        )
    };
    clean(&rule(WARN, &query("count(*) < 5")));
    let marked = query("count(*) < 0").replacen("HAVING", "/*here*/HAVING", 1);
    assert_eq!(found(&rule(WARN, &marked), "HAVING").0, Lint::ConstantCondition);
}

#[test]
fn what_is_known_of_groups_is_known_of_them_beside_a_table() {
    let query = |kind: &str, condition: &str| {
        format!(
            "SELECT c.team, c.window_start, c.window_end, c.calls AS observed FROM ({}) AS c
             {kind} budgets AS b ON b.team = c.team WHERE {condition}",
            per_minute("count(*) AS calls", "HAVING count(*) > 10")
        )
    };
    for kind in ["JOIN", "LEFT JOIN"] {
        clean(&rule(WARN, &query(kind, "c.calls > 12")));
        let never = query(kind, "/*here*/c.calls < 8");
        assert_eq!(found(&rule(WARN, &never), "c.calls").0, Lint::ConstantCondition);
    }
}

#[test]
fn branches_that_no_row_comes_to_are_found() {
    let block = "action = 'block', reason_code = 'BUDGET_EXCEEDED'";
    let query =
        |case: &str| rule(block, &format!("SELECT s.team, {case} AS result FROM spans AS s WHERE s.cost_total > 5"));
    let upside_down =
        "CASE WHEN s.cost_total > 8 THEN 'WARNING' WHEN s.cost_total > 10 THEN /*here*/'BLOCKED' ELSE 'WARNING' END";
    let (lint, message, help) = found(&query(upside_down), "'BLOCKED'");
    assert_eq!(
        (lint, message.as_str()),
        (Lint::UnreachableBranch, "the rule never says `BLOCKED` here: no row comes to that branch")
    );
    assert_eq!(help.as_deref(), Some("put the strictest condition first"));
    let kept_away = "CASE WHEN s.cost_total < 5 THEN /*here*/'WARNING' ELSE 'BLOCKED' END";
    assert_eq!(found(&query(kept_away), "'WARNING'").0, Lint::UnreachableBranch);
    let takes_all = "CASE WHEN s.cost_total > 4 THEN 'BLOCKED' ELSE /*here*/'WARNING' END";
    assert_eq!(found(&query(takes_all), "'WARNING'").0, Lint::UnreachableBranch);
    clean(&query("CASE WHEN s.cost_total > 10 THEN 'BLOCKED' WHEN s.cost_total > 8 THEN 'WARNING' ELSE 'BLOCKED' END"));
    let both = "CASE WHEN s.cost_total > 4 AND s.team = 'a' THEN 'BLOCKED' ELSE 'WARNING' END";
    clean(&query(both));
}

#[test]
fn shares_of_a_threshold_are_compared_with_each_other() {
    let query = |case: &str| {
        let spent = per_minute("sum(s.cost_total) AS cost", "");
        let query = format!(
            "SELECT c.team, c.window_start, c.window_end, {case} AS result FROM ({spent}) AS c
             JOIN budgets AS b ON b.team = c.team WHERE c.cost >= 0.8 * b.usd"
        );
        rule("action = 'block', reason_code = 'BUDGET_EXCEEDED'", &query)
    };
    clean(&query("CASE WHEN c.cost >= b.usd THEN 'BLOCKED' ELSE 'WARNING' END"));
    let upside_down = "CASE WHEN c.cost >= 0.9 * b.usd THEN 'WARNING' WHEN c.cost >= b.usd THEN /*here*/'BLOCKED' END";
    assert_eq!(found(&query(upside_down), "'BLOCKED'").0, Lint::UnreachableBranch);
    let always = "CASE WHEN c.cost >= 0.5 * b.usd THEN 'BLOCKED' ELSE /*here*/'WARNING' END";
    assert_eq!(found(&query(always), "'WARNING'").0, Lint::UnreachableBranch);
}

#[test]
fn floating_point_numbers_are_not_compared_for_equality() {
    let query = "SELECT s.team FROM spans AS s WHERE /*here*/s.cost_total = 0.1";
    let (lint, message, help) = found(&rule(WARN, query), "s.cost_total");
    assert_eq!(lint, Lint::FloatEquality);
    assert!(message.contains("cost_total") && message.ends_with("are rarely equal"), "{message}");
    assert!(help.unwrap().starts_with("compare with >= or <="));
    for query in ["s.cost_total = 0", "s.input_tokens = 3", "s.team = 'a'", "s.input_tokens = 2.5 * 2"] {
        let text = rule(WARN, &format!("SELECT s.team FROM spans AS s WHERE {query}"));
        assert!(warnings(&text).iter().all(|w| w.lint != Lint::FloatEquality), "{query}");
    }
    let joined = "SELECT s.team FROM spans AS s JOIN budgets AS b ON b.team = s.team AND b.usd = s.cost_total";
    assert!(warnings(&rule(WARN, joined)).iter().any(|w| w.lint == Lint::FloatEquality));
}

#[test]
fn keys_with_another_value_in_every_row_are_found() {
    let query = |key: &str, length: &str| {
        format!(
            "SELECT {key}, window_start, window_end, count(*) AS observed
             FROM TUMBLE(spans, event_time, INTERVAL '{length}') AS s GROUP BY {key}, window_start, window_end"
        )
    };
    let (lint, message, _) =
        found(&rule(WARN, &query("s.trace_id", "1 minute").replacen("trace_id", "/*here*/trace_id", 1)), "trace_id");
    assert_eq!(lint, Lint::UnboundedSubject);
    assert_eq!(message, "the rule groups by `trace_id`, which has another value in nearly every row");
    let text = rule(WARN, &query("attr('acme.request')", "1 hour"));
    let lints: Vec<Lint> = warnings(&text).iter().map(|warning| warning.lint).collect();
    assert_eq!(lints, [Lint::UnboundedSubject]);
    clean(&rule(WARN, &query("attr('acme.request')", "5 minutes")));
    clean(&rule(WARN, &query("s.session_id", "1 hour")));
}

#[test]
fn results_fit_the_action() {
    let query = |result: &str| format!("SELECT s.team, {result} AS result FROM spans AS s");
    let (lint, message, help) = found(&rule(WARN, &query("/*here*/'BLOCKED'")), "'BLOCKED'");
    assert_eq!(lint, Lint::ActionMismatch);
    assert_eq!(message, "the rule says BLOCKED, and its action is warn: nothing more than that is asked for");
    assert_eq!(help.as_deref(), Some("write action = 'block', or say WARNING"));
    let never = rule("action = /*here*/'block', reason_code = 'x_test'", &query("'WARNING'"));
    let (lint, message, _) = found(&never, "'block'");
    assert_eq!(lint, Lint::ActionMismatch);
    assert_eq!(message, "action = 'block' is never asked for: the rule says WARNING at most");
    let block = "action = 'block', reason_code = 'x_test'";
    clean(&rule(block, "SELECT s.team FROM spans AS s"));
    clean(&rule(block, &query("coalesce(s.policy_result, 'WARNING')")));
    clean(&rule(block, &query("CASE WHEN s.cost_total > 5 THEN 'BLOCKED' ELSE 'WARNING' END")));
}

#[test]
fn reason_codes_fit_the_action() {
    let query = "SELECT s.team FROM spans AS s";
    let cases = [
        ("warn", "POLICY_DENY_MODEL", "says that work was denied, and the action is warn"),
        ("warn", "RATE_LIMITED", "says that work was slowed down, and the action is warn"),
        ("notify", "BUDGET_EXCEEDED", "is for whoever spends the budget, and the action is notify"),
    ];
    for (action, code, why) in cases {
        let (lint, message, _) =
            found(&rule(&format!("action = '{action}', reason_code = /*here*/'{code}'"), query), &format!("'{code}'"));
        assert_eq!((lint, message), (Lint::ReasonCodeMismatch, format!("{code} {why}")));
    }
    for (action, code) in
        [("block", "POLICY_DENY_MODEL"), ("block", "RATE_LIMITED"), ("warn", "BUDGET_EXCEEDED"), ("notify", "x_any")]
    {
        clean(&rule(&format!("action = '{action}', reason_code = '{code}'"), query));
    }
    let by_row = "SELECT s.team, /*here*/'POLICY_DENY_REGION' AS reason_code FROM spans AS s";
    assert_eq!(found(&rule(WARN, by_row), "'POLICY_DENY_REGION'").0, Lint::ReasonCodeMismatch);
}

#[test]
fn a_warning_is_rendered_with_the_name_of_its_lint() {
    let text = rule(WARN, "SELECT s.team FROM spans AS s WHERE s.cost_total = 0.1");
    let rendered = warnings(&text)[0].render(&text, false);
    assert!(rendered.starts_with("warning[float_equality]: "), "{rendered}");
    assert!(rendered.contains("^") && rendered.contains("= help: compare"), "{rendered}");
}

#[test]
fn every_lint_has_a_name_of_its_own() {
    for lint in Lint::ALL {
        assert_eq!(Lint::parse(lint.name()), Some(*lint));
        assert!(!lint.about().is_empty());
    }
    assert_eq!(Lint::parse("no_such_lint"), None);
}

#[test]
fn the_readme_names_every_lint() {
    let readme = include_str!("../../../README.md");
    let table: Vec<&str> = readme.lines().filter(|line| line.starts_with("| `")).collect();
    for lint in Lint::ALL {
        let name = format!("`{}`", lint.name());
        assert!(table.iter().any(|line| line.split(" | ").next().is_some_and(|names| names.contains(&name))), "{name}");
    }
}
