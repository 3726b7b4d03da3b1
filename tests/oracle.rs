//! The streamed result of a windowed rule equals what DataFusion's batch engine says of the same query over all rows.
//!
//! Random rows, out of order within the lateness, are cut at random into what a scan sums up before it ships, and windows
//! close at random in between. What the engine's panes make of that is compared with [`oracle`], group by group: the
//! window, every column of the result, nothing missing and nothing more.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "support/difference.rs"]
mod difference;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int32Array, Int64Array, RecordBatch, StringViewArray,
    TimestampNanosecondArray,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, Schema, TimestampNanosecondType};
use arrow::util::display::array_value_to_string;
use difference::difference;
use fastrand::Rng;
use lictor_engine::windowed::WindowedState;
use lictor_queries::{References, RuleFile, RuleKind, Scan, WindowedRule, compile, oracle};
use lictor_schemas::tables::{Table, table_schema};
use lictor_schemas::time::{EventTime, Window};
use lictor_schemas::violation::Violation;
use serde_json::{Map, Number, Value, json};

const SECOND_NS: i64 = 1_000_000_000;
const LATENESS_NS: i64 = 10 * SECOND_NS;
/// Seven minutes of telemetry.
const ROWS: usize = 140;
const STEP_NS: i64 = 3 * SECOND_NS;
const SEEDS: u64 = 20;

/// A query and how far numbers may be off, relative to themselves: floating-point sums depend on their order.
struct Case {
    name: &'static str,
    query: &'static str,
    tolerance: f64,
}

const fn case(name: &'static str, query: &'static str) -> Case {
    Case { name, query, tolerance: 1e-9 }
}

const TABLES: &str = "
CREATE EXTERNAL TABLE limits (team VARCHAR, most DOUBLE) STORED AS CSV LOCATION 'limits.csv';
CREATE EXTERNAL TABLE known (region VARCHAR) STORED AS CSV LOCATION 'known.csv';
CREATE VIEW billed AS SELECT * FROM spans WHERE cost_total IS NOT NULL;
";

fn text(values: &[Option<&str>]) -> ArrayRef {
    Arc::new(StringViewArray::from(values.to_vec()))
}

fn references() -> References {
    let limits = vec![text(&[Some("a"), Some("b"), Some("z")]), Arc::new(Float64Array::from(vec![3.0, 0.5, 9.0])) as _];
    let columns = |names: &[(&str, DataType)]| {
        Arc::new(Schema::new(names.iter().map(|(n, t)| Field::new(*n, t.clone(), true)).collect::<Vec<_>>()))
    };
    let limits_schema = columns(&[("team", DataType::Utf8View), ("most", DataType::Float64)]);
    let known_schema = columns(&[("region", DataType::Utf8View)]);
    BTreeMap::from([
        ("limits".to_owned(), Ok(RecordBatch::try_new(limits_schema, limits).unwrap())),
        ("known".to_owned(), Ok(RecordBatch::try_new(known_schema, vec![text(&[Some("eu"), Some("us")])]).unwrap())),
    ])
}

