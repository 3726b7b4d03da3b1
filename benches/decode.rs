//! What a span costs from protobuf bytes to columns, beside what prost needs to decode the same bytes and nothing else.
//!
//! `cargo bench --bench decode` prints processor time: the median of the runs, the fastest and the slowest, all in one
//! run on one core. The telemetry is 300 records of 100 spans of model calls, as instrumentations write them, without
//! prompts.

#![expect(clippy::print_stdout, reason = "a benchmark prints what it has measured")]

#[path = "allocator.rs"]
mod allocator;
#[path = "cpu.rs"]
mod cpu;

use std::hint::black_box;
use std::sync::Arc;

use cpu::cpu_s;
use lictor_schemas::otlp::{Decoder, RecordMeta, Wanted};
use lictor_schemas::prices::PriceTable;
use lictor_schemas::tables::{Signal, Table};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, TracesData};
use prost::Message;

const RECORDS: usize = 300;
const SPANS_PER_RECORD: usize = 100;
const RUNS: usize = 9;
/// The kernel counts processor time in hundredths of a second.
const RUN_S: f64 = 0.5;

fn main() {
    let records: Vec<Vec<u8>> = (0..RECORDS).map(|record| message(record).encode_to_vec()).collect();
    let bytes: usize = records.iter().map(Vec::len).sum();
    println!(
        "{RECORDS} records, {} spans, {} bytes/span, {} attributes/span; median (fastest to slowest) of {RUNS} runs",
        RECORDS * SPANS_PER_RECORD,
        bytes / (RECORDS * SPANS_PER_RECORD),
        attributes(0).len()
    );
    measure("every byte read", || {
        let sum = |record: &Vec<u8>| record.iter().map(|byte| u64::from(*byte)).sum::<u64>();
        black_box(records.iter().map(sum).sum::<u64>());
    });
    let prost = measure("prost decodes", || {
        for record in &records {
            black_box(TracesData::decode(record.as_slice()).unwrap_or_default());
        }
    });
    for (name, columns) in [("5 columns", &COLUMNS[..5]), ("15 columns", &COLUMNS[..15]), ("26 columns", &COLUMNS)] {
        let columns = columns.iter().map(|column| (*column).to_owned()).collect();
        let mut decoder = Decoder::new(&Wanted([(Table::Spans, columns)].into()), &[], Arc::new(PriceTable::empty()));
        let took = measure(name, || {
            for (offset, record) in (0..).zip(&records) {
                let meta = RecordMeta { topic: "otlp_spans", partition: 0, offset, timestamp_ms: 0 };
                black_box(decoder.absorb(Signal::Traces, record, meta).is_ok());
                if offset % 16 == 15 {
                    black_box(decoder.take());
                }
            }
            black_box(decoder.take());
        });
        println!("{:24} {:>6.0} % of prost", "", 100.0 * took / prost);
    }
}

/// The columns that the rules that ship read most, the most usual first.
const COLUMNS: [&str; 26] = [
    "team",
    "cost_total",
    "usage_leaf",
    "request_model",
    "provider",
    "input_tokens",
    "output_tokens",
    "latency_ms",
    "environment",
    "customer_id",
    "operation_name",
    "status_code",
    "error_type",
    "response_model",
    "session_id",
    "project",
    "feature",
    "agent_name",
    "tool_name",
    "finish_reasons",
    "cache_read_tokens",
    "total_tokens",
    "operation_type",
    "ttft_ms",
    "policy_result",
    "service_name",
];

/// Prints the nanoseconds per span and gives the median.
fn measure(name: &str, mut run: impl FnMut()) -> f64 {
    run();
    let mut once = || {
        let (began, mut rounds) = (cpu_s(), 0);
        while cpu_s() - began < RUN_S {
            run();
            rounds += 1;
        }
        (cpu_s() - began) * 1e9 / (rounds * RECORDS * SPANS_PER_RECORD) as f64
    };
    let mut runs: Vec<f64> = (0..RUNS).map(|_| once()).collect();
    runs.sort_by(f64::total_cmp);
    let (median, fastest, slowest) = (runs[RUNS / 2], runs[0], runs[RUNS - 1]);
    println!("{name:24} {median:>6.0} ns/span ({fastest:.0} to {slowest:.0})");
    median
}

