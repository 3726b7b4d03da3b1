//! Nexmark's questions 0, 1, 2, 5, 7 and 8, asked of rules and, as plain SQL, of DataFusion's batch engine.
//!
//! `cargo bench --bench nexmark` writes `LICTOR_EVENTS` (200,000) events as OTLP spans and prints for each question how
//! many of them a second each of these reads, on one core, as the median (least–greatest) of `LICTOR_RUNS` (5) runs:
//!
//! * **lictor**: the records through the pipeline as `run` has it, one partition, 64 records an epoch, until every
//!   window is closed. Decoding, event time, judging, directives and events are in it; Kafka and JSON are not.
//! * **without decoding**: the same time less that of decoding the same columns, taken in the same run.
//! * **DataFusion**: the question as plain SQL over the same columns, decoded before, in batches of an epoch each, all
//!   in memory, one partition, planned before. It is the limit: the last column is the share of it that lictor reaches
//!   without decoding.
//!
//! Before a question is measured both answers are compared: the same facts, as often, of the same rows and windows,
//! with the same numbers wherever an event has one. `-- q5` asks the questions whose name begins so; what each one is
//! as a rule and as SQL is in `rules/` and `batch/`.
//!
//! **What cannot be compared.** Nexmark's answers are rows; lictor says whom something concerns from when until when,
//! and keeps that in mind. Where a question lets every bid through (q0, q1), each one becomes a directive with an id,
//! an exemplar and an end, which no rule wants for every row: that is what these two cost, and DataFusion's q0 does not
//! so much as touch a row. `q1_dear` is the conversion as a rule would have it: it is computed for every bid, and one
//! in a few hundred is news. An auction that is hot in the next window, too (q5), is not said again: in which windows
//! it was is compared, the number where it was said. lictor waits ten seconds for late rows and takes the heaviest and
//! the latest row of each group along for its exemplars. What has no column (auction, price) is text to it, and so it
//! is to DataFusion here. Nexmark's q7 joins the bids with a windowed maximum of theirs, which cannot run in bounded
//! state: `q7` asks for the highest bid of each auction and bidder and which of those is the highest of all, `q7_first`
//! for the first row by price, which names one of two equal bids. DataFusion is asked both as Nexmark has it.

#![expect(clippy::print_stdout, reason = "a benchmark prints what it has measured")]

#[path = "../allocator.rs"]
mod allocator;
mod answers;
mod events;
mod questions;
#[path = "../spread.rs"]
mod spread;

use std::sync::Arc;
use std::time::Duration;

use answers::{Expected, Said};
use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use lictor_connectors::RecordRef;
use lictor_engine::clock::{Clock, SystemClock};
use lictor_engine::pipeline::{Epoch, Pipeline, PipelineSettings};
use lictor_engine::watermark::Tolerances;
use lictor_queries::{BatchQuery, BatchTables, RuleSet};
use lictor_schemas::otlp::{Decoder, RecordMeta, Wanted};
use lictor_schemas::prices::PriceTable;
use lictor_schemas::tables::{ATTR_PREFIX, Signal};
use lictor_schemas::time::EventTime;
use questions::{QUESTIONS, Question};
use spread::{Spread, runs};

/// Records of an epoch, 8,192 rows: as many as DataFusion takes at a time.
const RECORDS_PER_EPOCH: usize = 64;
/// By then, years after the last event, every partition has been silent for long and every window is closed.
const END: EventTime = EventTime(2_000_000_000 * 1_000_000_000);
const TOPIC: &str = "otlp_spans";

fn main() {
    // Cargo itself passes `--bench`.
    let only = std::env::args().skip(1).find(|argument| !argument.starts_with("--")).unwrap_or_default();
    let (count, runs) = (events(), runs());
    let records = events::records(count);
    let bytes: usize = records.iter().map(Vec::len).sum();
    let per_event = bytes as f64 / count.max(1) as f64;
    println!("{count} events in {} records, {per_event:.0} bytes/event, {runs} runs, one core", records.len());
    println!("million events/s, median (least–greatest)");
    println!("{:9} {:^21} {:^21} {:^21} {:>7}", "", "lictor", "without decoding", "DataFusion", "share");
    for question in QUESTIONS.iter().filter(|question| question.name.starts_with(&only)) {
        let tables = BatchTables::try_new(vec![("spans", spans(&records, question))]);
        let query = tables.and_then(|tables| tables.query(question.name, question.batch));
        let query = query.unwrap_or_else(|e| panic!("{e}"));
        let (facts, said) = check(question, &records, &query);
        let takes: Vec<Take> = (0..runs).map(|_| Take::of(question, &records, &query)).collect();
        report(question, count as f64, &takes);
        println!("{:9} {}: {facts} facts in {said} events", "", question.about);
    }
}

fn events() -> u64 {
    std::env::var("LICTOR_EVENTS").map_or(200_000, |text| text.parse().unwrap_or(200_000))
}

/// Both answers, compared; how many facts they are, and how many events say them.
fn check(question: &Question, records: &[Vec<u8>], query: &BatchQuery) -> (usize, usize) {
    let expected = Expected::read(question, &query.run().unwrap_or_else(|e| panic!("{e}")));
    let mut said = Said::new(question);
    judge(records, question.rules(), |epoch| epoch.decisions.iter().for_each(|decision| said.hear(&decision.event)));
    said.compare(&expected);
    (expected.len(), said.events)
}

