//! The loop that keeps the guard current: reads the topics of directives to their ends, then follows them.
//!
//! What is to be applied and what is only to be looked at lie on topics of their own. All is one index, and known only
//! once every topic is.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use lictor_connectors::{ConnectorError, KafkaFollower, RecordRef};
use lictor_schemas::time::EventTime;

use super::Guard;
use super::held::{Change, Unreadable};
use super::index::{DirectiveIndex, Put};
use crate::clock::Clock;

/// How long a broker is waited for that has nothing to say, while a topic is read to its end: a third of what the
/// health check takes for a loop that hangs.
const READ_WAIT: Duration = Duration::from_secs(10);
/// Between two attempts to read the topics: one that is made after us is found soon.
const READ_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// How long one look for records lasts: so long a stop goes unnoticed.
const LOOK: Duration = Duration::from_millis(50);
/// How many records are applied at a time: answers wait for that.
const RECORDS_PER_LOOK: usize = 500;
/// How many expired directives are dropped at a time, for the same reason.
const EXPIRED_PER_LOOK: usize = 500;
/// Each partition is asked where it ends about once in this time, but not more often than one of them a look.
const PROBE_EVERY: Duration = Duration::from_secs(1);
/// After how long it is asked again if there was no answer, as each time is a line of the client's log; sooner if it
/// would be stale by then.
const PROBE_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// After how long it is asked again how many partitions a topic has.
const COUNT_EVERY: Duration = Duration::from_secs(30);
/// After how long a topic that had too many directives is read again.
const INCOMPLETE_MAX: Duration = Duration::from_secs(60);
/// How many unreadable records of one look are told one by one; a program that writes nonsense writes a lot of it.
const UNREADABLE_TOLD_MAX: usize = 10;

/// Follows until `stop` is set. Nothing that a broker does ends it: what goes wrong is logged when it changes, with
/// secrets taken out by `redact`, and all topics are read from their beginnings again.
///
/// The first of `followers` is the one whose records must apply soon; what the others have waits for a look at it.
pub fn follow<C: Clock>(
    guard: &Guard,
    followers: &mut [KafkaFollower],
    clock: &C,
    stop: &AtomicBool,
    redact: &dyn Fn(&str) -> String,
) {
    let mut following = Following { guard, followers, clock, stop, trouble: None, probes: 0 };
    while !stop.load(Ordering::Relaxed) {
        match following.read_to_end().and_then(|()| following.go_on()) {
            Ok(()) => {}
            Err(error) => following.tell(&redact(&error.to_string())),
        }
        following.pause();
    }
}

struct Following<'a, C> {
    guard: &'a Guard,
    followers: &'a mut [KafkaFollower],
    clock: &'a C,
    stop: &'a AtomicBool,
    /// What was wrong last.
    trouble: Option<String>,
    /// How many probes there were: topics take turns.
    probes: usize,
}

/// The records of one look that say nothing.
#[derive(Default)]
struct Refused {
    first: Vec<Unreadable>,
    count: usize,
}

