//! The streamed result of a windowed rule equals what DataFusion's batch engine says of the same query over all rows.
//!
//! Random rows, out of order within the lateness, are dealt to two scans and cut at random into what a scan sums up
//! before it ships, and windows close at random in between. What the engine's panes make of that is compared with
//! [`oracle`], group by group: the window, every column of the result, nothing missing and nothing more. The queries
//! are in `queries/`, and [`generated`].

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "../support/difference.rs"]
mod difference;
mod generated;
mod joined;
mod leaves;
mod plots;
mod series;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int32Array, Int64Array, RecordBatch, StringViewArray,
    TimestampNanosecondArray,
};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, Schema, TimestampNanosecondType};
use arrow::util::display::array_value_to_string;
use difference::difference;
use fastrand::Rng;
use lictor_engine::decision::Cleared;
use lictor_engine::exchange::route::{Place, StoreRoute};
use lictor_engine::exchange::{RuleId, StoreId};
use lictor_engine::frontier::Frontier;
use lictor_engine::store::{PaneStore, StorePlan};
use lictor_engine::windowed::{self, WindowedState};
use lictor_queries::{CompiledStore, Feed, References, RuleFile, RuleKind, Scan, WindowedRule, compile, oracle};
use lictor_schemas::tables::{Table, table_schema};
use lictor_schemas::time::{EventTime, Window};
use lictor_schemas::violation::Violation;
use serde_json::{Map, Number, Value, json};

const SECOND_NS: i64 = 1_000_000_000;
const LATENESS_NS: i64 = 10 * SECOND_NS;
/// Seven minutes of telemetry.
const ROWS: usize = 140;
const STEP_NS: i64 = 3 * SECOND_NS;
/// Each seed has an hour of its own, so that a rule is planned once for all of them.
const SEEDS: i64 = 20;
const HOUR_NS: i64 = 3_600 * SECOND_NS;
/// 2026-10-25T14:00:00Z: the day of Rome ends with that of Lagos, and began an hour earlier.
const START_NS: i64 = 1_792_936_800 * SECOND_NS;

/// A query, and how far numbers may be off, relative to themselves.
struct Case<'a> {
    name: &'a str,
    query: &'a str,
    tolerance: f64,
}

/// Floating-point sums depend on their order.
const TOLERANCE: f64 = 1e-9;

impl<'a> Case<'a> {
    /// Reads `-- name` or `-- name within 0.05`, then the query.
    fn read(text: &'a str) -> Self {
        let (head, query) = text.split_once('\n').unwrap();
        let head = head.strip_prefix("-- ").unwrap();
        match head.split_once(" within ") {
            Some((name, tolerance)) => Self { name, query, tolerance: tolerance.parse().unwrap() },
            None => Self { name: head, query, tolerance: TOLERANCE },
        }
    }
}

const TABLES: &str = "
CREATE EXTERNAL TABLE limits (team VARCHAR, most DOUBLE) STORED AS CSV LOCATION 'limits.csv';
CREATE EXTERNAL TABLE known (region VARCHAR) STORED AS CSV LOCATION 'known.csv';
CREATE EXTERNAL TABLE zones (who VARCHAR, zone VARCHAR) STORED AS CSV LOCATION 'zones.csv';
CREATE VIEW zoned AS SELECT s.*, z.zone FROM spans AS s LEFT JOIN zones AS z ON z.who = s.team;
CREATE VIEW minutes AS SELECT team, window_start, window_end, count(*) AS n, max(latency_ms) AS worst
    FROM TUMBLE(billed, event_time, INTERVAL '1 minute') GROUP BY team, window_start, window_end;
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
    let zones = vec![
        text(&[Some("a"), Some("b"), Some("c"), Some("z")]),
        text(&[Some("Asia/Kathmandu"), Some("europe/rome"), Some("Africa/Lagos"), Some("Mars/Olympus")]),
    ];
    let zones_schema = columns(&[("who", DataType::Utf8View), ("zone", DataType::Utf8View)]);
    let known_schema = columns(&[("region", DataType::Utf8View)]);
    BTreeMap::from([
        ("limits".to_owned(), Ok(RecordBatch::try_new(limits_schema, limits).unwrap())),
        ("zones".to_owned(), Ok(RecordBatch::try_new(zones_schema, zones).unwrap())),
        ("known".to_owned(), Ok(RecordBatch::try_new(known_schema, vec![text(&[Some("eu"), Some("us")])]).unwrap())),
    ])
}

