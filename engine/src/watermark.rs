//! Event time: how far each input partition has come, which rows are late, and when windows may close.
//!
//! Whether a row counts depends only on its own partition's order: it is late if it is older than its partition's high
//! mark minus the lateness. Replays with other interleavings therefore agree on every row. Windows close on the minimum
//! over the active partitions of a signal; a partition that falls silent leaves that minimum after a while, and when
//! all are silent time advances with the ticks that the loop records.

use std::collections::{BTreeMap, BTreeSet};

use lictor_connectors::TopicPartition;
use lictor_schemas::tables::Signal;
use lictor_schemas::time::EventTime;

/// The three tolerances of event time, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tolerances {
    /// How much older than its partition's high mark a row may be and still count.
    pub lateness_ns: i64,
    /// How long a partition may be silent before windows stop waiting for it.
    pub idle_after_ns: i64,
    /// How far a row may be ahead of its broker timestamp: one fast clock must not make everybody else late.
    pub future_skew_ns: i64,
}

impl Default for Tolerances {
    /// 10 s covers a collector's batching and retry, 30 s a quiet minute's beginning, 5 min an unsynchronised clock.
    fn default() -> Self {
        Self { lateness_ns: 10_000_000_000, idle_after_ns: 30_000_000_000, future_skew_ns: 300_000_000_000 }
    }
}

/// Why a row does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Untimely {
    /// Older than its partition's high mark minus the lateness.
    Late,
    /// Further ahead of its broker timestamp than clocks may differ.
    FutureSkew,
}

impl Untimely {
    /// The metric label and the header value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Late => "late",
            Self::FutureSkew => "future_skew",
        }
    }
}

/// How far one input partition has come, as the scan stage tells the judge stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The input partition.
    pub partition: TopicPartition,
    /// What it carries.
    pub signal: Signal,
    /// Its highest event time; none before its first row.
    pub high: Option<EventTime>,
    /// Whether windows wait for it.
    pub is_idle: bool,
}

#[derive(Clone, Debug)]
struct PartitionClock {
    signal: Signal,
    high: Option<EventTime>,
    last_seen: EventTime,
    is_idle: bool,
}

/// The scan stage's side: one clock per input partition.
#[derive(Debug)]
pub struct SourceClocks {
    tolerances: Tolerances,
    partitions: BTreeMap<TopicPartition, PartitionClock>,
}

impl SourceClocks {
    /// No partition is known yet.
    #[must_use]
    pub fn new(tolerances: Tolerances) -> Self {
        Self { tolerances, partitions: BTreeMap::new() }
    }

    /// Windows wait for `partition` from now on, `now` by the processing clock, until it falls idle.
    pub fn assign(&mut self, partition: TopicPartition, signal: Signal, now: EventTime) {
        let fresh = PartitionClock { signal, high: None, last_seen: now, is_idle: false };
        self.partitions.entry(partition).or_insert(fresh);
    }

    /// As [`SourceClocks::assign`], for a partition of which rows up to `high` were read before.
    pub fn resume(&mut self, partition: TopicPartition, signal: Signal, high: Option<EventTime>, now: EventTime) {
        self.partitions.insert(partition, PartitionClock { signal, high, last_seen: now, is_idle: false });
    }

    /// The highest event time of a partition's rows.
    #[must_use]
    pub fn high(&self, partition: &TopicPartition) -> Option<EventTime> {
        self.partitions.get(partition)?.high
    }

    /// Partitions that the next tick at `now` would let fall idle.
    #[must_use]
    pub fn falling_idle(&self, now: EventTime) -> Vec<TopicPartition> {
        let is_silent = |c: &PartitionClock| !c.is_idle && self.is_silent(c, now);
        self.partitions.iter().filter(|(_, clock)| is_silent(clock)).map(|(partition, _)| partition.clone()).collect()
    }

    /// The silence of `partition` begins `now`, unless it is idle already.
    pub fn excuse(&mut self, partition: &TopicPartition, now: EventTime) {
        if let Some(clock) = self.partitions.get_mut(partition).filter(|clock| !clock.is_idle) {
            clock.last_seen = now;
        }
    }

    fn is_silent(&self, clock: &PartitionClock, now: EventTime) -> bool {
        now.0.saturating_sub(clock.last_seen.0) >= self.tolerances.idle_after_ns
    }

    /// Another instance reads `partition` now.
    pub fn revoke(&mut self, partition: &TopicPartition) {
        self.partitions.remove(partition);
    }

