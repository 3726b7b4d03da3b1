//! Traces drawn from a seed, through the whole pipeline: `USAGE_LEAVES` lets exactly those spans through that bear
//! usage and have no descendant that does, as a walk up from every span says, and as DataFusion's batch engine says of
//! the same query over all rows.
//!
//! Spans without usage lie between, parents come before their children and after them, links are missing, and the spans
//! of a trace lie in many records on three partitions, which are read in any order.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, BooleanArray, Float64Array, Int32Array, Int64Array, RecordBatch, StringViewArray,
    TimestampNanosecondArray,
};
use arrow::datatypes::Schema;
use fastrand::Rng;
use lictor_connectors::{RecordRef, TopicPartition};
use lictor_engine::join::LeafCounts;
use lictor_engine::pipeline::{Epoch, Pipeline, PipelineSettings};
use lictor_queries::{References, RuleFile, compile, oracle};
use lictor_schemas::event::State;
use lictor_schemas::otlp::encode::{RowDraft, encode_protobuf};
use lictor_schemas::prices::PriceTable;
use lictor_schemas::tables::{Signal, Table, table_schema};
use lictor_schemas::time::EventTime;
use serde_json::{Value, json};

use super::{LATENESS_NS, SECOND_NS, START_NS, number, pick};

const PARTITIONS: usize = 3;
const TRACES: u64 = 12;
const DAY_NS: i64 = 86_400 * SECOND_NS;

#[derive(Clone, Debug)]
struct Span {
    at: i64,
    trace: u64,
    id: u64,
    parent: Option<u64>,
    bears_usage: bool,
    team: &'static str,
}

impl Span {
    fn draft(&self) -> RowDraft {
        let mut columns: BTreeMap<String, Value> = [
            ("trace_id", json!(format!("{:032x}", self.trace))),
            ("span_id", json!(format!("{:016x}", self.id))),
            ("team", json!(self.team)),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        if let Some(parent) = self.parent {
            columns.insert("parent_span_id".to_owned(), json!(format!("{parent:016x}")));
        }
        if self.bears_usage {
            columns.insert("cost_total".to_owned(), json!(self.cost()));
        }
        RowDraft { table: Table::Spans, event_time: EventTime(self.at), columns }
    }

    fn cost(&self) -> f64 {
        f64::from(u32::try_from(self.id % 97).unwrap()) + 1.0
    }
}

/// The spans of a record; records of a partition are in order.
#[derive(Clone, Debug)]
struct Record {
    partition: usize,
    offset: i64,
    spans: Vec<Span>,
}

/// A trace whose spans end in any order, most of them before their parents.
fn draw_trace(random: &mut Rng, trace: u64) -> Vec<Span> {
    let begin = START_NS + random.i64(0..120) * SECOND_NS;
    let mut spans: Vec<Span> = Vec::new();
    for nth in 0..random.u64(1..40) {
        let parent = (!spans.is_empty()).then(|| random.usize(0..spans.len()));
        let before = match (parent, random.usize(0..8)) {
            (None, _) => begin + 60 * SECOND_NS,
            // It goes on without its parent.
            (Some(parent), 0) => spans[parent].at + 2 * random.i64(0..30 * SECOND_NS),
            (Some(parent), _) => spans[parent].at,
        };
        spans.push(Span {
            at: before - random.i64(0..15 * SECOND_NS),
            trace,
            id: trace * 1_000 + nth + 1,
            parent: parent.map(|parent| spans[parent].id),
            bears_usage: random.usize(0..3) == 0,
            team: pick(random, &["a", "b"]),
        });
    }
    // Somebody has dropped a span: those below it hang in the air.
    if random.usize(0..4) == 0 && spans.len() > 3 {
        spans.remove(random.usize(1..spans.len()));
    }
    spans
}

fn draw_records(random: &mut Rng) -> Vec<Record> {
    let mut spans: Vec<(i64, Span)> = Vec::new();
    for trace in 1..=TRACES {
        let of_trace = draw_trace(random, trace);
        spans.extend(of_trace.into_iter().map(|span| (span.at + random.i64(0..LATENESS_NS), span)));
    }
    spans.sort_by_key(|(arrives, span)| (*arrives, span.id));
    let mut spans: VecDeque<Span> = spans.into_iter().map(|(_, span)| span).collect();
    let (mut records, mut offsets) = (Vec::new(), [0; PARTITIONS]);
    while !spans.is_empty() {
        let partition = random.usize(0..PARTITIONS);
        let of_record = random.usize(1..6).min(spans.len());
        records.push(Record { partition, offset: offsets[partition], spans: spans.drain(..of_record).collect() });
        offsets[partition] += 1;
    }
    records
}

/// The ancestors of a span among others, with the spans on the way to each and itself in front.
fn ways_up<'a>(span: &'a Span, by_id: &HashMap<u64, &'a Span>) -> Vec<(&'a Span, Vec<&'a Span>)> {
    let (mut ways, mut way) = (Vec::new(), vec![span]);
    while let Some(above) = way[way.len() - 1].parent.and_then(|parent| by_id.get(&parent)) {
        ways.push((*above, way.clone()));
        way.push(above);
    }
    ways
}

