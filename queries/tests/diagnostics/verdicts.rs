//! Words that a rule says in `result` and `reason_code`, and options of its life that do not fit.

use super::{BUDGETS, compiled, fault, file, per_minute, rule};

const NOTE: &str = "GenOps sections 4 and 5 close the sets: no free text";

/// The fault of a query, and whether a view has it.
#[track_caller]
fn word_refused(query: &str, word: &str, message: &str) {
    let fault = fault(&rule(query), word, message);
    assert_eq!((fault.notes, fault.help), (vec![NOTE.to_owned()], None));
}

#[test]
fn a_result_that_the_rule_says_is_a_word_of_genops() {
    let message = "`BLOCKD` is not a GenOps result: did you mean `BLOCKED`?";
    word_refused("SELECT team, /*here*/'BLOCKD' AS result FROM spans", "'BLOCKD'", message);
    let message = "`warn` is not a GenOps result: did you mean `WARNING`?";
    let case = "CASE WHEN cost_total > 5 THEN 'BLOCKED' ELSE /*here*/'warn' END AS result";
    word_refused(&format!("SELECT team, {case} FROM spans"), "'warn'", message);
    let message = "`no` is not a GenOps result: one of BLOCKED, RATE_LIMITED, WARNING, ALLOWED";
    word_refused(&per_minute("coalesce(min(name), /*here*/'no') AS result", ""), "'no'", message);
}

#[test]
fn a_reason_code_that_the_rule_says_is_of_the_taxonomy() {
    let message = "`BUDGET_EXEEDED` is not a GenOps reason code: did you mean `BUDGET_EXCEEDED`, or the extension code \
                   `x_budget_exeeded`?";
    let query =
        "SELECT c.team, c.reason_code FROM (SELECT team, /*here*/'BUDGET_EXEEDED' AS reason_code FROM spans) AS c";
    word_refused(query, "'BUDGET_EXEEDED'", message);
    let message = "`x_Dear` is not a GenOps reason code: `x_dear` would be an extension code";
    let query = "SELECT team, CASE WHEN cost_total > 5 THEN 'x_fine' ELSE CASE name WHEN 'a' THEN 'RATE_LIMITED' \
                 WHEN 'no code' THEN /*here*/'x_Dear' END END AS reason_code FROM spans";
    word_refused(query, "'x_Dear'", message);
}

#[test]
fn a_word_of_a_view_is_told_where_the_rule_reads_it() {
    let view = "CREATE VIEW judged AS SELECT team, 'NO' AS result FROM spans;\n";
    let text = format!("{view}{}", rule("/*here*/SELECT team, result FROM judged"));
    let message = "`NO` is not a GenOps result: one of BLOCKED, RATE_LIMITED, WARNING, ALLOWED";
    let fault = fault(&text, "SELECT", message);
    assert_eq!(fault.notes, ["a view that the rule reads says it", NOTE]);
}

#[test]
fn what_is_computed_is_judged_at_run_time() {
    let computed = "SELECT s.team, upper(s.name) AS result, nullif(s.name, 'free text') AS reason_code FROM spans AS s";
    let set = compiled(&[file("r.sql", &rule(computed))]);
    assert_eq!(set.rules.len(), 1);
}

/// A rule over windows that speaks on update, with this option.
fn held(option: &str, window: &str) -> String {
    let query = per_minute("count(*) AS observed", "EMIT ON UPDATE");
    let query = query.replace("TUMBLE(spans, event_time, INTERVAL '1 minute')", window);
    format!("{BUDGETS}CREATE RULE r WITH (action = 'warn', reason_code = 'x_test', {option}) AS\n{query};")
}

#[test]
fn a_hold_that_no_running_window_reaches_is_refused() {
    let help = "let windows overlap: HOP(t, event_time, slide, size); or speak once per window: EMIT ON CLOSE";
    let message = "for = '10 m' is never reached: what is found in a window ends with it";
    let never = [
        "TUMBLE(spans, event_time, INTERVAL '10 minutes')",
        "CUMULATE(spans, event_time, INTERVAL '1 minute', INTERVAL '10 minutes')",
    ];
    for window in never {
        let fault = fault(&held("for = /*here*/'10 m'", window), "'10 m'", message);
        assert_eq!((fault.help.as_deref(), fault.notes.len()), (Some(help), 1));
    }
    let message = "for = '2 days' is never reached: what is found in a window ends with it";
    fault(&held("for = /*here*/'2 days'", "CALENDAR(spans, event_time, 'day', 'Europe/Rome')"), "'2 days'", message);
    let reached = [
        ("for = '9 m'", "TUMBLE(spans, event_time, INTERVAL '10 minutes')"),
        ("for = '1h'", "HOP(spans, event_time, INTERVAL '1 minute', INTERVAL '10 minutes')"),
        ("for = '1h'", "SESSION(spans, event_time, INTERVAL '10 minutes')"),
        ("for = '24h'", "CALENDAR(spans, event_time, 'day', 'Europe/Rome')"),
    ];
    for (option, window) in reached {
        compiled(&[file("r.sql", &held(option, window))]);
    }
    let on_close = held("for = '1h'", "TUMBLE(spans, event_time, INTERVAL '10 minutes')").replace("UPDATE", "CLOSE");
    compiled(&[file("r.sql", &on_close)]);
}