    /// A record of `partition` was read at `now`, by the processing clock.
    pub fn touch(&mut self, partition: &TopicPartition, now: EventTime) {
        if let Some(clock) = self.partitions.get_mut(partition) {
            clock.last_seen = now;
            clock.is_idle = false;
        }
    }

    /// At `now`, by the processing clock, we are behind: that a partition was not heard means nothing, its records may
    /// be waiting. One that fell silent before stays idle until it is heard.
    pub fn excuse_silence(&mut self, now: EventTime) {
        self.partitions.values_mut().filter(|clock| !clock.is_idle).for_each(|clock| clock.last_seen = now);
    }

    /// Judges the event times of one record's rows against the partition's past, then moves its high mark.
    ///
    /// `stamped` is the record's broker timestamp; without one the future is not judged. The whole record is judged
    /// against the mark before it: rows of one batch are not late because of each other.
    pub fn judge(
        &mut self,
        partition: &TopicPartition,
        stamped: Option<EventTime>,
        times: impl Iterator<Item = EventTime>,
        verdict: &mut impl FnMut(EventTime, Option<Untimely>, i64),
    ) {
        let Some(clock) = self.partitions.get_mut(partition) else { return };
        let floor = clock.high.map(|h| h.plus(-self.tolerances.lateness_ns));
        let ceiling = stamped.map(|s| s.plus(self.tolerances.future_skew_ns));
        let mut high = clock.high;
        for at in times {
            if let Some(ceiling) = ceiling.filter(|c| at > *c) {
                verdict(at, Some(Untimely::FutureSkew), at.0.saturating_sub(ceiling.0));
                continue;
            }
            if let Some(floor) = floor.filter(|f| at < *f) {
                verdict(at, Some(Untimely::Late), floor.0.saturating_sub(at.0));
                continue;
            }
            high = high.max(Some(at));
            verdict(at, None, 0);
        }
        clock.high = high;
    }

    /// Lets partitions fall idle that have been silent for too long at `now`, by the processing clock.
    pub fn tick(&mut self, now: EventTime) {
        for clock in self.partitions.values_mut() {
            clock.is_idle = now.0.saturating_sub(clock.last_seen.0) >= self.tolerances.idle_after_ns;
        }
    }

    /// How far all active partitions of a signal have come, the lateness deducted; none while one has said nothing.
    #[must_use]
    pub fn low(&self, signal: Signal) -> Option<EventTime> {
        let mut active = self.partitions.values().filter(|c| c.signal == signal && !c.is_idle).peekable();
        active.peek()?;
        let lowest = active.map(|c| c.high).min().flatten()?;
        Some(lowest.plus(-self.tolerances.lateness_ns))
    }

    /// Where every partition stands.
    #[must_use]
    pub fn marks(&self) -> Vec<Mark> {
        let mark = |(partition, clock): (&TopicPartition, &PartitionClock)| Mark {
            partition: partition.clone(),
            signal: clock.signal,
            high: clock.high,
            is_idle: clock.is_idle,
        };
        self.partitions.iter().map(mark).collect()
    }
}

/// Who reads a partition that is idle says so every second. After so long without a word nobody may be reading it, and
/// its records wait: windows wait for it, too. Half of the default lateness: time has not run past those records yet.
const IDLE_WORD_NS: i64 = 5_000_000_000;

/// A mark, and when it was told, by the processing clock of the one who told it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Told {
    mark: Mark,
    at: EventTime,
}

/// The judge stage's side: the watermark of each signal. It never goes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watermarks {
    lateness_ns: i64,
    marks: BTreeMap<TopicPartition, Told>,
    at: BTreeMap<Signal, EventTime>,
    /// The latest tick.
    now: EventTime,
}

impl Watermarks {
    /// Time has not begun.
    #[must_use]
    pub fn new(lateness_ns: i64) -> Self {
        Self { lateness_ns, marks: BTreeMap::new(), at: BTreeMap::new(), now: EventTime::MIN }
    }

    /// Takes over where partitions stand; `now` is the tick by which time advances when all of a signal are idle. A
    /// tick without marks says nothing: whoever has just begun to read does not know yet who is idle.
    pub fn absorb(&mut self, marks: Vec<Mark>, now: EventTime) {
        if marks.is_empty() {
            return;
        }
        self.now = now;
        for mark in marks {
            self.marks.insert(mark.partition.clone(), Told { mark, at: now });
        }
        for signal in Signal::ALL {
            if let Some(reached) = self.reached(signal, now) {
                let at = self.at.entry(signal).or_insert(EventTime::MIN);
                *at = reached.max(*at);
            }
        }
    }

