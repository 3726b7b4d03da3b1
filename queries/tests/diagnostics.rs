//! What rule authors are told: the message, the place, and what to write instead.
//!
//! `/*here*/` in a rule marks where the fault must begin; what must be underlined stands beside it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "diagnostics/lints.rs"]
mod lints;
#[path = "diagnostics/refusals.rs"]
mod refusals;
#[path = "diagnostics/sequences.rs"]
mod sequences;
#[path = "diagnostics/unshared.rs"]
mod unshared;
#[path = "diagnostics/verdicts.rs"]
mod verdicts;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;
use lictor_queries::{Diagnostic, Position, References, RuleFile, RuleKind, RuleSet, compile};

const HERE: &str = "/*here*/";
const BUDGETS: &str =
    "CREATE EXTERNAL TABLE budgets (team VARCHAR, usd DOUBLE) STORED AS CSV LOCATION 'budgets.csv';\n";

fn loaded() -> References {
    let fields = vec![Field::new("team", DataType::Utf8View, true), Field::new("usd", DataType::Float64, true)];
    BTreeMap::from([("budgets".to_owned(), Ok(RecordBatch::new_empty(Arc::new(Schema::new(fields)))))])
}

fn file(name: &str, text: &str) -> RuleFile {
    RuleFile { file: name.to_owned(), text: text.to_owned() }
}

fn rule(query: &str) -> String {
    format!("{BUDGETS}CREATE RULE r WITH (action = 'warn', reason_code = 'x_test') AS\n{query};")
}

fn position(text: &str, offset: usize) -> Position {
    let before = &text[..offset];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap().chars().count() + 1;
    Position { line: u64::try_from(line).unwrap(), column: u64::try_from(column).unwrap() }
}

/// The one fault of a file, which must begin at the mark and underline `underlined`.
#[track_caller]
fn fault(marked: &str, underlined: &str, message: &str) -> Diagnostic {
    let at = marked.find(HERE).expect("a mark");
    let text = marked.replacen(HERE, "", 1);
    assert!(text[at..].starts_with(underlined), "the mark stands before {:?}", &text[at..]);
    let (set, faults) = compile(&[file("r.sql", &text)], &loaded());
    let rendered: String = faults.iter().map(|fault| fault.render(&text, false)).collect();
    assert_eq!(faults.len(), 1, "{rendered}");
    let fault = faults[0].clone();
    assert_eq!(fault.message, message, "{rendered}");
    assert_eq!(fault.span.start, position(&text, at), "{rendered}");
    assert_eq!(fault.span.end, position(&text, at + underlined.len()), "{rendered}");
    assert!(set.rules.is_empty(), "a faulty rule is left out");
    fault
}

/// The fault of a query, and its help.
#[track_caller]
fn refused(query: &str, underlined: &str, message: &str, help: &str) {
    let fault = fault(&rule(query), underlined, message);
    assert_eq!(fault.help.as_deref(), Some(help));
}

/// The fault of a query for which the planner has no help.
#[track_caller]
fn refused_plainly(query: &str, underlined: &str, message: &str) {
    fault(&rule(query), underlined, message);
}

#[track_caller]
fn compiled(files: &[RuleFile]) -> RuleSet {
    let (set, faults) = compile(files, &loaded());
    let rendered: String = faults.iter().map(|fault| fault.render("", false)).collect();
    assert!(faults.is_empty(), "{rendered}");
    set
}

#[test]
fn an_unknown_table_is_named_with_its_nearest() {
    let message = "there is no table `spanns`";
    refused("SELECT s.team FROM /*here*/spanns AS s", "spanns AS s", message, "did you mean `spans`?");
    let windowed = "SELECT team, window_start, window_end FROM TUMBLE(/*here*/spanns, event_time, INTERVAL '1 hour')
        GROUP BY team, window_start, window_end";
    refused(windowed, "spanns", message, "did you mean `spans`?");
}

