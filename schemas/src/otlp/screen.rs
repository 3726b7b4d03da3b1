//! Parts the items that can become rows from those that cannot.
//!
//! One bad span must not cost its whole batch, so flawed items are taken out singly and given back as OTLP of their
//! own, with their resource and scope, for the dead-letter topic.
//!
//! Invariant: afterwards every item left has a time that fits the row, and a span has valid identifiers.

use opentelemetry_proto::tonic::logs::v1::{LogRecord, LogsData, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{
    ExponentialHistogram, Gauge, Histogram, Metric, MetricsData, ResourceMetrics, ScopeMetrics, Sum, Summary,
};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, TracesData};

use super::error::Flaw;

const TRACE_ID_BYTES: usize = 16;
const SPAN_ID_BYTES: usize = 8;

/// What was kept and what was taken out.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) accepted: usize,
    /// The flaws found, one per item taken out.
    flaws: Vec<Flaw>,
}

impl Tally {
    pub(super) fn rejected(&self) -> usize {
        self.flaws.len()
    }

    /// The most frequent flaw.
    pub(super) fn main_flaw(&self) -> Option<Flaw> {
        self.counts().into_iter().max_by_key(|(_, count)| *count).map(|(flaw, _)| flaw)
    }

    /// `invalid_id: 2, no_time: 1`.
    pub(super) fn reason(&self) -> String {
        let parts: Vec<_> = self.counts().iter().map(|(flaw, n)| format!("{}: {n}", flaw.as_str())).collect();
        parts.join(", ")
    }

    fn counts(&self) -> Vec<(Flaw, usize)> {
        let all = [Flaw::NoName, Flaw::TimeOutOfRange, Flaw::NoTime, Flaw::InvalidId];
        let count = |flaw| (flaw, self.flaws.iter().filter(|f| **f == flaw).count());
        all.into_iter().map(count).filter(|(_, n)| *n > 0).collect()
    }

    /// Takes the flawed items out of `items`.
    fn split<T>(&mut self, items: &mut Vec<T>, flaw: impl Fn(&T) -> Option<Flaw>) -> Vec<T> {
        let flawed: Vec<T> = items
            .extract_if(.., |item| match flaw(item) {
                Some(flaw) => {
                    self.flaws.push(flaw);
                    true
                }
                None => false,
            })
            .collect();
        self.accepted += items.len();
        flawed
    }
}

/// Takes flawed spans out of `data`.
pub(super) fn screen_traces(data: &mut TracesData) -> (Tally, TracesData) {
    let mut tally = Tally::default();
    let mut out = TracesData::default();
    for resource in &mut data.resource_spans {
        let mut scope_spans = Vec::new();
        for scope in &mut resource.scope_spans {
            let spans = tally.split(&mut scope.spans, |span| {
                let ids = [&span.trace_id[..], &span.span_id, &span.parent_span_id];
                span_flaw(ids, span.start_time_unix_nano, span.end_time_unix_nano)
            });
            if !spans.is_empty() {
                scope_spans.push(ScopeSpans {
                    spans,
                    scope: scope.scope.clone(),
                    schema_url: scope.schema_url.clone(),
                });
            }
        }
        if !scope_spans.is_empty() {
            let (schema_url, resource) = (resource.schema_url.clone(), resource.resource.clone());
            out.resource_spans.push(ResourceSpans { resource, scope_spans, schema_url });
        }
    }
    (tally, out)
}

/// Takes flawed log records out of `data`.
pub(super) fn screen_logs(data: &mut LogsData) -> (Tally, LogsData) {
    let mut tally = Tally::default();
    let mut out = LogsData::default();
    for resource in &mut data.resource_logs {
        let mut scope_logs = Vec::new();
        for scope in &mut resource.scope_logs {
            let log_records = tally.split(&mut scope.log_records, log_flaw);
            if !log_records.is_empty() {
                let (schema_url, scope) = (scope.schema_url.clone(), scope.scope.clone());
                scope_logs.push(ScopeLogs { scope, log_records, schema_url });
            }
        }
        if !scope_logs.is_empty() {
            let (schema_url, resource) = (resource.schema_url.clone(), resource.resource.clone());
            out.resource_logs.push(ResourceLogs { resource, scope_logs, schema_url });
        }
    }
    (tally, out)
}

