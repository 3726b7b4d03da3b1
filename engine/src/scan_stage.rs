//! The scan stage: records in, partial aggregates and row-wise violations out.
//!
//! One decode and one pass over the rows serve all rules. Between two flushes the stage keeps sums, between two commits
//! nothing: what it has read and not yet shipped is read again after a failure.

#[cfg(test)]
mod tests;
mod updates;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use arrow::array::RecordBatch;
use lictor_connectors::{RecordRef, TopicPartition};
use lictor_queries::{EvaluationError, Filtered, RowWise, Scan, TurnFailure};
use lictor_schemas::otlp::Decoder;
use lictor_schemas::tables::{Signal, Table};
use lictor_schemas::time::EventTime;

use crate::aside::{AsideCounts, DeadLetter, LastDead, LateRows};
use crate::clock::Stopwatch;
use crate::decoding::{Decoded, Decoding};
use crate::exchange::{RuleFailure, RuleId, Shipment, StoreFailure, StoreId};
use crate::segment::{Boundaries, Run, Segment, Timely};
use crate::watermark::{SourceClocks, Untimely};
use updates::{Piece, Updates};

/// What is done with the rows of a table.
#[derive(Debug)]
pub enum Scanner {
    /// A rule judges them one by one.
    RowWise(RuleId, Box<RowWise>),
    /// They are summed up, for all rules that read the sums.
    Windowed(StoreId, Scan),
}

/// Who takes rows.
#[derive(Debug)]
pub struct Scanning {
    /// The table whose rows.
    pub table: Table,
    /// What it does with them.
    pub scanner: Scanner,
    /// Whether its rules are judged after every record, and so every record is summed up by itself.
    pub emits_on_update: bool,
    /// Set once it has failed: it gets no more rows.
    pub is_quarantined: bool,
    /// The rules that it works for.
    pub rules: Vec<String>,
    /// How long it has taken; for people who look.
    pub spent: Duration,
    /// The number of the first one that filters rows as it does: they are filtered once.
    filters_as: usize,
}

impl Scanning {
    /// Nothing has been done yet.
    #[must_use]
    pub fn new(table: Table, scanner: Scanner, emits_on_update: bool, rules: Vec<String>) -> Self {
        let spent = Duration::ZERO;
        Self { table, scanner, emits_on_update, is_quarantined: false, rules, spent, filters_as: 0 }
    }
}

impl Scanning {
    fn filters_alike(&self, other: &Self) -> bool {
        match (&self.scanner, &other.scanner) {
            (Scanner::Windowed(_, ours), Scanner::Windowed(_, theirs)) => {
                self.table == other.table && ours.filters_as(theirs)
            }
            _ => false,
        }
    }
}

/// How many items and rows left the stage on which way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScanCounts {
    /// Records read.
    pub records: u64,
    /// Records that went to the dead letters whole.
    pub records_dead: u64,
    /// Records of which some items went to the dead letters.
    pub records_partly_dead: u64,
    /// Rows that the rules saw, per table.
    pub rows_used: BTreeMap<Table, u64>,
    /// Rows that came too late or from the future, per table and reason.
    pub rows_untimely: BTreeMap<(Table, Untimely), u64>,
    /// Dead letters by reason.
    pub dead_letters: BTreeMap<&'static str, u64>,
    /// What was put aside, by input partition.
    pub aside: BTreeMap<TopicPartition, AsideCounts>,
    /// The last dead letters.
    pub last_dead: LastDead,
}

/// Decodes, judges timeliness, feeds the rules.
pub struct ScanStage {
    decoding: Decoding,
    scannings: Vec<Scanning>,
    /// Their numbers; those that filter alike follow each other.
    by_filter: Vec<usize>,
    clocks: SourceClocks,
    boundaries: Boundaries,
    /// The partitions that records were read of.
    heard: BTreeSet<TopicPartition>,
    failures: Failures,
    violations: Vec<(RuleId, Vec<lictor_schemas::violation::Violation>)>,
    updates: Updates,
    late: Vec<LateRows>,
    dead: Vec<DeadLetter>,
    counts: ScanCounts,
    /// When the broker has got the newest record that nothing was shipped of yet.
    newest: Option<EventTime>,
    /// Whether all of it was read before: what is put aside is not committed again.
    is_replay: bool,
}