#[test]
fn an_unknown_table_without_a_neighbour_comes_with_those_that_exist() {
    let fault = fault(&rule("SELECT x.a FROM /*here*/invoices AS x"), "invoices AS x", "there is no table `invoices`");
    assert_eq!(
        (fault.help, fault.notes),
        (None, vec!["tables: spans, span_events, logs, metrics, budgets".to_owned()])
    );
}

#[test]
fn an_unknown_column_comes_with_its_neighbours() {
    let query = "SELECT s.team,\n       /*here*/s.cost_totle FROM spans AS s";
    let fault = fault(&rule(query), "s.cost_totle", "column 'cost_totle' not found in 's'");
    assert!(fault.notes.contains(&"possible column s.cost_total".to_owned()), "{:?}", fault.notes);
    assert_eq!(fault.help.as_deref(), Some("did you mean `s.cost_total`?"));
}

#[test]
fn an_unknown_function_comes_with_its_neighbours() {
    let cases =
        [("lenght(s.team) > 3", "lenght", "`length`"), ("resorce_attr('a') = 'b'", "resorce_attr", "`resource_attr`")];
    for (condition, name, near) in cases {
        let query = format!("SELECT s.team FROM spans AS s WHERE /*here*/{condition}");
        refused(&query, name, &format!("there is no function `{name}`"), &format!("did you mean {near}?"));
    }
    let message = "there is no function `cont`";
    refused(&per_minute("/*here*/cont(*) AS n", ""), "cont", message, "did you mean `count` or `cot`?");
    let query = "SELECT team, window_start, window_end FROM /*here*/TUMBEL(spans, event_time, INTERVAL '1 hour')
        GROUP BY team, window_start, window_end";
    refused(query, "TUMBEL", "there is no function `TUMBEL` in FROM", "did you mean `TUMBLE`?");
    refused_plainly("SELECT s.team FROM spans AS s WHERE /*here*/quux(s.team)", "quux", "there is no function `quux`");
}

#[test]
fn a_column_that_is_an_attribute_is_told_by_its_column() {
    let query = "SELECT s.team FROM spans AS s WHERE /*here*/\"gen_ai.usage.input_tokens\" > 5";
    let message = "column 'gen_ai.usage.input_tokens' not found";
    let help = "the attribute `gen_ai.usage.input_tokens` is in the column `input_tokens`";
    let underlined = "\"gen_ai.usage.input_tokens\"";
    refused(query, underlined, message, help);
    let query = query.replace("gen_ai.usage.input_tokens", "acme.risk");
    let help = "an attribute is reached with attr('acme.risk')";
    refused(&query, "\"acme.risk\"", "column 'acme.risk' not found", help);
}

#[test]
fn a_misspelt_word_of_an_option_comes_with_its_neighbour() {
    let marked =
        "CREATE RULE r WITH (action = /*here*/'blok', reason_code = 'x_test') AS SELECT s.team FROM spans AS s;";
    let fault = fault(marked, "'blok'", "action = 'blok': expected block, throttle, warn or notify");
    assert_eq!(fault.help.as_deref(), Some("did you mean 'block'?"));
}

#[test]
fn a_syntax_error_points_at_the_word_that_does_not_fit() {
    refused_plainly("SELECT s.team FRM /*here*/spans AS s", "s", "Expected: the end of the query, found: spans");
    refused_plainly("SELECT team FROM spans /*here*/SELECT 1", "S", "Expected: the end of the query, found: SELECT");
}

#[test]
fn an_ambiguous_column_is_told_from_which_tables() {
    let query = "SELECT /*here*/team FROM spans AS s JOIN budgets AS b ON b.team = s.team";
    let fault = fault(&rule(query), "team", "column 'team' is ambiguous");
    assert_eq!(fault.notes, ["possible column s.team", "possible column b.team"]);
}