/// Rows of `spans` in the order in which they are read: no row is older than the newest before it minus the lateness.
fn rows(random: &mut Rng) -> RecordBatch {
    fn pick<T: Clone>(random: &mut Rng, from: &[T]) -> T {
        from[random.usize(0..from.len())].clone()
    }
    let mut clock = 1_772_359_200 * SECOND_NS;
    let mut at = Vec::new();
    for _ in 0..ROWS {
        clock += random.i64(0..2 * STEP_NS);
        at.push(clock - random.i64(0..LATENESS_NS));
    }
    let optional = |null_in: usize, random: &mut Rng| (random.usize(0..null_in) > 0).then(|| random.i64(0..12));
    let tokens: Vec<Option<i64>> = (0..ROWS).map(|_| optional(8, random)).collect();
    let cost: Vec<Option<f64>> = (0..ROWS).map(|_| optional(6, random).map(|n| n as f64 * 0.1)).collect();
    let teams = [Some("a"), Some("a"), Some("b"), Some("c"), None];
    let regions = [Some("eu"), Some("us"), Some("moon"), None];
    let models = [Some("m1"), Some("m2"), Some("m3"), None];
    let of = |from: &[Option<&'static str>], random: &mut Rng| -> Vec<Option<&str>> {
        (0..ROWS).map(|_| pick(random, from)).collect()
    };
    let ids: Vec<String> = (1..=ROWS).map(|i| format!("{i:032x}")).collect();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("event_time", Arc::new(TimestampNanosecondArray::from(at))),
        ("trace_id", Arc::new(StringViewArray::from_iter_values(&ids))),
        ("span_id", Arc::new(StringViewArray::from_iter_values(ids.iter().map(|id| &id[16..])))),
        ("kafka_partition", Arc::new(Int32Array::from(vec![0; ROWS]))),
        ("kafka_offset", Arc::new(Int64Array::from_iter_values((0..).take(ROWS)))),
        ("team", text(&of(&teams, random))),
        ("region", text(&of(&regions, random))),
        ("request_model", text(&of(&models, random))),
        ("input_tokens", Arc::new(Int64Array::from(tokens))),
        ("cost_total", Arc::new(Float64Array::from(cost))),
        ("latency_ms", Arc::new(Float64Array::from_iter_values((0..ROWS).map(|_| 100.0 + 900.0 * random.f64())))),
        ("usage_leaf", Arc::new(BooleanArray::from_iter((0..ROWS).map(|_| pick(random, &[Some(true), Some(false), None]))))),
    ];
    let all = table_schema(Table::Spans, &[]);
    let fields: Vec<_> = columns.iter().map(|(name, _)| all.field_with_name(name).unwrap().clone()).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns.into_iter().map(|c| c.1).collect()).unwrap()
}

/// What a rule says of each subject in each window: every column of its result that is not the window.
type Found = BTreeMap<(EventTime, EventTime, String), Value>;

fn insert(found: &mut Found, window: Window, key: &str, value: Value) -> Result<(), String> {
    match found.insert((window.start, window.end, key.to_owned()), value) {
        None => Ok(()),
        Some(_) => Err(format!("two rows for {key} in {window:?}")),
    }
}

fn said(violation: &Violation) -> Value {
    let Violation { subject, observed, evidence, .. } = violation;
    json!({"subject": subject.0, "observed": observed, "evidence": evidence})
}

/// Runs a rule over the rows as the engine would: sums of some rows are shipped, then windows may close.
struct Stream {
    scan: Scan,
    state: WindowedState,
    found: Found,
}

impl Stream {
    fn new(rule: WindowedRule) -> Self {
        let state = WindowedState::new(rule.emission, rule.aggregation, rule.finish);
        Self { scan: rule.scan, state, found: Found::new() }
    }

    fn run(mut self, rows: &RecordBatch, random: &mut Rng) -> Result<Found, String> {
        let times = rows.column_by_name("event_time").unwrap().as_primitive::<TimestampNanosecondType>();
        let (mut at, mut high) = (0, i64::MIN);
        while at < rows.num_rows() {
            let count = random.usize(1..=25).min(rows.num_rows() - at);
            self.scan.absorb(&rows.slice(at, count)).map_err(|e| e.to_string())?;
            high = times.values()[at..at + count].iter().copied().fold(high, i64::max);
            at += count;
            if random.bool() {
                self.ship()?;
            }
            if random.usize(0..4) == 0 {
                self.ship()?;
                self.close(EventTime(high - LATENESS_NS))?;
            }
        }
        self.ship()?;
        self.close(EventTime::MAX)?;
        Ok(self.found)
    }

