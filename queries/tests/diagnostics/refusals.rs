//! Everything that is refused because it cannot run in bounded state or would not replay: README's table names each
//! construct, and here is what its author is told.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::{fault, over, per_minute, refused, refused_plainly, rule};

/// A row of README's table, by its first cell, and queries that it is about.
struct Construct {
    named: &'static str,
    check: fn(),
}

const BY_TEAM: &str = "PARTITION BY c.team ORDER BY c.window_end";
const HELP_BOUND: &str = "bound it: ROWS BETWEEN 12 PRECEDING AND 1 PRECEDING, or lag(x, n)";
const HELP_GROUP: &str = "group by window_start, window_end";

/// In README's order.
const CONSTRUCTS: &[Construct] = &[
    Construct { named: "`GROUP BY` without a window, or without one of its bounds", check: group_by_without_a_window },
    Construct { named: "a second `GROUP BY` that leaves the window out", check: second_group_by_without_the_window },
    Construct { named: "a second `GROUP BY` by something else than keys of the first", check: second_group_by_a_value },
    Construct {
        named: "`first_value`, `last_value`, `nth_value`, `array_agg`, `string_agg` without `ORDER BY`",
        check: aggregates_without_an_order,
    },
    Construct { named: "a window without `GROUP BY`", check: window_without_group_by },
    Construct { named: "a window over another time than `event_time`", check: window_over_another_time },
    Construct { named: "a window's bounds inside the aggregate of overlapping windows", check: bounds_inside },
    Construct { named: "months as a length", check: months },
    Construct { named: "a slide longer than the size, a step that does not divide it", check: lengths_that_do_not_fit },
    Construct { named: "more than 10,000 panes in a window", check: panes },
    Construct { named: "`GROUPING SETS`, `CUBE`, `ROLLUP`", check: grouping_sets },
    Construct { named: "`SELECT DISTINCT`, `INTERSECT`, `EXCEPT` on telemetry", check: distinct },
    Construct { named: "`WITHIN` without `DISTINCT ON`, or `DISTINCT ON` with an order of its own", check: within },
    Construct { named: "`ORDER BY`, `LIMIT`", check: order_and_limit },
    Construct { named: "`OVER` on telemetry rows", check: over_telemetry },
    Construct { named: "`OVER` in another order than that of windows", check: over_in_another_order },
    Construct { named: "`OVER` without a bounded past", check: over_without_end },
    Construct {
        named: "a sequence detector set by no literals, with a frame, over part of the keys, or with `SESSION`",
        check: crate::sequences::misused,
    },
    Construct { named: "`lead`, `FOLLOWING`", check: over_the_future },
    Construct { named: "`OVER` or a second `GROUP BY` with `EMIT ON UPDATE`", check: whole_windows_on_update },
    Construct { named: "`EMIT` or `GAP FILL` on a rule without a window", check: tails_without_a_window },
    Construct { named: "`GAP FILL` with `EMIT ON UPDATE`", check: gap_fill_on_update },
    Construct {
        named: "`for` as long as windows that do not overlap, with `EMIT ON UPDATE`",
        check: unreachable_holds,
    },
    Construct { named: "`GAP FILL FROM` a table without every group key", check: gap_fill_without_keys },
    Construct {
        named: "a second `GROUP BY`, `GAP FILL`, or `OVER` that does not partition by every key, with `SESSION`",
        check: above_sessions,
    },
    Construct {
        named: "`GAP FILL`, or only one bound in `OVER` or a second `GROUP BY`, with zones from a column",
        check: zones,
    },
    Construct {
        named: "a join of two streams without an equal key or a bound in time in both directions",
        check: stream_joins_without_bounds,
    },
    Construct {
        named: "a `RIGHT` or `FULL` join of two streams, or one of more than two",
        check: stream_joins_that_nobody_decides,
    },
    Construct {
        named: "a window on a side of a stream join, `GAP FILL` above it, a window by the right side's time of a \
                `LEFT JOIN`",
        check: windows_and_stream_joins,
    },
    Construct { named: "`UNION` of telemetry", check: unions },
    Construct { named: "telemetry in a subquery of an expression", check: telemetry_in_an_expression },
    Construct { named: "a `RIGHT`, `FULL` or reversed `LEFT` join", check: joins_that_make_rows },
    Construct { named: "`WITH RECURSIVE`", check: recursion },
    Construct { named: "`TABLESAMPLE`", check: samples },
    Construct { named: "`FOR UPDATE`, `WITH (NOLOCK)`, `PARTITION (…)`", check: words_without_effect },
    Construct { named: "no telemetry", check: no_telemetry },
    Construct { named: "no subject, no window, or a group key that is not selected", check: nobody_and_nowhere },
    Construct { named: "a session over rows that dropped their `event_time`", check: rows_without_their_time },
    Construct { named: "`now()`, `random()` and others that differ from call to call", check: unsteady_functions },
];