#[test]
fn what_would_grow_for_ever_is_refused() {
    let windows = "read through a window: FROM TUMBLE(spans, event_time, INTERVAL '1 hour') … GROUP BY …, \
                   window_start, window_end";
    let message = "GROUP BY without a window would grow for ever";
    refused("SELECT team, count(*) FROM spans /*here*/GROUP BY team", "GROUP", message, windows);
    refused("/*here*/SELECT count(*) FROM spans", "SELECT", message, windows);
    let message = "DISTINCT over a stream must remember every row for ever";
    let help = "say how long: SELECT DISTINCT ON (key) … WITHIN INTERVAL '10 minutes'; or count distinct values in a \
                window: count(DISTINCT x) … GROUP BY …, window_start, window_end";
    refused("SELECT /*here*/DISTINCT team FROM spans", "DISTINCT", message, help);
    let message = "the rule reads two streams";
    let help = "join them on an equal key and a bound in time, or split the rule in two";
    refused("SELECT team /*here*/FROM spans UNION ALL SELECT team FROM logs", "FROM", message, help);
    let message = "a subquery in an expression reads telemetry";
    let query = "SELECT team FROM spans WHERE trace_id /*here*/IN (SELECT trace_id FROM logs)";
    refused(query, "IN", message, "compare with a reference table, or aggregate in FROM");
}

#[test]
fn order_and_limit_are_refused() {
    let message = "ORDER BY and LIMIT mean nothing for a result that never ends";
    let help = "leave it out: events carry their time; for the top n of a window filter on row_number() OVER \
                (PARTITION BY window_end ORDER BY …)";
    refused("SELECT team FROM spans /*here*/ORDER BY team", "ORDER", message, help);
    refused("/*here*/SELECT team FROM spans LIMIT 10", "SELECT", message, help);
    refused(&per_minute("count(*) AS n", "/*here*/ORDER BY n"), "ORDER", message, help);
}

/// An aggregate over minutes per team.
fn per_minute(aggregate: &str, end: &str) -> String {
    format!(
        "SELECT team, window_start, window_end, {aggregate} FROM TUMBLE(spans, event_time, INTERVAL '1 minute')
         GROUP BY team, window_start, window_end {end}"
    )
}

/// A window function over the calls per minute.
fn over(function: &str, end: &str) -> String {
    let counted = per_minute("count(*) AS n", "");
    format!("SELECT c.team, c.window_start, c.window_end, {function} AS observed FROM ({counted}) AS c {end}")
}

#[test]
fn over_needs_windows_and_an_end_to_its_past() {
    let raw =
        "SELECT s.team, lag(s.cost_total) /*here*/OVER (PARTITION BY s.team ORDER BY s.event_time) FROM spans AS s";
    let help = "aggregate in a subquery over TUMBLE or HOP first, then use OVER on its rows";
    refused(raw, "OVER", "OVER needs window results, not telemetry rows", help);

    let bounded = "bound it: ROWS BETWEEN 12 PRECEDING AND 1 PRECEDING, or lag(x, n)";
    let message = "the window function looks back to the beginning of time";
    let order = "PARTITION BY c.team ORDER BY c.window_end";
    refused(&over(&format!("avg(c.n) /*here*/OVER ({order})"), ""), "OVER", message, bounded);
    let frame = format!("avg(c.n) /*here*/OVER ({order} ROWS UNBOUNDED PRECEDING)");
    refused(&over(&frame, ""), "OVER", message, bounded);

    let message = "the frame reaches into the future";
    let frame = format!("avg(c.n) /*here*/OVER ({order} ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING)");
    refused(&over(&frame, ""), "OVER", message, bounded);
    let lead = format!("lead(c.n) /*here*/OVER ({order})");
    refused(&over(&lead, ""), "OVER", "lead looks into the future", "use lag on the later row");

    let message = "OVER must follow the windows in time";
    let help = "order by window_end, or partition by it to stay within one window";
    refused(&over("lag(c.n) /*here*/OVER (PARTITION BY c.team ORDER BY c.n)", ""), "OVER", message, help);

    let help = "give the expression a name in a subquery";
    let function = "lag(c.n) OVER (/*here*/PARTITION BY upper(c.team) ORDER BY c.window_end)";
    refused(&over(function, ""), "PARTITION", "PARTITION BY in OVER must name columns", help);
    let function = "lag(c.n) OVER (PARTITION BY c.team /*here*/ORDER BY c.window_end, -c.n)";
    refused(&over(function, ""), "ORDER", "ORDER BY in OVER must name columns", help);
}