/// The spans that bear usage which no other span of their record repeats from below.
fn leaves_of_records(records: &[Record]) -> BTreeSet<u64> {
    let mut leaves = BTreeSet::new();
    for record in records {
        let by_id = record.spans.iter().map(|span| (span.id, span)).collect();
        let bearing = || record.spans.iter().filter(|span| span.bears_usage);
        let above: BTreeSet<u64> =
            bearing().flat_map(|span| ways_up(span, &by_id)).map(|(above, _)| above.id).collect();
        leaves.extend(bearing().map(|span| span.id).filter(|id| !above.contains(id)));
    }
    leaves
}

/// Those of them that count, by a walk up from each.
fn counting(records: &[Record], (back_ns, wait_ns): (i64, i64)) -> BTreeSet<u64> {
    let by_id: HashMap<u64, &Span> = records.iter().flat_map(|record| &record.spans).map(|s| (s.id, s)).collect();
    let mut counting = leaves_of_records(records);
    for id in counting.clone() {
        for (above, way) in ways_up(by_id[&id], &by_id) {
            let is_known = |span: &&Span| (above.at - back_ns..=above.at + wait_ns).contains(&span.at);
            if way.iter().all(is_known) {
                counting.remove(&above.id);
            }
        }
    }
    counting
}

fn files(text: &str) -> Vec<RuleFile> {
    vec![RuleFile { file: "rule.sql".to_owned(), text: text.to_owned() }]
}

fn pipeline_of(files: &[RuleFile]) -> Pipeline {
    let (rules, faults) = compile(files, &References::new());
    assert_eq!(faults, []);
    let mut pipeline = Pipeline::new(rules, Arc::new(PriceTable::empty()), &PipelineSettings::default());
    let partitions = (0..3).map(|partition| TopicPartition::new("otlp_spans", partition));
    partitions.for_each(|partition| pipeline.assign(partition, EventTime(START_NS)));
    pipeline
}

/// Reads the records of each partition in their order, and the partitions in any.
fn read(pipeline: &mut Pipeline, records: &[Record], random: &mut Rng) -> Vec<Epoch> {
    let now = EventTime(START_NS);
    let of = |partition: usize| records.iter().filter(|record| record.partition == partition).collect::<VecDeque<_>>();
    let mut queues: Vec<VecDeque<&Record>> = (0..PARTITIONS).map(of).collect();
    let mut epochs = Vec::new();
    while queues.iter().any(|queue| !queue.is_empty()) {
        let Some(record) = queues[random.usize(0..PARTITIONS)].pop_front() else { continue };
        let payload =
            encode_protobuf(Signal::Traces, &record.spans.iter().map(Span::draft).collect::<Vec<_>>()).unwrap();
        let (partition, payload) = (i32::try_from(record.partition).unwrap(), Some(payload.as_slice()));
        let (topic, offset) = ("otlp_spans", record.offset);
        pipeline.absorb(RecordRef { topic, partition, offset, payload, ..RecordRef::default() }, now);
        if random.usize(0..5) == 0 {
            epochs.push(pipeline.end_epoch(now));
        }
    }
    epochs.push(pipeline.end_epoch(now));
    epochs.push(pipeline.end_epoch(now.plus(DAY_NS)));
    assert_eq!(pipeline.status().into_iter().find_map(|status| status.quarantined), None);
    epochs
}