    /// Windows wait for these partitions until something is heard of them.
    pub fn expect(&mut self, sources: Vec<(TopicPartition, Signal)>) {
        for (partition, signal) in sources {
            let mark = Mark { partition: partition.clone(), signal, high: None, is_idle: false };
            self.marks.entry(partition).or_insert(Told { mark, at: EventTime::MIN });
        }
    }

    /// Where every partition stands, and how far the time of each signal has come: what a log keeps.
    pub(crate) fn parts(&self) -> (impl Iterator<Item = &Mark>, &BTreeMap<Signal, EventTime>) {
        (self.marks.values().map(|told| &told.mark), &self.at)
    }

    /// The parts put together again: who was idle must be told anew.
    pub(crate) fn from_parts(lateness_ns: i64, marks: Vec<Mark>, at: BTreeMap<Signal, EventTime>) -> Self {
        let told = |mark: Mark| (mark.partition.clone(), Told { mark, at: EventTime::MIN });
        Self { lateness_ns, marks: marks.into_iter().map(told).collect(), at, now: EventTime::MIN }
    }

    /// Windows wait for `partition` no more: another instance reads it.
    pub fn forget(&mut self, partition: &TopicPartition) {
        self.marks.remove(partition);
    }

    /// No row of `signal` that still counts is older than this.
    #[must_use]
    pub fn of(&self, signal: Signal) -> EventTime {
        self.at.get(&signal).copied().unwrap_or(EventTime::MIN)
    }

    /// The partitions of some signals, as far as they are known.
    pub(crate) fn sources<'a>(&'a self, signals: &'a BTreeSet<Signal>) -> impl Iterator<Item = &'a TopicPartition> {
        self.marks.values().map(|told| &told.mark).filter(|mark| signals.contains(&mark.signal)).map(|m| &m.partition)
    }

    /// The newest row of a signal that was told of.
    pub(crate) fn newest(&self, signal: Signal) -> EventTime {
        let of_signal = self.marks.values().map(|told| &told.mark).filter(|mark| mark.signal == signal);
        of_signal.filter_map(|mark| mark.high).max().unwrap_or(EventTime::MIN)
    }

    /// The partition that holds a signal's time back.
    #[must_use]
    pub fn slowest(&self, signal: Signal) -> Option<&Mark> {
        let is_awaited = |told: &&Told| !told.mark.is_idle || self.now.0.saturating_sub(told.at.0) > IDLE_WORD_NS;
        let awaited = self.marks.values().filter(is_awaited).map(|told| &told.mark);
        awaited.filter(|mark| mark.signal == signal).min_by_key(|mark| mark.high)
    }