#[test]
fn emission_must_fit_the_query() {
    let lag = "lag(c.n) OVER (PARTITION BY c.team ORDER BY c.window_end)";
    let message = "OVER compares whole windows, which EMIT ON UPDATE does not wait for";
    let help = "write EMIT ON CLOSE, or compare with a threshold instead of the past";
    refused(&over(lag, "\n/*here*/EMIT ON UPDATE"), "EMIT", message, help);

    let counted = per_minute("count(*) AS n", "");
    let query = format!(
        "SELECT c.team, c.window_start, c.window_end, max(c.n) FROM ({counted}) AS c
         GROUP BY c.team, c.window_start, c.window_end /*here*/EMIT ON UPDATE"
    );
    let message = "a second aggregate needs all groups of the window, which EMIT ON UPDATE does not wait for";
    refused(&query, "EMIT", message, "write EMIT ON CLOSE");

    let message = "EMIT has no meaning for a rule without a window";
    let help = "leave it out: every row is judged as it arrives";
    refused("SELECT team FROM spans /*here*/EMIT ON CLOSE", "EMIT", message, help);

    let message = "expected EMIT ON CLOSE or EMIT ON UPDATE at the end of the rule";
    refused_plainly(&per_minute("count(*)", "/*here*/EMIT AT ONCE"), "EMIT", message);
}

#[test]
fn a_group_needs_the_whole_window() {
    let minute = "FROM TUMBLE(spans, event_time, INTERVAL '1 minute')";
    let message = "the GROUP BY has only one of the window's bounds";
    let query = format!("SELECT team, window_start, count(*) {minute} /*here*/GROUP BY team, window_start");
    refused(&query, "GROUP", message, "group by window_start, window_end");

    let query = format!("SELECT team, count(*) {minute} /*here*/GROUP BY team");
    refused(&query, "GROUP", "the GROUP BY leaves the window out", "group by window_start, window_end too");

    let twice = "/*here*/GROUP BY team, team, window_start, window_end";
    let query = format!("SELECT team, window_start, window_end {minute} {twice}");
    refused(&query, "GROUP", "GROUP BY has `spans.team` twice", "leave one of them out");

    let query = "SELECT team, window_start /*here*/FROM TUMBLE(spans, event_time, INTERVAL '1 minute')";
    let help = "group by the window: GROUP BY …, window_start, window_end";
    refused(query, "FROM", "the window has no GROUP BY", help);

    // The planner does not say which of the two it is: the first is underlined.
    let counted = per_minute("count(*) AS n", "").replace("GROUP", "/*here*/GROUP");
    let query = format!("SELECT c.team, max(c.n) FROM ({counted}) AS c GROUP BY c.team");
    let help = "group by window_start, window_end in it too";
    refused(&query, "GROUP", "the second GROUP BY leaves the window out", help);

    let query = "SELECT team, window_start, window_end, max(event_time - window_start)
        FROM HOP(spans, event_time, INTERVAL '1 minute', INTERVAL '2 minutes')
        /*here*/GROUP BY team, window_start, window_end";
    let message = "the window's bounds are not known inside the aggregate of overlapping windows";
    refused(query, "GROUP", message, "use window_start and window_end above the aggregate, in HAVING or SELECT");
}

#[test]
fn a_violation_says_whom_it_is_about_and_when() {
    let minute = "FROM TUMBLE(spans, event_time, INTERVAL '1 minute')";
    let query = format!(
        "/*here*/SELECT team, window_start, window_end, count(*) {minute}
         GROUP BY team, region, window_start, window_end"
    );
    let message = "group key `region` is not selected, so a violation would not say whom it is about";
    refused(&query, "SELECT", message, "add region to the SELECT");

    let query = format!("/*here*/SELECT team, window_start, count(*) {minute} GROUP BY team, window_start, window_end");
    let message = "the rule does not say which window a row belongs to";
    refused(&query, "SELECT", message, "select window_start and window_end");

    let message = "the rule has no subject: a directive with an empty selector would hit everybody";
    let query = format!("/*here*/SELECT window_start, window_end, count(*) {minute} GROUP BY window_start, window_end");
    let help = "group by what a controller can act on (team, session_id, …) and select it";
    refused(&query, "SELECT", message, help);
    let help = "select a text column that a controller can act on: team, request_model, session_id, …";
    refused("/*here*/SELECT cost_total AS observed FROM spans", "SELECT", message, help);
}

