//! The tables that rules read: one per kind of telemetry, their columns in order.
//!
//! A table is its own columns (what OTLP itself says of a span, a log record, a data point), then the canonical AI
//! columns of [`crate::columns`], then the attribute columns that the loaded rules name. Rules, decoder and `lictor
//! schema` all read the lists here, so a column has one name, one type and one description.
//!
//! Invariant: the order of a table's columns never depends on what is asked for, only which of them are there.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field as ArrowField, Schema, SchemaRef, TimeUnit};
use serde::{Deserialize, Serialize};

use crate::columns::{self, Kind};

/// A column `attr:<name>` holds the attribute `<name>` of the record, else of its resource, else of its scope, as text.
pub const ATTR_PREFIX: &str = "attr:";

/// A column `resource_attr:<name>` holds the attribute `<name>` of the resource, as text.
pub const RESOURCE_ATTR_PREFIX: &str = "resource_attr:";

/// What a topic carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Signal {
    /// Spans and their events.
    Traces,
    /// Log records.
    Logs,
    /// Metric data points.
    Metrics,
}

impl Signal {
    /// Every signal.
    pub const ALL: [Self; 3] = [Self::Traces, Self::Logs, Self::Metrics];

    /// `traces`, `logs` or `metrics`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Traces => "traces",
            Self::Logs => "logs",
            Self::Metrics => "metrics",
        }
    }

    /// The signal of that name, exactly as [`Signal::as_str`] writes it.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|signal| signal.as_str() == name)
    }
}

/// A table that rules can name after `FROM`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Table {
    /// One row per span.
    Spans,
    /// One row per event of a span.
    SpanEvents,
    /// One row per log record.
    Logs,
    /// One row per data point of a metric.
    Metrics,
}

impl Table {
    /// Every table.
    pub const ALL: [Self; 4] = [Self::Spans, Self::SpanEvents, Self::Logs, Self::Metrics];

    /// The name in SQL.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Spans => "spans",
            Self::SpanEvents => "span_events",
            Self::Logs => "logs",
            Self::Metrics => "metrics",
        }
    }

    /// The table of that name in SQL.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|table| table.name() == name)
    }

    /// The signal whose records fill the table.
    #[must_use]
    pub fn signal(self) -> Signal {
        match self {
            Self::Spans | Self::SpanEvents => Signal::Traces,
            Self::Logs => Signal::Logs,
            Self::Metrics => Signal::Metrics,
        }
    }

    pub(crate) fn own_columns(self) -> impl Iterator<Item = &'static OwnColumn> {
        OWN_COLUMNS.iter().filter(move |column| column.tables.contains(&self))
    }
}

/// What OTLP itself says of an item; every one is a column of one or more tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    EventTime,
    KafkaTopic,
    KafkaPartition,
    KafkaOffset,
    KafkaTimestamp,
    StartTime,
    ObservedTime,
    TraceId,
    SpanId,
    ParentSpanId,
    TraceState,
    Name,
    SpanName,
    Kind,
    StatusMessage,
    DurationMs,
    SeverityText,
    SeverityNumber,
    Body,
    MetricName,
    MetricType,
    Unit,
    Value,
    Count,
    Sum,
    Min,
    Max,
    Temporality,
    IsMonotonic,
    ScopeName,
    ScopeVersion,
    // Read only by canonical columns.
    EventName,
    StatusCode,
}

/// A column that is no canonical AI column.
#[derive(Debug)]
pub(crate) struct OwnColumn {
    pub(crate) name: &'static str,
    pub(crate) field: Field,
    pub(crate) kind: Kind,
    pub(crate) unit: &'static str,
    pub(crate) tables: &'static [Table],
    pub(crate) always: bool,
    doc: &'static str,
}

const EVERY: &[Table] = &Table::ALL;
const SPANS: &[Table] = &[Table::Spans];
const LOGS: &[Table] = &[Table::Logs];
const METRICS: &[Table] = &[Table::Metrics];
const TRACED: &[Table] = &[Table::Spans, Table::SpanEvents, Table::Logs];
const STARTED: &[Table] = &[Table::Spans, Table::Metrics];
const NAMED: &[Table] = &[Table::Spans, Table::SpanEvents];
const SPAN_EVENTS: &[Table] = &[Table::SpanEvents];

