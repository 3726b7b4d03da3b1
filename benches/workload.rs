//! Spans of a busy company, and rules over them.

use std::sync::Arc;

use lictor_connectors::RecordRef;
use lictor_engine::company::Company;
use lictor_engine::pipeline::{Pipeline, PipelineSettings};
use lictor_engine::watermark::Tolerances;
use lictor_queries::{References, RuleFile, RuleSet, compile};
use lictor_schemas::otlp::{Decoder, RecordMeta, Wanted};
use lictor_schemas::prices::PriceTable;
use lictor_schemas::tables::{Signal, Table};
use lictor_schemas::time::EventTime;

pub(crate) const TOPIC: &str = "otlp_spans";
const TRACES_PER_S: f64 = 200.0;
/// Records of an epoch.
const RECORDS_PER_EPOCH: usize = 64;

/// `LICTOR_EVENT_SECONDS` of traffic, 400 if it is not set, as the collector sends them.
pub(crate) fn records() -> Vec<Vec<u8>> {
    let start = EventTime::from_ms(1_772_355_600_000);
    let seconds = std::env::var("LICTOR_EVENT_SECONDS").map_or(400, |text| text.parse().unwrap_or(400));
    let mut company = Company::new(1, start).with_traces_per_s(TRACES_PER_S);
    let messages = company.next_batch(start.plus(seconds * 1_000_000_000));
    messages.into_iter().filter(|m| m.0 == Signal::Traces).map(|m| m.2).filter(|p| p.len() > 100).collect()
}

/// How many spans are in records.
pub(crate) fn spans_of(records: &[Vec<u8>]) -> usize {
    let wanted = Wanted([(Table::Spans, ["name".to_owned()].into())].into());
    let mut decoder = Decoder::new(&wanted, &[], Arc::new(PriceTable::empty()));
    let absorbed = (0..).zip(records).filter_map(|(i, r)| decoder.absorb(Signal::Traces, r, meta(i)).ok());
    absorbed.map(|a| a.rows).sum()
}

fn meta(offset: i64) -> RecordMeta<'static> {
    RecordMeta { topic: TOPIC, partition: 0, offset, timestamp_ms: 0 }
}

/// Budgets, anomalies, latencies: windowed sums over different keys and windows, a quarter of them judged on update.
pub(crate) fn rule_set(count: u32) -> RuleSet {
    let keys = ["team", "project", "provider", "request_model", "customer_id"];
    let rules = (0..count as usize).map(|i| {
        // Of a thousand, two hundred differ in more than their thresholds.
        let (key, minutes) = (keys[i % keys.len()], 1 + i % 200 / keys.len());
        let (emit, most) = (if i % 4 == 3 { "UPDATE" } else { "CLOSE" }, 1_000_000 + i / 200);
        format!(
            "CREATE RULE r{i} WITH (action='warn', reason_code='x_bench') AS
             SELECT s.{key}, window_start, window_end, sum(s.cost_total) AS observed, count(*) AS calls
             FROM TUMBLE(spans, event_time, INTERVAL '{minutes} minutes') AS s
             WHERE s.usage_leaf AND s.{key} IS NOT NULL
             GROUP BY s.{key}, window_start, window_end HAVING sum(s.cost_total) > {most} EMIT ON {emit};"
        )
    });
    let file = RuleFile { file: "bench.sql".to_owned(), text: rules.collect() };
    let (rules, faults) = compile(&[file], &References::new());
    assert!(faults.is_empty(), "{faults:?}");
    rules
}

/// Records in epochs, each with its offset; the first of them has `first`.
pub(crate) fn epochs(records: &[Vec<u8>], first: usize) -> impl Iterator<Item = Epoch<'_>> {
    let chunks = records.chunks(RECORDS_PER_EPOCH).enumerate();
    chunks.map(move |(number, records)| Epoch { records, first: first + number * RECORDS_PER_EPOCH })
}

/// Records one after the other.
#[derive(Clone, Copy)]
pub(crate) struct Epoch<'a> {
    records: &'a [Vec<u8>],
    first: usize,
}

impl<'a> Epoch<'a> {
    fn with_offsets(self) -> impl Iterator<Item = (i64, &'a Vec<u8>)> {
        (i64::try_from(self.first).unwrap_or_default()..).zip(self.records)
    }
}

pub(crate) fn decode_epoch(decoder: &mut Decoder, epoch: Epoch<'_>) {
    for (offset, record) in epoch.with_offsets() {
        let _ = decoder.absorb(Signal::Traces, record, meta(offset));
    }
    decoder.take();
}

pub(crate) fn settings() -> PipelineSettings {
    let tolerances = Tolerances { future_skew_ns: i64::MAX, ..Tolerances::default() };
    PipelineSettings { tolerances, ..PipelineSettings::default() }
}

/// Decodes records and judges them; the epoch is not ended.
pub(crate) fn judge_epoch(pipeline: &mut Pipeline, epoch: Epoch<'_>) {
    for (offset, payload) in epoch.with_offsets() {
        let record = RecordRef { topic: TOPIC, offset, payload: Some(payload), ..RecordRef::default() };
        pipeline.absorb(record, EventTime(0));
    }
}
