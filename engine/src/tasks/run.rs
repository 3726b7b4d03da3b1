//! Both tasks of an instance, side by side until it is told to stop.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::Duration;

use lictor_connectors::{
    ConnectorError, KafkaProperties, KafkaRestorer, KafkaSink, KafkaSource, KafkaTransactions, NextOffset,
    TopicPartition,
};

use super::backfiller::Backfiller;
use super::judge_loop::{JudgeLoop, Writers, restorer};
use super::reload::{Reloading, SharedRules};
use super::scan_loop::ScanLoop;
use super::{EpochTimes, JudgeTask, ScanTask, TaskTopics};
use crate::aside::Undecodable;
use crate::clock::Clock;
use crate::decision::{Decision, LimitReport};
use crate::exchange::route::Router;
use crate::packed::PackedError;
use crate::pane::PaneError;
use crate::pipeline::Stages;
use crate::scan_stage::ScanCounts;
use crate::shard::RestoreError;
use crate::windowed::Observed;

/// When events become visible.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Delivery {
    /// With the state and the position they were made from, in one transaction.
    #[default]
    ExactlyOnce,
    /// Before that: sooner, and again (with the same id) if the transaction does not come about.
    AtLeastOnce,
}

/// Which task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Reads telemetry.
    Scan,
    /// Judges.
    Judge,
}

impl Stage {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Scan, Self::Judge];

    /// The label of metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Scan => "scan",
            Self::Judge => "judge",
        }
    }
}

/// How the tasks of an instance run.
#[derive(Clone, Debug)]
pub struct TaskOptions {
    /// Names the deployment: groups, internal topics and transactional ids begin with it.
    pub application_id: String,
    /// Names the instance within the deployment; the same after a restart.
    pub instance_id: String,
    /// The topics with telemetry.
    pub inputs: Vec<String>,
    /// The topics written to.
    pub topics: TaskTopics,
    /// Partitions of the shuffle and the state topic.
    pub shards: u32,
    /// When events become visible.
    pub delivery: Delivery,
    /// How reading is cut into epochs.
    pub reading: ReadingOptions,
}

/// How reading is cut into epochs.
#[derive(Clone, Copy, Debug)]
pub struct ReadingOptions {
    /// The longest time between a record and the end of its epoch.
    pub linger: Duration,
    /// Rows after which an epoch ends early.
    pub rows_max: usize,
    /// The longest time between commits while nothing urgent happens.
    pub commit_every: Duration,
    /// How long the broker may take for an answer that is needed to go on.
    pub patience: Duration,
    /// Above this share of undecodable records the instance stops.
    pub decode_error_ratio_max: f64,
}