    fn ship(&mut self) -> Result<(), String> {
        let Some(partial) = self.scan.flush().map_err(|e| e.to_string())? else { return Ok(()) };
        self.state.absorb(&partial).map_err(|e| e.to_string())?;
        let Some(update) = self.state.take_update().map_err(|e| e.to_string())? else { return Ok(()) };
        for (subject, window) in update.cleared {
            let key = subject.to_key();
            let Some(_) = self.found.remove(&(window.start, window.end, key.clone())) else {
                return Err(format!("{key} is cleared and did not hold"));
            };
        }
        for violation in update.violations {
            let window = violation.window.ok_or("no window")?;
            self.found.insert((window.start, window.end, violation.subject.to_key()), said(&violation));
        }
        Ok(())
    }

    /// Closes windows. What a rule that speaks on update has found in them stays, to be compared too.
    fn close(&mut self, watermark: EventTime) -> Result<(), String> {
        for (window, violations) in self.state.close(watermark).map_err(|e| e.to_string())? {
            assert!(window.end <= watermark);
            for violation in violations.into_iter().flatten() {
                assert_eq!(violation.window, Some(window));
                insert(&mut self.found, window, &violation.subject.to_key(), said(&violation))?;
            }
        }
        Ok(())
    }
}

/// The oracle's rows in the same form; which columns are the subject is known from the streamed ones.
fn to_found(batches: &[RecordBatch], subject: &[String]) -> Result<Found, String> {
    let mut found = Found::new();
    for batch in batches {
        for row in 0..batch.num_rows() {
            let mut cells: Map<String, Value> = Map::new();
            for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
                cells.insert(field.name().clone(), cell(column, row));
            }
            let mut bound = |name: &str| EventTime::from_rfc3339(cells.remove(name).unwrap().as_str().unwrap());
            let window = Window { start: bound("window_start")?, end: bound("window_end")? };
            let observed = cells.remove("observed").map_or(Value::Null, |v| json!(v.as_f64()));
            let (subject, evidence): (Map<_, _>, Map<_, _>) =
                cells.into_iter().partition(|(name, _)| subject.contains(name));
            let key = Value::Object(subject.clone()).to_string();
            let value = json!({"subject": subject, "observed": observed, "evidence": evidence});
            insert(&mut found, window, &key, value)?;
        }
    }
    Ok(found)
}

/// A cell as JSON: numbers and booleans as such, instants as RFC 3339, everything else as text.
fn cell(column: &ArrayRef, row: usize) -> Value {
    if column.is_null(row) {
        return Value::Null;
    }
    match column.data_type() {
        DataType::Boolean => Value::Bool(column.as_boolean().value(row)),
        DataType::Timestamp(..) => {
            Value::String(EventTime(column.as_primitive::<TimestampNanosecondType>().value(row)).to_rfc3339())
        }
        t if t.is_integer() => json!(cast(column, &DataType::Int64).unwrap().as_primitive::<Int64Type>().value(row)),
        t if t.is_floating() => {
            let value = cast(column, &DataType::Float64).unwrap().as_primitive::<Float64Type>().value(row);
            Number::from_f64(value).map_or(Value::Null, Value::Number)
        }
        _ => Value::String(array_value_to_string(column, row).unwrap()),
    }
}

fn files(case: &Case, emission: &str) -> Vec<RuleFile> {
    let rule = format!(
        "CREATE RULE {} WITH (action = 'warn', reason_code = 'x_test') AS {} EMIT ON {emission};",
        case.name, case.query
    );
    vec![RuleFile { file: "rule.sql".to_owned(), text: format!("{TABLES}{rule}") }]
}