fn pick<T: Copy>(random: &mut Rng, from: &[T]) -> T {
    from[random.usize(0..from.len())]
}

/// A number from the environment.
fn number(name: &str, default: u64) -> u64 {
    let parse = |text: String| text.parse().unwrap_or_else(|error| panic!("{name}: {error}"));
    std::env::var(name).map_or(default, parse)
}

/// Rows of `spans` as they are read: none is older than the newest before it minus the lateness.
fn rows(seed: i64) -> RecordBatch {
    let random = &mut Rng::with_seed(seed.unsigned_abs());
    let mut clock = START_NS + seed * HOUR_NS;
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
    let offsets: Vec<i64> = (seed * 1_000..).take(ROWS).collect();
    let ids: Vec<String> = offsets.iter().map(|offset| format!("{:032x}", offset + 1)).collect();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("event_time", Arc::new(TimestampNanosecondArray::from(at))),
        ("trace_id", Arc::new(StringViewArray::from_iter_values(&ids))),
        ("span_id", Arc::new(StringViewArray::from_iter_values(ids.iter().map(|id| &id[16..])))),
        ("kafka_partition", Arc::new(Int32Array::from(vec![0; ROWS]))),
        ("kafka_offset", Arc::new(Int64Array::from(offsets))),
        ("team", text(&of(&teams, random))),
        ("region", text(&of(&regions, random))),
        ("request_model", text(&of(&models, random))),
        ("input_tokens", Arc::new(Int64Array::from(tokens))),
        ("cost_total", Arc::new(Float64Array::from(cost))),
        ("latency_ms", Arc::new(Float64Array::from_iter_values((0..ROWS).map(|_| 100.0 + 900.0 * random.f64())))),
        (
            "usage_leaf",
            Arc::new(BooleanArray::from_iter((0..ROWS).map(|_| pick(random, &[Some(true), Some(false), None])))),
        ),
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
    let Violation { subject, observed, threshold, evidence, .. } = violation;
    json!({"subject": subject.0, "observed": observed, "threshold": threshold, "evidence": evidence})
}

/// Runs a rule over the rows as the engine would: sums of some rows are shipped, then windows may close.
struct Stream {
    /// Of two partitions, or of two instances.
    scans: [Scan; 2],
    store: PaneStore,
    state: WindowedState,
    found: Found,
}

impl Stream {
    /// One rule, compiled twice.
    fn new([rule, again]: [Compiled; 2]) -> Self {
        let WindowedRule { emission, finish, .. } = rule.0;
        let scan = |feed: Feed| match feed {
            Feed::Table { scan, .. } => scan,
            other => panic!("{other:?}"),
        };
        let CompiledStore { feed, aggregation, state_id, .. } = rule.1;
        let route = StoreRoute { name: "rule".to_owned(), keys: Vec::new() };
        let (frontier, readers) = (Frontier::of(Table::Spans.signal()), vec![RuleId(0)]);
        let plan = StorePlan { state_id, frontier, emission, aggregation, route, side: None, readers };
        let rule = Arc::new(windowed::WindowedRule { store: StoreId(0), reader: 0, emission, finish });
        let (store, state) = (PaneStore::new(Arc::new(plan)), WindowedState::new(rule, Place::ONLY));
        Self { scans: [scan(feed), scan(again.1.feed)], store, state, found: Found::new() }
    }

    fn run(mut self, hours: &[RecordBatch]) -> Result<Found, String> {
        for (seed, rows) in (0..).zip(hours) {
            self.run_hour(rows, &mut Rng::with_seed(seed))?;
        }
        self.ship()?;
        self.close(EventTime::MAX)?;
        Ok(self.found)
    }