/// How long one run of each has taken.
struct Take {
    decode: Duration,
    whole: Duration,
    batch: Duration,
}

impl Take {
    fn of(question: &Question, records: &[Vec<u8>], query: &BatchQuery) -> Self {
        let clock = SystemClock::start();
        let (rules, wanted) = (question.rules(), question.rules().wanted);
        let began = clock.monotonic();
        decode(records, &wanted, drop);
        let decoded = clock.monotonic();
        judge(records, rules, drop);
        let judged = clock.monotonic();
        let rows = query.run().unwrap_or_else(|e| panic!("{e}"));
        let queried = clock.monotonic();
        drop(rows);
        Self { decode: decoded - began, whole: judged - decoded, batch: queried - judged }
    }

    /// None if the difference is less than what two runs of the same differ by.
    fn without_decoding(&self) -> Option<Duration> {
        self.whole.checked_sub(self.decode).filter(|rest| *rest > self.whole / 50)
    }
}

fn report(question: &Question, count: f64, takes: &[Take]) {
    let rates = |of: &dyn Fn(&Take) -> Option<Duration>| {
        let rate = |take: &Take| Some(count / of(take)?.as_secs_f64() / 1e6);
        takes.iter().map(rate).collect::<Option<Vec<f64>>>().map(Spread::of)
    };
    let (whole, batch) = (rates(&|take| Some(take.whole)), rates(&|take| Some(take.batch)));
    let without = rates(&Take::without_decoding);
    let share = without.zip(batch).map(|(without, batch)| 100.0 * without.median / batch.median);
    let share = share.map_or("–".to_owned(), |share| format!("{share:.1} %"));
    let [whole, without, batch] =
        [whole, without, batch].map(|rates| rates.map_or("in the noise".to_owned(), |rates| format!("{rates:.3}")));
    println!("{:9} {whole:^21} {without:^21} {batch:^21} {share:>7}", question.name);
}

/// Decodes all records, a batch an epoch.
fn decode(records: &[Vec<u8>], wanted: &Wanted, mut take: impl FnMut(RecordBatch)) {
    let mut decoder = Decoder::new(wanted, &[], Arc::new(PriceTable::empty()));
    for epoch in records.chunks(RECORDS_PER_EPOCH) {
        for record in epoch {
            let meta = RecordMeta { topic: TOPIC, partition: 0, offset: 0, timestamp_ms: 0 };
            let absorbed = decoder.absorb(Signal::Traces, record, meta);
            assert!(absorbed.is_ok_and(|absorbed| absorbed.rejected.is_none()), "our own telemetry is refused");
        }
        decoder.take().into_iter().for_each(|(_, rows)| take(rows));
    }
}

/// The columns that a question reads, for plain SQL; those of attributes are called as Nexmark calls them.
fn spans(records: &[Vec<u8>], question: &Question) -> Vec<RecordBatch> {
    let mut batches = Vec::new();
    decode(records, &question.rules().wanted, |rows| batches.push(renamed(&rows)));
    batches
}

fn renamed(rows: &RecordBatch) -> RecordBatch {
    let prefix = format!("{ATTR_PREFIX}nexmark.");
    let schema = rows.schema();
    let fields = schema.fields().iter().map(|field| {
        let name = field.name().strip_prefix(&prefix).unwrap_or(field.name());
        field.as_ref().clone().with_name(name)
    });
    let schema = Schema::new(fields.collect::<Vec<_>>());
    RecordBatch::try_new(Arc::new(schema), rows.columns().to_vec()).unwrap_or_else(|e| panic!("{e}"))
}

/// The records through the pipeline, until every window is closed.
fn judge(records: &[Vec<u8>], rules: RuleSet, mut see: impl FnMut(Epoch)) {
    let tolerances = Tolerances { future_skew_ns: i64::MAX, ..Tolerances::default() };
    // As many directives as there are bids in the lateness.
    let settings = PipelineSettings { tolerances, subjects_max: 10_000_000, ..PipelineSettings::default() };
    let mut pipeline = Pipeline::new(rules, Arc::new(PriceTable::empty()), &settings);
    let mut end = |pipeline: &mut Pipeline, now| {
        let epoch = pipeline.end_epoch(now);
        assert!(epoch.dead.is_empty() && epoch.late.is_empty() && epoch.limits.is_empty(), "not all rows count");
        see(epoch);
    };
    for (number, payload) in records.iter().enumerate() {
        let offset = i64::try_from(number).unwrap_or_default();
        let record = RecordRef { topic: TOPIC, offset, payload: Some(payload), ..RecordRef::default() };
        pipeline.absorb(record, EventTime(0));
        if number % RECORDS_PER_EPOCH == RECORDS_PER_EPOCH - 1 {
            end(&mut pipeline, EventTime(0));
        }
    }
    end(&mut pipeline, EventTime(0));
    end(&mut pipeline, END);
    let failed = pipeline.status().into_iter().find_map(|status| status.quarantined);
    assert!(failed.is_none(), "{failed:?}");
}