/// Compares one query over the rows of one seed; how many rows it gave, or how the two sides differ.
fn compare(case: &Case, emission: &str, seed: u64, rows: &RecordBatch) -> Result<usize, String> {
    let (files, references) = (files(case, emission), references());
    let (mut set, faults) = compile(&files, &references);
    if let Some(fault) = faults.first() {
        return Err(fault.render(&files[0].text, false));
    }
    for (name, rows) in &references {
        set.fill_reference(name, rows.as_ref().unwrap())?;
    }
    let RuleKind::Windowed(rule) = set.rules.remove(0).kind else { return Err("it is not windowed".to_owned()) };
    let streamed = Stream::new(*rule).run(rows, &mut Rng::with_seed(seed))?;
    let telemetry = BTreeMap::from([(Table::Spans, rows.clone())]);
    let batches = oracle(&files, &references, case.name, &telemetry).map_err(|e| e.to_string())?;
    let subject = streamed.values().next().map_or(Vec::new(), |v| {
        v["subject"].as_object().unwrap().keys().cloned().collect()
    });
    let expected = to_found(&batches, &subject)?;
    if !expected.keys().eq(streamed.keys()) {
        let missing: Vec<_> = expected.keys().filter(|key| !streamed.contains_key(key)).collect();
        let excess: Vec<_> = streamed.keys().filter(|key| !expected.contains_key(key)).collect();
        return Err(format!("missing {missing:?}, in excess {excess:?}"));
    }
    for (key, value) in &expected {
        if let Some(differs) = difference("row", value, &streamed[key], case.tolerance) {
            return Err(format!("{differs}: {key:?}: expected {value}, found {}", streamed[key]));
        }
    }
    Ok(expected.len())
}

/// Compares every query over every seed; all that differ are named, each with its first seed.
#[track_caller]
fn check(cases: &[Case], emission: &str) {
    let mut faults = BTreeMap::new();
    let mut given = vec![0; cases.len()];
    for seed in 0..SEEDS {
        let rows = rows(&mut Rng::with_seed(seed));
        for (case, given) in cases.iter().zip(&mut given).filter(|(case, _)| !faults.contains_key(case.name)) {
            match compare(case, emission, seed, &rows) {
                Ok(rows) => *given += rows,
                Err(fault) => drop(faults.insert(case.name, format!("seed {seed}: {fault}"))),
            }
        }
    }
    for (case, given) in cases.iter().zip(given) {
        if given == 0 {
            faults.entry(case.name).or_insert_with(|| "it gave no row at all".to_owned());
        }
    }
    let faults: Vec<String> = faults.into_iter().map(|(name, fault)| format!("{name}: {fault}")).collect();
    assert!(faults.is_empty(), "{} of {} queries:\n{}", faults.len(), cases.len(), faults.join("\n"));
}

/// An aggregate over tumbling minutes per team.
macro_rules! per_team {
    ($($aggregates:literal),*) => {
        concat!(
            "SELECT team, window_start, window_end", $(", ", $aggregates,)*
            " FROM TUMBLE(spans, event_time, INTERVAL '1 minute') GROUP BY team, window_start, window_end"
        )
    };
}

