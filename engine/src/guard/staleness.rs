//! Whether what the guard knows is all there is.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Nothing was read yet.
const NEVER: u64 = u64::MAX;

/// When the guard last knew everything; times are monotonic, by the clock of the loop that follows the topic.
#[derive(Debug)]
pub struct Staleness {
    stale_after: Duration,
    current_ms: AtomicU64,
    progressed_ms: AtomicU64,
    is_incomplete: AtomicBool,
    /// Why the topic was not read, if that is known.
    trouble: Mutex<Option<String>>,
}

/// Why the guard may not know everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stale {
    /// The topic was not read to its end yet.
    Reading,
    /// The broker has said nothing for so long.
    Silent(Duration),
    /// There are more directives than may be held.
    Incomplete,
}

impl fmt::Display for Stale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reading => f.write_str("the topics of directives were not read to their ends yet"),
            Self::Silent(since) => write!(f, "the topics of directives were last heard of {} s ago", since.as_secs()),
            Self::Incomplete => f.write_str("there are more directives than guard.directives_max"),
        }
    }
}

impl Staleness {
    /// Nothing was read yet.
    pub(super) fn new(stale_after: Duration) -> Self {
        Self {
            stale_after,
            current_ms: AtomicU64::new(NEVER),
            progressed_ms: AtomicU64::new(0),
            is_incomplete: AtomicBool::new(false),
            trouble: Mutex::default(),
        }
    }

    /// Everything that was there at `at` is known.
    pub fn current(&self, at: Duration) {
        self.current_ms.store(to_ms(at), Ordering::Relaxed);
    }

    /// The loop came round at `at`.
    pub fn progressed(&self, at: Duration) {
        self.progressed_ms.store(to_ms(at), Ordering::Relaxed);
    }

    pub(super) fn set_incomplete(&self, is_incomplete: bool) {
        self.is_incomplete.store(is_incomplete, Ordering::Relaxed);
    }

    pub(super) fn is_incomplete(&self) -> bool {
        self.is_incomplete.load(Ordering::Relaxed)
    }

    /// Says why the topic cannot be read, or that it can.
    pub(super) fn set_trouble(&self, trouble: Option<String>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    /// How long ago everything was known; none if it never was.
    #[must_use]
    pub fn age(&self, now: Duration) -> Option<Duration> {
        let ms = self.current_ms.load(Ordering::Relaxed);
        (ms != NEVER).then(|| now.saturating_sub(Duration::from_millis(ms)))
    }

    /// Whether everything is known at `now`.
    ///
    /// # Errors
    /// Why it is not.
    pub fn at(&self, now: Duration) -> Result<(), Stale> {
        match self.age(now) {
            None => Err(Stale::Reading),
            Some(age) if age > self.stale_after => Err(Stale::Silent(age)),
            Some(_) if self.is_incomplete() => Err(Stale::Incomplete),
            Some(_) => Ok(()),
        }
    }

    /// Whether everything is known at `now`.
    ///
    /// # Errors
    /// Why it is not, for whoever looks after the guard.
    pub fn readiness(&self, now: Duration) -> Result<(), String> {
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        self.at(now).map_err(|stale| match trouble.as_ref() {
            Some(trouble) => format!("{stale}: {trouble}"),
            None => stale.to_string(),
        })
    }

    /// How long ago the loop came round.
    #[must_use]
    pub fn since_progress(&self, now: Duration) -> Duration {
        now.saturating_sub(Duration::from_millis(self.progressed_ms.load(Ordering::Relaxed)))
    }
}

fn to_ms(at: Duration) -> u64 {
    u64::try_from(at.as_millis()).unwrap_or(NEVER - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AFTER: Duration = Duration::from_secs(30);

    fn at(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    #[test]
    fn nothing_is_known_before_the_topic_was_read() {
        let staleness = Staleness::new(AFTER);
        assert_eq!(staleness.at(at(5)), Err(Stale::Reading));
        staleness.set_trouble(Some("no such topic".to_owned()));
        let why = staleness.readiness(at(5)).unwrap_err();
        assert_eq!(why, "the topics of directives were not read to their ends yet: no such topic");
    }

    #[test]
    fn a_silent_broker_makes_it_stale_and_an_answer_ends_that() {
        let staleness = Staleness::new(AFTER);
        staleness.current(at(10));
        assert_eq!(staleness.at(at(40)), Ok(()));
        assert_eq!(staleness.at(at(41)), Err(Stale::Silent(at(31))));
        staleness.current(at(41));
        assert_eq!((staleness.at(at(42)), staleness.age(at(42))), (Ok(()), Some(at(1))));
    }

    #[test]
    fn what_was_left_out_makes_it_stale_too() {
        let staleness = Staleness::new(AFTER);
        staleness.current(at(0));
        staleness.set_incomplete(true);
        assert_eq!(staleness.at(at(0)), Err(Stale::Incomplete));
        staleness.set_incomplete(false);
        assert_eq!(staleness.readiness(at(0)), Ok(()));
    }
}