#[test]
fn readme_names_every_construct_that_is_refused_and_each_says_what_to_write_instead() {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")).unwrap();
    let (_, section) = readme.split_once("\n**What is refused**").expect("README says what is refused");
    let lines = section.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let rows: Vec<Vec<&str>> =
        lines.skip(2).map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect()).collect();
    for row in &rows {
        assert_eq!(row.len(), 3, "a construct, why it is refused, what to write instead: {row:?}");
        assert!(row.iter().all(|cell| !cell.is_empty()), "{row:?}");
    }
    let said: BTreeSet<&str> = rows.iter().map(|row| row[0]).collect();
    let tested: BTreeSet<&str> = CONSTRUCTS.iter().map(|construct| construct.named).collect();
    let missing: Vec<_> = tested.difference(&said).collect();
    assert!(missing.is_empty(), "README's table of what is refused has no row {missing:?}");
    let untested: Vec<_> = said.difference(&tested).collect();
    assert!(untested.is_empty(), "README names {untested:?}, of which CONSTRUCTS has no test");
    CONSTRUCTS.iter().for_each(|construct| (construct.check)());
}

/// Calls per minute in windows of `window`.
fn counted(window: &str) -> String {
    per_minute("count(*) AS observed", "").replace("TUMBLE(spans, event_time, INTERVAL '1 minute')", window)
}

fn group_by_without_a_window() {
    let message = "GROUP BY without a window would grow for ever";
    let help = "read through a window: FROM TUMBLE(spans, event_time, INTERVAL '1 hour') … GROUP BY …, window_start, \
                window_end";
    refused("SELECT team, count(*) FROM spans /*here*/GROUP BY team", "GROUP", message, help);
    let query = per_minute("count(*) AS n", "").replace("GROUP BY team, window_start,", "/*here*/GROUP BY team,");
    refused(
        &query.replace("window_start, window_end, count", "window_end, count"),
        "GROUP",
        "the GROUP BY has only one of the window's bounds",
        HELP_GROUP,
    );
}

fn second_group_by_without_the_window() {
    let inner = per_minute("count(*) AS n", "").replace("GROUP", "/*here*/GROUP");
    let query = format!("SELECT c.team, max(c.n) FROM ({inner}) AS c GROUP BY c.team");
    let help = "group by window_start, window_end in it too";
    refused(&query, "GROUP", "the second GROUP BY leaves the window out", help);
}

fn second_group_by_a_value() {
    let inner = per_minute("count(*) AS n", "").replace("GROUP", "/*here*/GROUP");
    let bounds = "c.window_start, c.window_end";
    let query = format!("SELECT c.n, {bounds}, count(*) FROM ({inner}) AS c GROUP BY {bounds}, c.n");
    let help = "two of its rows could be about one subject: group by keys of the first, or aggregate the value";
    refused(&query, "GROUP", "the second GROUP BY groups by `c.n`, which is no key of the first", help);
}

fn aggregates_without_an_order() {
    for (name, call) in [
        ("first_value", "first_value(request_model)"),
        ("last_value", "last_value(request_model)"),
        ("nth_value", "nth_value(request_model, 2)"),
        ("array_agg", "array_agg(request_model)"),
        ("string_agg", "string_agg(request_model, ',')"),
    ] {
        let query = per_minute(&format!("{call} AS model"), "").replacen("SELECT", "/*here*/SELECT", 1);
        let help = format!("say which: {name}(x ORDER BY event_time)");
        let message = format!("{name} depends on the order of rows, which is another at every run");
        refused(&query, "SELECT", &message, &help);
    }
}