const fn own(name: &'static str, field: Field, kind: Kind, tables: &'static [Table], doc: &'static str) -> OwnColumn {
    OwnColumn { name, field, kind, unit: "", tables, always: false, doc }
}

impl OwnColumn {
    const fn always(mut self) -> Self {
        self.always = true;
        self
    }

    const fn unit(mut self, unit: &'static str) -> Self {
        self.unit = unit;
        self
    }

    /// Only what every record has: the time it counts at and where it lies in Kafka.
    fn nullable(&self) -> bool {
        !matches!(
            self.field,
            Field::EventTime | Field::KafkaTopic | Field::KafkaPartition | Field::KafkaOffset | Field::KafkaTimestamp
        )
    }
}

static OWN_COLUMNS: &[OwnColumn] = &[
    own(
        "event_time",
        Field::EventTime,
        Kind::Instant,
        EVERY,
        "when it happened: the span's end, the log record's time (else its observed time), the data point's time, the \
         span event's time (else its span's end)",
    )
    .always(),
    own("start_time", Field::StartTime, Kind::Instant, STARTED, "when the span began, or the point's interval"),
    own("observed_time", Field::ObservedTime, Kind::Instant, LOGS, "when the log record was collected"),
    own("trace_id", Field::TraceId, Kind::Id, TRACED, "32 lower-case hex digits").always(),
    own("span_id", Field::SpanId, Kind::Id, TRACED, "16 lower-case hex digits").always(),
    own("parent_span_id", Field::ParentSpanId, Kind::Id, SPANS, "16 lower-case hex digits; null for a root span"),
    own("trace_state", Field::TraceState, Kind::Text, SPANS, "W3C trace state: of samplers, what they have left out"),
    own("name", Field::Name, Kind::Raw, NAMED, "name of the span or of the span event"),
    own("span_name", Field::SpanName, Kind::Raw, SPAN_EVENTS, "name of the span the event belongs to"),
    own("kind", Field::Kind, Kind::Raw, SPANS, "INTERNAL, SERVER, CLIENT, PRODUCER, CONSUMER or UNSPECIFIED"),
    own("status_message", Field::StatusMessage, Kind::Text, SPANS, "what the span's status says"),
    own("duration_ms", Field::DurationMs, Kind::Number, SPANS, "end minus start").unit("ms"),
    own("severity_text", Field::SeverityText, Kind::Text, LOGS, "severity as the source wrote it"),
    own("severity_number", Field::SeverityNumber, Kind::Integer, LOGS, "1 (TRACE) to 24 (FATAL4)"),
    own("body", Field::Body, Kind::Text, LOGS, "the body if it is a string; read only if a rule names it"),
    own("metric_name", Field::MetricName, Kind::Raw, METRICS, "name of the metric"),
    own(
        "metric_type",
        Field::MetricType,
        Kind::Raw,
        METRICS,
        "gauge, sum, histogram, exponential_histogram or summary",
    ),
    own("unit", Field::Unit, Kind::Text, METRICS, "UCUM unit of the metric"),
    own("value", Field::Value, Kind::Number, METRICS, "value of a gauge or sum; null for the other types"),
    own("count", Field::Count, Kind::Integer, METRICS, "measurements in a histogram or summary"),
    own("sum", Field::Sum, Kind::Number, METRICS, "their sum"),
    own("min", Field::Min, Kind::Number, METRICS, "the smallest of them"),
    own("max", Field::Max, Kind::Number, METRICS, "the largest of them"),
    own("temporality", Field::Temporality, Kind::Raw, METRICS, "delta or cumulative"),
    own("is_monotonic", Field::IsMonotonic, Kind::Flag, METRICS, "whether a sum only grows"),
    own("scope_name", Field::ScopeName, Kind::Text, EVERY, "the instrumentation library"),
    own("scope_version", Field::ScopeVersion, Kind::Text, EVERY, "its version"),
    own("kafka_topic", Field::KafkaTopic, Kind::Raw, EVERY, "where the record was read"),
    own("kafka_partition", Field::KafkaPartition, Kind::Small, EVERY, "its partition").always(),
    own("kafka_offset", Field::KafkaOffset, Kind::Integer, EVERY, "its offset").always(),
    own("kafka_timestamp", Field::KafkaTimestamp, Kind::Instant, EVERY, "its timestamp").always(),
];