    fn reached(&self, signal: Signal, now: EventTime) -> Option<EventTime> {
        let mut of_signal = self.marks.values().map(|told| &told.mark).filter(|m| m.signal == signal).peekable();
        of_signal.peek()?;
        let high = match self.slowest(signal) {
            Some(slowest) => slowest.high?,
            None => now.max(of_signal.filter_map(|m| m.high).max().unwrap_or(EventTime::MIN)),
        };
        Some(high.plus(-self.lateness_ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    fn at(seconds: i64) -> EventTime {
        EventTime(seconds * SECOND)
    }

    fn partition(p: i32) -> TopicPartition {
        TopicPartition::new("t", p)
    }

    fn clocks(partitions: i32) -> SourceClocks {
        let mut clocks = SourceClocks::new(Tolerances::default());
        (0..partitions).for_each(|p| clocks.assign(partition(p), Signal::Traces, at(0)));
        clocks
    }

    fn judge(clocks: &mut SourceClocks, p: i32, stamped: Option<i64>, times: &[i64]) -> Vec<Option<Untimely>> {
        let mut verdicts = Vec::new();
        let times = times.iter().map(|t| at(*t));
        clocks.judge(&partition(p), stamped.map(at), times, &mut |_, verdict, _| verdicts.push(verdict));
        verdicts
    }

    fn watermark(clocks: &SourceClocks, now: i64) -> EventTime {
        let mut watermarks = Watermarks::new(10 * SECOND);
        watermarks.absorb(clocks.marks(), at(now));
        watermarks.of(Signal::Traces)
    }

    #[test]
    fn rows_of_one_record_are_not_late_because_of_each_other() {
        let mut clocks = clocks(1);
        assert_eq!(judge(&mut clocks, 0, None, &[500, 100]), [None, None]);
        assert_eq!(judge(&mut clocks, 0, None, &[490, 489]), [None, Some(Untimely::Late)]);
    }

    #[test]
    fn a_partition_does_not_make_another_ones_rows_late() {
        let mut clocks = clocks(2);
        judge(&mut clocks, 0, None, &[500]);
        assert_eq!(judge(&mut clocks, 1, None, &[100]), [None]);
    }

    #[test]
    fn a_fast_clock_moves_nothing() {
        let mut clocks = clocks(1);
        judge(&mut clocks, 0, Some(100), &[100]);
        assert_eq!(judge(&mut clocks, 0, Some(101), &[402, 401]), [Some(Untimely::FutureSkew), None]);
        assert_eq!(clocks.marks()[0].high, Some(at(401)));
    }

    #[test]
    fn windows_wait_for_the_slowest_partition_and_for_one_that_has_said_nothing() {
        let mut clocks = clocks(2);
        judge(&mut clocks, 0, None, &[500]);
        assert_eq!(watermark(&clocks, 0), EventTime::MIN);
        judge(&mut clocks, 1, None, &[300]);
        assert_eq!(watermark(&clocks, 0), at(290));
    }

    #[test]
    fn a_silent_partition_leaves_the_minimum_and_comes_back() {
        let mut clocks = clocks(2);
        judge(&mut clocks, 0, None, &[500]);
        clocks.touch(&partition(0), at(29));
        clocks.tick(at(30));
        assert_eq!(watermark(&clocks, 30), at(490));
        clocks.touch(&partition(1), at(31));
        assert_eq!(watermark(&clocks, 31), EventTime::MIN);
    }

    #[test]
    fn while_we_are_behind_no_partition_falls_idle_and_none_comes_back() {
        let mut clocks = clocks(3);
        judge(&mut clocks, 0, None, &[500]);
        judge(&mut clocks, 1, None, &[300]);
        clocks.touch(&partition(0), at(30));
        clocks.touch(&partition(1), at(30));
        clocks.tick(at(30));
        clocks.excuse_silence(at(90));
        clocks.tick(at(90));
        assert_eq!(clocks.marks().iter().map(|m| m.is_idle).collect::<Vec<_>>(), [false, false, true]);
        assert_eq!(watermark(&clocks, 90), at(290));
    }

    #[test]
    fn when_all_are_idle_time_goes_on_with_the_tick() {
        let mut clocks = clocks(1);
        judge(&mut clocks, 0, None, &[500]);
        clocks.tick(at(1000));
        assert_eq!(watermark(&clocks, 1000), at(990));
        assert_eq!(watermark(&clocks, 100), at(490));
    }

    #[test]
    fn who_was_idle_is_waited_for_once_nobody_says_so_any_more() {
        let mark = |p: i32, high: i64, is_idle| Mark {
            partition: partition(p),
            signal: Signal::Traces,
            high: Some(at(high)),
            is_idle,
        };
        let mut watermarks = Watermarks::new(10 * SECOND);
        watermarks.absorb(vec![mark(0, 100, true), mark(1, 100, true)], at(200));
        assert_eq!(watermarks.of(Signal::Traces), at(190), "all are idle: time goes on with the clock");
        watermarks.absorb(Vec::new(), at(300));
        assert_eq!(watermarks.of(Signal::Traces), at(190), "a tick alone says nothing");
        watermarks.absorb(vec![mark(0, 100, true)], at(205));
        assert_eq!(watermarks.of(Signal::Traces), at(195));
        watermarks.absorb(vec![mark(0, 100, true)], at(206));
        assert_eq!(watermarks.of(Signal::Traces), at(195), "nobody speaks for the other one");
        watermarks.absorb(vec![mark(0, 100, true), mark(1, 100, true)], at(210));
        assert_eq!(watermarks.of(Signal::Traces), at(200));
        let (marks, times) = watermarks.parts();
        let mut restored = Watermarks::from_parts(10 * SECOND, marks.cloned().collect(), times.clone());
        restored.absorb(vec![mark(0, 100, true)], at(900));
        assert_eq!(restored.of(Signal::Traces), at(200), "what lay between nobody knows");
    }

    #[test]
    fn the_watermark_never_goes_back() {
        let mut clocks = clocks(1);
        let mut watermarks = Watermarks::new(0);
        judge(&mut clocks, 0, None, &[500]);
        watermarks.absorb(clocks.marks(), at(0));
        clocks.assign(partition(1), Signal::Traces, at(0));
        judge(&mut clocks, 1, None, &[100]);
        watermarks.absorb(clocks.marks(), at(0));
        assert_eq!(watermarks.of(Signal::Traces), at(500));
    }
}