fn words_without_effect() {
    let plain = |query: &str, message: &str| {
        refused_plainly(&query.replacen("SELECT", "/*here*/SELECT", 1), "SELECT", message);
    };
    let message = "FOR UPDATE and FOR SHARE lock nothing here: leave them out";
    plain("SELECT team FROM spans FOR UPDATE", message);
    plain("SELECT t.team FROM (SELECT team FROM spans FOR SHARE) AS t", message);
    plain("SELECT team FROM spans WITH (NOLOCK)", "WITH (…) behind a table says nothing here: leave it out");
    let message = "PARTITION (…) behind a table chooses nothing here: write WHERE kafka_partition = …";
    plain("SELECT team FROM spans PARTITION (p0)", message);
}

fn window_without_group_by() {
    let query = "SELECT team, window_start /*here*/FROM TUMBLE(spans, event_time, INTERVAL '1 minute')";
    let help = "group by the window: GROUP BY …, window_start, window_end";
    refused(query, "FROM", "the window has no GROUP BY", help);
}

fn window_over_another_time() {
    let query = counted("TUMBLE(spans, start_time, INTERVAL '1 minute')").replacen("SELECT", "/*here*/SELECT", 1);
    let message = "windows follow event_time, not `spans.start_time`: by it rows are late and windows close";
    refused_plainly(&query, "SELECT", message);
}

fn bounds_inside() {
    let query = counted("HOP(spans, event_time, INTERVAL '1 minute', INTERVAL '2 minutes')")
        .replace("count(*)", "max(event_time - window_start)")
        .replace("GROUP", "/*here*/GROUP");
    let message = "the window's bounds are not known inside the aggregate of overlapping windows";
    refused(&query, "GROUP", message, "use window_start and window_end above the aggregate, in HAVING or SELECT");
}

/// The query over these windows, which the planner refuses.
#[track_caller]
fn window_refused(window: &str, message: &str) {
    refused_plainly(&counted(window).replacen("SELECT", "/*here*/SELECT", 1), "SELECT", message);
}

const TUMBLE: &str = "TUMBLE(table, event_time, size [, offset])";
const HOP: &str = "HOP(table, event_time, slide, size [, offset])";

fn months() {
    let message = format!(
        "months differ in length: {TUMBLE} takes days or shorter; for months write CALENDAR(t, event_time, 'month', \
         'UTC')"
    );
    window_refused("TUMBLE(spans, event_time, INTERVAL '1 month')", &message);
}

fn lengths_that_do_not_fit() {
    let message = format!("the slide in {HOP} is longer than the size: rows between windows would be lost");
    window_refused("HOP(spans, event_time, INTERVAL '2 minutes', INTERVAL '1 minute')", &message);
    let message = "the size in CUMULATE(table, event_time, step, size [, offset]) is no multiple of the step";
    window_refused("CUMULATE(spans, event_time, INTERVAL '7 minutes', INTERVAL '1 hour')", message);
}

fn panes() {
    let message = format!("the lengths in {HOP} make 86400 panes per window, at most 10000 are kept");
    window_refused("HOP(spans, event_time, INTERVAL '1 s', INTERVAL '1 day')", &message);
}

#[test]
fn windows_are_called_with_a_table_and_arguments_in_order() {
    window_refused("TUMBLE(spans)", &format!("{TUMBLE} has 1 arguments here"));
    let takes = "takes a table, a view or a subquery in parentheses";
    window_refused("TUMBLE(5, event_time, INTERVAL '1 s')", &format!("`5` is no table: {TUMBLE} {takes}"));
    let named = format!("`size => INTERVAL '1 s'` is no argument of {TUMBLE}");
    window_refused("TUMBLE(spans, event_time, size => INTERVAL '1 s')", &named);
    window_refused("TUMBLE(spans, event_time, INTERVAL '200000 days')", "200000 days are longer than 292 years");
    let unquoted = "`spans.team` is no unit of the calendar: write it in single quotes";
    window_refused("CALENDAR(spans, event_time, team, 'UTC')", unquoted);
}

fn grouping_sets() {
    let message = "GROUPING SETS, CUBE and ROLLUP have no single subject";
    let sets = ["ROLLUP(team), window_start", "CUBE(team), window_start", "GROUPING SETS ((team)), window_start"];
    for sets in sets {
        let by = format!("/*here*/GROUP BY {sets}");
        let query = per_minute("count(*) AS n", "").replace("GROUP BY team, window_start", &by);
        refused(&query, "GROUP", message, "write one rule per grouping");
    }
}