fn message(record: usize) -> TracesData {
    let spans = (0..SPANS_PER_RECORD).map(|at| span(record * SPANS_PER_RECORD + at)).collect();
    let scope = InstrumentationScope {
        name: "opentelemetry.instrumentation.openai_v2".to_owned(),
        version: "2.1b0".to_owned(),
        ..InstrumentationScope::default()
    };
    let scope_spans = vec![ScopeSpans { scope: Some(scope), spans, schema_url: String::new() }];
    let resource = Resource { attributes: resource_attributes(record), ..Resource::default() };
    TracesData {
        resource_spans: vec![ResourceSpans { resource: Some(resource), scope_spans, schema_url: String::new() }],
    }
}

fn span(number: usize) -> Span {
    let start = 1_790_000_000_000_000_000 + number as u64 * 1_000_000;
    Span {
        trace_id: ((number / 5) as u128 + 1).to_be_bytes().to_vec(),
        span_id: (number as u64 + 1).to_be_bytes().to_vec(),
        parent_span_id: if number.is_multiple_of(5) { Vec::new() } else { (number as u64).to_be_bytes().to_vec() },
        name: "chat gpt-4o-mini".to_owned(),
        kind: 3,
        start_time_unix_nano: start,
        end_time_unix_nano: start + 843_000_000,
        attributes: attributes(number),
        ..Span::default()
    }
}

fn resource_attributes(record: usize) -> Vec<KeyValue> {
    let mut pairs = vec![
        text("service.name", &format!("assistant-{}", record % 7)),
        text("service.version", "2026.11.3"),
        text("service.instance.id", "5f2c1f0e-7b0c-4d1e-9b58-0d6f3f1a2c77"),
        text("telemetry.sdk.language", "python"),
        text("telemetry.sdk.name", "opentelemetry"),
        text("telemetry.sdk.version", "1.39.0"),
        text("deployment.environment.name", "production"),
        text("k8s.pod.name", "assistant-6c9f7d9b8-x2x7v"),
        text("k8s.namespace.name", "assistants"),
        text("k8s.node.name", "node-17"),
        text("cloud.provider", "aws"),
        text("cloud.region", "eu-central-1"),
    ];
    pairs.push(text("host.name", "ip-10-3-44-7"));
    pairs
}

fn attributes(number: usize) -> Vec<KeyValue> {
    let tokens = number as i64 % 1_900 + 100;
    let (team, customer) = (format!("team-{}", number % 40), format!("customer-{}", number % 900));
    vec![
        text("gen_ai.operation.name", "chat"),
        text("gen_ai.provider.name", "openai"),
        text("gen_ai.request.model", "gpt-4o-mini"),
        text("gen_ai.response.model", "gpt-4o-mini-2024-07-18"),
        text("gen_ai.response.id", "chatcmpl-B2Xr7tQ0vZk3m9aYpLw5sJdEfGhIj"),
        list("gen_ai.response.finish_reasons", "stop"),
        pair("gen_ai.request.temperature", Value::DoubleValue(0.7)),
        pair("gen_ai.request.top_p", Value::DoubleValue(1.0)),
        pair("gen_ai.request.max_tokens", Value::IntValue(1_024)),
        pair("gen_ai.usage.input_tokens", Value::IntValue(tokens)),
        pair("gen_ai.usage.output_tokens", Value::IntValue(tokens / 3)),
        pair("gen_ai.usage.cache_read.input_tokens", Value::IntValue(tokens / 4)),
        text("gen_ai.conversation.id", "conv_0d5e7c4b8a1f4e6c9b2d"),
        text("gen_ai.agent.name", "support-triage"),
        text("gen_ai.output.type", "text"),
        text("server.address", "api.openai.com"),
        pair("server.port", Value::IntValue(443)),
        text("openai.api.type", "chat_completions"),
        text("openai.response.service_tier", "default"),
        text("genops.team", &team),
        text("genops.project", "assistant"),
        text("genops.environment", "production"),
        text("genops.customer_id", &customer),
        text("genops.feature", "ticket-summary"),
        pair("genops.cost.total", Value::DoubleValue(tokens as f64 * 4e-7)),
        text("genops.policy.result", "allowed"),
        text("genops.spec.version", "0.1.0"),
    ]
}

fn text(key: &str, value: &str) -> KeyValue {
    pair(key, Value::StringValue(value.to_owned()))
}

fn list(key: &str, element: &str) -> KeyValue {
    let values = vec![AnyValue { value: Some(Value::StringValue(element.to_owned())) }];
    pair(key, Value::ArrayValue(ArrayValue { values }))
}

fn pair(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}
