//! Sums up history beside the judge task, on a thread of its own: nobody waits for it but the rules that need it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread;
use std::time::Duration;

use lictor_connectors::{ConnectorError, KafkaRestorer, NextOffset, Retry, TopicPartition};
use lictor_schemas::time::EventTime;

use super::TaskError;
use crate::backfill::{Backfill, BackfillPlan};
use crate::exchange::route::Router;
use crate::exchange::{Shipment, StoreFailure, StoreId};
use crate::scan_stage::ScanStage;
use crate::shard::JudgeSettings;

/// The pause before history is begun anew when the broker was away.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// History, summed up.
pub(super) struct Backfilled {
    /// The rules it was summed up for.
    pub(super) settings: Arc<JudgeSettings>,
    pub(super) backfill: Backfill,
    /// What each shard gets; nothing if history cannot be had.
    pub(super) shipments: BTreeMap<i32, Vec<Shipment>>,
    /// Windows that began earlier are not whole; none if history cannot be had.
    pub(super) since: Option<EventTime>,
    pub(super) records: u64,
}

struct Request {
    settings: Arc<JudgeSettings>,
    backfill: Backfill,
    is_wanted: Arc<AtomicBool>,
}

/// Sums up one piece of history at a time.
pub(super) struct Backfiller {
    requests: SyncSender<Request>,
    answers: Receiver<Result<Backfilled, TaskError>>,
    /// Whether what is under way is wanted; none if nothing is.
    is_wanted: Option<Arc<AtomicBool>>,
}

impl Backfiller {
    /// `log` reads for the new thread, which spreads sums over so many `shards` and shows at most `rows_max` rows at a
    /// time to a store.
    pub(super) fn start(
        mut log: KafkaRestorer,
        shards: u32,
        rows_max: usize,
        patience: Duration,
    ) -> Result<Self, TaskError> {
        let (requests, inbox) = sync_channel::<Request>(1);
        let (outbox, answers) = sync_channel(1);
        let work = move || {
            while let Ok(request) = inbox.recv() {
                let mut reader = Reader { log: &mut log, patience, rows_max, shards };
                if outbox.send(reader.answer(request)).is_err() {
                    break;
                }
            }
        };
        // Not joined: it may be waiting for the broker when the process wants to end.
        thread::Builder::new().name("backfiller".to_owned()).spawn(work)?;
        Ok(Self { requests, answers, is_wanted: None })
    }

    /// Whether it has nothing to do.
    pub(super) fn is_idle(&self) -> bool {
        self.is_wanted.is_none()
    }

    /// Begins; only if it is idle.
    pub(super) fn request(&mut self, settings: Arc<JudgeSettings>, backfill: Backfill) -> Result<(), TaskError> {
        let is_wanted = Arc::new(AtomicBool::new(true));
        let request = Request { settings, backfill, is_wanted: Arc::clone(&is_wanted) };
        self.is_wanted = Some(is_wanted);
        self.requests.try_send(request).map_err(|_| TaskError::Thread("backfiller"))
    }

    /// What is under way is of no use any more.
    pub(super) fn cancel(&mut self) {
        if let Some(is_wanted) = &self.is_wanted {
            is_wanted.store(false, Ordering::Relaxed);
        }
    }

    /// What has been summed up, if it is ready.
    pub(super) fn answer(&mut self) -> Result<Option<Backfilled>, TaskError> {
        match self.answers.try_recv() {
            Ok(answer) => {
                let is_wanted = self.is_wanted.take().is_some_and(|is_wanted| is_wanted.load(Ordering::Relaxed));
                answer.map(|answer| is_wanted.then_some(answer))
            }
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(TaskError::Thread("backfiller")),
        }
    }
}

/// Reads telemetry that was read before.
struct Reader<'a> {
    log: &'a mut KafkaRestorer,
    patience: Duration,
    rows_max: usize,
    shards: u32,
}

