//! The restart of an instance with a million groups in a window that is open.

use std::time::Duration;

use lictor_connectors::{KafkaRestorer, KafkaSink, Outgoing, RecordRef, Sink, TopicPartition};
use lictor_engine::clock::{Clock, SystemClock};
use lictor_schemas::otlp::encode::{RowDraft, encode_protobuf};
use lictor_schemas::tables::{Signal, Table};
use lictor_schemas::time::EventTime;
use serde_json::json;

use crate::judged::wait_until_judged;
use crate::site::{PARTITIONS, SHARDS, Site};

const KEYS: i64 = 1_000_000;
const SPANS_PER_RECORD: i64 = 500;
const HOUR_NS: i64 = 3_600_000_000_000;
const PATIENCE: Duration = Duration::from_secs(300);

pub(crate) const RULES: &str = "
    CREATE RULE sessions WITH (action = 'warn', reason_code = 'x_bench') AS
    SELECT s.session_id, window_start, window_end, sum(s.input_tokens) AS observed, count(*) AS calls
    FROM TUMBLE(spans, event_time, INTERVAL '1 hour') AS s WHERE s.session_id IS NOT NULL
    GROUP BY s.session_id, window_start, window_end HAVING count(*) > 1000 EMIT ON CLOSE;";

pub(crate) fn measure(site: &Site) {
    let clock = SystemClock::start();
    produce(site, clock.now());
    let (mut instance, _) = site.start();
    let began = clock.monotonic();
    instance.begin();
    wait_until_judged(&site.properties, &site.name, (&site.input(), PARTITIONS), SHARDS, PATIENCE);
    let judging = clock.monotonic().saturating_sub(began);
    instance.end();
    let stopped = instance.stop();
    let mib = |bytes: u64| bytes >> 20;
    let (cpu_s, peak) = (stopped.cpu_s, mib(stopped.peak_rss_bytes));
    println!("restart        {KEYS} keys judged in {judging:.1?}, {cpu_s:.1} s of processor time, {peak} MiB at most");
    let (records, bytes) = written(site);
    println!("restart        state topic: {records} records, {} MiB in keys and values", mib(bytes));
    let (instance, served) = site.start();
    let (after, restoring, restored) = (served.after_s, served.restoring_s, mib(served.restored_bytes));
    let peak = mib(served.peak_rss_bytes);
    println!(
        "restart        all shards served after {after:.2} s: {restored} MiB read back in {restoring:.2} s, \
         {peak} MiB at most"
    );
    instance.stop();
}

/// A span of each key.
fn produce(site: &Site, now: EventTime) {
    let hour = EventTime(now.0 - now.0.rem_euclid(HOUR_NS));
    let mut sink = KafkaSink::try_new(&site.properties, "bench-load").unwrap();
    let span = |key: i64| {
        let columns = json!({"session_id": format!("session-{key:032x}"), "input_tokens": key % 1_000 + 1});
        let columns = columns.as_object().unwrap().clone().into_iter().collect();
        RowDraft { table: Table::Spans, event_time: hour.plus(key), columns }
    };
    for record in 0..KEYS / SPANS_PER_RECORD {
        let keys = record * SPANS_PER_RECORD..(record + 1) * SPANS_PER_RECORD;
        let spans: Vec<RowDraft> = keys.map(span).collect();
        let payload = Some(encode_protobuf(Signal::Traces, &spans).unwrap());
        sink.publish(&Outgoing { topic: site.input(), key: None, payload, headers: Vec::new() }).unwrap();
    }
    sink.flush().unwrap();
}

/// What lies in the state topic: records and bytes. The broker may not have removed everything yet that was replaced.
fn written(site: &Site) -> (u64, u64) {
    let mut log = KafkaRestorer::try_new(&site.properties, &format!("{}-judge", site.name), "bench-reader").unwrap();
    let (mut records, mut bytes) = (0, 0);
    for shard in 0..SHARDS {
        let partition = TopicPartition::new(&format!("{}.state", site.name), shard);
        let count = &mut |record: RecordRef<'_>| {
            let length = |part: Option<&[u8]>| part.map_or(0, <[u8]>::len) as u64;
            bytes += length(record.key) + length(record.payload);
        };
        records += log.read(&partition, PATIENCE, count).unwrap();
    }
    (records, bytes)
}
