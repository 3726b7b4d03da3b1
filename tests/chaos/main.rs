//! Chaos: instances die at every failpoint, are killed, stopped and woken up, the broker is restarted and killed, and
//! what comes out is what an undisturbed run says: every event once, with every sum right.
//!
//! Skips when `KAFKA_BOOTSTRAP` is not set, which says that tests with Kafka are not wanted; the node it runs on is its
//! own, because it treats it badly. As a part of all tests it is short. The long run:
//!
//! ```sh
//! LICTOR_CHAOS_SPANS=200000 LICTOR_CHAOS_DEATHS=100 LICTOR_CHAOS_ZOMBIES=10 LICTOR_CHAOS_BROKER_RESTARTS=5 \
//! LICTOR_CHAOS_BROKER_KILLS=3 LICTOR_CHAOS_INSTANCES=3 LICTOR_CHAOS_SEED=1 cargo test --test chaos -- --nocapture
//! ```
//!
//! Everything random is drawn from the seed, which is printed. `LICTOR_CHAOS_LOGS` names a folder in which the logs of
//! all instances stay, `LICTOR_CHAOS_BINARY` another binary: a copy, if the checkout goes on being built meanwhile.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod broker;
mod feed;
mod instance;
mod oracle;
mod ordeals;
mod story;
mod supervisor;
mod verify;

use std::collections::BTreeMap;
use std::env;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use broker::Broker;
use fastrand::Rng;
use feed::Feed;
use instance::{Deployment, End};
use lictor_engine::clock::{Clock, SystemClock};
use oracle::{Expected, Layout, Oracle, Record};
use ordeals::{Alarm, Ledger};
use story::{SECOND_NS, Story};
use supervisor::{Supervisor, stop};
use verify::{Follower, Verdict};

/// The rules under test.
const RULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/chaos/rules");
const APPLICATION: &str = "chaos";
const INPUT: &str = "spans";
const INPUT_PARTITIONS: i32 = 6;
/// What is written: topic, partitions, whether it is compacted.
const OUTPUTS: [(&str, i32, bool); 6] = [
    ("enforcement", 3, false),
    ("directives", 3, true),
    ("shadow", 2, true),
    ("dead", 1, false),
    ("late", 1, false),
    ("otlp", 2, false),
];
const SHARDS: u32 = 8;
/// The story lies in the past, so that it may go on for hours.
const AGO_NS: i64 = 2 * 86_400 * SECOND_NS;
const LOOK: Duration = Duration::from_millis(50);
/// A rebalance takes some seconds, the session timeout of those that were stopped before six.
const HANDOVER_PATIENCE: Duration = Duration::from_secs(40);
/// Spans for the windows that are open when all instances are stopped.
const SPANS_AFTER_STOP: u64 = 300;

/// How much of what.
struct Plan {
    spans: u64,
    deaths: u32,
    zombies: u32,
    broker_restarts: u32,
    broker_kills: u32,
    instances: u32,
    seed: u64,
}

impl Plan {
    /// What is not said is short.
    fn from_env() -> Self {
        let said = |name: &str| {
            let text = env::var(format!("LICTOR_CHAOS_{name}")).ok()?;
            Some(text.parse::<u64>().unwrap_or_else(|error| panic!("LICTOR_CHAOS_{name}: {error}")))
        };
        let number = |name: &str, default: u32| said(name).map_or(default, |number| u32::try_from(number).unwrap());
        Self {
            spans: said("SPANS").unwrap_or(16_000),
            deaths: number("DEATHS", 16),
            zombies: number("ZOMBIES", 2),
            broker_restarts: number("BROKER_RESTARTS", 1),
            broker_kills: number("BROKER_KILLS", 1),
            instances: number("INSTANCES", 3),
            seed: said("SEED").unwrap_or(3),
        }
    }

    /// About as long as all ordeals take.
    fn seconds(&self) -> u64 {
        let of_instances = self.deaths * 10 + self.zombies * 20;
        u64::from(of_instances / self.instances + (self.broker_restarts + self.broker_kills) * 10)
    }
}