/// Why an instance has ended before it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// Kafka refuses something for good.
    #[error(transparent)]
    Connector(#[from] ConnectorError),
    /// A topic holds something else than what it is bound to.
    #[error(transparent)]
    Undecodable(#[from] Undecodable),
    /// A shard's state cannot be read back.
    #[error("shard {shard} is not served: {error}")]
    Restore {
        /// Which shard.
        shard: i32,
        /// Why.
        error: RestoreError,
    },
    /// Parcels were deleted before they were judged.
    #[error(
        "{partition} begins at offset {}, and offset {} was not judged yet: it was deleted by age. What the windows \
         count would be wrong; reset the consumer groups, the shuffle and the state topic together to begin anew",
        begin.0, next.0
    )]
    Truncated {
        /// The shard.
        partition: TopicPartition,
        /// What was to be judged next.
        next: NextOffset,
        /// The first offset there is.
        begin: NextOffset,
    },
    /// A record of the shuffle topic is of a newer version.
    #[error("{partition} offset {offset}: {error}")]
    Parcel {
        /// Where it lies.
        partition: TopicPartition,
        /// Its offset.
        offset: i64,
        /// What is wrong with it.
        error: PackedError,
    },
    /// The state in memory is no good any more; a restart reads it back.
    #[error("the state in memory: {0}")]
    State(#[from] PaneError),
    /// The broker did not say in time whether a transaction was committed. A restart asks it.
    #[error("the broker does not say whether the last epoch was committed")]
    Undecided,
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Spawn(#[from] io::Error),
    /// A thread has ended that should not have.
    #[error("the {0} thread is gone")]
    Thread(&'static str),
}

/// Watches the tasks; called from the threads of both.
pub trait TaskObserver: Sync {
    /// A task's loop has come round.
    fn alive(&self, _stage: Stage) {}

    /// A task serves so many partitions now, and all that it was assigned.
    fn assigned(&self, _stage: Stage, _partitions: usize) {}

    /// An epoch of scanning is durable.
    fn scanned(&self, _counts: &ScanCounts) {}

    /// An epoch of judging is durable; `latency` counts from the broker timestamp of the newest record in it.
    fn judged(&self, _decisions: &[Decision], _limits: &[LimitReport], _latency: Option<Duration>) {}

    /// A transaction was committed, which took so long; `lag` as the client knows it.
    fn committed(&self, _stage: Stage, _took: Duration, _lag: &[(TopicPartition, i64)]) {}

    /// A transaction was aborted.
    fn aborted(&self, _stage: Stage, _cause: &'static str) {}

    /// A shard was read back.
    fn restored(&self, _bytes: usize, _took: Duration) {}

    /// How the shards are doing; about once per second.
    fn status(&self, _task: &JudgeTask) {}

    /// Whether what groups measure is to be looked at, which is told before the status then.
    fn looks(&self) -> bool {
        false
    }

    /// What groups of some rules measure.
    fn observed(&self, _seen: &[(String, Observed)]) {}

    /// Whether it is to be told how long the parts of epochs took.
    fn times(&self) -> bool {
        false
    }

    /// How long the parts of an epoch took that is durable.
    fn timed(&self, _times: &EpochTimes) {}

    /// How long scanning has taken, of each rule, since the rules were read; about once per second.
    fn scan_spent(&self, _spent: BTreeMap<String, Duration>) {}
}

/// What an instance did, from start to stop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Records read.
    pub records: u64,
    /// Events published.
    pub events: u64,
}

/// Whether the loops must end: they were asked to, or one of them has failed.
pub(super) struct Stop<'a> {
    asked: &'a AtomicBool,
    failed: AtomicBool,
    /// The scan loop has written its last parcel.
    scanned: AtomicBool,
}

impl Stop<'_> {
    pub(super) fn is_set(&self) -> bool {
        self.asked.load(Ordering::Relaxed) || self.failed()
    }

    fn failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Whether no more parcels of this instance will come.
    pub(super) fn is_scanned(&self) -> bool {
        self.scanned.load(Ordering::Acquire) || self.failed()
    }

    /// Runs a loop; if it fails, or panics, the other one must end too.
    fn run(&self, run: impl FnOnce() -> Result<u64, TaskError>) -> Result<u64, TaskError> {
        let panicking = FailOnDrop(&self.failed);
        let result = run();
        std::mem::forget(panicking);
        self.failed.fetch_or(result.is_err(), Ordering::Relaxed);
        result
    }
}

/// Says that a loop has failed, unless it is forgotten before.
struct FailOnDrop<'a>(&'a AtomicBool);

impl Drop for FailOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The pauses after aborts: a group that is rebalancing must not be asked in a tight loop.
#[derive(Debug)]
pub(super) struct Backoff(Duration);

const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

impl Default for Backoff {
    fn default() -> Self {
        Self(BACKOFF_MIN)
    }
}

impl Backoff {
    pub(super) fn next(&mut self) -> Duration {
        let doubled = (self.0 * 2).min(BACKOFF_MAX);
        std::mem::replace(&mut self.0, doubled)
    }

    pub(super) fn reset(&mut self) {
        self.0 = BACKOFF_MIN;
    }
}

/// Runs an instance until `stop` is set; the last epochs are committed before it returns.
///
/// # Errors
/// [`TaskError`]; nothing that was not committed has happened.
pub fn run<C: Clock + Copy + Send + Sync + 'static>(
    properties: &KafkaProperties,
    stages: Stages,
    options: &TaskOptions,
    clock: C,
    ends: (&AtomicBool, &dyn TaskObserver),
) -> Result<Summary, TaskError> {
    let (_, nothing) = sync_channel(0);
    run_reloading(properties, stages, options, clock, ends, nothing)
}

