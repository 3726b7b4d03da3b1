//! Joins of two streams drawn from a seed, through the whole pipeline: what fires is what DataFusion's batch engine
//! says of the same query over all rows.
//!
//! Spans and logs lie on three partitions each, out of order within the lateness; records are dealt and epochs cut at
//! random. Every row of a result has a subject of its own, so each one is one directive.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, Float64Array, Int32Array, Int64Array, RecordBatch, StringViewArray, TimestampNanosecondArray,
};
use arrow::datatypes::Schema;
use fastrand::Rng;
use lictor_connectors::{RecordRef, TopicPartition};
use lictor_engine::pipeline::{Pipeline, PipelineSettings};
use lictor_queries::{RuleFile, compile, oracle};
use lictor_schemas::event::State;
use lictor_schemas::otlp::encode::{RowDraft, encode_protobuf};
use lictor_schemas::prices::PriceTable;
use lictor_schemas::tables::{Signal, Table, table_schema};
use lictor_schemas::time::EventTime;
use serde_json::{Value, json};

use super::{LATENESS_NS, SECOND_NS, START_NS, TABLES, number, pick, references, to_cells};

const PARTITIONS: usize = 3;
const RECORDS: usize = 60;
const DAY_NS: i64 = 86_400 * SECOND_NS;

/// A row, and the record that it is in.
#[derive(Clone, Debug)]
struct Row {
    at: i64,
    partition: usize,
    offset: i64,
    trace: u128,
    id: u64,
    team: &'static str,
    weight: i32,
}

/// The rows of a signal, record by record in the order of their arrival.
fn draw_rows(random: &mut Rng, first_id: u64) -> Vec<Vec<Row>> {
    let (mut clocks, mut offsets) = ([START_NS; PARTITIONS], [0; PARTITIONS]);
    let mut id = first_id;
    let mut records = Vec::new();
    for _ in 0..RECORDS {
        let partition = random.usize(0..PARTITIONS);
        let offset = offsets[partition];
        offsets[partition] += 1;
        clocks[partition] += random.i64(0..20 * SECOND_NS);
        let mut row = |random: &mut Rng| {
            id += 1;
            Row {
                at: clocks[partition] - random.i64(0..LATENESS_NS / SECOND_NS) * SECOND_NS,
                partition,
                offset,
                trace: u128::from(random.u64(1..9)),
                id,
                team: pick(random, &["a", "b", "c"]),
                // A severity of 0 is none.
                weight: random.i32(1..100),
            }
        };
        records.push((0..random.usize(1..4)).map(|_| row(random)).collect());
    }
    records
}

fn draft(table: Table, row: &Row) -> RowDraft {
    let (trace, id) = (format!("{:032x}", row.trace), format!("{:016x}", row.id));
    let columns: BTreeMap<String, Value> = [
        ("trace_id", json!(trace)),
        ("span_id", json!(id)),
        ("team", json!(row.team)),
        (if table == Table::Spans { "cost_total" } else { "severity_number" }, json!(row.weight)),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    RowDraft { table, event_time: EventTime(row.at), columns }
}

fn batch(table: Table, rows: &[Row]) -> RecordBatch {
    let text =
        |of: &dyn Fn(&Row) -> String| -> ArrayRef { Arc::new(StringViewArray::from_iter_values(rows.iter().map(of))) };
    let weights = rows.iter().map(|row| row.weight);
    let partition = |row: &Row| i32::try_from(row.partition).unwrap();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("event_time", Arc::new(TimestampNanosecondArray::from_iter_values(rows.iter().map(|row| row.at)))),
        ("trace_id", text(&|row| format!("{:032x}", row.trace))),
        ("span_id", text(&|row| format!("{:016x}", row.id))),
        ("kafka_partition", Arc::new(Int32Array::from_iter_values(rows.iter().map(partition)))),
        ("kafka_offset", Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.offset)))),
        ("team", text(&|row| row.team.to_owned())),
        match table {
            Table::Spans => ("cost_total", Arc::new(Float64Array::from_iter_values(weights.map(f64::from)))),
            _ => ("severity_number", Arc::new(Int64Array::from_iter_values(weights.map(i64::from)))),
        },
    ];
    let all = table_schema(table, &[]);
    let fields: Vec<_> = columns.iter().map(|(name, _)| all.field_with_name(name).unwrap().clone()).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns.into_iter().map(|c| c.1).collect()).unwrap()
}