impl ScanCounts {
    /// Adds what was counted later.
    pub fn add(&mut self, other: Self) {
        self.records += other.records;
        self.records_dead += other.records_dead;
        self.records_partly_dead += other.records_partly_dead;
        other.rows_used.into_iter().for_each(|(table, rows)| *self.rows_used.entry(table).or_default() += rows);
        other.rows_untimely.into_iter().for_each(|(key, rows)| *self.rows_untimely.entry(key).or_default() += rows);
        other.dead_letters.into_iter().for_each(|(reason, n)| *self.dead_letters.entry(reason).or_default() += n);
        other.aside.into_iter().for_each(|(partition, counts)| self.aside.entry(partition).or_default().add(counts));
        self.last_dead.append(other.last_dead);
    }
}

impl ScanStage {
    /// `signals` binds topics to what they carry.
    #[must_use]
    pub fn new(
        decoder: Decoder,
        mut scannings: Vec<Scanning>,
        clocks: SourceClocks,
        boundaries: Boundaries,
        signals: BTreeMap<String, Signal>,
    ) -> Self {
        share_filters(&mut scannings);
        let mut by_filter: Vec<usize> = (0..scannings.len()).collect();
        by_filter.sort_by_key(|number| scannings[*number].filters_as);
        Self {
            decoding: Decoding::new(decoder, signals),
            scannings,
            by_filter,
            clocks,
            boundaries,
            heard: BTreeSet::new(),
            failures: Failures::default(),
            violations: Vec::new(),
            updates: Updates::default(),
            late: Vec::new(),
            dead: Vec::new(),
            counts: ScanCounts::default(),
            newest: None,
            is_replay: false,
        }
    }

    /// As the stage, for records that were read before by another one: nothing of them is urgent.
    #[must_use]
    pub(crate) fn replaying(self) -> Self {
        Self { is_replay: true, ..self }
    }

    /// Rows decoded and not yet shown to the rules.
    #[must_use]
    pub fn rows_pending(&self) -> usize {
        self.decoding.rows()
    }

    /// This instance reads `partition` from `now` on.
    pub fn assign(&mut self, partition: TopicPartition, now: EventTime) {
        if let Some(signal) = self.decoding.signals().get(partition.topic.as_ref()) {
            self.clocks.assign(partition, *signal, now);
        }
    }

    /// This instance reads `partition` no more.
    pub fn revoke(&mut self, partition: &TopicPartition) {
        self.clocks.revoke(partition);
    }

    /// As [`ScanStage::assign`], for a partition of which rows up to `high` were read before.
    pub fn resume(&mut self, partition: TopicPartition, high: Option<EventTime>, now: EventTime) {
        if let Some(signal) = self.decoding.signals().get(partition.topic.as_ref()) {
            self.clocks.resume(partition, *signal, high, now);
            if let Some(low) = self.clocks.low(*signal).filter(|_| high.is_some()) {
                self.boundaries.resume(*signal, low);
            }
        }
    }

    /// Takes over how far partitions have come from the stage `before`, which has other rules.
    pub(crate) fn inherit(&mut self, before: &mut Self) {
        std::mem::swap(&mut self.clocks, &mut before.clocks);
        for signal in Signal::ALL {
            if let Some(low) = self.clocks.low(signal) {
                self.boundaries.resume(signal, low);
            }
        }
    }

    /// The highest event time of a partition's rows.
    #[must_use]
    pub fn high(&self, partition: &TopicPartition) -> Option<EventTime> {
        self.clocks.high(partition)
    }

    /// The newest row that counts, of all partitions.
    #[must_use]
    pub fn newest(&self) -> Option<EventTime> {
        self.clocks.marks().into_iter().filter_map(|mark| mark.high).max()
    }

    /// What a topic carries.
    #[must_use]
    pub fn signal_of(&self, topic: &str) -> Option<Signal> {
        self.decoding.signals().get(topic).copied()
    }