#[test]
fn functions_with_another_value_at_every_call_are_refused() {
    for function in ["now()", "random()", "current_date", "uuid()"] {
        let name = function.trim_end_matches("()");
        let message = format!("{name}() has another value at every call, so a replay would give other events");
        let query = format!("/*here*/SELECT team FROM spans WHERE concat({function}, '') <> team");
        refused(&query, "SELECT", &message, "use event_time, window_start or window_end");
    }
}

#[test]
fn windows_have_lengths_that_work() {
    let windowed = |window: &str| {
        format!("/*here*/SELECT team, window_start, window_end FROM {window} GROUP BY team, window_start, window_end")
    };
    let (tumble, hop) =
        ("TUMBLE(table, event_time, size [, offset])", "HOP(table, event_time, slide, size [, offset])");
    let cases = [
        (
            "TUMBLE(spans, event_time, INTERVAL '1 month')",
            format!(
                "months differ in length: {tumble} takes days or shorter; for months write \
                 CALENDAR(t, event_time, 'month', 'UTC')"
            ),
        ),
        (
            "TUMBLE(spans, event_time, 60)",
            format!("`Int64(60)` is no length of time: {tumble} takes literals such as INTERVAL '5 minutes'"),
        ),
        ("TUMBLE(spans, event_time, INTERVAL '0 s')", format!("the lengths in {tumble} must be greater than zero")),
        (
            "HOP(spans, event_time, INTERVAL '2 minutes', INTERVAL '1 minute')",
            format!("the slide in {hop} is longer than the size: rows between windows would be lost"),
        ),
        ("HOP(spans, event_time, INTERVAL '2 minutes')", format!("{hop} takes 4 or 5 arguments, not 3")),
        (
            "HOP(spans, event_time, INTERVAL '1 s', INTERVAL '1 day')",
            format!("the lengths in {hop} make 86400 panes per window, at most 10000 are kept"),
        ),
        (
            "TUMBLE(spans, start_time, INTERVAL '1 hour')",
            "windows follow event_time, not `spans.start_time`: by it rows are late and windows close".to_owned(),
        ),
        (
            "TUMBLE(spans, team, INTERVAL '1 hour')",
            "windows follow event_time, not `spans.team`: by it rows are late and windows close".to_owned(),
        ),
    ];
    for (window, message) in cases {
        refused_plainly(&windowed(window), "SELECT", &message);
    }
}

#[test]
fn windows_of_the_calendar_have_a_unit_and_a_zone_and_cumulating_ones_whole_steps() {
    let calendar = "CALENDAR(table, event_time, 'hour|day|week|month|quarter|year', 'zone' or a column)";
    let cases = [
        (
            "CALENDAR(spans, event_time, 'fortnight', 'Europe/Rome')",
            "'fortnight' is no unit of the calendar: it has hour, day, week, month, quarter, year".to_owned(),
        ),
        (
            "CALENDAR(spans, event_time, 'day', 'Europe/Roma')",
            "'Europe/Roma' is no IANA time zone, did you mean 'Europe/Rome'?".to_owned(),
        ),
        (
            "CALENDAR(spans, event_time, 'day', cost_total)",
            "`spans.cost_total` is Float64, and names of time zones are text".to_owned(),
        ),
        ("CALENDAR(spans, event_time, 'day', 9)", "`Int64(9)` is no time zone: write it in single quotes".to_owned()),
        (
            "CALENDAR(spans, event_time, team, team)",
            "`spans.team` is no unit of the calendar: write it in single quotes".to_owned(),
        ),
        ("CALENDAR(spans, event_time, 'day')", format!("{calendar} takes 4 arguments, not 3")),
        (
            "CUMULATE(spans, event_time, INTERVAL '7 minutes', INTERVAL '1 hour')",
            "the size in CUMULATE(table, event_time, step, size [, offset]) is no multiple of the step".to_owned(),
        ),
    ];
    for (window, message) in cases {
        let query = "/*here*/SELECT team, window_start, window_end FROM WINDOW GROUP BY team, window_start, window_end";
        refused_plainly(&query.replace("WINDOW G", &format!("{window} G")), "SELECT", &message);
    }
}