impl Reader<'_> {
    /// Until the broker lets us, or nobody wants it any more. If it refuses for good the rules begin at nothing.
    fn answer(&mut self, Request { settings, backfill, is_wanted }: Request) -> Result<Backfilled, TaskError> {
        let nothing = || Backfilled {
            settings: Arc::clone(&settings),
            backfill: backfill.clone(),
            shipments: BTreeMap::new(),
            since: None,
            records: 0,
        };
        while is_wanted.load(Ordering::Relaxed) {
            match self.sum_up(&settings, &backfill, &is_wanted) {
                Ok((shipments, since, records)) => {
                    return Ok(Backfilled { shipments, since: Some(since), records, ..nothing() });
                }
                Err(error) if error.retry() == Retry::Backoff => {
                    tracing::warn!(%error, "history cannot be read yet");
                    thread::park_timeout(AGAIN_AFTER);
                }
                Err(error) => {
                    tracing::error!(%error, "history cannot be read: the rules that wait for it begin at nothing");
                    break;
                }
            }
        }
        Ok(nothing())
    }

    #[expect(clippy::type_complexity, reason = "the three parts of an answer")]
    fn sum_up(
        &mut self,
        settings: &JudgeSettings,
        backfill: &Backfill,
        is_wanted: &AtomicBool,
    ) -> Result<(BTreeMap<i32, Vec<Shipment>>, EventTime, u64), ConnectorError> {
        let mut summed = Summed::new(backfill, self.shards);
        let Some(plan) = &settings.backfill else { return Ok((summed.shipments, backfill.read_from, 0)) };
        let mut stage = match plan.stage(&backfill.stores) {
            Ok(stage) => stage,
            Err(error) => {
                summed.fail(&backfill.stores, &error.to_string());
                return Ok((summed.shipments, backfill.read_from, 0));
            }
        };
        let router = Router::new(self.shards, plan.routes.clone());
        let (mut since, mut records) = (backfill.read_from, 0);
        for (partition, end) in &backfill.ends {
            let (first, is_cut) = self.first_of(partition, plan, backfill.read_from)?;
            let mut is_first = is_cut;
            records += self.log.read_between(partition, first..*end, self.patience, &mut |record| {
                if std::mem::take(&mut is_first) {
                    since = since.max(EventTime::from_ms(record.timestamp_ms));
                }
                stage.absorb(record, backfill.read_from);
                if stage.rows_pending() >= self.rows_max {
                    summed.take(&mut stage, &router, backfill.read_from, true);
                }
                if is_wanted.load(Ordering::Relaxed) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
        }
        summed.take(&mut stage, &router, backfill.read_from, false);
        Ok((summed.shipments, since, records))
    }

    /// From where a partition is read, and whether earlier records were deleted that would be needed.
    fn first_of(
        &self,
        partition: &TopicPartition,
        plan: &BackfillPlan,
        read_from: EventTime,
    ) -> Result<(NextOffset, bool), ConnectorError> {
        let begin = self.log.begin_of(partition, self.patience)?;
        let at_ms = plan.first_stamp(read_from).0.div_euclid(1_000_000);
        let first = self.log.offset_at(partition, at_ms, self.patience)?;
        let first = first.unwrap_or(NextOffset(i64::MAX));
        Ok((first.max(begin), begin > NextOffset(0) && first <= begin))
    }
}

/// Sums by shard.
struct Summed {
    shipments: BTreeMap<i32, Vec<Shipment>>,
}

impl Summed {
    fn new(backfill: &Backfill, shards: u32) -> Self {
        let is_one = |shard: &i32| u32::try_from(*shard).is_ok_and(|shard| shard < shards);
        Self { shipments: backfill.shards.iter().copied().filter(is_one).map(|shard| (shard, Vec::new())).collect() }
    }

    /// Takes the sums that a stage has made; unless it `may_hold` them, and nothing is urgent.
    fn take(&mut self, stage: &mut ScanStage, router: &Router, now: EventTime, may_hold: bool) {
        for shipment in stage.flush(now, may_hold) {
            for (shard, of_shard) in (0..).zip(router.split(shipment)) {
                if let Some(shipments) = self.shipments.get_mut(&shard).filter(|_| !of_shard.is_empty()) {
                    shipments.push(of_shard);
                }
            }
        }
        // Dead letters and late rows were told of when they were read first.
        drop((stage.take_aside(), stage.take_counts()));
    }

    fn fail(&mut self, stores: &BTreeSet<StoreId>, message: &str) {
        let failure = |store: &StoreId| StoreFailure { store: *store, message: message.to_owned() };
        for shipments in self.shipments.values_mut() {
            let store_failures = stores.iter().map(failure).collect();
            shipments.push(Shipment { store_failures, ..Shipment::empty(EventTime::MIN) });
        }
    }
}
