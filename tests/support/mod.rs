//! The whole pipeline over records in memory, under the demo's rules.

use std::collections::BTreeSet;
use std::sync::Arc;

use lictor_connectors::{RecordRef, TopicPartition};
use lictor_engine::pipeline::{Epoch, Pipeline, PipelineSettings};
use lictor_engine::{rules_dir, shipped};
use lictor_schemas::tables::Signal;
use lictor_schemas::time::EventTime;
use tempfile::TempDir;

/// A record as it would lie in a partition.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    pub(crate) signal: Signal,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) timestamp_ms: i64,
    pub(crate) payload: Option<Vec<u8>>,
}

/// Long after the last record, by the processing clock: every partition is idle, every window closes, all that can
/// expire does.
const AFTERWARDS_NS: i64 = 3 * 86_400_000_000_000;

/// Runs the records through a fresh pipeline that stands at `now` by the processing clock, and then lets time go on
/// until nothing more can happen. `is_cut` says after which records an epoch ends.
pub(crate) fn epochs(arrivals: &[Arrival], now: EventTime, is_cut: &mut dyn FnMut(usize) -> bool) -> Vec<Epoch> {
    let rules = TempDir::new().unwrap();
    shipped::write_to(rules.path()).unwrap();
    let loaded = rules_dir::load(rules.path(), None).unwrap();
    assert_eq!(loaded.diagnostics, []);
    let mut pipeline = Pipeline::new(loaded.rules, Arc::clone(&loaded.prices), &PipelineSettings::default());
    let partitions: BTreeSet<(Signal, i32)> = arrivals.iter().map(|a| (a.signal, a.partition)).collect();
    for (signal, partition) in partitions {
        pipeline.assign(TopicPartition::new(topic_of(signal), partition), now);
    }
    let mut epochs = Vec::new();
    for (index, arrival) in arrivals.iter().enumerate() {
        pipeline.absorb(to_record(arrival), now);
        if is_cut(index) {
            epochs.push(pipeline.end_epoch(now));
        }
    }
    epochs.push(pipeline.end_epoch(now));
    epochs.push(pipeline.end_epoch(now.plus(AFTERWARDS_NS)));
    let failed: Vec<_> = pipeline.status().into_iter().filter_map(|s| Some((s.name, s.quarantined?))).collect();
    assert_eq!(failed, [], "rules were quarantined");
    epochs
}

pub(crate) fn topic_of(signal: Signal) -> &'static str {
    match signal {
        Signal::Traces => "otlp_spans",
        Signal::Logs => "otlp_logs",
        Signal::Metrics => "otlp_metrics",
    }
}

pub(crate) fn to_record(arrival: &Arrival) -> RecordRef<'_> {
    RecordRef {
        topic: topic_of(arrival.signal),
        partition: arrival.partition,
        offset: arrival.offset,
        timestamp_ms: arrival.timestamp_ms,
        key: None,
        payload: arrival.payload.as_deref(),
        ..RecordRef::default()
    }
}