const AGGREGATES: &[Case] = &[
    case("sums", per_team!("count(*) AS observed", "sum(cost_total) AS cost", "avg(latency_ms) AS mean", "min(latency_ms) AS low", "max(input_tokens) AS high")),
    case("spread", per_team!("stddev(latency_ms) AS observed", "var_pop(cost_total) AS v", "var_samp(cost_total) AS w", "stddev_pop(latency_ms) AS s")),
    case("medians", per_team!("median(latency_ms) AS observed", "percentile_cont(0.9) WITHIN GROUP (ORDER BY latency_ms) AS p90")),
    case("distinct_values", per_team!("count(DISTINCT request_model) AS observed", "sum(DISTINCT input_tokens) AS s", "avg(DISTINCT cost_total) AS a", "count(*) AS n")),
    case("approx", per_team!("approx_distinct(input_tokens) AS observed", "approx_distinct(request_model) AS models")),
    Case { tolerance: 0.05, ..case("percentiles", per_team!("approx_percentile_cont(0.95) WITHIN GROUP (ORDER BY latency_ms) AS observed", "approx_median(latency_ms) AS m", "approx_percentile_cont_with_weight(1 + input_tokens, 0.5) WITHIN GROUP (ORDER BY latency_ms) AS w")) },
    case("arrays", per_team!("array_sort(array_agg(input_tokens)) AS all_values", "array_sort(array_agg(DISTINCT request_model)) AS models", "array_agg(input_tokens ORDER BY kafka_offset DESC) AS newest_first")),
    case("bits", per_team!("bool_or(usage_leaf) AS some", "bool_and(usage_leaf) AS each", "bit_xor(input_tokens) AS x", "bit_and(input_tokens) AS a", "bit_or(input_tokens) AS o")),
    case("pairs", per_team!("corr(latency_ms, input_tokens) AS observed", "covar_pop(latency_ms, input_tokens) AS p", "covar_samp(latency_ms, input_tokens) AS s")),
    case("regression", per_team!("regr_slope(latency_ms, input_tokens) AS observed", "regr_intercept(latency_ms, input_tokens) AS i", "regr_count(latency_ms, input_tokens) AS c", "regr_r2(latency_ms, input_tokens) AS r", "regr_avgx(latency_ms, input_tokens) AS x", "regr_sxy(latency_ms, input_tokens) AS xy")),
    case("first_last", per_team!("first_value(request_model ORDER BY kafka_offset) AS f", "last_value(request_model ORDER BY event_time, kafka_offset) AS l", "nth_value(kafka_offset, 2 ORDER BY kafka_offset) AS second")),
    case("texts", per_team!("string_agg(request_model, ',' ORDER BY kafka_offset) AS models")),
    case("texts_backwards", per_team!("string_agg(request_model, ',' ORDER BY latency_ms DESC) AS models", "first_value(request_model ORDER BY latency_ms) AS f")),
    case("filters", per_team!("count(*) FILTER (WHERE cost_total > 0.5) AS observed", "sum(latency_ms) FILTER (WHERE region = 'eu') AS eu", "count(DISTINCT region) FILTER (WHERE usage_leaf) AS r")),
    case("having", "SELECT team, window_start, window_end, sum(cost_total) AS observed FROM TUMBLE(spans, event_time, INTERVAL '1 minute') WHERE usage_leaf GROUP BY team, window_start, window_end HAVING sum(cost_total) > 0.6 AND count(*) > 1"),
];

#[test]
fn aggregates() {
    check(AGGREGATES, "CLOSE");
}