#[test]
fn gaps_are_filled_in_closed_windows_with_keys_that_are_known() {
    let query = per_minute("count(*) AS observed", "/*here*/GAP FILL FROM budgts EMIT ON CLOSE");
    refused(&query, "GAP", "there is no reference table `budgts` to fill gaps from", "did you mean `budgets`?");
    let query = per_minute("count(*) AS observed", "/*here*/GAP FILL FOR INTERVAL 'long' EMIT ON CLOSE");
    refused(&query, "GAP", "`long` is no length of time", "write a length of time such as '1 day' or '90 minutes'");
    let query = per_minute("count(*) AS observed", "/*here*/GAP FILL FROM budgets EMIT ON UPDATE");
    let help = "write EMIT ON CLOSE: that a key has no rows is known when its window has ended";
    refused(&query, "GAP", "GAP FILL does not go with EMIT ON UPDATE", help);
    let query = per_minute("count(*) AS observed", "/*here*/GAP FILL FROM budgets").replace("team,", "region,");
    let help = "let the table have a column of every group key";
    refused(&query, "GAP", "reference table `budgets` has no column `region`, which the rule groups by", help);
    let query = "SELECT team, cost_total AS observed FROM spans /*here*/GAP FILL FROM budgets";
    refused(query, "GAP", "GAP FILL has no meaning for a rule without a window", "leave it out");
}

#[test]
fn telemetry_decides_which_rows_a_join_gives() {
    let query = "SELECT b.team FROM spans AS s RIGHT /*here*/JOIN budgets AS b ON b.team = s.team";
    let message = "a Right join would also give rows of the reference table that no telemetry touched";
    refused(query, "JOIN", message, "put the telemetry first: FROM spans … LEFT JOIN reference …");
    let help = "name spans, span_events, logs or metrics in FROM";
    refused("SELECT team /*here*/FROM budgets", "FROM", "the rule reads no telemetry", help);
}

#[test]
fn all_faults_of_a_head_come_at_once() {
    let text = "CREATE RULE Bad WITH (akcion = 'block', severity = 'loud', reason_code = 'because', ttl = '5 weeks',
        mode = 'dry', owner = 'a', owner = 'b') AS SELECT team FROM spans;";
    let (set, faults) = compile(&[file("r.sql", text)], &loaded());
    let found: Vec<_> = faults.iter().map(Diagnostic::summary).collect();
    let expected = [
        "r.sql:1:13: rule `bad` has no action",
        "r.sql:1:23: unknown rule option `akcion`",
        "r.sql:1:52: severity = 'loud': expected info, warning, error or critical",
        "r.sql:1:74: ",
        "r.sql:1:91: ttl = '5 weeks': expected a duration such as '10 minutes'",
        "r.sql:2:16: mode = 'dry': expected enforce or shadow",
        "r.sql:2:36: option `owner` is given twice",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found}\n{expected}");
    }
    assert_eq!(faults[1].help.as_deref(), Some("did you mean `action`?"));
    assert!(set.rules.is_empty());
}

