//! OTLP records, through the decoder into every column, and through both stages under the demo's rules.

use std::collections::BTreeSet;
use std::sync::Arc;

use lictor_connectors::{RecordRef, TopicPartition};
use lictor_engine::company::Company;
use lictor_engine::pipeline::{Pipeline, PipelineSettings};
use lictor_engine::{rules_dir, shipped};
use lictor_schemas::otlp::encode::{RowDraft, encode_json, encode_protobuf};
use lictor_schemas::otlp::{Decoder, RecordMeta, Wanted};
use lictor_schemas::prices::PriceTable;
use lictor_schemas::tables::{Signal, Table, table_schema};
use lictor_schemas::time::EventTime;
use serde_json::json;

use super::Target;

const SECOND_NS: i64 = 1_000_000_000;
/// Records in an epoch.
const EPOCH: u64 = 64;
/// Epochs after which the pipeline begins anew: what hostile records are remembered is bounded by the hour, not by us.
const EPOCHS_MAX: u64 = 200;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Protobuf,
    Json,
}

pub(crate) struct Otlp {
    form: Form,
    decoder: Decoder,
    pipeline: Pipeline,
    now: EventTime,
    offset: i64,
    /// Of the epoch that runs.
    decoded: u64,
    dead: u64,
    /// Of all epochs: records, of which used, partly dead, dead; rows.
    account: [u64; 5],
}

fn start() -> EventTime {
    EventTime::from_rfc3339("2026-03-01T08:00:00Z").unwrap()
}

fn topic_of(signal: Signal) -> &'static str {
    match signal {
        Signal::Traces => "otlp_spans",
        Signal::Logs => "otlp_logs",
        Signal::Metrics => "otlp_metrics",
    }
}

fn pipeline() -> Pipeline {
    let rules = tempfile::TempDir::new().unwrap();
    shipped::write_to(rules.path()).unwrap();
    let loaded = rules_dir::load(rules.path(), None).unwrap();
    let mut pipeline = Pipeline::new(loaded.rules, loaded.prices, &PipelineSettings::default());
    pipeline.assign(TopicPartition::new(topic_of(Signal::Traces), 0), start());
    pipeline
}

impl Otlp {
    pub(crate) fn new(form: Form) -> Self {
        let columns = |table: Table| -> BTreeSet<String> {
            let schema = table_schema(table, &["attr:acme.risk".to_owned(), "resource_attr:host.name".to_owned()]);
            schema.fields().iter().map(|field| field.name().clone()).collect()
        };
        let wanted = Wanted(Table::ALL.into_iter().map(|table| (table, columns(table))).collect());
        let decoder = Decoder::new(&wanted, &[], Arc::new(PriceTable::empty()));
        let pipeline = pipeline();
        Self { form, decoder, pipeline, now: start(), offset: 0, decoded: 0, dead: 0, account: [0; 5] }
    }

    /// The first byte says the signal, so that all three are changed alike.
    fn signal_of(input: &[u8]) -> (Signal, &[u8]) {
        let (first, rest) = input.split_first().unwrap_or((&0, &[]));
        (Signal::ALL[usize::from(*first) % Signal::ALL.len()], rest)
    }

    fn end_epoch(&mut self) {
        self.now = self.now.plus(SECOND_NS);
        let epoch = self.pipeline.end_epoch(self.now);
        let counts = &epoch.counts;
        let letters: u64 = counts.dead_letters.values().sum();
        assert_eq!(counts.records, self.decoded + self.dead, "every record is counted");
        assert_eq!(counts.records_dead, self.dead, "what the decoder refuses is dead");
        assert_eq!(letters, counts.records_dead + counts.records_partly_dead, "whoever dies leaves a letter");
        assert_eq!(u64::try_from(epoch.dead.len()).unwrap(), letters, "and letters are written");
        let status = self.pipeline.status().into_iter();
        let failed: Vec<_> = status.filter_map(|rule| Some((rule.name, rule.quarantined?))).collect();
        assert_eq!(failed, [], "no record stops a rule");
        let used = counts.records - counts.records_dead - counts.records_partly_dead;
        let rows: u64 = counts.rows_used.values().chain(counts.rows_untimely.values()).sum();
        let sums = [counts.records, used, counts.records_partly_dead, counts.records_dead, rows];
        self.account.iter_mut().zip(sums).for_each(|(sum, more)| *sum += more);
        (self.decoded, self.dead) = (0, 0);
        if self.offset % i64::try_from(EPOCH * EPOCHS_MAX).unwrap() == 0 {
            (self.pipeline, self.now) = (pipeline(), start());
        }
    }
}