#[test]
fn whatever_happens_every_output_is_there_once_and_right() {
    if env::var("KAFKA_BOOTSTRAP").is_err() {
        eprintln!("chaos: skipped: KAFKA_BOOTSTRAP is not set (see tests/kafka.sh)");
        return;
    }
    let (plan, clock) = (Plan::from_env(), SystemClock::start());
    eprintln!("chaos: LICTOR_CHAOS_SEED={}", plan.seed);
    let layout = Layout {
        application_id: APPLICATION,
        rules: Path::new(RULES),
        topic: INPUT,
        partitions: INPUT_PARTITIONS,
        shards: SHARDS,
    };
    let broker = Broker::start();
    broker.make_topics(&[(INPUT, INPUT_PARTITIONS, false)]);
    broker.make_topics(&OUTPUTS);
    let deployment = Deployment::new(&layout, broker.properties.bootstrap_servers());
    let now = clock.now();
    let mut feed = Feed::new(&broker.properties, INPUT, Story::new(plan.seed, now.plus(-AGO_NS)));
    let mut truth = Truth { oracle: Oracle::new(&layout, now), ends: [0; INPUT_PARTITIONS as usize] };
    let mut follower = Follower::new(&broker.properties, "enforcement");

    let ordeals = ordeals::plan(&mut Rng::with_seed(plan.seed), plan.deaths, plan.zombies);
    let ledger = Ledger::new(ordeals);
    let world = World { plan: &plan, broker: &broker, deployment: &deployment, ledger: &ledger, clock: &clock };
    let is_complete = world.rage(&mut feed, &mut truth, &mut follower);
    let raged = clock.monotonic();
    let expected = world.begin_afresh(&mut feed, truth, &mut follower);
    let verdict = world.verdict(&expected);
    let failures = ledger.failures();
    eprintln!(
        "chaos: {} spans ({} late), {ledger}, {} broker restarts, {} broker kills, {} instances ({} starts), {} s of \
         chaos, {} s: {verdict}; aborts {}, ended by themselves {}",
        expected.spans_used + expected.spans_late,
        expected.spans_late,
        plan.broker_restarts,
        plan.broker_kills,
        plan.instances,
        deployment.starts(),
        raged.as_secs(),
        clock.monotonic().as_secs(),
        deployment.count("an epoch was not committed"),
        failures.len(),
    );
    assert!(verdict.is_clean(), "{verdict}\n{}", verdict.examples());
    assert!(is_complete, "before all instances were stopped, outputs were missing that came only when others started");
    let bad: Vec<_> = failures.iter().filter(|failure| !failure.is_of_outage || is_refusal(&failure.log)).collect();
    assert!(bad.is_empty(), "instances ended by themselves: {bad:#?}");
    let every_span_once = expected.spans_used - INPUT_PARTITIONS.unsigned_abs() as u64;
    #[expect(clippy::cast_precision_loss, reason = "a number of spans")]
    let every_span_once = every_span_once as f64;
    assert_eq!(expected.spans_summed, every_span_once, "the oracle itself counts every span once");
    if feed.doubtful == 0 {
        assert_eq!(expected.spans_used + expected.spans_late, feed.spans, "the broker has what was written");
    }
}

/// State and positions disagree: the one thing that must not happen, whatever else does.
fn is_refusal(log: &str) -> bool {
    log.contains("is not served") || log.contains("panicked")
}

/// What must come out of what lies in the input topic so far.
struct Truth {
    oracle: Oracle,
    /// Up to where the oracle knows the partitions.
    ends: [i64; INPUT_PARTITIONS as usize],
}

impl Truth {
    /// Takes what is new; returns a key that leads to each partition.
    fn learn(&mut self, broker: &Broker) -> BTreeMap<i32, Vec<u8>> {
        let mut records = broker.read(INPUT, INPUT_PARTITIONS);
        let keys = records.iter().map(|record| (record.partition, record.key.clone().unwrap())).collect();
        let end = |partition: i32| usize::try_from(partition).unwrap();
        records.retain(|record| record.offset >= self.ends[end(record.partition)]);
        for Record { partition, offset, .. } in &records {
            self.ends[end(*partition)] = offset + 1;
        }
        self.oracle.learn(records);
        keys
    }
}

/// All that has to do with one another.
struct World<'a> {
    plan: &'a Plan,
    broker: &'a Broker,
    deployment: &'a Deployment,
    ledger: &'a Ledger,
    clock: &'a SystemClock,
}

