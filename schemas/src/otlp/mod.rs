//! OTLP bytes in, Arrow rows out.
//!
//! A Kafka record holds one OTLP message, protobuf or JSON, and says neither which nor of what signal. The decoder is
//! bound to a signal by the caller, checks that the bytes have its shape, turns either encoding into the same
//! messages, takes out items that cannot be rows, and appends the rest to the tables that rules read. Only wanted
//! columns are built.
//!
//! Invariant: both encodings of the same telemetry give equal rows, and no input whatever makes the decoder panic.

pub(crate) mod cell;
mod derive;
pub mod encode;
mod error;
pub mod evaluation;
pub mod export;
mod first_time;
mod json;
mod koshi;
mod leaf;
mod logs;
mod metrics;
mod names;
mod plan;
mod rows;
mod screen;
mod spans;
pub mod stopped;
#[cfg(test)]
mod tests;
mod traces;
pub(crate) mod value;
mod walk;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use opentelemetry_proto::tonic::logs::v1::LogsData;
use opentelemetry_proto::tonic::metrics::v1::MetricsData;
use opentelemetry_proto::tonic::trace::v1::TracesData;
use prost::Message;

pub use error::{DecodeError, Flaw};
pub use first_time::first_time;

use crate::columns::ExtraSource;
use crate::prices::PriceTable;
use crate::tables::{Signal, Table};
use names::Names;
use rows::Rows;
use screen::Tally;
use traces::Traces;

/// Where a Kafka record was read.
#[derive(Clone, Copy, Debug)]
pub struct RecordMeta<'a> {
    /// Its topic.
    pub topic: &'a str,
    /// Its partition.
    pub partition: i32,
    /// Its own offset.
    pub offset: i64,
    /// Its timestamp, milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
}

/// Which columns of which tables are to be built, by name, `attr:…` and `resource_attr:…` included.
///
/// Tables that are not present are not built. `event_time`, `trace_id`, `span_id` (where the table has them),
/// `kafka_partition`, `kafka_offset` and `kafka_timestamp` are always built. Names that a table does not have are
/// ignored.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wanted(pub BTreeMap<Table, BTreeSet<String>>);

/// What became of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Absorbed {
    /// Telemetry items accepted: spans, log records or data points (the events of a span are not counted).
    pub rows: usize,
    /// Items that were taken out, if any.
    pub rejected: Option<Rejected>,
}

/// Items of a record that cannot be rows: invalid identifiers, no time, a time out of range, no metric name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// How many.
    pub items: usize,
    /// OTLP protobuf of the signal that holds just them, with their resources and scopes.
    pub payload: Vec<u8>,
    /// What is wrong, with counts: `invalid_id: 2, no_time: 1`.
    pub reason: String,
}

/// Decodes records into the wanted columns.
pub struct Decoder {
    tables: BTreeMap<Table, Rows>,
    names: Names,
    /// Empty; the place in memory of the spans to come.
    spare: Traces<'static>,
}

impl Decoder {
    /// A decoder for the wanted columns; sources in `extra` are tried before the built-in ones, in their order.
    #[must_use]
    pub fn new(wanted: &Wanted, extra: &[ExtraSource], prices: Arc<PriceTable>) -> Self {
        let mut names = Names::default();
        let rows = |(table, columns): (&Table, &BTreeSet<String>)| {
            (*table, Rows::new(*table, columns, extra, &prices, &mut names))
        };
        Self { tables: wanted.0.iter().map(rows).collect(), names, spare: Traces::default() }
    }

    /// The schema of the batches of `table`: the order of [`crate::tables::table_schema`], wanted columns only,
    /// attribute columns last and by name. None if the table is not wanted.
    #[must_use]
    pub fn schema(&self, table: Table) -> Option<SchemaRef> {
        self.tables.get(&table).map(Rows::schema)
    }

    /// Decodes one record: JSON if it begins with `{`, else protobuf.
    ///
    /// # Errors
    /// The whole record is refused, and nothing of it has become a row, if it is empty, malformed, of another signal,
    /// or if no item in it is valid. Single invalid items are given back instead, see [`Absorbed::rejected`].
    pub fn absorb(&mut self, signal: Signal, payload: &[u8], meta: RecordMeta<'_>) -> Result<Absorbed, DecodeError> {
        match signal {
            Signal::Traces => {
                if let Some(rows) = self.walk_traces(payload, meta) {
                    return Ok(Absorbed { rows, rejected: None });
                }
                self.decode_traces(payload, meta)
            }
            Signal::Logs => {
                let mut data: LogsData = read(signal, payload, json::logs)?;
                koshi::unfold(&mut data);
                let (tally, flawed) = screen::screen_logs(&mut data);
                let absorbed = verdict(signal, payload, &tally, &flawed)?;
                if let Some(rows) = self.tables.get_mut(&Table::Logs) {
                    logs::append_logs(rows, &self.names, &data, &meta);
                }
                Ok(absorbed)
            }
            Signal::Metrics => {
                let mut data: MetricsData = read(signal, payload, json::metrics)?;
                let (tally, flawed) = screen::screen_metrics(&mut data);
                let absorbed = verdict(signal, payload, &tally, &flawed)?;
                if let Some(rows) = self.tables.get_mut(&Table::Metrics) {
                    metrics::append_metrics(rows, &self.names, &data, &meta);
                }
                Ok(absorbed)
            }
        }
    }