const WINDOWS: &[Case] = &[
    case("two_keys", "SELECT team, region, window_start, window_end, count(*) AS observed FROM TUMBLE(spans, event_time, INTERVAL '1 minute') GROUP BY team, region, window_start, window_end"),
    case("no_key", "SELECT scope, window_start, window_end, count(*) AS observed, sum(cost_total) AS cost FROM TUMBLE((SELECT *, 'all' AS scope FROM spans), event_time, INTERVAL '1 minute') GROUP BY scope, window_start, window_end"),
    case("constant_key", "SELECT 'all' AS scope, window_start, window_end, count(*) AS observed FROM TUMBLE(spans, event_time, INTERVAL '1 minute') GROUP BY 'all', window_start, window_end"),
    case("computed_key", "SELECT upper(coalesce(team, 'nobody')) AS who, window_start, window_end, avg(latency_ms) AS observed FROM TUMBLE(spans, event_time, INTERVAL '1 minute') GROUP BY upper(coalesce(team, 'nobody')), window_start, window_end"),
    case("number_key", "SELECT input_tokens, window_start, window_end, count(*) AS observed FROM TUMBLE(spans, event_time, INTERVAL '2 minutes') GROUP BY input_tokens, window_start, window_end"),
    case("offset_windows", "SELECT team, window_start, window_end, count(*) AS observed FROM TUMBLE(spans, event_time, INTERVAL '1 minute', INTERVAL '17 seconds') GROUP BY team, window_start, window_end"),
    case("hop", "SELECT team, window_start, window_end, count(*) AS observed, sum(cost_total) AS cost, max(latency_ms) AS high FROM HOP(spans, event_time, INTERVAL '1 minute', INTERVAL '3 minutes') GROUP BY team, window_start, window_end"),
    case("hop_uneven", "SELECT team, window_start, window_end, count(*) AS observed, median(latency_ms) AS m, count(DISTINCT region) AS regions FROM HOP(spans, event_time, INTERVAL '40 seconds', INTERVAL '1 minute') GROUP BY team, window_start, window_end"),
    case("hop_offset", "SELECT team, region, window_start, window_end, stddev(latency_ms) AS observed, array_sort(array_agg(kafka_offset)) AS offsets FROM HOP(spans, event_time, INTERVAL '45 seconds', INTERVAL '2 minutes', INTERVAL '7 seconds') GROUP BY team, region, window_start, window_end"),
    case("hop_ordered", "SELECT team, window_start, window_end, string_agg(request_model, ',' ORDER BY kafka_offset) AS models, last_value(region ORDER BY kafka_offset) AS region FROM HOP(spans, event_time, INTERVAL '30 seconds', INTERVAL '1 minute') GROUP BY team, window_start, window_end"),
    case("view", "SELECT b.team, window_start, window_end, sum(b.cost_total) AS observed FROM TUMBLE(billed, event_time, INTERVAL '1 minute') AS b GROUP BY b.team, window_start, window_end"),
    case("with_query", "WITH slow AS (SELECT team, window_start, window_end, max(latency_ms) AS worst FROM TUMBLE(spans, event_time, INTERVAL '1 minute') GROUP BY team, window_start, window_end) SELECT team, window_start, window_end, worst AS observed FROM slow WHERE worst > 700"),
    case("window_in_select", "SELECT team, window_start, window_end, CAST(count(*) AS DOUBLE) / extract(epoch FROM window_end - window_start) AS observed FROM HOP(spans, event_time, INTERVAL '30 seconds', INTERVAL '1 minute') GROUP BY team, window_start, window_end HAVING extract(minute FROM window_start) >= 1"),
];

#[test]
fn windows() {
    check(WINDOWS, "CLOSE");
}

/// A reference table below or above the aggregate over tumbling minutes.
macro_rules! minute {
    ($select:literal, $join:literal, $group:literal) => {
        concat!(
            "SELECT ", $select, ", window_start, window_end FROM TUMBLE(spans, event_time, INTERVAL '1 minute') AS s ",
            $join, " GROUP BY ", $group, ", window_start, window_end"
        )
    };
}

macro_rules! above {
    ($select:literal, $join:literal) => {
        concat!(
            "SELECT c.team, c.region, c.window_start, c.window_end, ", $select, " FROM (SELECT team, region, window_start, \
             window_end, count(*) AS n, sum(cost_total) AS cost FROM TUMBLE(spans, event_time, INTERVAL '1 minute') \
             GROUP BY team, region, window_start, window_end) AS c ", $join
        )
    };
}