/// What fired, by the `column` of its subject, with what was observed then.
fn fired(epochs: &[Epoch], rule: &str, column: &str) -> BTreeMap<String, f64> {
    let events = epochs.iter().flat_map(|epoch| &epoch.decisions).map(|decision| &decision.event.data);
    let said = events.filter(|data| data.rule.name == rule && data.state == State::Firing);
    said.map(|data| {
        let subject = data.selector.matches[column].as_str().unwrap().to_owned();
        (subject, data.finding.observed.unwrap_or_default())
    })
    .collect()
}

fn batch(records: &[Record]) -> RecordBatch {
    let leaves = leaves_of_records(records);
    let rows: Vec<(&Record, &Span)> = records.iter().flat_map(|r| r.spans.iter().map(move |s| (r, s))).collect();
    let spans = || rows.iter().map(|(_, span)| *span);
    let partition = |record: &Record| i32::try_from(record.partition).unwrap();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("event_time", Arc::new(TimestampNanosecondArray::from_iter_values(spans().map(|s| s.at)))),
        ("trace_id", Arc::new(StringViewArray::from_iter_values(spans().map(|s| format!("{:032x}", s.trace))))),
        ("span_id", Arc::new(StringViewArray::from_iter_values(spans().map(|s| format!("{:016x}", s.id))))),
        (
            "parent_span_id",
            Arc::new(spans().map(|s| s.parent.map(|p| format!("{p:016x}"))).collect::<StringViewArray>()),
        ),
        ("kafka_partition", Arc::new(Int32Array::from_iter_values(rows.iter().map(|(r, _)| partition(r))))),
        ("kafka_offset", Arc::new(Int64Array::from_iter_values(rows.iter().map(|(r, _)| r.offset)))),
        ("team", Arc::new(StringViewArray::from_iter_values(spans().map(|s| s.team)))),
        ("cost_total", Arc::new(spans().map(|s| s.bears_usage.then(|| s.cost())).collect::<Float64Array>())),
        ("usage_leaf", Arc::new(spans().map(|s| Some(leaves.contains(&s.id))).collect::<BooleanArray>())),
    ];
    let all = table_schema(Table::Spans, &[]);
    let fields: Vec<_> = columns.iter().map(|(name, _)| all.field_with_name(name).unwrap().clone()).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns.into_iter().map(|c| c.1).collect()).unwrap()
}

/// What the batch engine lets through.
fn expected(files: &[RuleFile], records: &[Record]) -> BTreeSet<String> {
    let telemetry = BTreeMap::from([(Table::Spans, batch(records))]);
    let batches = oracle(files, &References::new(), "each", &telemetry).unwrap();
    let ids = batches.iter().flat_map(|batch| batch["span_id"].as_string_view().iter().flatten().collect::<Vec<_>>());
    ids.map(str::to_owned).collect()
}

fn rules(back_s: i64, wait_s: i64, spent_by_a: f64) -> String {
    let leaves = format!("USAGE_LEAVES(spans, INTERVAL '{wait_s} seconds', INTERVAL '{back_s} seconds')");
    let spent = |name: &str, rest: &str| {
        format!(
            "CREATE RULE {name} WITH (action = 'warn', reason_code = 'x_test', ttl = '20 days') AS
             SELECT u.team, window_start, window_end, sum(u.cost_total) AS observed
             FROM TUMBLE(usage, event_time, INTERVAL '1 day') AS u GROUP BY u.team, window_start, window_end {rest};"
        )
    };
    format!(
        "CREATE RULE each WITH (action = 'warn', reason_code = 'x_test', ttl = '20 days')
         AS SELECT span_id FROM {leaves};
         CREATE VIEW usage AS SELECT * FROM {leaves};
         {} {}",
        spent("spent", "EMIT ON CLOSE"),
        spent("so_far", &format!("HAVING u.team = 'a' AND sum(u.cost_total) >= {spent_by_a} EMIT ON UPDATE"))
    )
}