    /// The fast way for spans in protobuf: how many there were, none if it takes the other way to say what they are.
    fn walk_traces(&mut self, payload: &[u8], meta: RecordMeta<'_>) -> Option<usize> {
        if payload.first() == Some(&b'{') || payload.trim_ascii().is_empty() {
            return None;
        }
        let traces = walk::traces(payload, &mut self.names, mem::take(&mut self.spare))?;
        self.append_traces(&traces, &meta);
        let spans = traces.spans.len();
        self.spare = traces.emptied();
        Some(spans)
    }

    /// The other way, by a message in between.
    fn decode_traces(&mut self, payload: &[u8], meta: RecordMeta<'_>) -> Result<Absorbed, DecodeError> {
        let mut data: TracesData = read(Signal::Traces, payload, json::traces)?;
        let (tally, flawed) = screen::screen_traces(&mut data);
        let absorbed = verdict(Signal::Traces, payload, &tally, &flawed)?;
        let traces = Traces::of(&data, &self.names);
        self.append_traces(&traces, &meta);
        Ok(absorbed)
    }

    fn append_traces<'a>(&mut self, traces: &Traces<'a>, meta: &RecordMeta<'a>) {
        if let Some(rows) = self.tables.get_mut(&Table::Spans) {
            spans::append_spans(rows, &self.names, traces, meta);
        }
        if let Some(rows) = self.tables.get_mut(&Table::SpanEvents) {
            spans::append_events(rows, traces, meta);
        }
    }

    /// Rows of `table` that [`Decoder::take`] would give; 0 if the table is not wanted.
    #[must_use]
    pub fn rows(&self, table: Table) -> usize {
        self.tables.get(&table).map_or(0, Rows::len)
    }

    /// The rows so far, in the order of the records and of the items in them, and starts anew. Tables without rows are
    /// left out.
    pub fn take(&mut self) -> Vec<(Table, RecordBatch)> {
        let filled = self.tables.iter_mut().filter(|(_, rows)| rows.len() > 0);
        filled.map(|(table, rows)| (*table, rows.take())).collect()
    }
}

/// The one signal whose shape a protobuf message has; none if it has the shape of none, or says nothing that would
/// tell.
#[must_use]
pub fn signal_of_protobuf(payload: &[u8]) -> Option<Signal> {
    let mut fitting = Signal::ALL.into_iter().filter(|signal| wire::fits(*signal, payload));
    let only = fitting.next()?;
    fitting.next().is_none().then_some(only)
}

fn read<M: Message + Default>(
    signal: Signal,
    payload: &[u8],
    from_json: fn(&[u8]) -> Result<M, DecodeError>,
) -> Result<M, DecodeError> {
    let text = payload.trim_ascii();
    if text.is_empty() || text == b"null" {
        return Err(DecodeError::Empty(signal));
    }
    if is_json(signal, payload) {
        return from_json(text);
    }
    let malformed = |e: String| match wire::other_signal(signal, payload) {
        Some(found) => DecodeError::WrongSignal { expected: signal, found },
        None => DecodeError::MalformedProtobuf(e),
    };
    if !wire::fits(signal, payload) {
        return Err(malformed(format!("{} bytes without the shape of {}", payload.len(), signal.as_str())));
    }
    M::decode(payload).map_err(|e| malformed(e.to_string()))
}

/// A message whose first part has 123 bytes begins with a line feed and `{` too, so blanks before the brace are
/// believed only if the bytes are no message.
fn is_json(signal: Signal, payload: &[u8]) -> bool {
    payload.first() == Some(&b'{')
        || (payload.trim_ascii_start().first() == Some(&b'{') && !wire::fits(signal, payload))
}

fn verdict<M: Message>(signal: Signal, payload: &[u8], tally: &Tally, flawed: &M) -> Result<Absorbed, DecodeError> {
    let items = tally.rejected();
    match tally.main_flaw() {
        None if tally.accepted == 0 => Err(DecodeError::Empty(signal)),
        None => Ok(Absorbed { rows: tally.accepted, rejected: None }),
        // A metric's name can stand where a span has its trace id: the shape decides what the record was meant to be.
        Some(flaw) if tally.accepted == 0 => Err(match wire::other_signal(signal, payload) {
            Some(found) => DecodeError::WrongSignal { expected: signal, found },
            None => DecodeError::NoValidItem { items, flaw },
        }),
        Some(_) => {
            let rejected = Rejected { items, payload: flawed.encode_to_vec(), reason: tally.reason() };
            Ok(Absorbed { rows: tally.accepted, rejected: Some(rejected) })
        }
    }
}
