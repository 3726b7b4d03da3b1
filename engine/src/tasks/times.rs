//! How long the parts of an epoch took, for people who look for where time goes; nothing is decided by it.

use std::mem::take;
use std::time::Duration;

use super::Stage;
use crate::clock::Clock;

/// When the parts of an epoch ended, by the monotonic clock, and how much there was in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochTimes {
    /// Of which stage.
    pub stage: Stage,
    /// Its first record was there; what it writes was asked for, if there was none.
    pub begun: Duration,
    /// Everything in it was read, and what is done record by record was done.
    pub read: Duration,
    /// What it writes was known.
    pub ended: Duration,
    /// It was durable.
    pub committed: Duration,
    /// Of the reading, how long was spent on records rather than on waiting for them.
    pub busy: Duration,
    /// Records read.
    pub records: u64,
    /// Rows of telemetry that were used; judging has none.
    pub rows: u64,
    /// Events of judging; those that rows make by themselves are not counted.
    pub events: u64,
}

/// Takes the times of the epoch that is being read, and keeps those of the one on its way.
#[derive(Debug)]
pub(super) struct Timing {
    stage: Stage,
    is_wanted: bool,
    begun: Option<Duration>,
    busy: Duration,
    records: u64,
    sent: Option<EpochTimes>,
}

impl Timing {
    /// Takes no times unless they are wanted: each record costs two looks at the clock.
    pub(super) fn new(stage: Stage, is_wanted: bool) -> Self {
        Self { stage, is_wanted, begun: None, busy: Duration::ZERO, records: 0, sent: None }
    }

    /// Does the work for one record.
    pub(super) fn of_record<R>(&mut self, clock: &dyn Clock, work: impl FnOnce() -> R) -> R {
        if !self.is_wanted {
            return work();
        }
        let began = clock.monotonic();
        self.begun.get_or_insert(began);
        let done = work();
        self.busy += clock.monotonic().saturating_sub(began);
        self.records += 1;
        done
    }

    /// What the epoch writes was asked for at `read`, is known at `ended`, and goes out; the next one begins.
    pub(super) fn sent(&mut self, (read, ended): (Duration, Duration), (rows, events): (u64, u64)) {
        let begun = self.begun.take().unwrap_or(read);
        let (stage, busy, records) = (self.stage, take(&mut self.busy), take(&mut self.records));
        let times = EpochTimes { stage, begun, read, ended, committed: ended, busy, records, rows, events };
        self.sent = self.is_wanted.then_some(times);
    }

    /// The epoch on its way is durable, after a commit that took so long.
    pub(super) fn committed(&mut self, took: Duration) -> Option<EpochTimes> {
        self.sent.take().map(|times| EpochTimes { committed: times.ended + took, ..times })
    }

    /// All that was read is read again.
    pub(super) fn undone(&mut self) {
        *self = Self::new(self.stage, self.is_wanted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn an_epoch_begins_with_its_first_record_and_ends_with_its_commit() {
        let (mut timing, clock) = (Timing::new(Stage::Scan, true), ManualClock::default());
        clock.advance(MS * 30);
        assert_eq!(timing.of_record(&clock, || clock.advance(MS * 2)), ());
        clock.advance(MS * 10);
        timing.of_record(&clock, || clock.advance(MS));
        timing.sent((MS * 45, MS * 47), (20, 0));
        timing.of_record(&clock, || clock.advance(MS));
        let times = timing.committed(MS * 6).unwrap();
        assert_eq!([times.begun, times.read, times.ended, times.committed], [MS * 30, MS * 45, MS * 47, MS * 53]);
        assert_eq!((times.busy, times.records, times.rows), (MS * 3, 2, 20));
        assert_eq!(timing.committed(MS), None);
        timing.sent((MS * 60, MS * 60), (0, 1));
        let times = timing.committed(MS).unwrap();
        assert_eq!((times.begun, times.busy, times.records, times.events), (MS * 43, MS, 1, 1));
    }

    #[test]
    fn what_is_undone_is_in_no_epoch_and_none_is_taken_unasked() {
        let (mut timing, clock) = (Timing::new(Stage::Judge, true), ManualClock::default());
        timing.of_record(&clock, || clock.advance(MS));
        timing.sent((MS, MS), (0, 0));
        timing.undone();
        assert_eq!(timing.committed(MS), None);
        timing.sent((MS * 9, MS * 9), (0, 0));
        let times = timing.committed(MS).unwrap();
        assert_eq!((times.begun, times.records, times.busy), (MS * 9, 0, Duration::ZERO));
        let mut unwanted = Timing::new(Stage::Judge, false);
        unwanted.of_record(&clock, || ());
        unwanted.sent((MS, MS), (0, 0));
        assert_eq!(unwanted.committed(MS), None);
    }
}