#[test]
fn good_rules_compile_beside_faulty_ones_of_the_same_and_of_other_files() {
    let good = |name: &str| {
        format!("CREATE RULE {name} WITH (action = 'warn', reason_code = 'x_test') AS SELECT team FROM spans;")
    };
    let files = [
        file("a.sql", &format!("{}\nCREATE RULE broken AS SELECT;\n{}", good("a1"), good("a2"))),
        file("b/no.sql", "CREATE RULE 'quoted' AS SELECT 1;\nDROP TABLE spans;"),
        file("c.sql", &format!("CREATE VIEW v AS SELECT * FROM nowhere;\n{}", good("c"))),
        file("d.sql", "CREATE RULE text WITH (action = 'warn, reason_code = 'x') AS SELECT 1;"),
    ];
    let (set, faults) = compile(&files, &loaded());
    let names: Vec<_> = set.rules.iter().map(|rule| rule.header.name.as_str()).collect();
    assert_eq!(names, ["a1", "a2", "c"]);
    let of: Vec<_> = faults.iter().map(|fault| fault.file.as_str()).collect();
    assert!(of.is_sorted(), "{of:?}");
    for (name, count) in [("a.sql", 3), ("b/no.sql", 2), ("c.sql", 1), ("d.sql", 1)] {
        let found: Vec<_> = faults.iter().filter(|f| f.file == name).map(Diagnostic::summary).collect();
        assert_eq!(found.len(), count, "{found:#?}");
    }
}

#[test]
fn a_rule_name_is_taken_once() {
    let one = "CREATE RULE r WITH (action = 'warn', reason_code = 'x_test') AS SELECT team FROM spans;";
    let (set, faults) = compile(&[file("a.sql", one), file("b.sql", one)], &loaded());
    assert_eq!(set.rules.len(), 1);
    let found: Vec<_> = faults.iter().map(Diagnostic::summary).collect();
    assert_eq!(found, ["b.sql:1:13: rule `r` is already defined in a.sql"]);
}

#[test]
fn a_kafka_table_without_columns_is_told_what_to_write() {
    let fault = fault(
        "CREATE EXTERNAL TABLE /*here*/teams STORED AS KAFKA LOCATION 'acme.teams';",
        "teams",
        "reference table `teams` is a Kafka topic and declares no columns",
    );
    let help = "write CREATE EXTERNAL TABLE teams (column TYPE, …) STORED AS KAFKA LOCATION 'acme.teams'";
    assert_eq!(fault.help.as_deref(), Some(help));
}

#[test]
fn a_kafka_table_names_a_topic() {
    for location in ["'a/b'", "''", "'..'"] {
        let text = format!("CREATE EXTERNAL TABLE t (a VARCHAR) STORED AS KAFKA LOCATION /*here*/{location};");
        fault(&text, location, &format!("`{}` is no name of a Kafka topic", location.trim_matches('\'')));
    }
}

#[test]
fn an_unknown_format_is_told_which_there_are() {
    let fault = fault(
        "CREATE EXTERNAL TABLE t (a VARCHAR) STORED AS /*here*/AVRO LOCATION 't.avro';",
        "AVRO",
        "expected CSV, JSON, PARQUET or KAFKA, found `AVRO`",
    );
    assert_eq!(fault.notes, ["reference tables are CSV, JSON-lines or Parquet files, or compacted Kafka topics"]);
}

#[test]
fn a_reference_table_that_is_missing_costs_only_its_rules() {
    let text = "CREATE EXTERNAL TABLE limits (team VARCHAR) STORED AS CSV LOCATION 'limits.csv';
CREATE RULE limited WITH (action = 'warn', reason_code = 'x_test') AS
SELECT s.team FROM spans AS s JOIN limits AS l ON l.team = s.team;
CREATE RULE free WITH (action = 'warn', reason_code = 'x_test') AS SELECT team FROM spans;";
    for (loaded, note) in [(None, None), (Some("limits.csv: gone"), Some("limits.csv: gone"))] {
        let references = loaded.map(|why| ("limits".to_owned(), Err(why.to_owned())));
        let (set, faults) = compile(&[file("r.sql", text)], &references.into_iter().collect());
        assert_eq!(set.rules.iter().map(|rule| rule.header.name.as_str()).collect::<Vec<_>>(), ["free"]);
        let found: Vec<_> = faults.iter().map(Diagnostic::summary).collect();
        let cause = if note.is_some() { "cannot be read" } else { "was not loaded" };
        let expected = [
            format!("r.sql:1:68: reference table `limits` {cause}"),
            "r.sql:3:36: there is no table `limits`".to_owned(),
        ];
        assert_eq!(found, expected);
        assert_eq!(faults[0].notes.first().map(String::as_str), note);
    }
}

