//! Rows of `metrics`: one per data point.

use opentelemetry_proto::tonic::common::v1::{InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, ExponentialHistogramDataPoint, HistogramDataPoint, Metric, MetricsData, NumberDataPoint,
    SummaryDataPoint,
};

use super::RecordMeta;
use super::cell::Cell;
use super::derive::Item;
use super::names::Names;
use super::plan::Slots;
use super::rows::Rows;
use super::spans::of_scope;
use crate::tables::Field;

/// Appends every data point of a screened record.
pub(super) fn append_metrics<'a>(rows: &mut Rows, names: &Names, data: &'a MetricsData, record: &RecordMeta<'a>) {
    let mut slots = Slots::new(&rows.plan, 1);
    for resource_metrics in &data.resource_metrics {
        let resource = resource_metrics.resource.as_ref().map_or(&[][..], |r| &r.attributes);
        slots.enter_resource(&rows.plan, names.attributes(resource));
        for scope_metrics in &resource_metrics.scope_metrics {
            let scope = scope_metrics.scope.as_ref();
            slots.enter_scope(&rows.plan, names.attributes(scope.map_or(&[][..], |s| &s.attributes)));
            for metric in &scope_metrics.metrics {
                for_each_point(metric, |point| {
                    slots.enter_record(&rows.plan, names.attributes(point.attributes()));
                    rows.append(&mut slots, &[PointItem { metric, point, scope }], record);
                });
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Point<'a> {
    Number(&'a NumberDataPoint),
    Histogram(&'a HistogramDataPoint),
    Exponential(&'a ExponentialHistogramDataPoint),
    Summary(&'a SummaryDataPoint),
}

fn for_each_point<'a>(metric: &'a Metric, mut each: impl FnMut(Point<'a>)) {
    match &metric.data {
        Some(Data::Gauge(gauge)) => gauge.data_points.iter().for_each(|p| each(Point::Number(p))),
        Some(Data::Sum(sum)) => sum.data_points.iter().for_each(|p| each(Point::Number(p))),
        Some(Data::Histogram(h)) => h.data_points.iter().for_each(|p| each(Point::Histogram(p))),
        Some(Data::ExponentialHistogram(h)) => h.data_points.iter().for_each(|p| each(Point::Exponential(p))),
        Some(Data::Summary(summary)) => summary.data_points.iter().for_each(|p| each(Point::Summary(p))),
        None => {}
    }
}

impl<'a> Point<'a> {
    fn attributes(self) -> &'a [KeyValue] {
        match self {
            Self::Number(point) => &point.attributes,
            Self::Histogram(point) => &point.attributes,
            Self::Exponential(point) => &point.attributes,
            Self::Summary(point) => &point.attributes,
        }
    }

    /// Start and end of its interval, nanoseconds since the Unix epoch.
    fn interval(self) -> (u64, u64) {
        match self {
            Self::Number(point) => (point.start_time_unix_nano, point.time_unix_nano),
            Self::Histogram(point) => (point.start_time_unix_nano, point.time_unix_nano),
            Self::Exponential(point) => (point.start_time_unix_nano, point.time_unix_nano),
            Self::Summary(point) => (point.start_time_unix_nano, point.time_unix_nano),
        }
    }

    /// A point without a recorded value has none.
    fn value(self) -> Option<f64> {
        match self {
            Self::Number(point) => point.value.map(|value| match value {
                Value::AsDouble(value) => value,
                Value::AsInt(value) => value as f64,
            }),
            Self::Histogram(_) | Self::Exponential(_) | Self::Summary(_) => None,
        }
    }

    fn count(self) -> Option<i64> {
        let count = match self {
            Self::Number(_) => return None,
            Self::Histogram(point) => point.count,
            Self::Exponential(point) => point.count,
            Self::Summary(point) => point.count,
        };
        i64::try_from(count).ok()
    }

    fn sum(self) -> Option<f64> {
        match self {
            Self::Number(_) => None,
            Self::Histogram(point) => point.sum,
            Self::Exponential(point) => point.sum,
            Self::Summary(point) => Some(point.sum),
        }
    }

    /// The smallest and the largest measurement.
    fn extremes(self) -> (Option<f64>, Option<f64>) {
        match self {
            Self::Histogram(point) => (point.min, point.max),
            Self::Exponential(point) => (point.min, point.max),
            Self::Number(_) | Self::Summary(_) => (None, None),
        }
    }
}

struct PointItem<'a> {
    metric: &'a Metric,
    point: Point<'a>,
    scope: Option<&'a InstrumentationScope>,
}

impl<'a> Item<'a> for PointItem<'a> {
    fn own(&self, field: Field) -> Cell<'a> {
        match field {
            Field::EventTime => Cell::time(self.point.interval().1),
            Field::StartTime => Cell::time(self.point.interval().0),
            Field::MetricName => Cell::Str(&self.metric.name),
            Field::MetricType => self.metric.data.as_ref().map_or(Cell::Null, |data| Cell::Str(metric_type(data))),
            Field::Unit => Cell::text(&self.metric.unit),
            Field::Value => Cell::float(self.point.value()),
            Field::Count => Cell::int(self.point.count()),
            Field::Sum => Cell::float(self.point.sum()),
            Field::Min => Cell::float(self.point.extremes().0),
            Field::Max => Cell::float(self.point.extremes().1),
            Field::Temporality => self.metric.data.as_ref().map_or(Cell::Null, temporality),
            Field::IsMonotonic => match &self.metric.data {
                Some(Data::Sum(sum)) => Cell::Bool(sum.is_monotonic),
                _ => Cell::Null,
            },
            other => of_scope(self.scope, other),
        }
    }
}

fn metric_type(data: &Data) -> &'static str {
    match data {
        Data::Gauge(_) => "gauge",
        Data::Sum(_) => "sum",
        Data::Histogram(_) => "histogram",
        Data::ExponentialHistogram(_) => "exponential_histogram",
        Data::Summary(_) => "summary",
    }
}

fn temporality(data: &Data) -> Cell<'static> {
    let temporality = match data {
        Data::Sum(sum) => sum.aggregation_temporality,
        Data::Histogram(histogram) => histogram.aggregation_temporality,
        Data::ExponentialHistogram(histogram) => histogram.aggregation_temporality,
        Data::Gauge(_) | Data::Summary(_) => return Cell::Null,
    };
    match AggregationTemporality::try_from(temporality) {
        Ok(AggregationTemporality::Delta) => Cell::Str("delta"),
        Ok(AggregationTemporality::Cumulative) => Cell::Str("cumulative"),
        _ => Cell::Null,
    }
}
