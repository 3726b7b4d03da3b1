//! What a program measures of itself, as OTLP export requests.
//!
//! The messages are those that `POST /v1/metrics` and `POST /v1/traces` take as protobuf. Everything counts from the
//! program's start (cumulative), as Prometheus counts: whoever misses a request misses no counts.
//!
//! Invariant: equal values give equal bytes; time and ids are the caller's.

use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric as OtlpMetric, MetricsData, NumberDataPoint,
    ResourceMetrics, ScopeMetrics, Sum, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span as OtlpSpan, TracesData};
use prost::Message;

use crate::time::EventTime;

/// The instrumentation scope of everything written here.
const SCOPE: &str = "lictor";

/// Names and values of attributes.
pub type Attributes = Vec<(String, AttributeValue)>;

/// An attribute's value.
#[derive(Clone, Debug, PartialEq)]
pub enum AttributeValue {
    /// A text.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// Any other number.
    Double(f64),
}

/// A metric with its series.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    /// Its name, without unit and without `_total`.
    pub name: String,
    /// What it says.
    pub description: String,
    /// Its unit by UCUM; empty if it counts things.
    pub unit: String,
    /// What its numbers are.
    pub kind: MetricKind,
    /// One point per series.
    pub points: Vec<Point>,
}

/// What the numbers of a metric are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// They only grow, from the start of the program on.
    Counter,
    /// What is so now.
    Gauge,
    /// How many measurements are how large, from the start of the program on.
    Histogram,
}

/// The numbers of one series.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Which series of the metric.
    pub labels: Vec<(String, String)>,
    /// Its numbers, of the metric's kind.
    pub value: PointValue,
}

/// The numbers of a point.
#[derive(Clone, Debug, PartialEq)]
pub enum PointValue {
    /// Of a counter or a gauge.
    Number(f64),
    /// Of a histogram.
    Distribution {
        /// The buckets' upper bounds, inclusive and growing; behind the last is one more bucket without.
        bounds: Vec<f64>,
        /// Measurements per bucket: one more than bounds.
        counts: Vec<u64>,
        /// The sum of all measurements.
        sum: f64,
    },
}

/// A piece of work.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// The trace that it belongs to; not zero.
    pub trace_id: [u8; 16],
    /// Its own id; not zero.
    pub span_id: [u8; 8],
    /// What it is a part of, if anything.
    pub parent_span_id: Option<[u8; 8]>,
    /// Which kind of work.
    pub name: &'static str,
    /// When it began.
    pub start: EventTime,
    /// When it ended.
    pub end: EventTime,
    /// What else is known of it.
    pub attributes: Attributes,
}

/// Metrics of a program that was started at `start`, as they were at `at`: an `ExportMetricsServiceRequest`.
#[must_use]
pub fn metrics_request(resource: &Attributes, metrics: &[Metric], (start, at): (EventTime, EventTime)) -> Vec<u8> {
    let times = (unix_nanos(start), unix_nanos(at));
    let metrics = metrics.iter().map(|metric| to_metric(metric, times)).collect();
    let scope_metrics = vec![ScopeMetrics { scope: Some(scope()), metrics, ..ScopeMetrics::default() }];
    let resource = Some(to_resource(resource));
    let resource_metrics = vec![ResourceMetrics { resource, scope_metrics, ..ResourceMetrics::default() }];
    MetricsData { resource_metrics }.encode_to_vec()
}

/// Spans: an `ExportTraceServiceRequest`.
#[must_use]
pub fn traces_request(resource: &Attributes, spans: &[Span]) -> Vec<u8> {
    let spans = spans.iter().map(to_span).collect();
    let scope_spans = vec![ScopeSpans { scope: Some(scope()), spans, ..ScopeSpans::default() }];
    let resource = Some(to_resource(resource));
    TracesData { resource_spans: vec![ResourceSpans { resource, scope_spans, ..ResourceSpans::default() }] }
        .encode_to_vec()
}