    /// Partitions that are about to fall idle at `now`, by the processing clock.
    #[must_use]
    pub fn falling_idle(&self, now: EventTime) -> Vec<TopicPartition> {
        self.clocks.falling_idle(now)
    }

    /// A partition that was not heard may have records that wait for us: its silence begins `now`.
    pub fn excuse(&mut self, partition: &TopicPartition, now: EventTime) {
        self.clocks.excuse(partition, now);
    }

    /// Everything absorbed and shipped since the last call has not happened, except for the marks of partitions, which
    /// the caller must set back with [`ScanStage::resume`]. Who has failed since then runs again, unless it is among
    /// the `quarantined`.
    pub fn discard(&mut self, quarantined: &BTreeSet<usize>) {
        self.decoding.take();
        self.violations.clear();
        self.updates = Updates::default();
        self.late.clear();
        self.dead.clear();
        self.counts = ScanCounts::default();
        // Who has failed since has sums, too.
        self.scannings.iter_mut().for_each(|scanning| scanning.is_quarantined = false);
        self.flush_scans();
        self.failures = Failures::default();
        for (number, scanning) in self.scannings.iter_mut().enumerate() {
            scanning.is_quarantined = quarantined.contains(&number);
        }
    }

    /// The numbers of those that have failed.
    #[must_use]
    pub fn quarantined(&self) -> BTreeSet<usize> {
        (0..).zip(&self.scannings).filter(|(_, scanning)| scanning.is_quarantined).map(|(number, _)| number).collect()
    }

    /// Partitions that are not heard up to `now` may have records that wait for us.
    pub fn excuse_silence(&mut self, now: EventTime) {
        self.clocks.excuse_silence(now);
    }

    /// Decodes one record, read at `now` by the processing clock.
    pub fn absorb(&mut self, record: RecordRef<'_>, now: EventTime) {
        if let Some((partition, signal)) = self.decoding.absorb(record, now) {
            hear(&mut self.clocks, &mut self.heard, partition, signal, now);
        }
    }

    /// Ends an epoch at `now`: shows the rows to the rules and ships what they make of them.
    ///
    /// One epoch may make several shipments: windows close after the record whose mark lets them. Rules that emit on
    /// update are judged after every record, in turns. So the events do not depend on how records were cut into epochs.
    ///
    /// If it `may_hold` and nothing is urgent, it ships nothing: the sums go on.
    pub fn flush(&mut self, now: EventTime, may_hold: bool) -> Vec<Shipment> {
        let decoded = self.decoding.take();
        self.feed_all(decoded, now, may_hold)
    }

    /// As [`ScanStage::absorb`] and [`ScanStage::flush`], for records that were decoded elsewhere.
    pub fn take_over(&mut self, decoded: Decoded, now: EventTime) -> Vec<Shipment> {
        for (partition, signal, at) in &decoded.heard {
            hear(&mut self.clocks, &mut self.heard, partition, *signal, *at);
        }
        self.feed_all(decoded, now, false)
    }

    fn feed_all(&mut self, decoded: Decoded, now: EventTime, may_hold: bool) -> Vec<Shipment> {
        let Decoded { batches, runs, dead, counts, newest, heard: _ } = decoded;
        self.dead.extend(dead);
        self.counts.add(counts);
        self.newest = self.newest.max(newest);
        let mut segment = Segment::new(batches);
        let mut shipments = Vec::new();
        for run in runs {
            self.judge_run(&run, &mut segment);
            segment.step(&run);
            if self.boundaries.cross(run.signal, self.clocks.low(run.signal)) {
                self.ship(&mut segment, now, &mut shipments);
            }
        }
        self.clocks.tick(now);
        self.show(&mut segment);
        // What is put aside is committed at once, and the offsets with it: no sum may stay behind.
        let is_aside = !(self.is_replay || (self.dead.is_empty() && self.late.is_empty()));
        let has_said = !(self.violations.is_empty() && self.updates.is_empty() && self.failures.is_empty());
        let is_quiet = shipments.is_empty() && !has_said;
        let is_urgent = is_aside || !is_quiet;
        if is_urgent || !may_hold {
            self.ship(&mut segment, now, &mut shipments);
        }
        shipments
    }