#[test]
fn of_generated_traces_exactly_the_innermost_usage_counts() {
    let (cases, first) = (number("LICTOR_ORACLE_TRACES", 15), number("LICTOR_ORACLE_SEED", 1));
    let (mut counted, mut repeated) = (0, 0);
    for seed in first..first + cases {
        let random = &mut Rng::with_seed(seed);
        let records = draw_records(random);
        let (back_s, wait_s) = (pick(random, &[5, 60, 600]), pick(random, &[0, 20, 120]));
        let counting = counting(&records, (back_s * SECOND_NS, wait_s * SECOND_NS));
        let mut spent = BTreeMap::<String, f64>::new();
        for span in records.iter().flat_map(|record| &record.spans).filter(|span| counting.contains(&span.id)) {
            *spent.entry(span.team.to_owned()).or_default() += span.cost();
        }
        let files = files(&rules(back_s, wait_s, spent.get("a").copied().unwrap_or_default()));
        let named: BTreeSet<String> = counting.iter().map(|id| format!("{id:016x}")).collect();
        assert_eq!(expected(&files, &records), named, "LICTOR_ORACLE_SEED={seed}: in a batch");
        let epochs = read(&mut pipeline_of(&files), &records, random);
        let streamed: BTreeSet<String> = fired(&epochs, "each", "span_id").into_keys().collect();
        assert_eq!(streamed, named, "LICTOR_ORACLE_SEED={seed}: streamed");
        assert_eq!(fired(&epochs, "spent", "team"), spent, "LICTOR_ORACLE_SEED={seed}: summed up");
        spent.retain(|team, _| team == "a");
        assert_eq!(fired(&epochs, "so_far", "team"), spent, "LICTOR_ORACLE_SEED={seed}: so far");
        counted += counting.len();
        repeated += records.iter().flat_map(|r| &r.spans).filter(|span| span.bears_usage).count() - counting.len();
    }
    assert!(counted > 100 && repeated > 100, "{counted} count, {repeated} do not");
    eprintln!("oracle: {cases} generated sets of traces from seed {first}: {counted} spans count, {repeated} do not");
}

fn span(at_s: i64, id: u64, parent: Option<u64>, bears_usage: bool) -> Span {
    Span { at: START_NS + at_s * SECOND_NS, trace: 1, id, parent, bears_usage, team: "a" }
}

fn leaf_counts(spans: Vec<Span>) -> LeafCounts {
    let mut pipeline = pipeline_of(&files(&rules(60, 20, 1.0)));
    let record = |(offset, span): (i64, Span)| Record { partition: 0, offset, spans: vec![span] };
    let records: Vec<Record> = (0..).zip(spans).map(record).collect();
    read(&mut pipeline, &records, &mut Rng::with_seed(1));
    pipeline.status().into_iter().find(|status| status.name == "each").unwrap().leaves
}

#[test]
fn descendants_that_come_after_their_ancestor_has_counted_are_counted() {
    let in_time = vec![span(0, 1, None, true), span(20, 2, Some(1), false), span(15, 3, Some(2), true)];
    assert_eq!(leaf_counts(in_time), LeafCounts { late: 0, unsearched: 0 });
    let late = vec![span(0, 1, None, true), span(25, 2, Some(1), false), span(24, 3, Some(2), true)];
    assert_eq!(leaf_counts(late), LeafCounts { late: 1, unsearched: 0 });
}

#[test]
fn a_trace_without_end_is_not_looked_through_and_that_is_counted() {
    let agent = span(1, 1, None, true);
    let calls = |n: u64| (2..2 + n).map(|id| span(0, id, Some(1), id == 2)).collect::<Vec<_>>();
    for (calls, unsearched) in [(calls(9_999), 0), (calls(10_000), 2)] {
        let mut pipeline = pipeline_of(&files(&rules(60, 20, 1.0)));
        let spans = [calls, vec![agent.clone()]];
        let records: Vec<Record> =
            (0..).zip(spans).map(|(offset, spans)| Record { partition: 0, offset, spans }).collect();
        let epochs = read(&mut pipeline, &records, &mut Rng::with_seed(1));
        assert_eq!(fired(&epochs, "each", "span_id").len(), if unsearched == 0 { 1 } else { 2 });
        let status = pipeline.status().into_iter().find(|status| status.name == "each").unwrap();
        assert_eq!(status.leaves, LeafCounts { late: 0, unsearched });
    }
}