fn distinct() {
    let message = "DISTINCT over a stream must remember every row for ever";
    let help = "say how long: SELECT DISTINCT ON (key) … WITHIN INTERVAL '10 minutes'; or count distinct values in a \
                window: count(DISTINCT x) … GROUP BY …, window_start, window_end";
    refused("SELECT /*here*/DISTINCT team FROM spans", "DISTINCT", message, help);
    refused("SELECT /*here*/DISTINCT ON (team) team FROM spans", "DISTINCT", message, help);
    let query = "/*here*/SELECT event_time, team FROM spans EXCEPT ALL SELECT event_time, team FROM logs";
    let rewrite = "write a LEFT SEMI or LEFT ANTI JOIN with an equal key and a bound in time";
    refused(query, "SELECT", "INTERSECT and EXCEPT of two streams would remember every row", rewrite);
    for set in ["INTERSECT", "EXCEPT"] {
        let query = format!("/*here*/SELECT team FROM spans {set} SELECT team FROM budgets");
        refused(&query, "SELECT", message, help);
    }
}

fn within() {
    let message = "WITHIN says how long a row is remembered by DISTINCT ON, and there is none";
    let help = "write SELECT DISTINCT ON (span_id) … WITHIN INTERVAL '10 minutes'";
    refused("SELECT team FROM spans WITHIN INTERVAL /*here*/'1 minute'", "'1 minute'", message, help);
    let query = "SELECT DISTINCT ON (team) team FROM spans WITHIN INTERVAL /*here*/'a while'";
    let help = "write a length of time such as '10 minutes'";
    refused(query, "'a while'", "`a while` is no length of time", help);
    let query = "SELECT DISTINCT ON (team) team FROM spans /*here*/ORDER BY team WITHIN INTERVAL '1 minute'";
    let help = "leave ORDER BY out: the first row by event time is kept";
    refused(query, "ORDER", "DISTINCT ON … WITHIN has an order of its own", help);
    let query = "SELECT /*here*/DISTINCT ON (s.span_id) s.span_id FROM spans AS s JOIN budgets AS b ON b.team = s.team
        WITHIN INTERVAL '1 minute'";
    let help = "join in a subquery that gives each column a name of its own";
    refused(query, "DISTINCT", "DISTINCT ON … WITHIN reads two columns of one name", help);
}

fn order_and_limit() {
    let message = "ORDER BY and LIMIT mean nothing for a result that never ends";
    let help = "leave it out: events carry their time; for the top n of a window filter on row_number() OVER \
                (PARTITION BY window_end ORDER BY …)";
    refused(&per_minute("count(*) AS n", "/*here*/ORDER BY n"), "ORDER", message, help);
    refused("/*here*/SELECT team FROM spans LIMIT 10", "SELECT", message, help);
}

fn over_telemetry() {
    let query = "SELECT s.team, lag(s.name) /*here*/OVER (PARTITION BY s.team ORDER BY s.event_time) FROM spans AS s";
    let help = "aggregate in a subquery over TUMBLE or HOP first, then use OVER on its rows";
    refused(query, "OVER", "OVER needs window results, not telemetry rows", help);
}

fn over_in_another_order() {
    let help = "order by window_end, or partition by it to stay within one window";
    let function = "lag(c.n) /*here*/OVER (PARTITION BY c.team ORDER BY c.n)";
    refused(&over(function, ""), "OVER", "OVER must follow the windows in time", help);
    let function = "lag(c.n) /*here*/OVER (PARTITION BY c.team ORDER BY c.window_end DESC)";
    refused(&over(function, ""), "OVER", "OVER must follow the windows in time", help);
}

fn over_without_end() {
    let message = "the window function looks back to the beginning of time";
    refused(&over(&format!("avg(c.n) /*here*/OVER ({BY_TEAM})"), ""), "OVER", message, HELP_BOUND);
    let range = "RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW";
    refused(&over(&format!("sum(c.n) /*here*/OVER ({BY_TEAM} {range})"), ""), "OVER", message, HELP_BOUND);
    let help = "partition by window_end to number the rows of one window";
    refused(&over(&format!("row_number() /*here*/OVER ({BY_TEAM})"), ""), "OVER", message, help);
    let message = "the frame looks back 100001 rows, at most 100000 are kept";
    let frame = "ROWS BETWEEN 100001 PRECEDING AND CURRENT ROW";
    refused(&over(&format!("sum(c.n) /*here*/OVER ({BY_TEAM} {frame})"), ""), "OVER", message, HELP_BOUND);
    refused(&over(&format!("lag(c.n, 100001) /*here*/OVER ({BY_TEAM})"), ""), "OVER", message, HELP_BOUND);
    let function = format!("lag(c.n, c.n) /*here*/OVER ({BY_TEAM})");
    refused(&over(&function, ""), "OVER", "lag's distance must be a number", "write lag(x, 3)");
}