/// As [`run`], going over to each of the `rule_sets` that come.
///
/// # Errors
/// As [`run`].
pub fn run_reloading<C: Clock + Copy + Send + Sync + 'static>(
    properties: &KafkaProperties,
    stages: Stages,
    options: &TaskOptions,
    clock: C,
    (stop, observer): (&AtomicBool, &dyn TaskObserver),
    rule_sets: Receiver<Stages>,
) -> Result<Summary, TaskError> {
    let stop = Stop { asked: stop, failed: AtomicBool::new(false), scanned: AtomicBool::new(false) };
    let Stages { scan, judge, routes } = stages;
    let names = judge.names.clone();
    let router = Router::new(options.shards, routes);
    let ids = (options.application_id.as_str(), options.instance_id.as_str());
    let scan = ScanTask::new(scan, router, names, options.topics.clone(), ids);
    let (reloading, of_scan) =
        Reloading::new(SharedRules::new(judge, options.inputs.clone()), rule_sets, options.shards);
    let clients = Clients { properties, options };
    let scanning = || {
        let source = clients.source(Stage::Scan, &options.inputs)?;
        let writers = (clients.transactions(Stage::Scan)?, clients.restorer(Stage::Scan)?);
        let ends = (&stop, observer);
        let records = ScanLoop::try_new(source, scan, writers, of_scan, (options.reading, clock), ends)?.run()?;
        stop.scanned.store(true, Ordering::Release);
        Ok(records)
    };
    let judging = || {
        let transactions = clients.transactions(Stage::Judge)?;
        let source = clients.source(Stage::Judge, std::slice::from_ref(&options.topics.shuffle))?;
        let state = (options.topics.state.clone(), options.shards);
        let patience = (options.reading.patience, clock);
        let restorer = restorer(clients.restorer(Stage::Judge)?, reloading.shared.clone(), state, patience)?;
        let rows_max = options.reading.rows_max;
        let history = clients.restorer(Stage::Scan)?;
        let backfiller = Backfiller::start(history, options.shards, rows_max, options.reading.patience)?;
        let early = match options.delivery {
            Delivery::ExactlyOnce => None,
            Delivery::AtLeastOnce => Some(KafkaSink::try_new(properties, &clients.client_id(Stage::Judge))?),
        };
        let task = JudgeTask::new(options.topics.clone());
        let writers = Writers { transactions, early };
        let ends = (&stop, observer);
        let readers = (restorer, backfiller, reloading);
        JudgeLoop::try_new(source, task, writers, readers, (options.reading, clock), ends).run()
    };
    thread::scope(|scope| {
        let scanning = thread::Builder::new().name("scan".to_owned()).spawn_scoped(scope, || stop.run(scanning))?;
        let events = stop.run(judging);
        let records = scanning.join().unwrap_or(Err(TaskError::Thread("scan")));
        Ok(Summary { records: records?, events: events? })
    })
}

/// Makes the Kafka clients of an instance.
struct Clients<'a> {
    properties: &'a KafkaProperties,
    options: &'a TaskOptions,
}

impl Clients<'_> {
    fn group(&self, stage: Stage) -> String {
        format!("{}-{}", self.options.application_id, stage.as_str())
    }

    fn client_id(&self, stage: Stage) -> String {
        format!("{}-{}-{}", self.options.application_id, self.options.instance_id, stage.as_str())
    }

    fn source(&self, stage: Stage, topics: &[String]) -> Result<KafkaSource, ConnectorError> {
        let properties = match stage {
            Stage::Scan => self.properties.clone(),
            // Where telemetry is begun is for people to say. Parcels are our own: none may be passed over.
            Stage::Judge => self.properties.clone().with("consumer.auto.offset.reset", "earliest")?,
        };
        KafkaSource::try_new_held(&properties, &self.group(stage), &self.client_id(stage), topics)
    }

    /// The transactional id is the instance's own: a restarted instance aborts at once what it left open.
    fn transactions(&self, stage: Stage) -> Result<KafkaTransactions, ConnectorError> {
        let id = format!("{}-{}", self.group(stage), self.options.instance_id);
        let patience = self.options.reading.patience;
        KafkaTransactions::try_new(self.properties, &id, &self.client_id(stage), stage.as_str(), patience)
    }

    fn restorer(&self, stage: Stage) -> Result<KafkaRestorer, ConnectorError> {
        KafkaRestorer::try_new(self.properties, &self.group(stage), &format!("{}-restore", self.client_id(stage)))
    }
}