impl World<'_> {
    /// Everything that happens; returns when all instances have been stopped in order, and whether all outputs were
    /// there by then.
    fn rage(&self, feed: &mut Feed, truth: &mut Truth, follower: &mut Follower) -> bool {
        let is_fed = &AtomicBool::new(false);
        thread::scope(|scope| {
            let _alarm = Alarm(self.ledger);
            for number in 0..self.plan.instances {
                let ends = (self.plan.seed, number);
                let supervisor = Supervisor::new(self.deployment, self.ledger, self.clock, ends);
                scope.spawn(move || supervisor.run());
            }
            let outages = scope.spawn(|| self.trouble_the_broker());
            scope.spawn(move || {
                let _alarm = Alarm(self.ledger);
                let goes_on = || !(self.ledger.is_over() || self.ledger.is_calm() && outages.is_finished());
                feed.steadily(self.plan.spans, self.plan.seconds(), goes_on);
                feed.up_to(self.plan.spans);
                is_fed.store(true, Ordering::Relaxed);
            });
            let mut told = usize::MAX;
            while !is_fed.load(Ordering::Relaxed) && !self.ledger.is_over() {
                let left = self.ledger.left();
                if left / 10 < told / 10 {
                    eprintln!("chaos: {} s: {left} ordeals left", self.clock.monotonic().as_secs());
                    told = left;
                }
                thread::park_timeout(LOOK);
            }
            eprintln!("chaos: {} s: all is calm", self.clock.monotonic().as_secs());
            truth.learn(self.broker);
            let is_complete = self.await_outputs(truth, follower);
            self.ledger.end();
            is_complete
        })
    }

    /// Restarts and kills the broker, evenly over the time of the ordeals.
    fn trouble_the_broker(&self) {
        let _alarm = Alarm(self.ledger);
        let Plan { broker_restarts, broker_kills, seed, .. } = *self.plan;
        let mut random = Rng::with_seed(seed ^ 0xb0);
        let mut kills = [vec![false; broker_restarts as usize], vec![true; broker_kills as usize]].concat();
        random.shuffle(&mut kills);
        let (ordeals, outages) = (self.ledger.left(), kills.len());
        for (number, is_kill) in kills.into_iter().enumerate() {
            let due_at = ordeals * (outages - number) / (outages + 1);
            while self.ledger.left() > due_at && !self.ledger.is_over() {
                thread::park_timeout(LOOK);
            }
            let what = if is_kill { "kill -9 of the broker" } else { "the broker is restarted" };
            eprintln!("chaos: {} s: {what}", self.clock.monotonic().as_secs());
            self.ledger.outage_begins(self.clock);
            if is_kill {
                self.broker.crash();
                thread::park_timeout(Duration::from_millis(random.u64(0..3_000)));
                self.broker.resume();
            } else {
                self.broker.restart();
            }
            self.ledger.outage_ends(self.clock);
        }
    }

    /// An instance of another name restores everything that the others have left, and goes on with windows that were
    /// open. It dies while it hands shards over to a second one, comes back, and both close all windows.
    fn begin_afresh(&self, feed: &mut Feed, mut truth: Truth, follower: &mut Follower) -> Expected {
        let mut fresh = self.deployment.start("fresh", Some("judge.revoked@1"));
        feed.up_to(feed.spans + SPANS_AFTER_STOP);
        let keys = truth.learn(self.broker);
        self.await_outputs(&truth, follower);
        let mut second = self.deployment.start("second", None);
        let end = fresh.wait(HANDOVER_PATIENCE);
        assert_eq!(end, Some(End::Aborted), "no shard was asked back of the first of two instances");
        let mut fresh = self.deployment.start("fresh", None);
        for key in keys.values() {
            let told = feed.story.afterwards(key);
            feed.write(&told);
        }
        let last = feed.story.undecodable();
        feed.write(&last);
        feed.flush();
        truth.learn(self.broker);
        self.await_outputs(&truth, follower);
        for instance in [&mut fresh, &mut second] {
            if let Err(log) = stop(instance) {
                self.ledger.failed(&instance.name, log, self.clock);
            }
        }
        truth.oracle.finish()
    }

    /// Returns when everything has come out that must; false, and who reads what, if something does not come.
    fn await_outputs(&self, truth: &Truth, follower: &mut Follower) -> bool {
        let is_complete = follower.wait_for(truth.oracle.so_far());
        eprintln!("chaos: {} s: outputs are complete: {is_complete}", self.clock.monotonic().as_secs());
        if !is_complete {
            eprintln!("{}", self.broker.groups());
        }
        is_complete
    }

    fn verdict(&self, expected: &Expected) -> Verdict {
        let [events, directives, shadow, dead, late, otlp] =
            OUTPUTS.map(|(topic, count, _)| self.broker.read(topic, count));
        let mut verdict = Verdict::default();
        verdict.events(expected, &events);
        verdict.directives(&expected.directives, &directives);
        verdict.directives(&expected.shadow, &shadow);
        verdict.payloads("dead", &expected.dead, &dead);
        verdict.payloads("late", &expected.late, &late);
        let once_each = expected.events.keys().map(|id| (id.clone().into_bytes(), 1)).collect();
        verdict.payloads("otlp", &once_each, &otlp.into_iter().map(Record::into_event_id).collect::<Vec<_>>());
        verdict
    }
}
