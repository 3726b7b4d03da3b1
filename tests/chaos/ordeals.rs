//! What happens to the instances, drawn from the seed, and the record of what did.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use fastrand::Rng;
use lictor_connectors::failpoint;
use lictor_engine::clock::{Clock, SystemClock};

/// One of so many deaths comes from outside, at any moment.
const OUTSIDE: u32 = 6;
/// Hits of failpoints that come with every commit: within some seconds of a busy instance.
const COMMITS_MAX: u32 = 20;
/// Longer than the session timeout (6 s): others take the partitions over.
const STOP_S: std::ops::Range<u64> = 8..15;
/// Before this is over the instances must have found each other again: until then a failure may be the outage's.
const AFTERMATH: Duration = Duration::from_secs(20);

/// Something that an instance has to go through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ordeal {
    /// It dies at the `nth` hit of a failpoint.
    Failpoint { name: &'static str, nth: u32 },
    /// It is killed from outside after so long.
    Kill { after: Duration },
    /// It is stopped at a failpoint, and goes on when its work was given to others; if it `is_replaced`, another
    /// process of its name has been started by then.
    Zombie { name: &'static str, nth: u32, stopped_for: Duration, is_replaced: bool },
}

impl Ordeal {
    /// The value of `LICTOR_FAILPOINT`.
    pub(crate) fn failpoint(&self) -> Option<String> {
        match self {
            Self::Failpoint { name, nth } => Some(format!("{name}@{nth}")),
            Self::Kill { .. } => None,
            Self::Zombie { name, nth, .. } => Some(format!("{name}@{nth}:stop")),
        }
    }

    /// Partitions are asked back only when others come or go.
    pub(crate) fn is_rare(&self) -> bool {
        matches!(self, Self::Failpoint { name, .. } if name.ends_with(".revoked"))
    }
}

/// All ordeals in their order; every failpoint has its turn before one has a second.
pub(crate) fn plan(random: &mut Rng, deaths: u32, zombies: u32) -> VecDeque<Ordeal> {
    let mut names: Vec<&'static str> = Vec::new();
    let mut ordeals: Vec<Ordeal> = Vec::new();
    for death in 0..deaths {
        if death % OUTSIDE == OUTSIDE - 1 && deaths as usize > failpoint::NAMES.len() {
            ordeals.push(Ordeal::Kill { after: Duration::from_millis(random.u64(500..8_000)) });
            continue;
        }
        if names.is_empty() {
            names = failpoint::NAMES.to_vec();
            random.shuffle(&mut names);
        }
        ordeals.extend(names.pop().map(|name| Ordeal::Failpoint { name, nth: nth(random, name) }));
    }
    for zombie in 0..zombies {
        let name = failpoint::NAMES[random.usize(0..failpoint::NAMES.len())];
        // Waiting for a revocation would take too long.
        let name = name.strip_suffix("revoked").map_or(name, |_| "scan.offsets");
        let stopped_for = Duration::from_millis(random.u64(STOP_S.start * 1_000..STOP_S.end * 1_000));
        let ordeal = Ordeal::Zombie { name, nth: nth(random, name), stopped_for, is_replaced: zombie % 2 == 0 };
        ordeals.insert(random.usize(0..=ordeals.len()), ordeal);
    }
    ordeals.into()
}

fn nth(random: &mut Rng, name: &str) -> u32 {
    match name.split_once('.').map_or(name, |(_, step)| step) {
        "assigned" | "revoked" => 1,
        "restore" | "restored" => random.u32(1..=3),
        _ => random.u32(1..=COMMITS_MAX),
    }
}

/// A process that has ended by itself.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    /// Which instance, how it ended, and the last lines of its log.
    pub(crate) log: String,
    /// The broker was away, or had been just before.
    pub(crate) is_of_outage: bool,
}

/// What has happened.
#[derive(Default)]
pub(crate) struct Ledger {
    ordeals: Mutex<VecDeque<Ordeal>>,
    deaths: Mutex<BTreeMap<String, u32>>,
    failures: Mutex<Vec<Failure>>,
    /// Failpoints at which an instance was to die and did not come to.
    missed: Mutex<BTreeMap<String, u32>>,
    pub(crate) zombies: AtomicU32,
    /// Of those: ended because another process had taken their name, or the broker had ended their transaction.
    pub(crate) fenced: AtomicU32,
    /// Ordeals that were begun and not gone through yet.
    pending: AtomicU32,
    /// When the broker went away last, and when it was back.
    outage: Mutex<Option<(Duration, Option<Duration>)>>,
    /// Everything must end: it is over, or somebody has panicked.
    is_over: AtomicBool,
}