/// Takes flawed data points out of `data`.
pub(super) fn screen_metrics(data: &mut MetricsData) -> (Tally, MetricsData) {
    let mut tally = Tally::default();
    let mut out = MetricsData::default();
    for resource in &mut data.resource_metrics {
        let mut scope_metrics = Vec::new();
        for scope in &mut resource.scope_metrics {
            let metrics: Vec<_> = scope.metrics.iter_mut().filter_map(|m| screen_metric(m, &mut tally)).collect();
            if !metrics.is_empty() {
                let (schema_url, scope) = (scope.schema_url.clone(), scope.scope.clone());
                scope_metrics.push(ScopeMetrics { scope, metrics, schema_url });
            }
        }
        if !scope_metrics.is_empty() {
            let (schema_url, resource) = (resource.schema_url.clone(), resource.resource.clone());
            out.resource_metrics.push(ResourceMetrics { resource, scope_metrics, schema_url });
        }
    }
    (tally, out)
}

fn screen_metric(metric: &mut Metric, tally: &mut Tally) -> Option<Metric> {
    let nameless = metric.name.is_empty();
    let data = screen_points(metric.data.as_mut()?, nameless, tally)?;
    let (name, unit, description) = (metric.name.clone(), metric.unit.clone(), metric.description.clone());
    Some(Metric { name, unit, description, metadata: metric.metadata.clone(), data: Some(data) })
}

fn screen_points(data: &mut Data, nameless: bool, tally: &mut Tally) -> Option<Data> {
    let flaw = |ns| if nameless { Some(Flaw::NoName) } else { time_flaw(ns) };
    match data {
        Data::Gauge(gauge) => {
            let data_points = tally.split(&mut gauge.data_points, |p| flaw(p.time_unix_nano));
            (!data_points.is_empty()).then_some(Data::Gauge(Gauge { data_points }))
        }
        Data::Sum(sum) => {
            let data_points = tally.split(&mut sum.data_points, |p| flaw(p.time_unix_nano));
            (!data_points.is_empty()).then_some(Data::Sum(Sum { data_points, ..*sum }))
        }
        Data::Histogram(histogram) => {
            let data_points = tally.split(&mut histogram.data_points, |p| flaw(p.time_unix_nano));
            (!data_points.is_empty()).then_some(Data::Histogram(Histogram { data_points, ..*histogram }))
        }
        Data::ExponentialHistogram(histogram) => {
            let data_points = tally.split(&mut histogram.data_points, |p| flaw(p.time_unix_nano));
            let histogram = ExponentialHistogram { data_points, ..*histogram };
            (!histogram.data_points.is_empty()).then_some(Data::ExponentialHistogram(histogram))
        }
        Data::Summary(summary) => {
            let data_points = tally.split(&mut summary.data_points, |p| flaw(p.time_unix_nano));
            (!data_points.is_empty()).then_some(Data::Summary(Summary { data_points }))
        }
    }
}

/// What is wrong with a span of these trace, span and parent identifiers and times.
#[inline]
pub(super) fn span_flaw(ids: [&[u8]; 3], start_unix_nano: u64, end_unix_nano: u64) -> Option<Flaw> {
    let [trace_id, span_id, parent_span_id] = ids;
    if !is_id::<TRACE_ID_BYTES>(trace_id)
        || !is_id::<SPAN_ID_BYTES>(span_id)
        || !is_absent_or_sized(parent_span_id, SPAN_ID_BYTES)
    {
        return Some(Flaw::InvalidId);
    }
    // A start of zero is merely unknown; one beyond the range is as broken as an end beyond it.
    time_flaw(end_unix_nano).or_else(|| time_flaw(start_unix_nano.max(1)))
}

/// A log record need not belong to a span: an absent or all-zero identifier is none.
fn log_flaw(log: &LogRecord) -> Option<Flaw> {
    if !is_absent_or_sized(&log.trace_id, TRACE_ID_BYTES) || !is_absent_or_sized(&log.span_id, SPAN_ID_BYTES) {
        return Some(Flaw::InvalidId);
    }
    time_flaw(if log.time_unix_nano == 0 { log.observed_time_unix_nano } else { log.time_unix_nano })
}

fn time_flaw(unix_nano: u64) -> Option<Flaw> {
    match i64::try_from(unix_nano) {
        Ok(0) => Some(Flaw::NoTime),
        Ok(_) => None,
        Err(_) => Some(Flaw::TimeOutOfRange),
    }
}

fn is_id<const BYTES: usize>(bytes: &[u8]) -> bool {
    <[u8; BYTES]>::try_from(bytes).is_ok_and(|id| id != [0; BYTES])
}

fn is_absent_or_sized(bytes: &[u8], len: usize) -> bool {
    bytes.is_empty() || bytes.len() == len
}
