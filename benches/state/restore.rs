//! A shard read back from the records that it has written.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use lictor_connectors::NextOffset;
use lictor_engine::clock::{Clock, SystemClock};
use lictor_engine::decision::Decision;
use lictor_engine::decoding::Decoding;
use lictor_engine::exchange::parcel;
use lictor_engine::exchange::route::Place;
use lictor_engine::pipeline::Stages;
use lictor_engine::scan_stage::ScanStage;
use lictor_engine::shard::{JudgeSettings, Restoring, Shard};
use lictor_schemas::prices::PriceTable;
use lictor_schemas::time::EventTime;

use crate::engine::{Sums, TOPIC, decode, decoding, epoch_rows, rule, rule_set, settings};
use crate::report::{Case, ns_each};
use crate::spans::{MANY_TOKENS, MINUTE_NS, Pass, Record, START, tokens_at};
use crate::spread::{Spread, runs};

/// Every key has so many spans.
const PASSES: usize = 2;
const HOUR: EventTime = EventTime(START.0 + 60 * MINUTE_NS);
/// How soon after the group has assigned them shards should be served, in seconds.
const SERVING_S_GOAL: f64 = 5.0;

/// Records of the state topic, in their order.
type Records = Vec<(String, Option<Vec<u8>>)>;

/// An instance with one shard, and the state topic's partition.
struct Instance {
    clock: SystemClock,
    decoding: Decoding,
    scan: ScanStage,
    settings: Arc<JudgeSettings>,
    shard: Shard,
    records: Records,
    next: NextOffset,
    offset: i64,
    rows: usize,
    absorbing: Duration,
    writing: Duration,
}

pub(crate) fn measure(keys: usize) {
    let case = Case { name: "restore", keys };
    let mut instance = Instance::new();
    let mut usual = Record::usual();
    for number in 0..PASSES {
        let from = START.plus(10 * MINUTE_NS * i64::try_from(number).unwrap());
        instance.absorb(&mut usual, Pass { keys, number, from, length_ns: 10 * MINUTE_NS });
    }
    assert_eq!((instance.rows, instance.shard.status()[0].groups), (keys * PASSES, keys));
    let Instance { absorbing, writing, rows, .. } = instance;
    let note = format!("{:.0} ns/row to judge them", ns_each(absorbing, rows));
    case.line("the log is written", &format!("{:.0} ns/row", ns_each(writing, rows)), &note);
    let written = std::mem::take(&mut instance.records);
    let closing = instance.closing_parcels();
    instance.shard = Shard::empty(&instance.settings, Place::ONLY);
    restored(&case, "as it was written", &instance, (&written, &closing));
    restored(&case, "compacted", &instance, (&compacted(&written), &closing));
}

/// Of each key the last record.
fn compacted(written: &Records) -> Records {
    let last: HashMap<&str, usize> = written.iter().enumerate().map(|(at, (key, _))| (key.as_str(), at)).collect();
    let kept = written.iter().enumerate().filter(|(at, (key, value))| last[key.as_str()] == *at && value.is_some());
    kept.map(|(_, record)| record.clone()).collect()
}

/// Reads records back and prints what that took; each time the shard goes on with the parcels that close its window.
fn restored(case: &Case, how: &str, instance: &Instance, (records, closing): (&Records, &[Vec<u8>])) {
    let length = |(key, value): &(String, Option<Vec<u8>>)| key.len() + value.as_ref().map_or(0, Vec::len);
    let bytes: usize = records.iter().map(length).sum();
    let (mut runs_s, mut finishing_s, mut state_bytes) = (Vec::new(), Vec::new(), 0);
    for _ in 0..runs() {
        let (reading, finishing, shard) = instance.restore(records);
        assert_eq!(shard.status()[0].groups, case.keys);
        state_bytes = shard.status()[0].state_bytes;
        runs_s.push((reading + finishing).as_secs_f64());
        finishing_s.push(finishing.as_secs_f64());
        check(shard, closing);
    }
    let (whole_s, finishing_s) = (Spread::of(runs_s), Spread::of(finishing_s));
    let note = format!(
        "{:.2} of the goal, {:.0} MB/s, {:.0} ns/key; {:.2} s of it after the last record",
        whole_s.median / SERVING_S_GOAL,
        bytes as f64 / whole_s.median / 1e6,
        whole_s.median * 1e9 / case.keys as f64,
        finishing_s.median
    );
    case.line(&format!("read back, {how}"), &format!("{whole_s:.2} s"), &note);
    let each = bytes as f64 / case.keys as f64;
    let note = format!("{} records, {} MB", records.len(), bytes / 1_000_000);
    case.line(&format!("the log, {how}"), &format!("{each:.0} B/key"), &note);
    case.bytes_per_group("memory as the shard says (state_bytes)", state_bytes, case.keys);
}