fn over_the_future() {
    let lead = format!("lead(c.n) /*here*/OVER ({BY_TEAM})");
    refused(&over(&lead, ""), "OVER", "lead looks into the future", "use lag on the later row");
    for frame in ["ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING", "ROWS BETWEEN 1 FOLLOWING AND 2 FOLLOWING"] {
        let function = format!("avg(c.n) /*here*/OVER ({BY_TEAM} {frame})");
        refused(&over(&function, ""), "OVER", "the frame reaches into the future", HELP_BOUND);
    }
}

fn whole_windows_on_update() {
    let message = "OVER compares whole windows, which EMIT ON UPDATE does not wait for";
    let help = "write EMIT ON CLOSE, or compare with a threshold instead of the past";
    refused(&over(&format!("lag(c.n) OVER ({BY_TEAM})"), "/*here*/EMIT ON UPDATE"), "EMIT", message, help);
    let message = "a second aggregate needs all groups of the window, which EMIT ON UPDATE does not wait for";
    let by = "GROUP BY c.team, c.window_start, c.window_end /*here*/EMIT ON UPDATE";
    refused(&over("max(c.n)", by), "EMIT", message, "write EMIT ON CLOSE");
}

fn tails_without_a_window() {
    let help = "leave it out: every row is judged as it arrives";
    let message = "EMIT has no meaning for a rule without a window";
    refused("SELECT team FROM spans /*here*/EMIT ON UPDATE", "EMIT", message, help);
    let query = "SELECT team FROM spans /*here*/GAP FILL FROM budgets";
    refused(query, "GAP", "GAP FILL has no meaning for a rule without a window", "leave it out");
}

fn gap_fill_on_update() {
    let query = per_minute("count(*) AS n", "/*here*/GAP FILL FOR INTERVAL '1 day' EMIT ON UPDATE");
    let help = "write EMIT ON CLOSE: that a key has no rows is known when its window has ended";
    refused(&query, "GAP", "GAP FILL does not go with EMIT ON UPDATE", help);
}

fn unreachable_holds() {
    let query = per_minute("count(*) AS observed", "EMIT ON UPDATE");
    let text = rule(&query).replace("'x_test'", "'x_test', for = /*here*/'1 minute'");
    fault(&text, "'1 minute'", "for = '1 minute' is never reached: what is found in a window ends with it");
}

fn gap_fill_without_keys() {
    let fill = "/*here*/GAP FILL FROM budgets";
    let query = per_minute("count(*) AS n", fill).replace("team", "region");
    let message = "reference table `budgets` has no column `region`, which the rule groups by";
    refused(&query, "GAP", message, "let the table have a column of every group key");
    let texts = "TUMBLE((SELECT *, name AS usd FROM spans), event_time, INTERVAL '1 minute')";
    let query = format!("{} {fill}", counted(texts).replace("team", "usd"));
    let message = "column `usd` of `budgets` is Float64, and the rule groups by Utf8View";
    refused(&query, "GAP", message, "declare the column's type in CREATE EXTERNAL TABLE");
    let query = per_minute("count(*) AS n", "/*here*/GAP FILL FROM owners");
    let message = "there is no reference table `owners` to fill gaps from";
    refused(&query, "GAP", message, "declare it with CREATE EXTERNAL TABLE");
}

const SESSION: &str = "SESSION(spans, event_time, INTERVAL '1 minute')";

fn above_sessions() {
    let sessions = counted(SESSION);
    let query = format!(
        "SELECT c.team, c.window_start, c.window_end, lag(c.observed) /*here*/OVER ({BY_TEAM}) FROM ({sessions}) AS c"
    );
    let query = query.replace(BY_TEAM, "PARTITION BY c.window_end ORDER BY c.team");
    let help = "partition by every key that the sessions are grouped by, or use TUMBLE or HOP";
    refused(&query, "OVER", "OVER compares sessions of different keys, which do not end together", help);
    let inner = sessions.replace("GROUP", "/*here*/GROUP");
    let query = format!(
        "SELECT c.team, c.window_start, c.window_end, max(c.observed) FROM ({inner}) AS c
         GROUP BY c.team, c.window_start, c.window_end"
    );
    let help = "use TUMBLE or HOP, or leave it out";
    refused(&query, "GROUP", "a second GROUP BY needs windows that all keys share", help);
    let query = format!("{sessions} /*here*/GAP FILL FOR INTERVAL '1 day'");
    let help = "use TUMBLE: a session without rows does not exist";
    refused(&query, "GAP", "GAP FILL does not go with SESSION", help);
}

