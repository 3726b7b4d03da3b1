//! Puts one instance through its ordeals and starts it again after each, as an orchestrator would.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use fastrand::Rng;
use lictor_engine::clock::SystemClock;

use crate::instance::{Deployment, End, Instance};
use crate::ordeals::{Alarm, Ledger, Ordeal};

const LOOK: Duration = Duration::from_millis(20);
/// An unoptimised binary starts within seconds, a busy machine doubles that.
const HIT_PATIENCE: Duration = Duration::from_secs(20);
/// Others must come or go before partitions are asked back.
const RARE_PATIENCE: Duration = Duration::from_secs(40);
/// What a zombie may need to hear that it was replaced.
const FENCE_PATIENCE: Duration = Duration::from_secs(45);
/// The last epoch is committed, and a transaction of somebody else may be in the way.
const STOP_PATIENCE: Duration = Duration::from_secs(60);
/// An orchestrator sees a hanging process after a while, and starts another one.
const REPLACED_AFTER: Duration = Duration::from_secs(2);
/// How long an instance that has survived something goes on before it is killed.
const AFTERLIFE: Duration = Duration::from_secs(4);
/// Between two starts of a process that ends by itself.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// One place in the deployment.
pub(crate) struct Supervisor<'a> {
    deployment: &'a Deployment,
    ledger: &'a Ledger,
    clock: &'a SystemClock,
    random: Rng,
    base: String,
    renamed: u32,
}

impl<'a> Supervisor<'a> {
    pub(crate) fn new(
        deployment: &'a Deployment,
        ledger: &'a Ledger,
        clock: &'a SystemClock,
        (seed, number): (u64, u32),
    ) -> Self {
        let random = Rng::with_seed(seed.wrapping_add(u64::from(number) + 1));
        Self { deployment, ledger, clock, random, base: format!("i{number}"), renamed: 0 }
    }

    /// Returns when everything is over and the instance has stopped in order.
    pub(crate) fn run(mut self) {
        let _alarm = Alarm(self.ledger);
        while !self.ledger.is_over() {
            match self.ledger.next() {
                Some(ordeal) => {
                    self.undergo(ordeal);
                    self.pause();
                }
                None => self.rest(),
            }
        }
    }

    fn start(&self, failpoint: Option<&str>) -> Instance {
        let name = if self.renamed == 0 { self.base.clone() } else { format!("{}-{}", self.base, self.renamed) };
        self.deployment.start(&name, failpoint)
    }

    fn undergo(&mut self, ordeal: Ordeal) {
        let mut instance = self.start(ordeal.failpoint().as_deref());
        match ordeal {
            Ordeal::Failpoint { name, nth } => {
                let patience = if ordeal.is_rare() { RARE_PATIENCE } else { HIT_PATIENCE };
                match instance.wait(patience) {
                    Some(End::Aborted) => {
                        self.ledger.died(name);
                        self.ledger.done();
                    }
                    Some(other) => self.fail(&instance, other, ordeal),
                    None => self.miss(&mut instance, name, nth),
                }
            }
            Ordeal::Kill { after } => match instance.wait(after) {
                Some(other) => self.fail(&instance, other, ordeal),
                None => {
                    self.kill(&mut instance);
                    self.ledger.done();
                }
            },
            Ordeal::Zombie { stopped_for, is_replaced, .. } => {
                match instance.wait_for_stop(HIT_PATIENCE) {
                    Some(Err(end)) => return self.fail(&instance, end, ordeal),
                    Some(Ok(())) => {}
                    None => instance.signal("STOP"),
                }
                self.haunt(instance, stopped_for, is_replaced);
                self.ledger.zombies.fetch_add(1, Ordering::Relaxed);
                self.ledger.done();
            }
        }
    }

    /// It ended otherwise than it should have.
    fn fail(&self, instance: &Instance, end: End, ordeal: Ordeal) {
        self.ledger.failed(&instance.name, format!("{end:?}"), self.clock);
        thread::park_timeout(RETRY_PAUSE);
        self.ledger.again(ordeal);
    }