impl Ledger {
    pub(crate) fn new(ordeals: VecDeque<Ordeal>) -> Self {
        Self { ordeals: Mutex::new(ordeals), ..Self::default() }
    }

    /// The next ordeal, to be answered with [`Ledger::done`] or [`Ledger::again`].
    pub(crate) fn next(&self) -> Option<Ordeal> {
        let mut ordeals = self.ordeals.lock().unwrap();
        let next = ordeals.pop_front().filter(|_| !self.is_over());
        self.pending.fetch_add(u32::from(next.is_some()), Ordering::Relaxed);
        next
    }

    /// The ordeal was gone through.
    pub(crate) fn done(&self) {
        self.pending.fetch_sub(1, Ordering::Relaxed);
    }

    /// The ordeal did not come about and must be gone through later.
    pub(crate) fn again(&self, ordeal: Ordeal) {
        self.ordeals.lock().unwrap().push_back(ordeal);
        self.done();
    }

    /// Whether all ordeals are gone through.
    pub(crate) fn is_calm(&self) -> bool {
        self.ordeals.lock().unwrap().is_empty() && self.pending.load(Ordering::Relaxed) == 0
    }

    pub(crate) fn left(&self) -> usize {
        self.ordeals.lock().unwrap().len()
    }

    pub(crate) fn died(&self, of: &str) {
        *self.deaths.lock().unwrap().entry(of.to_owned()).or_default() += 1;
    }

    pub(crate) fn missed(&self, failpoint: &str) {
        *self.missed.lock().unwrap().entry(failpoint.to_owned()).or_default() += 1;
    }

    pub(crate) fn failed(&self, instance: &str, log: String, clock: &SystemClock) {
        let is_of_outage = self
            .outage
            .lock()
            .unwrap()
            .is_some_and(|(_, until)| until.is_none_or(|until| clock.monotonic() < until + AFTERMATH));
        let log = format!("{instance}: {log}");
        eprintln!("chaos: {} s: {log}", clock.monotonic().as_secs());
        self.failures.lock().unwrap().push(Failure { log, is_of_outage });
    }

    pub(crate) fn failures(&self) -> Vec<Failure> {
        self.failures.lock().unwrap().clone()
    }

    pub(crate) fn outage_begins(&self, clock: &SystemClock) {
        *self.outage.lock().unwrap() = Some((clock.monotonic(), None));
    }

    pub(crate) fn outage_ends(&self, clock: &SystemClock) {
        if let Some((_, until)) = self.outage.lock().unwrap().as_mut() {
            *until = Some(clock.monotonic());
        }
    }

    pub(crate) fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }
}

/// Ends everything if the thread that holds it panics, so that nobody waits for it.
pub(crate) struct Alarm<'a>(pub(crate) &'a Ledger);

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.end();
        }
    }
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let listed = |counts: &BTreeMap<String, u32>| {
            counts.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
        };
        let count = |number: &AtomicU32| number.load(Ordering::Relaxed);
        let (zombies, fenced) = (count(&self.zombies), count(&self.fenced));
        let deaths = self.deaths.lock().unwrap();
        let total: u32 = deaths.values().sum();
        let missed = listed(&self.missed.lock().unwrap());
        write!(f, "{total} deaths ({}; missed: {missed}), {zombies} zombies ({fenced} fenced)", listed(&deaths))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_plan_in_which_every_failpoint_has_its_turn() {
        let ordeals = plan(&mut Rng::with_seed(7), 40, 4);
        assert_eq!(ordeals, plan(&mut Rng::with_seed(7), 40, 4));
        assert_eq!(ordeals.len(), 44);
        for name in failpoint::NAMES {
            let dies_there = |ordeal: &&Ordeal| matches!(ordeal, Ordeal::Failpoint { name: at, .. } if at == name);
            assert!(ordeals.iter().filter(dies_there).count() >= 2, "{name}");
        }
    }
}