fn zones() {
    let query = counted("CALENDAR(spans, event_time, 'day', region)") + " /*here*/GAP FILL FROM budgets";
    let help = "write one rule per zone, with the zone in single quotes";
    refused(&query, "GAP", "GAP FILL cannot know the zone of a key without rows", help);
}

/// Spans as `s` joined with logs as `l`.
fn streams(join: &str, on: &str) -> String {
    format!("SELECT s.team FROM spans AS s {join} logs AS l ON {on}")
}

const KEY: &str = "l.trace_id = s.trace_id";
const BOUND: &str = "l.event_time BETWEEN s.event_time AND s.event_time + INTERVAL '1 minute'";

fn stream_joins_without_bounds() {
    let message = "the join of two streams has no bound in time, so rows would be kept for ever";
    let help = "add a bound in both directions: AND b.event_time BETWEEN a.event_time AND a.event_time + INTERVAL '10 \
                minutes'";
    let same_day = "l.trace_id = s.trace_id AND CAST(l.event_time AS DATE) = CAST(s.event_time AS DATE)";
    for on in [KEY, "l.trace_id = s.trace_id AND l.event_time > s.event_time", same_day] {
        refused(&streams("/*here*/JOIN", on), "JOIN", message, help);
    }
    let message = "the join of two streams compares no key of both for equality";
    let help = "say what two rows have in common: ON b.trace_id = a.trace_id AND …";
    refused(&streams("/*here*/JOIN", BOUND), "JOIN", message, help);
    let bound = "l.event_time BETWEEN s.event_time + INTERVAL '2 s' AND s.event_time + INTERVAL '1 s'";
    let (message, help) = ("no two rows can meet the join's bound in time", "check the signs of the intervals");
    refused(&streams("/*here*/JOIN", &format!("{KEY} AND {bound}")), "JOIN", message, help);
}

fn stream_joins_that_nobody_decides() {
    let on = format!("{KEY} AND {BOUND}");
    for kind in ["Right", "Full"] {
        let message = format!("a {kind} join of two streams has rows that no left row decides");
        let help = "put the stream that decides first: FROM a LEFT JOIN b";
        refused(&streams(&format!("{kind} /*here*/JOIN"), &on), "JOIN", &message, help);
    }
    let third = "JOIN metrics AS m ON m.team = s.team AND m.event_time = s.event_time";
    let help = "join two, and write a rule for each pair";
    let query = format!("{} {third}", streams("/*here*/JOIN", &on));
    refused(&query, "JOIN", "the rule joins more than two streams", help);
}

fn windows_and_stream_joins() {
    let windowed = streams("/*here*/JOIN", &format!("{KEY} AND {BOUND}"))
        .replace("FROM spans AS s", "FROM TUMBLE(spans, event_time, INTERVAL '1 minute') AS s");
    let help = "join the rows first, and put the window around the join";
    refused(&windowed, "JOIN", "a side of a stream join has a window", help);
    let around = |time: &str| {
        let rows = streams("LEFT JOIN", &format!("{KEY} AND {BOUND}"));
        let rows = rows.replace("SELECT s.team", &format!("SELECT s.team, {time}.event_time"));
        counted(&format!("TUMBLE(({rows}), event_time, INTERVAL '1 minute')"))
    };
    let message = "rows without a partner have no event_time of the right side to be windowed by";
    let query = around("l").replacen("FROM TUMBLE", "/*here*/FROM TUMBLE", 1);
    refused(&query, "FROM", message, "use the left side's event_time");
    let query = around("s") + " /*here*/GAP FILL FOR INTERVAL '1 day'";
    let help = "fill gaps in a rule over one stream";
    refused(&query, "GAP", "GAP FILL does not go with the join of two streams", help);
}

fn unions() {
    let (message, help) =
        ("the rule reads two streams", "join them on an equal key and a bound in time, or split the rule in two");
    refused("SELECT team /*here*/FROM spans UNION ALL SELECT team FROM logs", "FROM", message, help);
    let query = "/*here*/SELECT team FROM spans UNION ALL SELECT team FROM budgets";
    refused(query, "SELECT", "UNION cannot run on a stream", "rewrite it with joins and filters");
}

