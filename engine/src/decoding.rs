//! Records in, rows out: what the scan stage does with a record before time matters.
//!
//! Whether a row counts depends on the rows before it; what it says does not. So decoding can be done elsewhere than
//! judging, and by several at once, as long as what they make of records is taken over in the records' order.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use lictor_connectors::{RecordRef, TopicPartition};
use lictor_schemas::otlp::{Decoder, RecordMeta};
use lictor_schemas::tables::{Signal, Table};
use lictor_schemas::time::EventTime;

use crate::aside::{DeadLetter, DeadNote};
use crate::scan_stage::ScanCounts;
use crate::segment::Run;

/// Records as rows, in the order in which they were read.
#[derive(Clone, Debug, Default)]
pub struct Decoded {
    pub(crate) batches: Vec<(Table, RecordBatch)>,
    pub(crate) runs: Vec<Run>,
    /// Records and items that are no rows.
    pub(crate) dead: Vec<DeadLetter>,
    /// What was counted of the records.
    pub(crate) counts: ScanCounts,
    /// When the broker has got the newest of them.
    pub(crate) newest: Option<EventTime>,
    /// The partitions that records were read of, and when the last of each was.
    pub(crate) heard: Vec<(TopicPartition, Signal, EventTime)>,
}

/// Decodes records one after the other.
pub struct Decoding {
    decoder: Decoder,
    signals: BTreeMap<String, Signal>,
    decoded: Decoded,
    rows: usize,
}

impl Decoding {
    /// `signals` binds topics to what they carry.
    #[must_use]
    pub fn new(decoder: Decoder, signals: BTreeMap<String, Signal>) -> Self {
        Self { decoder, signals, decoded: Decoded::default(), rows: 0 }
    }

    /// What topics carry.
    pub(crate) fn signals(&self) -> &BTreeMap<String, Signal> {
        &self.signals
    }

    /// Rows decoded since the last [`Decoding::take`].
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Decodes one record, read at `now`; one of a topic that carries nothing is left out. Returns its partition and
    /// what that carries.
    pub fn absorb(&mut self, record: RecordRef<'_>, now: EventTime) -> Option<(&TopicPartition, Signal)> {
        let signal = self.signals.get(record.topic).copied()?;
        let heard = self.hear(record, signal, now);
        let partition = self.decoded.heard[heard].0.clone();
        self.decoded.counts.records += 1;
        let payload = record.payload.unwrap_or_default();
        let meta = RecordMeta {
            topic: record.topic,
            partition: record.partition,
            offset: record.offset,
            timestamp_ms: record.timestamp_ms,
        };
        let before = Table::ALL.map(|t| self.decoder.rows(t));
        match self.decoder.absorb(signal, payload, meta) {
            Err(error) => {
                self.decoded.counts.records_dead += 1;
                self.decoded
                    .bury(DeadLetter::of_record(record, error.reason(), &error.to_string()), record.timestamp_ms);
            }
            Ok(absorbed) => {
                let rows = std::array::from_fn(|t| self.decoder.rows(Table::ALL[t]) - before[t]);
                self.rows += rows.iter().sum::<usize>();
                let stamped = (record.timestamp_ms > 0).then(|| EventTime::from_ms(record.timestamp_ms));
                self.decoded.newest = self.decoded.newest.max(stamped);
                self.decoded.runs.push(Run { partition, signal, offset: record.offset, stamped, rows });
                if let Some(rejected) = absorbed.rejected {
                    self.decoded.counts.records_partly_dead += 1;
                    let letter = DeadLetter::of_items(record, rejected.payload, &rejected.reason);
                    self.decoded.bury(letter, record.timestamp_ms);
                }
            }
        }
        let (partition, signal, _) = &self.decoded.heard[heard];
        Some((partition, *signal))
    }

    /// What the records since the last call were, and starts anew.
    pub fn take(&mut self) -> Decoded {
        self.rows = 0;
        let batches = self.decoder.take();
        Decoded { batches, ..std::mem::take(&mut self.decoded) }
    }

    /// Notes that a partition was heard; its number among those that were.
    fn hear(&mut self, record: RecordRef<'_>, signal: Signal, now: EventTime) -> usize {
        let heard = &mut self.decoded.heard;
        let is_it = |p: &TopicPartition| p.partition == record.partition && *p.topic == *record.topic;
        if let Some(known) = heard.iter().position(|(p, ..)| is_it(p)) {
            heard[known].2 = now;
            return known;
        }
        heard.push((TopicPartition::new(record.topic, record.partition), signal, now));
        heard.len() - 1
    }
}

impl Decoded {
    fn bury(&mut self, letter: DeadLetter, timestamp_ms: i64) {
        self.counts.aside.entry(letter.partition.clone()).or_default().dead += 1;
        self.counts.last_dead.push(DeadNote::of(&letter, timestamp_ms));
        *self.counts.dead_letters.entry(letter.reason).or_default() += 1;
        self.dead.push(letter);
    }
}