fn to_metric(metric: &Metric, times: (u64, u64)) -> OtlpMetric {
    let numbers = || metric.points.iter().filter_map(|point| to_number(point, times)).collect();
    let cumulative = AggregationTemporality::Cumulative.into();
    let data = match metric.kind {
        MetricKind::Counter => {
            Data::Sum(Sum { data_points: numbers(), aggregation_temporality: cumulative, is_monotonic: true })
        }
        MetricKind::Gauge => Data::Gauge(Gauge { data_points: numbers() }),
        MetricKind::Histogram => Data::Histogram(Histogram {
            data_points: metric.points.iter().filter_map(|point| to_distribution(point, times)).collect(),
            aggregation_temporality: cumulative,
        }),
    };
    OtlpMetric {
        name: metric.name.clone(),
        description: metric.description.clone(),
        unit: metric.unit.clone(),
        data: Some(data),
        ..OtlpMetric::default()
    }
}

fn to_number(point: &Point, (start, at): (u64, u64)) -> Option<NumberDataPoint> {
    let PointValue::Number(value) = point.value else { return None };
    Some(NumberDataPoint {
        attributes: to_labels(&point.labels),
        start_time_unix_nano: start,
        time_unix_nano: at,
        value: Some(number_data_point::Value::AsDouble(value)),
        ..NumberDataPoint::default()
    })
}

fn to_distribution(point: &Point, (start, at): (u64, u64)) -> Option<HistogramDataPoint> {
    let PointValue::Distribution { bounds, counts, sum } = &point.value else { return None };
    Some(HistogramDataPoint {
        attributes: to_labels(&point.labels),
        start_time_unix_nano: start,
        time_unix_nano: at,
        count: counts.iter().sum(),
        sum: Some(*sum),
        bucket_counts: counts.clone(),
        explicit_bounds: bounds.clone(),
        ..HistogramDataPoint::default()
    })
}

fn to_span(span: &Span) -> OtlpSpan {
    OtlpSpan {
        trace_id: span.trace_id.to_vec(),
        span_id: span.span_id.to_vec(),
        parent_span_id: span.parent_span_id.map(|id| id.to_vec()).unwrap_or_default(),
        name: span.name.to_owned(),
        kind: SpanKind::Internal.into(),
        start_time_unix_nano: unix_nanos(span.start),
        end_time_unix_nano: unix_nanos(span.end),
        attributes: to_key_values(&span.attributes),
        ..OtlpSpan::default()
    }
}

fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: SCOPE.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    }
}

fn to_resource(attributes: &Attributes) -> Resource {
    Resource { attributes: to_key_values(attributes), ..Resource::default() }
}

fn to_labels(labels: &[(String, String)]) -> Vec<KeyValue> {
    labels.iter().map(|(key, value)| key_value(key, Any::StringValue(value.clone()))).collect()
}

fn to_key_values(attributes: &Attributes) -> Vec<KeyValue> {
    let any = |value: &AttributeValue| match value {
        AttributeValue::Text(text) => Any::StringValue(text.clone()),
        AttributeValue::Integer(number) => Any::IntValue(*number),
        AttributeValue::Double(number) => Any::DoubleValue(*number),
    };
    attributes.iter().map(|(key, value)| key_value(key, any(value))).collect()
}

fn key_value(key: &str, value: Any) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