fn telemetry_in_an_expression() {
    let message = "a subquery in an expression reads telemetry";
    let query = "SELECT team FROM spans WHERE trace_id /*here*/IN (SELECT trace_id FROM logs)";
    refused(query, "IN", message, "compare with a reference table, or aggregate in FROM");
}

fn joins_that_make_rows() {
    let help = "put the telemetry first: FROM spans … LEFT JOIN reference …";
    for (kind, left, right) in
        [("Right", "spans", "budgets"), ("Full", "spans", "budgets"), ("Left", "budgets", "spans")]
    {
        let message = format!("a {kind} join would also give rows of the reference table that no telemetry touched");
        let query = format!("SELECT a.team FROM {left} AS a {kind} /*here*/JOIN {right} AS b ON b.team = a.team");
        refused(&query, "JOIN", &message, help);
    }
}

fn recursion() {
    let query = "WITH RECURSIVE t AS (/*here*/SELECT team FROM spans UNION ALL SELECT team FROM t) SELECT team FROM t";
    refused(query, "SELECT", "RECURSIVEQUERY cannot run on a stream", "rewrite it with joins and filters");
}

fn samples() {
    let message = "TABLESAMPLE takes other rows at every run, so a replay would give other events: for a sixteenth of \
                   all traces write WHERE starts_with(trace_id, '0')";
    let sampled = "TUMBLE(spans, event_time, INTERVAL '1 minute') TABLESAMPLE BERNOULLI (10)";
    for query in [
        "SELECT team FROM spans TABLESAMPLE BERNOULLI (10)",
        "SELECT t.team FROM (SELECT * FROM spans) AS t TABLESAMPLE BERNOULLI (10)",
        &counted(sampled),
    ] {
        refused_plainly(&query.replacen("SELECT", "/*here*/SELECT", 1), "SELECT", message);
    }
}

fn no_telemetry() {
    let help = "name spans, span_events, logs or metrics in FROM";
    refused("SELECT team /*here*/FROM budgets", "FROM", "the rule reads no telemetry", help);
}

fn nobody_and_nowhere() {
    let message = "the rule has no subject: a directive with an empty selector would hit everybody";
    let help = "group by what a controller can act on (team, session_id, …) and select it";
    let query = per_minute("count(*) AS n", "").replace("team, ", "").replacen("SELECT", "/*here*/SELECT", 1);
    refused(&query, "SELECT", message, help);
    let help = "select a text column that a controller can act on: team, request_model, session_id, …";
    refused("/*here*/SELECT cost_total AS observed FROM spans", "SELECT", message, help);
    let message = "group key `region` is not selected, so a violation would not say whom it is about";
    let query = per_minute("count(*) AS n", ", region").replacen("SELECT", "/*here*/SELECT", 1);
    refused(&query, "SELECT", message, "add region to the SELECT");
    let by = "GROUP BY c.team, c.region, c.window_start, c.window_end";
    let query = over("max(c.n)", by).replace("team, window_start", "team, region, window_start");
    let query = query.replacen("SELECT", "/*here*/SELECT", 1);
    let help = "select every column of the second GROUP BY";
    refused(&query, "SELECT", "a key of the second GROUP BY is not selected", help);
    let message = "the rule does not say which window a row belongs to";
    let query = per_minute("count(*) AS n", "").replacen("SELECT team, window_start,", "/*here*/SELECT team,", 1);
    refused(&query, "SELECT", message, "select window_start and window_end");
}

fn rows_without_their_time() {
    let query = "SELECT t.team, t.since AS window_start, t.until AS window_end, count(*) AS observed /*here*/FROM
        (SELECT team, window_start AS since, window_end AS until FROM SESSION(spans, event_time, INTERVAL '1 minute'))
        AS t GROUP BY t.team, t.since, t.until";
    let message = "the rows of the session do not have their event_time any more";
    refused(query, "FROM", message, "select event_time in the subquery or view");
}

fn unsteady_functions() {
    for function in ["now", "random", "uuid"] {
        let message = format!("{function}() has another value at every call, so a replay would give other events");
        let query = format!("/*here*/SELECT team FROM spans WHERE concat({function}(), '') <> team");
        refused(&query, "SELECT", &message, "use event_time, window_start or window_end");
    }
}