impl Target for Otlp {
    fn seeds(&self) -> Vec<Vec<u8>> {
        let mut company = Company::new(3, start()).with_traces_per_s(1.0);
        let sent = company.next_batch(start().plus(90 * SECOND_NS)).into_iter();
        let metric = RowDraft {
            table: Table::Metrics,
            event_time: start(),
            columns: [("metric_name", json!("m")), ("metric_type", json!("sum")), ("value", json!(12))]
                .map(|(name, value)| (name.to_owned(), value))
                .into(),
        };
        let log = RowDraft {
            table: Table::Logs,
            event_time: start(),
            columns: [("body", json!("b")), ("attr:acme.risk", json!("high")), ("team", json!("search"))]
                .map(|(name, value)| (name.to_owned(), value))
                .into(),
        };
        let span = RowDraft {
            table: Table::Spans,
            event_time: start(),
            columns: [("team", json!("search")), ("cost_total", json!(1.5)), ("input_tokens", json!(7))]
                .map(|(name, value)| (name.to_owned(), value))
                .into(),
        };
        let encode = |signal, draft: RowDraft| match self.form {
            Form::Protobuf => encode_protobuf(signal, &[draft]).unwrap(),
            Form::Json => encode_json(signal, &[draft]).unwrap(),
        };
        let drafts = [(Signal::Traces, span), (Signal::Logs, log), (Signal::Metrics, metric)];
        let mut seeds: Vec<_> = drafts.into_iter().map(|(signal, draft)| (signal, encode(signal, draft))).collect();
        let is_json = |payload: &[u8]| payload.first() == Some(&b'{');
        let fitting = sent.filter(|message| is_json(&message.2) == (self.form == Form::Json));
        seeds.extend(fitting.map(|message| (message.0, message.2)).take(60));
        let place = |signal| Signal::ALL.iter().position(|known| *known == signal).unwrap();
        let framed =
            |(signal, payload): (Signal, Vec<u8>)| [vec![u8::try_from(place(signal)).unwrap()], payload].concat();
        seeds.into_iter().map(framed).collect()
    }

    fn run(&mut self, input: &[u8]) -> (&'static str, String) {
        let (signal, payload) = Self::signal_of(input);
        self.offset += 1;
        let (topic, timestamp_ms) = (topic_of(signal), start().to_ms());
        let meta = RecordMeta { topic, partition: 0, offset: self.offset, timestamp_ms };
        let before: usize = Table::ALL.into_iter().map(|table| self.decoder.rows(table)).sum();
        let ended = match self.decoder.absorb(signal, payload, meta) {
            Ok(absorbed) => match absorbed.rejected {
                // What is put aside is OTLP itself, and is refused again as a whole or not at all.
                Some(rejected) => ("partly dead-lettered", format!("{} {}", rejected.reason, absorbed.rows)),
                None => ("decoded", format!("{}", absorbed.rows.min(3))),
            },
            Err(error) => ("dead-lettered", format!("{} {error}", error.reason())),
        };
        let after: usize = Table::ALL.into_iter().map(|table| self.decoder.rows(table)).sum();
        assert!(ended.0 != "dead-lettered" || after == before, "nothing of a dead record is a row");
        let batches = self.decoder.take();
        assert_eq!(batches.iter().map(|(_, batch)| batch.num_rows()).sum::<usize>(), after);
        if signal == Signal::Traces {
            if ended.0 == "dead-lettered" {
                self.dead += 1
            } else {
                self.decoded += 1
            }
            self.pipeline.absorb(
                RecordRef {
                    topic: meta.topic,
                    offset: self.offset,
                    timestamp_ms: self.now.to_ms(),
                    payload: Some(payload),
                    ..RecordRef::default()
                },
                self.now,
            );
            if self.decoded + self.dead >= EPOCH {
                self.end_epoch();
            }
        }
        ended
    }

    fn settle(&mut self) -> String {
        self.end_epoch();
        let [records, used, partly, dead, rows] = self.account;
        assert_eq!(records, used + partly + dead);
        let ways = format!("{used} used + {partly} partly dead + {dead} dead, {rows} rows");
        format!("; through both stages {records} records of spans = {ways}")
    }
}