    /// Shows the rows since the last call to the rules.
    fn show(&mut self, segment: &mut Segment) {
        for timely in segment.take_timely() {
            *self.counts.rows_used.entry(timely.table).or_default() += timely.rows.num_rows() as u64;
            // What a filter has left is let go before the next filter runs.
            let (mut filtered, mut filter) = (Filtered::default(), None);
            for at in 0..self.by_filter.len() {
                let number = self.by_filter[at];
                let scanning = &self.scannings[number];
                if scanning.table != timely.table || scanning.is_quarantined {
                    continue;
                }
                if filter.replace(scanning.filters_as) != Some(scanning.filters_as) {
                    filtered = Filtered::default();
                }
                match scanning.emits_on_update {
                    true => self.feed_update(number, &timely, &mut filtered),
                    false => self.feed(number, &timely.rows, &mut filtered),
                }
            }
        }
    }

    /// Shows the rows since the last shipment to the rules, and ships everything.
    fn ship(&mut self, segment: &mut Segment, now: EventTime, shipments: &mut Vec<Shipment>) {
        self.show(segment);
        let mut pieces = std::mem::take(&mut self.updates).into_pieces();
        let Piece { failures: mut store_failures, updates } = pieces.pop().unwrap_or_default();
        for Piece { failures, updates } in pieces {
            let newest = self.newest.take();
            shipments.push(Shipment { updates, store_failures: failures, newest, ..Shipment::empty(now) });
        }
        let (partials, marks) = (self.flush_scans(), self.clocks.marks());
        let Failures { rules: failures, stores } = std::mem::take(&mut self.failures);
        store_failures.extend(stores);
        let violations = std::mem::take(&mut self.violations);
        let newest = self.newest.take();
        let whole = Shipment { partials, updates, violations, marks, failures, store_failures, ..Shipment::empty(now) };
        shipments.push(Shipment { newest, ..whole });
    }

    /// Sums up what rules that emit on update are judged on, record by record.
    fn feed_update(&mut self, number: usize, Timely { rows, turns, .. }: &Timely, filtered: &mut Filtered) {
        let scanning = &mut self.scannings[number];
        let Scanner::Windowed(store, scan) = &mut scanning.scanner else { return };
        let watch = Stopwatch::start();
        let summed = scan.sum_up_turns(rows, turns, filtered);
        scanning.spent += watch.elapsed();
        let sums = summed.unwrap_or_else(|TurnFailure { before, turn, error }| {
            scanning.is_quarantined = true;
            self.updates.fail(turn, StoreFailure { store: *store, message: error.message });
            before
        });
        if let Some(sums) = sums {
            self.updates.add(*store, sums);
        }
    }

    /// What was summed up since the last call, for rules that are not judged record by record.
    fn flush_scans(&mut self) -> Vec<(StoreId, RecordBatch)> {
        let mut partials = Vec::new();
        for scanning in self.scannings.iter_mut().filter(|s| !s.is_quarantined && !s.emits_on_update) {
            let Scanner::Windowed(store, scan) = &mut scanning.scanner else { continue };
            let watch = Stopwatch::start();
            let flushed = scan.flush();
            scanning.spent += watch.elapsed();
            match flushed {
                Ok(batches) => partials.extend(batches.into_iter().map(|b| (*store, b))),
                Err(error) => self.failures.add(scanning, &error),
            }
        }
        partials
    }

    /// What was put aside since the last call.
    pub fn take_aside(&mut self) -> (Vec<DeadLetter>, Vec<LateRows>) {
        (std::mem::take(&mut self.dead), std::mem::take(&mut self.late))
    }

    /// What has been counted since the last call.
    pub fn take_counts(&mut self) -> ScanCounts {
        std::mem::take(&mut self.counts)
    }