    fn run_hour(&mut self, rows: &RecordBatch, random: &mut Rng) -> Result<(), String> {
        let times = rows.column_by_name("event_time").unwrap().as_primitive::<TimestampNanosecondType>();
        let (mut at, mut high) = (0, i64::MIN);
        while at < rows.num_rows() {
            let count = random.usize(1..=25).min(rows.num_rows() - at);
            self.scans[random.usize(0..2)].absorb(&rows.slice(at, count)).map_err(|e| e.to_string())?;
            high = times.values()[at..at + count].iter().copied().fold(high, i64::max);
            at += count;
            if random.bool() {
                self.ship_of(random.usize(0..2))?;
            }
            if random.usize(0..3) == 0 {
                self.commit()?;
            }
            if random.usize(0..4) == 0 {
                self.ship()?;
                if random.bool() {
                    self.close_and_undo(EventTime(high - LATENESS_NS))?;
                }
                self.close(EventTime(high - LATENESS_NS))?;
            }
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<(), String> {
        self.state.commit();
        self.store.commit().map_err(|e| e.to_string())
    }

    /// An epoch that is undone, which must leave nothing behind.
    fn close_and_undo(&mut self, watermark: EventTime) -> Result<(), String> {
        self.commit()?;
        let found = self.found.clone();
        self.close(watermark)?;
        self.found = found;
        self.state.undo();
        self.store.undo().map_err(|e| e.to_string())
    }

    fn ship(&mut self) -> Result<(), String> {
        (0..2).try_for_each(|scan| self.ship_of(scan))
    }

    fn ship_of(&mut self, scan: usize) -> Result<(), String> {
        for partial in self.scans[scan].flush().map_err(|e| e.to_string())? {
            self.store.absorb(&partial).map(drop).map_err(|e| e.to_string())?;
        }
        self.store.note_changes().map_err(|e| e.to_string())?;
        let update = self.state.take_update(&mut self.store).map_err(|e| e.to_string())?;
        self.store.forget_changes();
        let Some(update) = update else { return Ok(()) };
        for Cleared { subject, window, .. } in update.cleared {
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
        self.store.end_sessions(watermark).map_err(|e| e.to_string())?;
        for violation in self.state.close_sessions(&self.store).map_err(|e| e.to_string())? {
            let window = violation.window.unwrap();
            assert!(window.end <= watermark);
            insert(&mut self.found, window, &violation.subject.to_key(), said(&violation))?;
        }
        let closed = self.state.close(&mut self.store, watermark).map_err(|e| e.to_string())?;
        self.store.let_go(watermark);
        for windowed::Closed { window, violations, .. } in closed {
            assert!(window.end <= watermark);
            for violation in violations.into_iter().flatten() {
                assert_eq!(violation.window, Some(window));
                insert(&mut self.found, window, &violation.subject.to_key(), said(&violation))?;
            }
        }
        Ok(())
    }
}

/// The cells of each row.
fn to_cells(batch: &RecordBatch) -> Vec<Map<String, Value>> {
    let schema = batch.schema();
    let of_row = |row: usize| {
        let columns = schema.fields().iter().zip(batch.columns());
        columns.map(|(field, column)| (field.name().clone(), cell(column, row))).collect()
    };
    (0..batch.num_rows()).map(of_row).collect()
}

/// The oracle's rows in the same form; which columns are the subject is known from the streamed ones.
fn to_found(batches: &[RecordBatch], subject: &[String]) -> Result<Found, String> {
    let mut found = Found::new();
    for batch in batches {
        for mut cells in to_cells(batch) {
            let mut bound = |name: &str| EventTime::from_rfc3339(cells.remove(name).unwrap().as_str().unwrap());
            let window = Window { start: bound("window_start")?, end: bound("window_end")? };
            let mut number = |name: &str| cells.remove(name).map_or(Value::Null, |v| json!(v.as_f64()));
            let (observed, threshold) = (number("observed"), number("threshold"));
            let (subject, evidence): (Map<_, _>, Map<_, _>) =
                cells.into_iter().partition(|(name, _)| subject.contains(name));
            let key = Value::Object(subject.clone()).to_string();
            let value = json!({"subject": subject, "observed": observed, "threshold": threshold, "evidence": evidence});
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

fn files(case: &Case<'_>, emission: &str) -> Vec<RuleFile> {
    let rule = format!(
        "CREATE RULE {} WITH (action = 'warn', reason_code = 'x_test') AS {} EMIT ON {emission};",
        case.name, case.query
    );
    vec![RuleFile { file: "rule.sql".to_owned(), text: format!("{TABLES}{rule}") }]
}

/// A rule and its sums.
type Compiled = (WindowedRule, CompiledStore);

fn compiled(files: &[RuleFile], references: &References) -> Result<Compiled, String> {
    let (mut set, faults) = compile(files, references);
    if let Some(fault) = faults.first() {
        return Err(fault.render(&files[0].text, false));
    }
    for (name, rows) in references {
        set.fill_reference(name, rows.as_ref().unwrap())?;
    }
    match set.rules.remove(0).kind {
        RuleKind::Windowed(rule) => Ok((*rule, set.stores.remove(0))),
        _ => Err("it is not windowed".to_owned()),
    }
}

/// Compares what one query gives; how many rows that are, or how the two sides differ.
fn compare(case: &Case<'_>, emission: &str, hours: &[RecordBatch]) -> Result<usize, String> {
    let (files, references) = (files(case, emission), references());
    let streamed = Stream::new([compiled(&files, &references)?, compiled(&files, &references)?]).run(hours)?;
    let whole = concat_batches(&hours[0].schema(), hours).unwrap();
    let batches = oracle(&files, &references, case.name, &BTreeMap::from([(Table::Spans, whole)]));
    let subject = streamed
        .values()
        .next()
        .map_or(Vec::new(), |row| row["subject"].as_object().unwrap().keys().cloned().collect());
    let expected = to_found(&batches.map_err(|e| e.to_string())?, &subject)?;
    let keys: BTreeSet<_> = expected.keys().chain(streamed.keys()).collect();
    for key in keys {
        let (expected, found) = (expected.get(key), streamed.get(key));
        let place = || format!("seed {}, {}..{}, {}", (key.0.0 - START_NS) / HOUR_NS, key.0, key.1, key.2);
        let (Some(expected), Some(found)) = (expected, found) else {
            return Err(format!("{}: expected {expected:?}, found {found:?}", place()));
        };
        if let Some(differs) = difference("row", expected, found, case.tolerance) {
            return Err(format!("{}: {differs}: expected {expected}, found {found}", place()));
        }
    }
    Ok(expected.len())
}

/// Compares every query of a text, parted by blank lines; all that differ are named, each with the first seed.
#[track_caller]
fn check(queries: &str, emission: &str) {
    let hours: Vec<RecordBatch> = (0..SEEDS).map(rows).collect();
    let cases: Vec<Case<'_>> = queries.trim().split("\n\n").map(Case::read).collect();
    let mut faults = Vec::new();
    for case in &cases {
        match compare(case, emission, &hours) {
            Ok(0) => faults.push(format!("{}: it gave no row at all", case.name)),
            Ok(_) => {}
            Err(fault) => faults.push(format!("{}: {fault}", case.name)),
        }
    }
    assert!(faults.is_empty(), "{} of {} queries:\n{}", faults.len(), cases.len(), faults.join("\n"));
}

#[test]
fn aggregates() {
    check(include_str!("queries/aggregates.sql"), "CLOSE");
}

#[test]
fn windows() {
    check(include_str!("queries/windows.sql"), "CLOSE");
}

#[test]
fn joins_with_reference_tables() {
    check(include_str!("queries/joins.sql"), "CLOSE");
}

#[test]
fn window_functions_and_second_aggregates() {
    check(include_str!("queries/over.sql"), "CLOSE");
}

#[test]
fn sequence_detectors() {
    check(include_str!("queries/sequences.sql"), "CLOSE");
}

#[test]
fn rules_that_speak_on_update() {
    check(include_str!("queries/updates.sql"), "UPDATE");
}