/// Fails unless a shard closes the window with the sums that were written.
fn check(mut shard: Shard, closing: &[Vec<u8>]) {
    let decisions: Vec<Decision> = closing.iter().flat_map(|parcel| shard.absorb(parcel).unwrap()).collect();
    let passes = i64::try_from(PASSES).unwrap();
    let sum = (passes * tokens_at(0) + MANY_TOKENS) as f64;
    let expected = Sums { end: HOUR, sum, count: passes + 1, fewest: tokens_at(0), most: MANY_TOKENS };
    let found: Vec<Sums> = decisions.iter().map(|decision| Sums::of(&decision.event.data.finding)).collect();
    assert_eq!(found, [expected]);
}

impl Instance {
    fn new() -> Self {
        let rules = rule_set(&rule("TUMBLE(spans, event_time, INTERVAL '1 hour')"));
        let decoding = decoding(&rules);
        let Stages { scan, judge, .. } = Stages::new(rules, Arc::new(PriceTable::empty()), &settings());
        let settings = Arc::new(judge);
        Self {
            clock: SystemClock::start(),
            decoding,
            scan,
            shard: Shard::empty(&settings, Place::ONLY),
            settings,
            records: Vec::new(),
            next: NextOffset(0),
            offset: 0,
            rows: 0,
            absorbing: Duration::ZERO,
            writing: Duration::ZERO,
        }
    }

    fn absorb(&mut self, record: &mut Record, pass: Pass) {
        for number in 0..pass.records() {
            decode(&mut self.decoding, self.offset, record.write(pass.spans(number)));
            self.offset += 1;
            if self.decoding.rows() >= epoch_rows() || number + 1 == pass.records() {
                self.end_epoch();
            }
        }
    }

    /// Ships what was decoded, judges it, and commits.
    fn end_epoch(&mut self) {
        let parcels = self.parcels();
        let began = self.clock.monotonic();
        for parcel in parcels {
            assert!(self.shard.absorb(&parcel).unwrap().is_empty());
            self.next = NextOffset(self.next.0 + 1);
        }
        let absorbed = self.clock.monotonic();
        let changes = self.shard.changes(self.next);
        self.records.extend(changes.records.into_iter().map(|record| (record.key.to_string(), record.value)));
        self.shard.commit().unwrap();
        self.absorbing += absorbed.saturating_sub(began);
        self.writing += self.clock.monotonic().saturating_sub(absorbed);
    }

    fn parcels(&mut self) -> Vec<Vec<u8>> {
        self.rows += self.decoding.rows();
        let shipments = self.scan.take_over(self.decoding.take(), EventTime(0));
        parcel::encode(&shipments, &self.settings.names)
    }

    /// Another shard, from records; how long reading them took, and what came then.
    fn restore(&self, records: &Records) -> (Duration, Duration, Shard) {
        let began = self.clock.monotonic();
        let mut restoring = Restoring::new(&self.settings, Place::ONLY, false);
        for (key, value) in records {
            restoring.absorb(key.as_bytes(), value.as_deref()).unwrap();
        }
        let read = self.clock.monotonic();
        let shard = restoring.finish(Some(self.next), &[TOPIC.to_owned()]).unwrap();
        (read.saturating_sub(began), self.clock.monotonic().saturating_sub(read), shard)
    }

    /// What lets key 0 cross the line, and the window close.
    fn closing_parcels(&mut self) -> Vec<Vec<u8>> {
        let (mut crossing, mut parcels) = (Record::crossing(), Vec::new());
        for (key, at) in [(0, HOUR.plus(-1)), (1, HOUR)] {
            decode(&mut self.decoding, self.offset, crossing.write([(key, at)].into_iter()));
            parcels.extend(self.parcels());
        }
        parcels
    }
}
