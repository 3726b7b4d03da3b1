//! OTLP/JSON in all the dialects met in the field, read into the protobuf messages.
//!
//! The standard asks for hex ids, numeric enums and camelCase. Real producers also write base64 ids, Node buffers,
//! enum names, 64-bit integers as strings, numbers or `{low, high}`, snake_case, Tempo's `batches`, attributes as plain
//! objects and nulls anywhere. A strict parser would lose whole batches over one of these, so reading is lenient: what
//! cannot be understood is absent, and screening decides whether an item without it can be a row.
//!
//! Invariant: reading never fails beyond the envelope; the same telemetry gives the same messages as protobuf does.

mod items;
mod points;
mod scalar;

use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::logs::v1::{LogsData, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{MetricsData, ResourceMetrics, ScopeMetrics};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, TracesData};
use serde_json::{Map, Value as Json};

use super::error::DecodeError;
use crate::tables::Signal;
use scalar::{attributes, text};

/// A JSON object.
type Object = Map<String, Json>;

const RESOURCE_SPANS: &[&str] = &["resourceSpans", "resource_spans", "batches"];
const RESOURCE_LOGS: &[&str] = &["resourceLogs", "resource_logs"];
const RESOURCE_METRICS: &[&str] = &["resourceMetrics", "resource_metrics"];
const SCHEMA_URL: &[&str] = &["schemaUrl", "schema_url"];

/// Reads traces.
pub(super) fn traces(text: &[u8]) -> Result<TracesData, DecodeError> {
    let root = envelope(Signal::Traces, text)?;
    let scope_names = &["scopeSpans", "scope_spans", "instrumentationLibrarySpans", "instrumentation_library_spans"];
    let resource_spans = objects(&root, RESOURCE_SPANS).map(|object| ResourceSpans {
        resource: resource(object),
        schema_url: text_of(object, SCHEMA_URL),
        scope_spans: objects(object, scope_names)
            .map(|object| ScopeSpans {
                scope: scope(object),
                schema_url: text_of(object, SCHEMA_URL),
                spans: objects(object, &["spans"]).map(items::span).collect(),
            })
            .collect(),
    });
    Ok(TracesData { resource_spans: resource_spans.collect() })
}

/// Reads logs.
pub(super) fn logs(text: &[u8]) -> Result<LogsData, DecodeError> {
    let root = envelope(Signal::Logs, text)?;
    let scope_names = &["scopeLogs", "scope_logs", "instrumentationLibraryLogs", "instrumentation_library_logs"];
    let resource_logs = objects(&root, RESOURCE_LOGS).map(|object| ResourceLogs {
        resource: resource(object),
        schema_url: text_of(object, SCHEMA_URL),
        scope_logs: objects(object, scope_names)
            .map(|object| ScopeLogs {
                scope: scope(object),
                schema_url: text_of(object, SCHEMA_URL),
                log_records: objects(object, &["logRecords", "log_records", "logs"]).map(items::log).collect(),
            })
            .collect(),
    });
    Ok(LogsData { resource_logs: resource_logs.collect() })
}

/// Reads metrics.
pub(super) fn metrics(text: &[u8]) -> Result<MetricsData, DecodeError> {
    let root = envelope(Signal::Metrics, text)?;
    let scope_names =
        &["scopeMetrics", "scope_metrics", "instrumentationLibraryMetrics", "instrumentation_library_metrics"];
    let resource_metrics = objects(&root, RESOURCE_METRICS).map(|object| ResourceMetrics {
        resource: resource(object),
        schema_url: text_of(object, SCHEMA_URL),
        scope_metrics: objects(object, scope_names)
            .map(|object| ScopeMetrics {
                scope: scope(object),
                schema_url: text_of(object, SCHEMA_URL),
                metrics: objects(object, &["metrics"]).map(points::metric).collect(),
            })
            .collect(),
    });
    Ok(MetricsData { resource_metrics: resource_metrics.collect() })
}

/// The outermost object, if it is one of this signal.
fn envelope(signal: Signal, text: &[u8]) -> Result<Object, DecodeError> {
    let root: Object = serde_json::from_slice(text).map_err(|e| DecodeError::MalformedJson(e.to_string()))?;
    let names = |signal| match signal {
        Signal::Traces => RESOURCE_SPANS,
        Signal::Logs => RESOURCE_LOGS,
        Signal::Metrics => RESOURCE_METRICS,
    };
    let holds = |signal: &Signal| names(*signal).iter().any(|name| root.contains_key(*name));
    if holds(&signal) {
        return Ok(root);
    }
    Err(match Signal::ALL.into_iter().find(holds) {
        Some(found) => DecodeError::WrongSignal { expected: signal, found },
        None => DecodeError::MalformedJson(format!("no `{}` in the outermost object", names(signal)[0])),
    })
}

fn resource(object: &Object) -> Option<Resource> {
    let resource = get(object, &["resource"])?.as_object()?;
    Some(Resource { attributes: attributes(resource), ..Resource::default() })
}

fn scope(object: &Object) -> Option<InstrumentationScope> {
    let scope = get(object, &["scope", "instrumentationLibrary", "instrumentation_library"])?.as_object()?;
    Some(InstrumentationScope {
        name: text_of(scope, &["name"]),
        version: text_of(scope, &["version"]),
        attributes: attributes(scope),
        dropped_attributes_count: 0,
    })
}

/// The value of the first of these names that has one; null is none.
fn get<'v>(object: &'v Object, names: &[&str]) -> Option<&'v Json> {
    names.iter().filter_map(|name| object.get(*name)).find(|value| !value.is_null())
}

/// The objects in the array of that name; anything else in it is skipped.
fn objects<'v>(object: &'v Object, names: &[&str]) -> impl Iterator<Item = &'v Object> {
    get(object, names).and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_object)
}

fn text_of(object: &Object, names: &[&str]) -> String {
    get(object, names).map(text).unwrap_or_default()
}
