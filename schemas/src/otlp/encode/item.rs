//! One draft as one span, log record or metric.

use std::cell::LazyCell;

use opentelemetry_proto::tonic::common::v1::AnyValue;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram, HistogramDataPoint,
    Metric, NumberDataPoint, Sum, Summary, SummaryDataPoint, number_data_point,
};
use opentelemetry_proto::tonic::trace::v1::span::{Event, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{Span, Status};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::RowDraft;
use super::parts::{Parts, any, unix_nanos};
use crate::genops::closest;
use crate::tables::Table;
use crate::time::NANOS_PER_MS;

/// The span that a draft of `spans` is, or that a draft of `span_events` brings along.
pub(super) fn span(index: usize, draft: &RowDraft, parts: &Parts<'_>) -> Result<Span, String> {
    let end = unix_nanos(draft.event_time)?;
    let made_up = LazyCell::new(|| made_up_id(index, draft));
    let mut span = Span {
        trace_id: parts.id("trace_id", 16)?.unwrap_or_else(|| made_up[..16].to_vec()),
        span_id: parts.id("span_id", 8)?.unwrap_or_else(|| made_up[16..24].to_vec()),
        end_time_unix_nano: end,
        ..Span::default()
    };
    if draft.table == Table::SpanEvents {
        let name = parts.text("name")?.unwrap_or_default();
        span.name = parts.text("span_name")?.unwrap_or_default();
        span.start_time_unix_nano = end;
        span.events = vec![Event {
            time_unix_nano: end,
            name,
            attributes: parts.attributes.clone(),
            dropped_attributes_count: 0,
        }];
        return Ok(span);
    }
    span.parent_span_id = parts.id("parent_span_id", 8)?.unwrap_or_default();
    span.trace_state = parts.text("trace_state")?.unwrap_or_default();
    span.name = parts.text("name")?.unwrap_or_default();
    span.kind = kind(parts)?.into();
    span.start_time_unix_nano = start(end, parts)?;
    span.attributes.clone_from(&parts.attributes);
    span.status = Some(status(parts)?);
    Ok(span)
}

/// The log record that a draft of `logs` is; without trace context unless the draft has some.
pub(super) fn log_record(_: usize, draft: &RowDraft, parts: &Parts<'_>) -> Result<LogRecord, String> {
    let time = unix_nanos(draft.event_time)?;
    let severity = parts.count("severity_number")?.unwrap_or_default();
    Ok(LogRecord {
        time_unix_nano: time,
        observed_time_unix_nano: parts.instant("observed_time")?.unwrap_or(time),
        severity_number: i32::try_from(severity).map_err(|_| format!("severity {severity} is above 24"))?,
        severity_text: parts.text("severity_text")?.unwrap_or_default(),
        body: parts.text("body")?.map(|text| AnyValue { value: Some(any(&Value::String(text))) }),
        attributes: parts.attributes.clone(),
        trace_id: parts.id("trace_id", 16)?.unwrap_or_default(),
        span_id: parts.id("span_id", 8)?.unwrap_or_default(),
        event_name: parts.text("event_name")?.unwrap_or_default(),
        ..LogRecord::default()
    })
}

/// The metric with one data point that a draft of `metrics` is: a gauge unless `metric_type` says otherwise.
pub(super) fn metric(_: usize, draft: &RowDraft, parts: &Parts<'_>) -> Result<Metric, String> {
    let metric_type = parts.text("metric_type")?.unwrap_or_else(|| "gauge".to_owned());
    let data = match metric_type.as_str() {
        "gauge" => Data::Gauge(Gauge { data_points: vec![number_point(draft, parts)?] }),
        "sum" => Data::Sum(Sum {
            data_points: vec![number_point(draft, parts)?],
            aggregation_temporality: temporality(parts)?.into(),
            is_monotonic: parts.flag("is_monotonic")?.unwrap_or(true),
        }),
        "histogram" => Data::Histogram(histogram(draft, parts)?),
        "exponential_histogram" => Data::ExponentialHistogram(exponential_histogram(draft, parts)?),
        "summary" => Data::Summary(summary(draft, parts)?),
        other => {
            let types = ["gauge", "sum", "histogram", "exponential_histogram", "summary"];
            return Err(not_one_of("metric_type", other, &types));
        }
    };
    Ok(Metric {
        name: parts.text("metric_name")?.unwrap_or_default(),
        unit: parts.text("unit")?.unwrap_or_default(),
        data: Some(data),
        ..Metric::default()
    })
}

fn number_point(draft: &RowDraft, parts: &Parts<'_>) -> Result<NumberDataPoint, String> {
    Ok(NumberDataPoint {
        attributes: parts.attributes.clone(),
        start_time_unix_nano: parts.instant("start_time")?.unwrap_or_default(),
        time_unix_nano: unix_nanos(draft.event_time)?,
        value: parts.number("value")?.map(number_data_point::Value::AsDouble),
        ..NumberDataPoint::default()
    })
}

fn histogram(draft: &RowDraft, parts: &Parts<'_>) -> Result<Histogram, String> {
    let point = HistogramDataPoint {
        attributes: parts.attributes.clone(),
        start_time_unix_nano: parts.instant("start_time")?.unwrap_or_default(),
        time_unix_nano: unix_nanos(draft.event_time)?,
        count: parts.count("count")?.unwrap_or_default(),
        sum: parts.number("sum")?,
        min: parts.number("min")?,
        max: parts.number("max")?,
        ..HistogramDataPoint::default()
    };
    Ok(Histogram { data_points: vec![point], aggregation_temporality: temporality(parts)?.into() })
}

fn exponential_histogram(draft: &RowDraft, parts: &Parts<'_>) -> Result<ExponentialHistogram, String> {
    let point = ExponentialHistogramDataPoint {
        attributes: parts.attributes.clone(),
        start_time_unix_nano: parts.instant("start_time")?.unwrap_or_default(),
        time_unix_nano: unix_nanos(draft.event_time)?,
        count: parts.count("count")?.unwrap_or_default(),
        sum: parts.number("sum")?,
        min: parts.number("min")?,
        max: parts.number("max")?,
        ..ExponentialHistogramDataPoint::default()
    };
    Ok(ExponentialHistogram { data_points: vec![point], aggregation_temporality: temporality(parts)?.into() })
}

fn summary(draft: &RowDraft, parts: &Parts<'_>) -> Result<Summary, String> {
    let point = SummaryDataPoint {
        attributes: parts.attributes.clone(),
        start_time_unix_nano: parts.instant("start_time")?.unwrap_or_default(),
        time_unix_nano: unix_nanos(draft.event_time)?,
        count: parts.count("count")?.unwrap_or_default(),
        sum: parts.number("sum")?.unwrap_or_default(),
        ..SummaryDataPoint::default()
    };
    Ok(Summary { data_points: vec![point] })
}

fn temporality(parts: &Parts<'_>) -> Result<AggregationTemporality, String> {
    match parts.text("temporality")?.as_deref() {
        None | Some("delta") => Ok(AggregationTemporality::Delta),
        Some("cumulative") => Ok(AggregationTemporality::Cumulative),
        Some(other) => Err(not_one_of("temporality", other, &["delta", "cumulative"])),
    }
}

fn kind(parts: &Parts<'_>) -> Result<SpanKind, String> {
    match parts.text("kind")?.as_deref() {
        None | Some("CLIENT") => Ok(SpanKind::Client),
        Some("INTERNAL") => Ok(SpanKind::Internal),
        Some("SERVER") => Ok(SpanKind::Server),
        Some("PRODUCER") => Ok(SpanKind::Producer),
        Some("CONSUMER") => Ok(SpanKind::Consumer),
        Some("UNSPECIFIED") => Ok(SpanKind::Unspecified),
        Some(other) => {
            Err(not_one_of("kind", other, &["CLIENT", "INTERNAL", "SERVER", "PRODUCER", "CONSUMER", "UNSPECIFIED"]))
        }
    }
}

fn status(parts: &Parts<'_>) -> Result<Status, String> {
    let code = match parts.text("status_code")?.as_deref() {
        None | Some("UNSET") => StatusCode::Unset,
        Some("OK") => StatusCode::Ok,
        Some("ERROR") => StatusCode::Error,
        Some(other) => return Err(not_one_of("status_code", other, &["UNSET", "OK", "ERROR"])),
    };
    Ok(Status { message: parts.text("status_message")?.unwrap_or_default(), code: code.into() })
}

/// When a span began: as it says itself, else its duration before its end.
fn start(end: u64, parts: &Parts<'_>) -> Result<u64, String> {
    if let Some(start) = parts.instant("start_time")? {
        return Ok(start);
    }
    let duration_ms = parts.number("duration_ms")?.or(parts.number("latency_ms")?).unwrap_or_default();
    if !(0.0..=3.2e12).contains(&duration_ms) {
        return Err(format!("a duration of {duration_ms} ms is negative or above a century"));
    }
    #[expect(clippy::cast_precision_loss, reason = "a million is exact")]
    let nanos_per_ms = NANOS_PER_MS as f64;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked above: 0 to 3.2e18")]
    let duration = (duration_ms * nanos_per_ms).round() as u64;
    Ok(end.saturating_sub(duration))
}

/// 24 bytes that are the same for the same draft at the same place.
fn made_up_id(index: usize, draft: &RowDraft) -> [u8; 24] {
    let text = json!([index, draft.table.name(), draft.event_time.0, draft.columns]).to_string();
    let mut bytes = [0; 24];
    bytes.copy_from_slice(&Sha256::digest(text)[..24]);
    bytes
}

fn not_one_of(column: &str, found: &str, words: &[&str]) -> String {
    let nearest = closest(found, words).map(|word| format!(": did you mean `{word}`?")).unwrap_or_default();
    format!("column `{column}`: `{found}` is not one of {}{nearest}", words.join(", "))
}