    /// Judges the rows of one record, of all tables together, against its partition's clock.
    fn judge_run(&mut self, run: &Run, segment: &mut Segment) {
        let times = segment.times_of(run);
        let partition = &run.partition;
        let mut late: BTreeMap<(Table, Untimely), LateRows> = BTreeMap::new();
        let mut row = 0;
        self.clocks.judge(partition, run.stamped, times.iter().map(|t| t.1), &mut |at, untimely, by_ns| {
            let table = times[row].0;
            row += 1;
            segment.keep(table, untimely.is_none());
            if let Some(reason) = untimely {
                let rows = late.entry((table, reason));
                rows.or_insert_with(|| LateRows::new(table, reason, partition, run.offset)).add(at, by_ns);
            }
        });
        for (key, rows) in late {
            *self.counts.rows_untimely.entry(key).or_default() += rows.rows;
            self.counts.aside.entry(rows.partition.clone()).or_default().late_rows += rows.rows;
            self.late.push(rows);
        }
    }

    fn feed(&mut self, number: usize, rows: &RecordBatch, filtered: &mut Filtered) {
        let scanning = &mut self.scannings[number];
        let watch = Stopwatch::start();
        let fed = match &mut scanning.scanner {
            Scanner::Windowed(_, scan) => scan.absorb_filtered(rows, filtered),
            Scanner::RowWise(rule, row_wise) => row_wise.judge(rows).map(|violations| {
                if !violations.is_empty() {
                    self.violations.push((*rule, violations));
                }
            }),
        };
        scanning.spent += watch.elapsed();
        if let Err(error) = fed {
            self.failures.add(scanning, &error);
        }
    }

    /// How long scanning has taken, of each rule; of what several rules share each bears a part.
    #[must_use]
    pub fn spent(&self) -> BTreeMap<String, Duration> {
        let mut total: BTreeMap<String, Duration> = BTreeMap::new();
        for Scanning { rules, spent, .. } in &self.scannings {
            let each = *spent / u32::try_from(rules.len().max(1)).unwrap_or(u32::MAX);
            rules.iter().for_each(|rule| *total.entry(rule.clone()).or_default() += each);
        }
        total
    }

    /// The topics whose telemetry some rule reads.
    #[must_use]
    pub fn topics_read(&self) -> BTreeSet<String> {
        let signals: BTreeSet<Signal> = self.scannings.iter().map(|s| s.table.signal()).collect();
        self.decoding.signals().iter().filter(|(_, s)| signals.contains(s)).map(|(t, _)| t.clone()).collect()
    }
}

/// Says of each which one's rows are left for it, too.
fn share_filters(scannings: &mut [Scanning]) {
    let mut firsts: Vec<usize> = Vec::new();
    for number in 0..scannings.len() {
        let (before, rest) = scannings.split_at_mut(number);
        let filters_alike = |first: &usize| before[*first].filters_alike(&rest[0]);
        rest[0].filters_as = firsts.iter().copied().find(filters_alike).unwrap_or(number);
        if rest[0].filters_as == number {
            firsts.push(number);
        }
    }
}

/// A record of `partition` was read at `now`. Windows wait for one that was never heard from then on.
fn hear(
    clocks: &mut SourceClocks,
    heard: &mut BTreeSet<TopicPartition>,
    partition: &TopicPartition,
    signal: Signal,
    now: EventTime,
) {
    if !heard.contains(partition) {
        clocks.assign(partition.clone(), signal, now);
        heard.insert(partition.clone());
    }
    clocks.touch(partition, now);
}

/// What has failed since the last shipment.
#[derive(Debug, Default)]
struct Failures {
    rules: Vec<RuleFailure>,
    stores: Vec<StoreFailure>,
}

impl Failures {
    fn is_empty(&self) -> bool {
        self.rules.is_empty() && self.stores.is_empty()
    }

    /// `scanning` has failed, and gets no more rows.
    fn add(&mut self, scanning: &mut Scanning, error: &EvaluationError) {
        scanning.is_quarantined = true;
        let message = error.message.clone();
        match &scanning.scanner {
            Scanner::RowWise(rule, _) => self.rules.push(RuleFailure { rule: *rule, message }),
            Scanner::Windowed(store, _) => self.stores.push(StoreFailure { store: *store, message }),
        }
    }
}
