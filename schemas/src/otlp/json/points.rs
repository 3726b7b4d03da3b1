//! Metrics of OTLP/JSON.
//!
//! Buckets, quantiles and exemplars are not read: no column shows them.

use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::{
    ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint,
    Sum, Summary, SummaryDataPoint,
};
use serde_json::Value as Json;

use super::scalar::{attributes, boolean, enumeration, float, to_signed, unsigned};
use super::{Object, get, objects, text_of};

const START_TIME: &[&str] = &["startTimeUnixNano", "start_time_unix_nano"];
const TIME: &[&str] = &["timeUnixNano", "time_unix_nano"];
const POINTS: &[&str] = &["dataPoints", "data_points"];
const TEMPORALITIES: &[&str] = &["UNSPECIFIED", "DELTA", "CUMULATIVE"];

pub(super) fn metric(object: &Object) -> Metric {
    Metric {
        name: text_of(object, &["name"]),
        description: text_of(object, &["description"]),
        unit: text_of(object, &["unit"]),
        data: data(object),
        ..Metric::default()
    }
}

fn data(object: &Object) -> Option<Data> {
    let inner = |names: &[&str]| get(object, names).and_then(Json::as_object);
    if let Some(gauge) = inner(&["gauge"]) {
        return Some(Data::Gauge(Gauge { data_points: objects(gauge, POINTS).map(number).collect() }));
    }
    if let Some(sum) = inner(&["sum"]) {
        return Some(Data::Sum(Sum {
            data_points: objects(sum, POINTS).map(number).collect(),
            aggregation_temporality: temporality(sum),
            is_monotonic: boolean(sum, &["isMonotonic", "is_monotonic"]),
        }));
    }
    if let Some(found) = inner(&["histogram"]) {
        return Some(Data::Histogram(Histogram {
            data_points: objects(found, POINTS).map(histogram).collect(),
            aggregation_temporality: temporality(found),
        }));
    }
    if let Some(found) = inner(&["exponentialHistogram", "exponential_histogram"]) {
        return Some(Data::ExponentialHistogram(ExponentialHistogram {
            data_points: objects(found, POINTS).map(exponential).collect(),
            aggregation_temporality: temporality(found),
        }));
    }
    let found = inner(&["summary"])?;
    Some(Data::Summary(Summary { data_points: objects(found, POINTS).map(summary).collect() }))
}

fn temporality(object: &Object) -> i32 {
    let names = &["aggregationTemporality", "aggregation_temporality"];
    enumeration(object, names, "AGGREGATION_TEMPORALITY_", TEMPORALITIES)
}

fn number(object: &Object) -> NumberDataPoint {
    let int = || get(object, &["asInt", "as_int"]).and_then(to_signed).map(Value::AsInt);
    NumberDataPoint {
        attributes: attributes(object),
        start_time_unix_nano: unsigned(object, START_TIME),
        time_unix_nano: unsigned(object, TIME),
        value: float(object, &["asDouble", "as_double"]).map(Value::AsDouble).or_else(int),
        ..NumberDataPoint::default()
    }
}

fn histogram(object: &Object) -> HistogramDataPoint {
    HistogramDataPoint {
        attributes: attributes(object),
        start_time_unix_nano: unsigned(object, START_TIME),
        time_unix_nano: unsigned(object, TIME),
        count: unsigned(object, &["count"]),
        sum: float(object, &["sum"]),
        min: float(object, &["min"]),
        max: float(object, &["max"]),
        ..HistogramDataPoint::default()
    }
}

fn exponential(object: &Object) -> ExponentialHistogramDataPoint {
    ExponentialHistogramDataPoint {
        attributes: attributes(object),
        start_time_unix_nano: unsigned(object, START_TIME),
        time_unix_nano: unsigned(object, TIME),
        count: unsigned(object, &["count"]),
        sum: float(object, &["sum"]),
        min: float(object, &["min"]),
        max: float(object, &["max"]),
        ..ExponentialHistogramDataPoint::default()
    }
}

fn summary(object: &Object) -> SummaryDataPoint {
    SummaryDataPoint {
        attributes: attributes(object),
        start_time_unix_nano: unsigned(object, START_TIME),
        time_unix_nano: unsigned(object, TIME),
        count: unsigned(object, &["count"]),
        sum: float(object, &["sum"]).unwrap_or(0.0),
        ..SummaryDataPoint::default()
    }
}