const JOINS: &[Case] = &[
    case("below_inner", minute!("s.team, l.most, sum(s.cost_total) AS observed", "JOIN limits AS l ON l.team = s.team", "s.team, l.most")),
    case("below_left", minute!("s.team, count(l.team) AS observed, count(*) AS n", "LEFT JOIN limits AS l ON l.team = s.team", "s.team")),
    case("below_in", minute!("s.team, count(*) AS observed", "WHERE s.region IN (SELECT region FROM known)", "s.team")),
    case("below_not_in", minute!("s.team, count(*) AS observed", "WHERE s.region NOT IN (SELECT region FROM known)", "s.team")),
    case("below_not_exists", minute!("s.region, count(*) AS observed", "WHERE NOT EXISTS (SELECT 1 FROM known AS k WHERE k.region = s.region)", "s.region")),
    case("below_left_null", minute!("s.region, count(*) AS observed", "LEFT JOIN known AS k ON k.region = s.region WHERE k.region IS NULL", "s.region")),
    case("above_inner", above!("c.cost AS observed, l.most AS threshold", "JOIN limits AS l ON l.team = c.team WHERE c.cost > 0.1 * l.most")),
    case("above_left", above!("c.n AS observed, coalesce(l.most, -1) AS most", "LEFT JOIN limits AS l ON l.team = c.team")),
    case("above_in", above!("c.n AS observed", "WHERE c.region IN (SELECT region FROM known)")),
    case("above_not_in", above!("c.n AS observed", "WHERE c.region NOT IN (SELECT region FROM known)")),
    case("above_not_exists", above!("c.n AS observed", "WHERE NOT EXISTS (SELECT 1 FROM known AS k WHERE k.region = c.region)")),
    case("above_range", above!("c.n AS observed, l.most", "JOIN limits AS l ON l.team = c.team AND l.most < c.n")),
    case("in_having", "SELECT s.region, window_start, window_end, count(*) AS observed FROM TUMBLE(spans, event_time, INTERVAL '1 minute') AS s GROUP BY s.region, window_start, window_end HAVING s.region NOT IN (SELECT region FROM known)"),
    case("scalar_subquery", above!("c.n AS observed", "WHERE c.cost > (SELECT min(most) FROM limits)")),
];

#[test]
fn joins_with_reference_tables() {
    check(JOINS, "CLOSE");
}

/// Window functions over the minutes of each team.
macro_rules! over {
    ($($columns:literal),*) => {
        concat!(
            "SELECT c.team, c.window_start, c.window_end", $(", ", $columns,)*
            " FROM (SELECT team, window_start, window_end, count(*) AS n, sum(cost_total) AS cost, max(latency_ms) AS worst \
             FROM TUMBLE(spans, event_time, INTERVAL '1 minute') WHERE team IS NOT NULL AND region = 'eu' \
             GROUP BY team, window_start, window_end) AS c"
        )
    };
}

const OVER: &[Case] = &[
    case("lagged", over!("c.n - lag(c.n) OVER (PARTITION BY c.team ORDER BY c.window_end) AS observed", "lag(c.cost, 2, 0.0) OVER (PARTITION BY c.team ORDER BY c.window_end) AS before")),
    case("averaged", over!("avg(c.n) OVER (PARTITION BY c.team ORDER BY c.window_end ROWS BETWEEN 3 PRECEDING AND 1 PRECEDING) AS observed", "stddev(c.worst) OVER (PARTITION BY c.team ORDER BY c.window_end ROWS BETWEEN 2 PRECEDING AND CURRENT ROW) AS s", "first_value(c.worst) OVER (PARTITION BY c.team ORDER BY c.window_end ROWS BETWEEN 2 PRECEDING AND CURRENT ROW) AS f")),
    case("within_window", over!("c.n AS observed", "row_number() OVER (PARTITION BY c.window_end ORDER BY c.worst DESC) AS place", "sum(c.n) OVER (PARTITION BY c.window_start, c.window_end) AS whole")),
    case("all_teams", over!("avg(c.worst) OVER (ORDER BY c.window_end, c.team ROWS BETWEEN 4 PRECEDING AND 1 PRECEDING) AS observed")),
    case("filtered", "SELECT j.team, j.window_start, j.window_end, j.n AS observed, j.usual FROM (SELECT c.team, c.window_start, c.window_end, c.n, avg(c.n) OVER (PARTITION BY c.team ORDER BY c.window_end ROWS BETWEEN 2 PRECEDING AND 1 PRECEDING) AS usual FROM (SELECT team, window_start, window_end, count(*) AS n FROM TUMBLE(spans, event_time, INTERVAL '30 seconds') GROUP BY team, window_start, window_end) AS c WHERE c.n > 1) AS j WHERE j.n > j.usual"),
    case("nested", "SELECT d.team, d.window_start, d.window_end, d.rise AS observed, avg(d.rise) OVER (PARTITION BY d.team ORDER BY d.window_end ROWS BETWEEN 2 PRECEDING AND CURRENT ROW) AS trend FROM (SELECT c.team, c.window_start, c.window_end, c.n - lag(c.n) OVER (PARTITION BY c.team ORDER BY c.window_end) AS rise FROM (SELECT team, window_start, window_end, count(*) AS n FROM HOP(spans, event_time, INTERVAL '30 seconds', INTERVAL '1 minute') GROUP BY team, window_start, window_end) AS c) AS d"),
    case("shares", "SELECT s.region, s.team, s.window_start, s.window_end, s.share - lag(s.share) OVER (PARTITION BY s.region, s.team ORDER BY s.window_end) AS observed FROM (SELECT c.region, c.team, c.window_start, c.window_end, CAST(c.n AS DOUBLE) / sum(c.n) OVER (PARTITION BY c.region, c.window_end) AS share FROM (SELECT region, team, window_start, window_end, count(*) AS n FROM TUMBLE(spans, event_time, INTERVAL '1 minute') GROUP BY region, team, window_start, window_end) AS c) AS s"),
    case("second_aggregate", "SELECT c.team, c.window_start, c.window_end, max(c.n) AS observed, count(*) AS regions FROM (SELECT team, region, window_start, window_end, count(*) AS n FROM TUMBLE(spans, event_time, INTERVAL '1 minute') GROUP BY team, region, window_start, window_end) AS c GROUP BY c.team, c.window_start, c.window_end HAVING max(c.n) > 1"),
    case("aggregate_of_changes", "SELECT d.region, d.window_start, d.window_end, sum(greatest(d.rise, 0)) AS observed FROM (SELECT c.region, c.team, c.window_start, c.window_end, c.n - lag(c.n, 1, 0) OVER (PARTITION BY c.region, c.team ORDER BY c.window_end) AS rise FROM (SELECT region, team, window_start, window_end, count(*) AS n FROM TUMBLE(spans, event_time, INTERVAL '1 minute') GROUP BY region, team, window_start, window_end) AS c) AS d GROUP BY d.region, d.window_start, d.window_end"),
];

