//! The clock: the one place where time enters from outside.
//!
//! Everything else takes time as an argument, so that a replay gives the same events and tests need no sleeping. Wall
//! time stamps what is published and lets idle partitions fall idle; monotonic time measures how long things take.

use std::cell::Cell;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use lictor_schemas::time::EventTime;

/// Tells the time.
pub trait Clock {
    /// The wall clock: nanoseconds since the Unix epoch, UTC. It may jump, backwards too.
    fn now(&self) -> EventTime;

    /// How long ago the clock was started. It never goes back.
    fn monotonic(&self) -> Duration;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    started: Instant,
}

impl SystemClock {
    /// Monotonic time begins now.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the clock that everything else is given")]
    pub fn start() -> Self {
        Self { started: Instant::now() }
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock that everything else is given")]
    fn now(&self) -> EventTime {
        // A machine whose clock stands before 1970 is at the epoch.
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        EventTime(i64::try_from(since_epoch.as_nanos()).unwrap_or(i64::MAX))
    }

    fn monotonic(&self) -> Duration {
        self.started.elapsed()
    }
}

/// Tells how long something has taken, for people who look at costs; nothing may be decided by it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    #[expect(clippy::disallowed_methods, reason = "what it measures is shown and decides nothing")]
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

/// A clock that stands still until it is moved: for tests.
#[derive(Debug, Default)]
pub struct ManualClock {
    now: Cell<EventTime>,
    monotonic: Cell<Duration>,
}

impl ManualClock {
    /// Stands at `now`; monotonic time begins there.
    #[must_use]
    pub fn at(now: EventTime) -> Self {
        Self { now: Cell::new(now), monotonic: Cell::default() }
    }

    /// Moves both times on.
    pub fn advance(&self, by: Duration) {
        let ns = i64::try_from(by.as_nanos()).unwrap_or(i64::MAX);
        self.now.set(self.now.get().plus(ns));
        self.monotonic.set(self.monotonic.get() + by);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> EventTime {
        self.now.get()
    }

    fn monotonic(&self) -> Duration {
        self.monotonic.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_clock_is_after_this_was_written_and_does_not_go_back() {
        let clock = SystemClock::start();
        assert!(clock.now() > EventTime::from_rfc3339("2025-01-01T00:00:00Z").unwrap());
        let first = clock.monotonic();
        assert!(clock.monotonic() >= first);
    }

    #[test]
    fn a_manual_clock_moves_only_when_it_is_told() {
        let clock = ManualClock::at(EventTime::from_ms(1_000));
        assert_eq!((clock.now(), clock.monotonic()), (EventTime::from_ms(1_000), Duration::ZERO));
        clock.advance(Duration::from_millis(5));
        assert_eq!((clock.now(), clock.monotonic()), (EventTime::from_ms(1_005), Duration::from_millis(5)));
    }
}