/// A column as `lictor schema` prints it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ColumnDoc {
    /// The name in SQL.
    pub name: &'static str,
    /// The Arrow type as text; timestamps are UTC.
    #[serde(serialize_with = "serialize_type")]
    pub data_type: DataType,
    /// The unit of its values; empty if it has none.
    pub unit: &'static str,
    /// What it says.
    pub doc: &'static str,
    /// The attributes it is read from, first match wins; empty if OTLP has a field for it.
    pub sources: Vec<&'static str>,
}

fn serialize_type<S: serde::Serializer>(data_type: &DataType, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(data_type)
}

/// The Arrow type of a kind of column.
pub(crate) fn data_type(kind: Kind) -> DataType {
    match kind {
        Kind::Small => DataType::Int32,
        Kind::Integer => DataType::Int64,
        Kind::Number => DataType::Float64,
        Kind::Flag => DataType::Boolean,
        Kind::Instant => DataType::Timestamp(TimeUnit::Nanosecond, None),
        Kind::Id
        | Kind::Raw
        | Kind::Text
        | Kind::Label
        | Kind::Lower
        | Kind::Provider
        | Kind::OperationType
        | Kind::ToolName
        | Kind::PolicyResult
        | Kind::List => DataType::Utf8View,
    }
}

/// Every column of `table` in order, then `extra`: full names with [`ATTR_PREFIX`] or [`RESOURCE_ATTR_PREFIX`].
///
/// Strings are `Utf8View`, instants `Timestamp(Nanosecond, None)` in UTC. All but `event_time` and the Kafka
/// coordinates are nullable.
#[must_use]
pub fn table_schema(table: Table, extra: &[String]) -> SchemaRef {
    let own = table.own_columns().map(|c| ArrowField::new(c.name, data_type(c.kind), c.nullable()));
    let canonical = columns::of(table).map(|c| ArrowField::new(c.name, data_type(c.kind), true));
    let attributes = extra.iter().map(|name| ArrowField::new(name, DataType::Utf8View, true));
    Arc::new(Schema::new(own.chain(canonical).chain(attributes).collect::<Vec<_>>()))
}

/// Every column of `table` in order, documented.
#[must_use]
pub fn describe(table: Table) -> Vec<ColumnDoc> {
    let own = table.own_columns().map(|c| ColumnDoc {
        name: c.name,
        data_type: data_type(c.kind),
        unit: c.unit,
        doc: c.doc,
        sources: Vec::new(),
    });
    let canonical = columns::of(table).map(|c| ColumnDoc {
        name: c.name,
        data_type: data_type(c.kind),
        unit: c.unit,
        doc: c.doc,
        sources: c.sources.iter().map(|source| source.attribute).collect(),
    });
    own.chain(canonical).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_survive_a_round_trip() {
        for table in Table::ALL {
            assert_eq!(Table::from_name(table.name()), Some(table));
        }
        for signal in Signal::ALL {
            assert_eq!(Signal::parse(signal.as_str()), Some(signal));
        }
        assert_eq!(Table::from_name("SPANS"), None);
    }

    #[test]
    fn no_table_has_two_columns_of_one_name() {
        for table in Table::ALL {
            let names: Vec<_> = describe(table).into_iter().map(|c| c.name).collect();
            let distinct: BTreeSet<_> = names.iter().collect();
            assert_eq!(distinct.len(), names.len(), "{}", table.name());
        }
    }

    #[test]
    fn schema_and_description_agree_and_attributes_come_last() {
        for table in Table::ALL {
            let schema = table_schema(table, &["attr:x".to_owned()]);
            let described = describe(table);
            assert_eq!(schema.fields().len(), described.len() + 1);
            for (field, doc) in schema.fields().iter().zip(&described) {
                assert_eq!((field.name().as_str(), field.data_type()), (doc.name, &doc.data_type));
                assert!(!doc.doc.is_empty(), "{} has no description", doc.name);
            }
            assert_eq!(schema.fields().last().unwrap().name(), "attr:x");
            assert!(!schema.field_with_name("event_time").unwrap().is_nullable());
        }
    }
}