/// A query over two streams; what it selects of the rows makes every one a subject.
fn draw_query(random: &mut Rng) -> (String, &'static str) {
    let kind = pick(random, &["JOIN", "JOIN", "LEFT JOIN", "LEFT SEMI JOIN", "LEFT ANTI JOIN", "DISTINCT"]);
    let (from, length) = (pick(random, &[-60, -20, 0, 10]), pick(random, &[0, 5, 30, 90]));
    let bound = match random.usize(0..3) {
        0 => format!(
            "r.event_time BETWEEN l.event_time + INTERVAL '{from} seconds'
             AND l.event_time + INTERVAL '{} seconds'",
            from + length
        ),
        1 => format!(
            "r.event_time - l.event_time > INTERVAL '{} seconds'
             AND l.event_time >= r.event_time - INTERVAL '{} seconds'",
            from - 1,
            from + length
        ),
        _ => format!(
            "l.event_time < r.event_time + INTERVAL '{} seconds'
             AND r.event_time <= l.event_time + INTERVAL '{} seconds'",
            1 - from,
            from + length
        ),
    };
    let right = pick(random, &["logs", "logs", "spans", "(SELECT * FROM logs WHERE severity_number > 20)"]);
    let key =
        pick(random, &["r.trace_id = l.trace_id", "l.trace_id = r.trace_id AND r.team = l.team", "r.team = l.team"]);
    let weight = if right == "spans" { "cost_total" } else { "severity_number" };
    let residual = match random.usize(0..4) {
        0 => format!(" AND r.{weight} > l.cost_total"),
        1 => format!(" AND r.{weight} < 50"),
        2 => " AND r.span_id <> l.span_id".to_owned(),
        _ => String::new(),
    };
    let on = format!("ON {key} AND {bound}{residual}");
    let is_half = kind.contains("SEMI") || kind.contains("ANTI");
    let columns = if is_half { "l.span_id AS a" } else { "l.span_id AS a, r.span_id AS b" };
    let reference = if random.bool() { "JOIN limits AS m ON m.team = l.team" } else { "" };
    let filter = match (random.usize(0..4), kind) {
        (0, _) => "WHERE l.cost_total < 70",
        (1, "LEFT JOIN") => "WHERE r.span_id IS NULL",
        (2, "JOIN") => "WHERE r.team <> 'b' AND l.cost_total > 3",
        _ => "",
    };
    if kind == "DISTINCT" {
        let keys = pick(random, &["trace_id", "trace_id, team", "team"]);
        let within = pick(random, &[1, 20, 120]);
        let firsts = format!("SELECT DISTINCT ON ({keys}) span_id AS a, trace_id, team FROM spans");
        return (format!("{firsts} WITHIN INTERVAL '{within} seconds'"), "");
    }
    if random.bool() {
        return (format!("SELECT {columns}, l.team FROM spans AS l {kind} {right} AS r {on} {reference} {filter}"), "");
    }
    let followed = if kind == "JOIN" { pick(random, &["l", "r"]) } else { "l" };
    let partner = if is_half { "l.team" } else { "r.span_id" };
    let rows = format!(
        "SELECT {followed}.event_time, l.team, l.trace_id AS trace, l.cost_total AS cost, {partner} AS partner
         FROM spans AS l {kind} {right} AS r {on} {filter}"
    );
    let emission = pick(random, &["EMIT ON CLOSE", "EMIT ON UPDATE"]);
    let observed = if emission == "EMIT ON CLOSE" { "count(*) AS observed," } else { "" };
    let size = pick(random, &[7, 60]);
    (
        format!(
            "SELECT j.team, j.trace, j.minute, {observed} window_start, window_end
             FROM TUMBLE((SELECT *, CAST(date_bin(INTERVAL '{size} seconds', event_time) AS VARCHAR) AS minute
                          FROM ({rows})), event_time, INTERVAL '{size} seconds') AS j
             GROUP BY j.team, j.trace, j.minute, window_start, window_end"
        ),
        emission,
    )
}

fn files(query: &str, emission: &str) -> Vec<RuleFile> {
    let text = format!(
        "{TABLES} CREATE RULE joined WITH (action = 'warn', reason_code = 'x_test', ttl = '20 days')
         AS {query} {emission};"
    );
    vec![RuleFile { file: "rule.sql".to_owned(), text }]
}

/// The subject of every directive that fires, with what was observed.
type Fired = BTreeMap<String, Option<f64>>;

type Record<'a> = (&'a str, Signal, Table, &'a Vec<Row>);