#[test]
fn window_functions_and_second_aggregates() {
    check(OVER, "CLOSE");
}

const UPDATES: &[Case] = &[
    case("update_budget", "SELECT team, window_start, window_end, sum(cost_total) AS observed, count(*) AS n FROM TUMBLE(spans, event_time, INTERVAL '2 minutes') WHERE usage_leaf GROUP BY team, window_start, window_end HAVING sum(cost_total) >= 1"),
    case("update_between", "SELECT team, window_start, window_end, count(*) AS observed FROM TUMBLE(spans, event_time, INTERVAL '1 minute') GROUP BY team, window_start, window_end HAVING count(*) BETWEEN 3 AND 6"),
    case("update_hop", "SELECT team, region, window_start, window_end, count(*) AS observed, avg(latency_ms) AS mean FROM HOP(spans, event_time, INTERVAL '1 minute', INTERVAL '2 minutes') GROUP BY team, region, window_start, window_end HAVING avg(latency_ms) > 500"),
    case("update_hop_uneven", "SELECT team, window_start, window_end, count(DISTINCT request_model) AS observed, median(latency_ms) AS m FROM HOP(spans, event_time, INTERVAL '40 seconds', INTERVAL '1 minute') GROUP BY team, window_start, window_end HAVING count(DISTINCT request_model) = 2"),
    case("update_join", above!("c.cost AS observed, l.most AS threshold", "JOIN limits AS l ON l.team = c.team WHERE c.cost > 0.1 * l.most AND c.n < 5")),
    case("update_not_in", above!("c.n AS observed", "WHERE c.region NOT IN (SELECT region FROM known) AND c.n BETWEEN 2 AND 3")),
    case("update_ordered", per_team!("last_value(request_model ORDER BY kafka_offset) AS newest", "count(*) AS observed")),
];

#[test]
fn rules_that_speak_on_update() {
    check(UPDATES, "UPDATE");
}
