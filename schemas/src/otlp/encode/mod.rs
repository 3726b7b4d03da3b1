//! Rows as OTLP: the way back from columns to a message.
//!
//! Rule tests, golden tests and the demo say rows by column name; what runs is the real decoder on real bytes. A
//! canonical column is written as the first source attribute of its precedence list, so that decoding the message gives
//! the drafts' columns back.
//!
//! Invariant: equal drafts give equal bytes; nothing here draws a random number or reads a clock.

mod item;
mod json;
mod parts;

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::logs::v1::{LogsData, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{MetricsData, ResourceMetrics, ScopeMetrics};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, TracesData};
use prost::Message;
use serde_json::Value;

use self::parts::Parts;
use crate::tables::{Signal, Table};
use crate::time::EventTime;

/// A row to be written as OTLP.
///
/// A draft of `span_events` brings a span of its own, which decodes to a row of `spans`: its `span_name`, `trace_id`
/// and `span_id` are that span's.
#[derive(Clone, Debug, PartialEq)]
pub struct RowDraft {
    /// The table the row is to appear in.
    pub table: Table,
    /// The row's `event_time`.
    pub event_time: EventTime,
    /// Column name, `attr:<attribute>` or `resource_attr:<attribute>`, to value; a null value is as good as none.
    ///
    /// Instants are RFC 3339 texts or nanoseconds since the Unix epoch. A span without `trace_id` or `span_id` gets ids
    /// that depend on the draft and its place among the drafts; a span without `start_time` and `duration_ms` takes no
    /// time.
    pub columns: BTreeMap<String, Value>,
}

/// Writes drafts as one OTLP protobuf message, in their order.
///
/// # Errors
/// A draft's table belongs to another signal; a column does not exist (the message names the nearest), is computed by
/// the decoder and cannot be set, or has a value of the wrong type.
pub fn encode_protobuf(signal: Signal, drafts: &[RowDraft]) -> Result<Vec<u8>, String> {
    Ok(match Payload::new(signal, drafts)? {
        Payload::Traces(data) => data.encode_to_vec(),
        Payload::Logs(data) => data.encode_to_vec(),
        Payload::Metrics(data) => data.encode_to_vec(),
    })
}

/// Writes drafts as one OTLP/JSON message, in their order.
///
/// # Errors
/// As [`encode_protobuf`].
pub fn encode_json(signal: Signal, drafts: &[RowDraft]) -> Result<Vec<u8>, String> {
    let value = match Payload::new(signal, drafts)? {
        Payload::Traces(data) => json::traces(&data),
        Payload::Logs(data) => json::logs(&data),
        Payload::Metrics(data) => json::metrics(&data),
    };
    Ok(value.to_string().into_bytes())
}

/// Drafts of spans as the message itself.
///
/// # Errors
/// As [`encode_protobuf`].
pub(super) fn encode_traces(drafts: &[RowDraft]) -> Result<TracesData, String> {
    match Payload::new(Signal::Traces, drafts)? {
        Payload::Traces(data) => Ok(data),
        Payload::Logs(_) | Payload::Metrics(_) => unreachable!("asked for traces"),
    }
}

enum Payload {
    Traces(TracesData),
    Logs(LogsData),
    Metrics(MetricsData),
}

impl Payload {
    fn new(signal: Signal, drafts: &[RowDraft]) -> Result<Self, String> {
        let mut parts = Vec::with_capacity(drafts.len());
        for (index, draft) in drafts.iter().enumerate() {
            let is_ours = draft.table.signal() == signal;
            let of_draft = if is_ours { Parts::new(draft) } else { Err(format!("not a row of {}", signal.as_str())) };
            parts.push(of_draft.map_err(|error| at_row(index, draft, &error))?);
        }
        Ok(match signal {
            Signal::Traces => Self::Traces(TracesData { resource_spans: grouped(drafts, &parts, item::span)? }),
            Signal::Logs => Self::Logs(LogsData { resource_logs: grouped(drafts, &parts, item::log_record)? }),
            Signal::Metrics => Self::Metrics(MetricsData { resource_metrics: grouped(drafts, &parts, item::metric)? }),
        })
    }
}

fn at_row(index: usize, draft: &RowDraft, error: &str) -> String {
    format!("row {} of {}: {error}", index + 1, draft.table.name())
}

/// A message's top level: items below one resource and scope.
trait Batch<Item> {
    fn new(resource: Resource, scope: InstrumentationScope, items: Vec<Item>) -> Self;
}

/// Puts neighbours with the same resource and scope into one batch; the order of rows stays.
fn grouped<Item, B: Batch<Item>>(
    drafts: &[RowDraft],
    parts: &[Parts<'_>],
    to_item: fn(usize, &RowDraft, &Parts<'_>) -> Result<Item, String>,
) -> Result<Vec<B>, String> {
    let mut batches = Vec::new();
    let mut next = 0;
    for chunk in parts.chunk_by(|a, b| a.resource == b.resource && a.scope == b.scope) {
        let mut items = Vec::with_capacity(chunk.len());
        for of_row in chunk {
            let draft = &drafts[next];
            items.push(to_item(next, draft, of_row).map_err(|error| at_row(next, draft, &error))?);
            next += 1;
        }
        let resource = Resource { attributes: chunk[0].resource.clone(), ..Resource::default() };
        batches.push(B::new(resource, chunk[0].scope.clone(), items));
    }
    Ok(batches)
}

/// Says how a signal's two outer messages are called.
macro_rules! batch {
    ($batch:ident { $groups:ident: $group:ident { $items:ident: $item:ty } }) => {
        impl Batch<$item> for $batch {
            fn new(resource: Resource, scope: InstrumentationScope, $items: Vec<$item>) -> Self {
                let group = $group { scope: Some(scope), $items, schema_url: String::new() };
                Self { resource: Some(resource), $groups: vec![group], schema_url: String::new() }
            }
        }
    };
}

batch!(ResourceSpans { scope_spans: ScopeSpans { spans: opentelemetry_proto::tonic::trace::v1::Span } });
batch!(ResourceLogs { scope_logs: ScopeLogs { log_records: opentelemetry_proto::tonic::logs::v1::LogRecord } });
batch!(ResourceMetrics { scope_metrics: ScopeMetrics { metrics: opentelemetry_proto::tonic::metrics::v1::Metric } });

#[cfg(test)]
mod tests;