fn stream(files: &[RuleFile], spans: &[Vec<Row>], logs: &[Vec<Row>], random: &mut Rng) -> Result<Fired, String> {
    let (rules, faults) = compile(files, &references());
    if let Some(fault) = faults.first() {
        return Err(fault.render(&files[0].text, false));
    }
    for (name, rows) in references() {
        rules.fill_reference(&name, &rows.unwrap())?;
    }
    let mut pipeline = Pipeline::new(rules, Arc::new(PriceTable::empty()), &PipelineSettings::default());
    let now = EventTime(START_NS);
    let topics = [("otlp_spans", Signal::Traces, Table::Spans, spans), ("otlp_logs", Signal::Logs, Table::Logs, logs)];
    for (topic, ..) in topics {
        (0..3).for_each(|partition| pipeline.assign(TopicPartition::new(topic, partition), now));
    }
    // Each partition is read in its order; which one is read next does not matter.
    let mut queues: Vec<VecDeque<Record<'_>>> = Vec::new();
    for ((topic, signal, table, records), partition) in topics.iter().flat_map(|t| (0..PARTITIONS).map(move |p| (t, p)))
    {
        let of_partition = records.iter().filter(|rows| rows[0].partition == partition);
        queues.push(of_partition.map(|rows| (*topic, *signal, *table, rows)).collect());
    }
    let mut epochs = Vec::new();
    while queues.iter().any(|queue| !queue.is_empty()) {
        let Some((topic, signal, table, rows)) = queues[random.usize(0..2 * PARTITIONS)].pop_front() else { continue };
        let payload = encode_protobuf(signal, &rows.iter().map(|row| draft(table, row)).collect::<Vec<_>>())?;
        let (partition, offset) = (i32::try_from(rows[0].partition).unwrap(), rows[0].offset);
        let (timestamp_ms, key, payload) = (0, None, Some(payload.as_slice()));
        pipeline
            .absorb(RecordRef { topic, partition, offset, timestamp_ms, key, payload, ..RecordRef::default() }, now);
        if random.usize(0..5) == 0 {
            epochs.push(pipeline.end_epoch(now));
        }
    }
    epochs.push(pipeline.end_epoch(now));
    epochs.push(pipeline.end_epoch(now.plus(DAY_NS)));
    if let Some(failed) = pipeline.status().into_iter().find_map(|status| status.quarantined) {
        return Err(failed);
    }
    let mut fired = Fired::new();
    for decision in epochs.into_iter().flat_map(|epoch| epoch.decisions) {
        let event = decision.event;
        if event.data.state == State::Firing {
            let key = Value::Object(event.data.selector.matches).to_string();
            let observed = event.data.finding.observed;
            if fired.insert(key.clone(), observed).is_some() {
                return Err(format!("{key} fires twice"));
            }
        }
    }
    Ok(fired)
}

fn expected(files: &[RuleFile], spans: &[Vec<Row>], logs: &[Vec<Row>], subject: &[&str]) -> Result<Fired, String> {
    let telemetry = BTreeMap::from([
        (Table::Spans, batch(Table::Spans, &spans.concat())),
        (Table::Logs, batch(Table::Logs, &logs.concat())),
    ]);
    let batches = oracle(files, &references(), "joined", &telemetry).map_err(|e| e.to_string())?;
    let mut found = Fired::new();
    for mut cells in batches.iter().flat_map(to_cells) {
        let observed = cells.remove("observed").and_then(|observed| observed.as_f64());
        cells.retain(|name, _| subject.contains(&name.as_str()));
        found.insert(Value::Object(cells).to_string(), observed);
    }
    Ok(found)
}

fn differs(seed: u64) -> Result<usize, String> {
    let random = &mut Rng::with_seed(seed);
    let (spans, logs) = (draw_rows(random, 0), draw_rows(random, 100_000));
    let (query, emission) = draw_query(random);
    let files = files(&query, emission);
    let subject = ["a", "b", "team", "trace", "trace_id", "minute"];
    let fired = stream(&files, &spans, &logs, random).map_err(|e| format!("{query} {emission}: {e}"))?;
    let expected = expected(&files, &spans, &logs, &subject).map_err(|e| format!("{query}: {e}"))?;
    let keys: BTreeSet<&String> = expected.keys().chain(fired.keys()).collect();
    for key in keys {
        if expected.get(key) != fired.get(key) {
            let (expected, fired) = (expected.get(key), fired.get(key));
            return Err(format!("{query} {emission}: {key}: expected {expected:?}, found {fired:?}"));
        }
    }
    Ok(expected.len())
}

#[test]
fn generated_joins_of_two_streams() {
    let (pairs, first) = (number("LICTOR_ORACLE_JOINS", 60), number("LICTOR_ORACLE_SEED", 1));
    let mut rows = 0;
    for seed in first..first + pairs {
        rows += differs(seed).unwrap_or_else(|fault| panic!("LICTOR_ORACLE_SEED={seed}: {fault}"));
    }
    assert!(rows > 0, "no query gave a row");
    eprintln!("oracle: {pairs} generated joins from seed {first}, {rows} rows: streamed = batch");
}
