//! The stages under test, with the log that their state survives in.
//!
//! It is what `lictor run` does with Kafka, without Kafka: parcels are written and read back, every epoch commits, and
//! what a commit writes is kept in place of the state topic. So a test can kill the process between two steps, or
//! change a reference table, and goes on with exactly what production would go on with.

use std::collections::BTreeSet;
use std::sync::Arc;

use lictor_connectors::{NextOffset, RecordRef, TopicPartition};
use lictor_schemas::event::EnforcementEvent;
use lictor_schemas::tables::Signal;
use lictor_schemas::time::EventTime;

use crate::decision::Decision;
use crate::exchange::parcel;
use crate::exchange::route::Place;
use crate::judge_stage::RuleStatus;
use crate::pipeline::{PipelineSettings, Stages};
use crate::rules_dir::LoadedRules;
use crate::scan_stage::ScanStage;
use crate::shard::{Restoring, Shard};

/// Both stages, and what was committed.
pub(super) struct Bench {
    settings: PipelineSettings,
    scan: ScanStage,
    shard: Shard,
    /// The partitions that records have come on.
    partitions: BTreeSet<TopicPartition>,
    /// Keys and values of the state topic by their offsets, compacted at all times.
    log: Vec<(String, Vec<u8>)>,
    /// Parcels written and read so far.
    parcels: i64,
    records: i64,
    now: EventTime,
    /// Events that nobody has looked at yet.
    events: Vec<EnforcementEvent>,
}

/// What an epoch has put aside.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Aside {
    /// Rows that came too late to count.
    pub(super) late: u64,
    /// Why a record was refused.
    pub(super) refused: Option<String>,
}

impl Bench {
    /// Nothing has been read yet.
    pub(super) fn new(loaded: LoadedRules, settings: PipelineSettings) -> Self {
        let (scan, judge) = stages(loaded, &settings);
        let shard = Shard::empty(&Arc::new(judge), Place::ONLY);
        let (parcels, records, now) = (0, 0, EventTime::MIN);
        let (partitions, log, events) = (BTreeSet::new(), Vec::new(), Vec::new());
        Self { settings, scan, shard, partitions, log, parcels, records, now, events }
    }

    /// How far the clock has come.
    pub(super) fn now(&self) -> EventTime {
        self.now
    }

    /// One record comes on a partition, and the epoch ends at `latest` or later.
    ///
    /// # Errors
    /// What was written cannot be read: a fault of ours.
    pub(super) fn record(
        &mut self,
        signal: Signal,
        partition: i32,
        payload: &[u8],
        latest: EventTime,
    ) -> Result<Aside, String> {
        let topic = topic_of(signal);
        self.partitions.insert(TopicPartition::new(topic, partition));
        let offset = self.records;
        self.records += 1;
        let record = RecordRef {
            topic,
            partition,
            offset,
            timestamp_ms: 0,
            key: None,
            payload: Some(payload),
            ..RecordRef::default()
        };
        self.scan.absorb(record, latest);
        self.end_epoch(latest)
    }

    /// The watermark moves to `to`, as if all partitions were idle.
    ///
    /// # Errors
    /// As [`Bench::record`].
    pub(super) fn advance(&mut self, to: EventTime) -> Result<(), String> {
        self.end_epoch(to.plus(self.settings.tolerances.lateness_ns)).map(drop)
    }

    /// How far event time has come if all partitions are idle.
    pub(super) fn reached(&self) -> EventTime {
        self.now.plus(-self.settings.tolerances.lateness_ns)
    }

    fn end_epoch(&mut self, now: EventTime) -> Result<Aside, String> {
        self.now = self.now.max(now);
        let shipments = self.scan.flush(self.now, false);
        let mut decisions = Vec::new();
        for bytes in parcel::encode(&shipments, &self.shard.settings().names) {
            self.parcels += 1;
            decisions.extend(self.shard.absorb(&bytes).map_err(|e| e.to_string())?);
        }
        self.commit(decisions)?;
        let (dead, late) = self.scan.take_aside();
        Ok(Aside { late: late.iter().map(|l| l.rows).sum(), refused: dead.into_iter().next().map(|d| d.message) })
    }

    fn commit(&mut self, decisions: Vec<Decision>) -> Result<(), String> {
        let changes = self.shard.changes(NextOffset(self.parcels));
        for record in changes.records {
            let key = record.key.to_string();
            self.log.retain(|(other, _)| *other != key);
            self.log.extend(record.value.map(|value| (key, value)));
        }
        self.events.extend(changes.orphans.into_iter().chain(decisions).map(|decision| decision.event));
        self.shard.commit().map_err(|e| e.to_string())
    }

    /// The process is killed, and another one begins with these rules and what was committed. With a reload rules that
    /// were quarantined get another try.
    ///
    /// # Errors
    /// The log cannot be read: a fault of ours.
    pub(super) fn restart(&mut self, loaded: LoadedRules, is_reload: bool) -> Result<(), String> {
        let (mut scan, judge) = stages(loaded, &self.settings);
        for partition in &self.partitions {
            scan.resume(partition.clone(), self.scan.high(partition), self.now);
        }
        let mut restoring = Restoring::new(&Arc::new(judge), Place::ONLY, is_reload);
        for (key, value) in &self.log {
            restoring.absorb(key.as_bytes(), Some(value)).map_err(|e| e.to_string())?;
        }
        let committed = (!self.log.is_empty()).then_some(NextOffset(self.parcels));
        let topics: Vec<String> = self.settings.signals.keys().cloned().collect();
        self.shard = restoring.finish(committed, &topics).map_err(|e| e.to_string())?;
        self.scan = scan;
        // What follows from other tables, or from rules that are no more, is said with the next tick.
        if self.now > EventTime::MIN { self.end_epoch(self.now).map(drop) } else { Ok(()) }
    }

    /// The events since the last call.
    pub(super) fn take_events(&mut self) -> Vec<EnforcementEvent> {
        std::mem::take(&mut self.events)
    }

    /// How every rule is doing.
    pub(super) fn status(&self) -> Vec<RuleStatus> {
        self.shard.status()
    }
}

fn stages(loaded: LoadedRules, settings: &PipelineSettings) -> (ScanStage, crate::shard::JudgeSettings) {
    let Stages { scan, judge, .. } = Stages::new(loaded.rules, Arc::clone(&loaded.prices), settings);
    (scan, judge)
}

/// The topic that carries a signal, in tests.
fn topic_of(signal: Signal) -> &'static str {
    match signal {
        Signal::Traces => "otlp_spans",
        Signal::Logs => "otlp_logs",
        Signal::Metrics => "otlp_metrics",
    }
}