    /// It was not hit. Another try is made at the first hit.
    fn miss(&self, instance: &mut Instance, name: &'static str, nth: u32) {
        self.ledger.missed(name);
        self.kill(instance);
        if nth > 1 {
            self.ledger.again(Ordeal::Failpoint { name, nth: 1 });
        } else {
            self.ledger.done();
        }
    }

    fn kill(&self, instance: &mut Instance) {
        match instance.kill() {
            End::Killed => self.ledger.died("kill -9"),
            // A failpoint was faster.
            End::Aborted => self.ledger.died("late failpoint"),
            other => self.ledger.failed(&instance.name, format!("{other:?}"), self.clock),
        }
    }

    /// The instance is stopped, and wakes up when its work was given to others.
    fn haunt(&self, mut zombie: Instance, stopped_for: Duration, is_replaced: bool) {
        let replaced_after = REPLACED_AFTER.min(stopped_for);
        thread::park_timeout(replaced_after);
        let replacement = is_replaced.then(|| self.start(None));
        thread::park_timeout(stopped_for.saturating_sub(replaced_after));
        zombie.signal("CONT");
        let Some(mut replacement) = replacement else {
            match zombie.wait(AFTERLIFE) {
                // The broker has ended its transaction, which fences it.
                Some(end) => self.fenced(&zombie, end),
                None => self.kill(&mut zombie),
            }
            return;
        };
        match zombie.wait(FENCE_PATIENCE) {
            Some(end) => self.fenced(&zombie, end),
            None => {
                let log = format!("still runs {FENCE_PATIENCE:?} after another process took its name");
                self.ledger.failed(&zombie.name, log, self.clock);
            }
        }
        match replacement.wait(AFTERLIFE) {
            Some(end) => self.ledger.failed(&replacement.name, format!("replacement: {end:?}"), self.clock),
            None => self.kill(&mut replacement),
        }
    }

    fn fenced(&self, instance: &Instance, end: End) {
        match end {
            End::Failed(log) if is_fenced(&log) => drop(self.ledger.fenced.fetch_add(1, Ordering::Relaxed)),
            other => self.ledger.failed(&instance.name, format!("{other:?}"), self.clock),
        }
    }

    /// Before the next start: mostly none. At times so long that the group gives up on the instance, at times the next
    /// one has another name, and nobody aborts what the last one left open.
    fn pause(&mut self) {
        match self.random.u32(0..100) {
            0..60 => thread::park_timeout(Duration::from_millis(self.random.u64(0..500))),
            60..80 => thread::park_timeout(Duration::from_millis(self.random.u64(6_500..9_000))),
            _ => self.renamed += 1,
        }
    }

    /// Nothing happens to the instance until everything is over, or until there is one more ordeal.
    fn rest(&mut self) {
        let mut instance = self.start(None);
        while !self.ledger.is_over() && self.ledger.left() == 0 {
            if let Some(end) = instance.end() {
                self.ledger.failed(&instance.name, format!("at rest: {end:?}"), self.clock);
                return thread::park_timeout(RETRY_PAUSE);
            }
            thread::park_timeout(LOOK);
        }
        if self.ledger.is_over() {
            self.stop(&mut instance);
        } else {
            self.kill(&mut instance);
        }
    }

    /// SIGTERM, after which it must end well.
    fn stop(&self, instance: &mut Instance) {
        if let Err(log) = stop(instance) {
            self.ledger.failed(&instance.name, log, self.clock);
        }
    }
}

/// SIGTERM, after which the process must end well; how it ended otherwise.
pub(crate) fn stop(instance: &mut Instance) -> Result<(), String> {
    instance.signal("TERM");
    match instance.wait(STOP_PATIENCE) {
        Some(End::Stopped) => Ok(()),
        Some(other) => Err(format!("after SIGTERM: {other:?}")),
        None => Err(format!("still runs {STOP_PATIENCE:?} after SIGTERM")),
    }
}

fn is_fenced(log: &str) -> bool {
    log.contains("was taken over")
}