impl<C: Clock> Following<'_, C> {
    /// Reads the topics from their beginnings; what was held before applies until all of it is there.
    fn read_to_end(&mut self) -> Result<(), ConnectorError> {
        let Self { guard, clock, stop, .. } = *self;
        let (began, now) = (clock.monotonic(), clock.now());
        let mut index = DirectiveIndex::new(guard.options.directives_max);
        let mut refused = Refused::default();
        let goes_on = || {
            guard.staleness.progressed(clock.monotonic());
            !stop.load(Ordering::Relaxed)
        };
        for follower in &mut *self.followers {
            follower.read_to_end(READ_WAIT, &goes_on, &mut |record| {
                if let Some(change) = refused.read(guard, record, now) {
                    let put = index.apply(change);
                    guard.metrics.observe_put(put);
                    debug_assert!(put != Put::LeftOut || index.is_incomplete(), "what was left out is remembered");
                }
                Ok(())
            })?;
        }
        refused.tell();
        let (directives, took_ms) = (index.len(), clock.monotonic().saturating_sub(began).as_millis());
        if index.is_incomplete() {
            tracing::error!(
                directives,
                "there are more directives than guard.directives_max; the others are not known"
            );
        }
        guard.replace(index);
        guard.staleness.set_trouble(None);
        guard.staleness.current(began);
        self.trouble = None;
        tracing::info!(directives, took_ms, "the topics of directives were read to their ends");
        Ok(())
    }

    /// Follows until the topics must be read again, or until `stop` is set.
    fn go_on(&mut self) -> Result<(), ConnectorError> {
        let began = self.clock.monotonic();
        let (mut probe_at, mut counted) = (began, began);
        while !self.stop.load(Ordering::Relaxed) {
            self.look()?;
            let now = self.clock.monotonic();
            self.guard.staleness.progressed(now);
            if now >= probe_at {
                probe_at = now + self.probe(now);
            }
            if now.saturating_sub(counted) >= COUNT_EVERY {
                counted = now;
                self.followers.iter().try_for_each(KafkaFollower::check_partitions)?;
            }
            if self.guard.staleness.is_incomplete() && now.saturating_sub(began) >= INCOMPLETE_MAX {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Takes over what has come, and drops what has expired.
    fn look(&mut self) -> Result<(), ConnectorError> {
        let Self { guard, clock, .. } = *self;
        let mut wait = LOOK;
        for follower in &mut *self.followers {
            look_at(follower, wait, guard, clock)?;
            // Whoever is waited for holds up what the first one has.
            wait = Duration::ZERO;
        }
        guard.expire(clock.now(), EXPIRED_PER_LOOK);
        Ok(())
    }

    /// Asks whether everything is known; returns after how long to ask again.
    fn probe(&mut self, now: Duration) -> Duration {
        let turn = self.probes % self.followers.len().max(1);
        self.probes = self.probes.wrapping_add(1);
        if self.followers.get_mut(turn).is_some_and(|follower| !follower.probe(now)) {
            return PROBE_AGAIN_AFTER.min(self.guard.options.stale_after / 4);
        }
        // None is less than any time: who was not heard of yet keeps all from being current.
        if let Some(at) = self.followers.iter().map(KafkaFollower::current_at).min().flatten() {
            self.guard.staleness.current(at);
        }
        let most = self.followers.iter().map(KafkaFollower::partitions).max().unwrap_or_default();
        let turns = u32::try_from(most * self.followers.len()).unwrap_or(u32::MAX).max(1);
        (PROBE_EVERY / turns).max(LOOK)
    }

    /// Logs what is wrong, once.
    fn tell(&mut self, why: &str) {
        if !self.stop.load(Ordering::Relaxed) && self.trouble.as_deref() != Some(why) {
            tracing::error!("directives are not followed, they will be read again: {why}");
            self.guard.staleness.set_trouble(Some(why.to_owned()));
            self.trouble = Some(why.to_owned());
        }
    }

    /// Waits before the next attempt; directives expire meanwhile.
    fn pause(&self) {
        let until = self.clock.monotonic() + READ_AGAIN_AFTER;
        while self.clock.monotonic() < until && !self.stop.load(Ordering::Relaxed) {
            self.guard.expire(self.clock.now(), EXPIRED_PER_LOOK);
            self.guard.staleness.progressed(self.clock.monotonic());
            thread::park_timeout(LOOK);
        }
    }
}

/// Takes over what has come on one topic, also if an error comes behind it.
fn look_at<C: Clock>(
    follower: &mut KafkaFollower,
    wait: Duration,
    guard: &Guard,
    clock: &C,
) -> Result<(), ConnectorError> {
    let (mut changes, mut refused, written_ms) = (Vec::new(), Refused::default(), Cell::new(0));
    let followed = follower.follow(wait, RECORDS_PER_LOOK, &mut |record| {
        written_ms.set(record.timestamp_ms);
        changes.extend(refused.read(guard, record, clock.now()));
        Ok(())
    });
    if !changes.is_empty() {
        guard.apply(changes);
        guard.metrics.observe_follow(written_ms.get(), clock.now());
    }
    refused.tell();
    followed.map(drop)
}

impl Refused {
    /// What a record says at `now`; a directive whose end has passed is over.
    fn read(&mut self, guard: &Guard, record: &RecordRef<'_>, now: EventTime) -> Option<Change> {
        match Change::read(record) {
            Ok(Change::Put(held, _)) if held.valid_until <= now => Some(Change::End(held.directive_id)),
            Ok(change) => Some(change),
            Err(unreadable) => {
                guard.metrics.observe_unreadable();
                self.count += 1;
                if self.first.len() < UNREADABLE_TOLD_MAX {
                    self.first.push(unreadable);
                }
                None
            }
        }
    }

    fn tell(&self) {
        for unreadable in &self.first {
            tracing::error!("a record is no directive, its key keeps the one it had: {unreadable}");
        }
        if self.count > self.first.len() {
            tracing::error!(more = self.count - self.first.len(), "more records are no directives");
        }
    }
}

#[cfg(test)]
mod tests;