/// OTLP has no time before 1970.
fn unix_nanos(at: EventTime) -> u64 {
    u64::try_from(at.0).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(key: &str, value: &str) -> (String, AttributeValue) {
        (key.to_owned(), AttributeValue::Text(value.to_owned()))
    }

    fn metric(kind: MetricKind, value: PointValue) -> Metric {
        let labels = vec![("stage".to_owned(), "scan".to_owned())];
        Metric {
            name: "lictor_m".to_owned(),
            description: "What it says".to_owned(),
            unit: "s".to_owned(),
            kind,
            points: vec![Point { labels, value }],
        }
    }

    /// The one metric of a request, written at second 9 by a program of second 2.
    fn written(metric: &Metric) -> OtlpMetric {
        let times = (EventTime::from_ms(2_000), EventTime::from_ms(9_000));
        let bytes = metrics_request(&vec![text("service.name", "lictor")], std::slice::from_ref(metric), times);
        let data = MetricsData::decode(bytes.as_slice()).unwrap();
        let of_resource = &data.resource_metrics[0];
        assert_eq!(of_resource.resource.as_ref().unwrap().attributes[0].key, "service.name");
        of_resource.scope_metrics[0].metrics[0].clone()
    }

    #[test]
    fn a_counter_is_a_cumulative_sum_since_the_start() {
        let OtlpMetric { name, description, unit, data, .. } =
            written(&metric(MetricKind::Counter, PointValue::Number(7.0)));
        assert_eq!([name, description, unit], ["lictor_m", "What it says", "s"]);
        let Some(Data::Sum(sum)) = data else { panic!("{data:?}") };
        assert!(sum.is_monotonic && sum.aggregation_temporality == i32::from(AggregationTemporality::Cumulative));
        let point = &sum.data_points[0];
        assert_eq!((point.start_time_unix_nano, point.time_unix_nano), (2_000_000_000, 9_000_000_000));
        assert_eq!(point.value, Some(number_data_point::Value::AsDouble(7.0)));
        assert_eq!(point.attributes[0].key, "stage");
    }

    #[test]
    fn a_histogram_has_a_bucket_more_than_bounds() {
        let value = PointValue::Distribution { bounds: vec![0.1, 1.0], counts: vec![3, 2, 1], sum: 4.5 };
        let Some(Data::Histogram(histogram)) = written(&metric(MetricKind::Histogram, value)).data else { panic!() };
        let point = &histogram.data_points[0];
        assert_eq!((point.count, point.sum), (6, Some(4.5)));
        assert_eq!(
            (point.explicit_bounds.as_slice(), point.bucket_counts.as_slice()),
            (&[0.1, 1.0][..], &[3, 2, 1][..])
        );
    }

    #[test]
    fn a_number_is_no_histogram_and_a_distribution_no_gauge() {
        let Some(Data::Histogram(none)) = written(&metric(MetricKind::Histogram, PointValue::Number(1.0))).data else {
            panic!()
        };
        assert!(none.data_points.is_empty());
        let value = PointValue::Distribution { bounds: vec![], counts: vec![1], sum: 1.0 };
        let Some(Data::Gauge(none)) = written(&metric(MetricKind::Gauge, value)).data else { panic!() };
        assert!(none.data_points.is_empty());
    }

    #[test]
    fn spans_keep_their_parents_and_what_is_known_of_them() {
        let span = Span {
            trace_id: [1; 16],
            span_id: [2; 8],
            parent_span_id: Some([3; 8]),
            name: "commit",
            start: EventTime(-5),
            end: EventTime(40),
            attributes: vec![
                ("records".to_owned(), AttributeValue::Integer(12)),
                ("seconds".to_owned(), AttributeValue::Double(0.5)),
            ],
        };
        let bytes = traces_request(&vec![text("service.name", "lictor")], &[span]);
        let data = TracesData::decode(bytes.as_slice()).unwrap();
        let span = &data.resource_spans[0].scope_spans[0].spans[0];
        assert_eq!((span.trace_id.as_slice(), span.parent_span_id.as_slice()), (&[1; 16][..], &[3; 8][..]));
        assert_eq!((span.start_time_unix_nano, span.end_time_unix_nano), (0, 40));
        assert_eq!(span.attributes[0].value.as_ref().unwrap().value, Some(Any::IntValue(12)));
        assert_eq!(span.attributes[1].value.as_ref().unwrap().value, Some(Any::DoubleValue(0.5)));
    }
}