#[test]
fn attributes_are_columns() {
    let query = "SELECT team, attr('gen_ai.request.seed') AS seed, resource_attr('k8s.pod.name') AS pod FROM spans
        WHERE CAST(attr('app.retries') AS BIGINT) > 3";
    let set = compiled(&[file("r.sql", &rule(query))]);
    let wanted = set.wanted.0.values().next().unwrap();
    for column in ["attr:gen_ai.request.seed", "resource_attr:k8s.pod.name", "attr:app.retries", "team"] {
        assert!(wanted.contains(column), "{column} is not among {wanted:?}");
    }
    let message = "attr takes the name of an attribute as a text";
    refused("SELECT /*here*/attr(team) FROM spans", "attr", message, "write attr('acme.risk')");
}

#[test]
fn views_may_stand_in_any_order_and_file() {
    let files = [
        file(
            "a.sql",
            &rule("SELECT o.team, o.window_start, o.window_end, o.n AS observed FROM often AS o WHERE o.n > 9"),
        ),
        file(
            "b.sql",
            "CREATE VIEW often AS SELECT team, window_start, window_end, count(*) AS n
             FROM TUMBLE(costly, event_time, INTERVAL '1 hour') GROUP BY team, window_start, window_end;",
        ),
        file(
            "c.sql",
            "CREATE VIEW costly AS SELECT * FROM leaves WHERE cost_total > 1;
             CREATE VIEW leaves AS SELECT * FROM spans WHERE usage_leaf;",
        ),
    ];
    let set = compiled(&files);
    assert!(matches!(set.rules[0].kind, RuleKind::Windowed(_)));
}

#[test]
fn views_that_need_each_other_are_both_reported() {
    let text = "CREATE VIEW a AS SELECT * FROM b;\nCREATE VIEW b AS SELECT * FROM a;";
    let (_, faults) = compile(&[file("r.sql", text)], &loaded());
    let found: Vec<_> = faults.iter().map(Diagnostic::summary).collect();
    assert_eq!(found, ["r.sql:1:32: there is no table `b`", "r.sql:2:32: there is no table `a`"]);
}

#[test]
fn the_rest_of_sql_works() {
    let queries = [
        "WITH costly AS (SELECT * FROM spans WHERE cost_total > 1) SELECT c.team, c.cost_total AS c FROM costly AS c",
        "SELECT team, round(cost_total, 2) AS observed FROM spans WHERE abs(cost_total) > 1 AND team IS NOT NULL",
        "SELECT team FROM spans WHERE regexp_like(request_model, '^gpt-4') AND NOT starts_with(team, 'test')",
        "SELECT team, date_trunc('hour', event_time) AS hour, extract(dow FROM event_time) AS day FROM spans
         WHERE extract(hour FROM event_time) NOT BETWEEN 8 AND 18",
        "SELECT team, CASE WHEN cost_total > 9 THEN 'BLOCKED' ELSE 'WARNING' END AS result FROM spans WHERE team > ''",
        "SELECT s.team FROM spans AS s WHERE s.team NOT IN (SELECT team FROM budgets)",
        "SELECT s.team FROM spans AS s WHERE NOT EXISTS (SELECT 1 FROM budgets AS b WHERE b.team = s.team)",
        "SELECT l.team, l.severity_text FROM logs AS l WHERE l.severity_number >= 17",
        "SELECT m.team, m.metric_name, m.value AS observed FROM metrics AS m WHERE m.value > 100",
        "SELECT e.team, e.name FROM span_events AS e WHERE e.name = 'exception'",
        "SELECT team, window_start, window_end, count(*) AS observed FROM HOP(spans, event_time, INTERVAL '1 minute',
         INTERVAL '5 minutes', INTERVAL '30 seconds') GROUP BY 1, 2, 3 HAVING count(*) > 5 EMIT ON WINDOW CLOSE",
    ];
    for query in queries {
        assert_eq!(compiled(&[file("r.sql", &rule(query))]).rules.len(), 1, "{query}");
    }
}
