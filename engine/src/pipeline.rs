//! Both stages with the exchange in memory: telemetry records in, decisions out.
//!
//! This is what `run`, `demo` and `test` have in common. It is a deterministic function of the records, the ticks and
//! the rule set: no clock, no I/O, no randomness.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use lictor_connectors::{RecordRef, TopicPartition};
use lictor_queries::{
    CompiledRule, CompiledStore, Emission, Feed, JoinedThen, RuleKind, RuleSet, ScanPlan, StreamJoin, WindowSpec,
};
use lictor_schemas::columns::ExtraSource;
use lictor_schemas::otlp::Decoder;
use lictor_schemas::prices::PriceTable;
use lictor_schemas::rule::Mode;
use lictor_schemas::tables::{Signal, Table};
use lictor_schemas::time::EventTime;

use crate::aside::{DeadLetter, LateRows};
use crate::backfill::BackfillPlan;
use crate::decision::{AllStanding, Decision, LimitReport, SUBJECTS_MAX};
use crate::decoding::Decoded;
use crate::exchange::parcel::{Names, StoreName};
use crate::exchange::route::{Place, Routes, StoreRoute};
use crate::exchange::{RuleId, Shipment, StoreId};
use crate::frontier::{Frontier, Joining, Term};
use crate::join::{JoinRule, JoinThen};
use crate::judge_stage::{JudgeRule, JudgeStage, Judging, RuleBody, RuleStatus};
use crate::scan_stage::{ScanCounts, ScanStage, Scanner, Scanning};
use crate::segment::Boundaries;
use crate::shard::JudgeSettings;
use crate::store::StorePlan;
use crate::tasks::Rota;
use crate::watermark::{Mark, SourceClocks, Tolerances};
use crate::windowed::{Observed, WindowedRule};

/// What a pipeline must know besides its rules.
#[derive(Clone, Debug)]
pub struct PipelineSettings {
    /// Names this deployment in event sources.
    pub application_id: String,
    /// Which topic carries which signal.
    pub signals: BTreeMap<String, Signal>,
    /// The tolerances of event time.
    pub tolerances: Tolerances,
    /// In-house attributes that feed canonical columns.
    pub columns: Vec<ExtraSource>,
    /// Groups of one rule over all its open windows. With a text as their key and four aggregates they take 330 to 450
    /// bytes each: the default is up to 450 MB, and twice that while a window of all of them closes.
    pub groups_max: usize,
    /// Directives of one rule that hold at a time.
    pub subjects_max: usize,
    /// How far before the moment at which a rule comes telemetry is read once more for it; 0: not at all.
    pub reach_ns: i64,
    /// In shadow mode no rule's directives are to be applied, whatever it says itself.
    pub mode: Mode,
}

impl Default for PipelineSettings {
    fn default() -> Self {
        let topics = [("otlp_spans", Signal::Traces), ("otlp_logs", Signal::Logs), ("otlp_metrics", Signal::Metrics)];
        Self {
            application_id: "lictor".to_owned(),
            signals: topics.map(|(t, s)| (t.to_owned(), s)).into(),
            tolerances: Tolerances::default(),
            columns: Vec::new(),
            groups_max: 1_000_000,
            subjects_max: SUBJECTS_MAX,
            reach_ns: 0,
            mode: Mode::Enforce,
        }
    }
}

/// What one epoch has brought forth.
#[derive(Debug, Default)]
pub struct Epoch {
    /// Events and directives, in the order in which they must be published.
    pub decisions: Vec<Decision>,
    /// Records and items for the dead-letter topic.
    pub dead: Vec<DeadLetter>,
    /// Notes for the late topic.
    pub late: Vec<LateRows>,
    /// How much left the scan on which way.
    pub counts: ScanCounts,
    /// Rules that have reached their limit of subjects.
    pub limits: Vec<LimitReport>,
}

/// The parts of an instance, made of its rules: they run together in a [`Pipeline`], or each in a task of its own.
pub struct Stages {
    /// Reads telemetry.
    pub scan: ScanStage,
    /// Makes the state of each shard.
    pub judge: JudgeSettings,
    /// How everything is spread over shards.
    pub routes: Routes,
}

impl Stages {
    /// Nothing has been read yet.
    #[must_use]
    pub fn new(rules: RuleSet, prices: Arc<PriceTable>, settings: &PipelineSettings) -> Self {
        let wanted = rules.wanted.clone();
        let decoder = Decoder::new(&wanted, &settings.columns, Arc::clone(&prices));
        let is_whole = rules.is_whole;
        let names: Vec<String> = rules.rules.iter().map(|rule| rule.header.name.clone()).collect();
        let mut parts = Parts::default();
        for (number, mut rule) in rules.rules.into_iter().enumerate() {
            if settings.mode == Mode::Shadow {
                rule.header.mode = Mode::Shadow;
            }
            parts.add_rule(RuleId(number), rule);
        }
        for (number, store) in rules.stores.into_iter().enumerate() {
            parts.add_store(StoreId(number), store);
        }
        let Parts { boundaries, scannings, judges, stores, store_names, history, readers: _ } = parts;
        let routes = Routes { rules: names.clone(), stores: stores.iter().map(|store| store.route.clone()).collect() };
        let clocks = SourceClocks::new(settings.tolerances);
        let names = Names::new(names, store_names);
        let judging = Judging {
            rules: judges.into(),
            stores: stores.into(),
            fingerprint: names.fingerprint(),
            groups_max: settings.groups_max,
        };
        let backfill = (settings.reach_ns > 0).then(|| BackfillPlan {
            scans: history,
            wanted,
            columns: settings.columns.clone(),
            prices,
            signals: settings.signals.clone(),
            tolerances: settings.tolerances,
            routes: routes.clone(),
            reach_ns: settings.reach_ns,
        });
        let judge = JudgeSettings {
            judging,
            names,
            backfill,
            is_whole,
            application_id: settings.application_id.clone(),
            mode: settings.mode,
            lateness_ns: settings.tolerances.lateness_ns,
            subjects_max: settings.subjects_max,
        };
        let scan = ScanStage::new(decoder, scannings, clocks, boundaries, settings.signals.clone());
        Self { scan, judge, routes }
    }
}

/// The stages while they are put together.
#[derive(Default)]
struct Parts {
    boundaries: Boundaries,
    scannings: Vec<Scanning>,
    judges: Vec<JudgeRule>,
    stores: Vec<Arc<StorePlan>>,
    store_names: Vec<StoreName>,
    /// What sums up telemetry once more.
    history: BTreeMap<StoreId, (Table, ScanPlan)>,
    /// The rules that read each store.
    readers: BTreeMap<StoreId, Vec<RuleId>>,
}

impl Parts {
    fn add_rule(&mut self, id: RuleId, rule: CompiledRule) {
        let CompiledRule { header, table, kind, source: _ } = rule;
        let signal = table.signal();
        let (body, frontier) = match kind {
            RuleKind::RowWise(row_wise) => {
                self.boundaries.add_ttl(signal, header.ttl_ns);
                let scanner = Scanner::RowWise(id, row_wise);
                self.scannings.push(Scanning::new(table, scanner, false, vec![header.name.clone()]));
                (RuleBody::Rows, Frontier::of(signal))
            }
            RuleKind::Windowed(windowed) => (RuleBody::Windowed(self.windowed(id, *windowed)), Frontier::of(signal)),
            RuleKind::Joined(joined) => {
                let lictor_queries::JoinedRule { join, sides, tables, then } = *joined;
                tables.iter().for_each(|table| self.boundaries.add_ttl(table.signal(), header.ttl_ns));
                let joining = joining(&join, tables);
                let sides = sides.map(StoreId);
                sides.iter().for_each(|side| self.readers.entry(*side).or_default().push(id));
                let (then, frontier) = match then {
                    JoinedThen::Rows(rows) => (JoinThen::Rows(rows), joining.come_to_be()),
                    JoinedThen::Windowed { scan, follows, rule } => {
                        let rule = self.windowed(id, *rule);
                        (JoinThen::Windowed { scan, rule }, joining.followed(follows))
                    }
                };
                (RuleBody::Joined(Arc::new(JoinRule { join, sides, then })), frontier)
            }
        };
        self.judges.push(JudgeRule { header, frontier, body });
    }

    fn windowed(&mut self, id: RuleId, windowed: lictor_queries::WindowedRule) -> Arc<WindowedRule> {
        let lictor_queries::WindowedRule { store, emission, finish } = windowed;
        let store = StoreId(store);
        let readers = self.readers.entry(store).or_default();
        let reader = readers.len();
        readers.push(id);
        Arc::new(WindowedRule { store, reader, emission, finish })
    }

    fn add_store(&mut self, id: StoreId, store: CompiledStore) {
        if let Feed::Table { table, scan } = &store.feed
            && store.can_be_warmed()
        {
            self.history.insert(id, (*table, scan.plan()));
        }
        let CompiledStore { feed, emission, aggregation, distribution, spread_by, state_id } = store;
        let readers = self.readers.remove(&id).unwrap_or_default();
        self.store_names.push(StoreName { state: state_id.clone(), schema: aggregation.partial_schema() });
        let (frontier, side) = match &feed {
            Feed::Table { table, .. } => (Frontier::of(table.signal()), None),
            Feed::Side { join, tables, side, .. } => (joining(join, *tables).kept(*side), Some(*side)),
            Feed::Joined { join, tables, follows } => (joining(join, *tables).followed(*follows), None),
        };
        for Term { signal, shift_ns, quantum_ns, .. } in frontier.terms() {
            let spec = quantum_ns.map_or(aggregation.spec(), |quantum| WindowSpec::tumbling(quantum, 0));
            match (emission, spec) {
                (Emission::OnUpdate, WindowSpec::Session { .. }) => self.boundaries.add_every_step(*signal),
                (_, spec) => self.boundaries.add_windows(*signal, spec, *shift_ns),
            }
        }
        let route = StoreRoute { name: spread_by, keys: distribution };
        let rules = readers.iter().map(|rule| self.judges[rule.0].header.name.clone()).collect();
        self.stores.push(Arc::new(StorePlan { state_id, frontier, emission, aggregation, route, side, readers }));
        let (table, scan, emits_on_update) = match feed {
            Feed::Table { table, scan } => (table, scan, emission == Emission::OnUpdate),
            Feed::Side { table, scan, is_prompt, .. } => (table, scan, is_prompt),
            Feed::Joined { .. } => return,
        };
        let scanner = Scanner::Windowed(id, scan);
        self.scannings.push(Scanning::new(table, scanner, emits_on_update, rules));
    }
}

fn joining(join: &StreamJoin, tables: [Table; 2]) -> Joining {
    Joining { tables, bounds: join.bounds(), pane_ns: join.pane_ns() }
}

/// Two stages with the exchange in memory.
pub struct Pipeline {
    scan: ScanStage,
    judge: JudgeStage,
    rota: Rota,
}

impl Pipeline {
    /// Nothing has been read yet.
    #[must_use]
    pub fn new(rules: RuleSet, prices: Arc<PriceTable>, settings: &PipelineSettings) -> Self {
        let Stages { scan, judge, .. } = Stages::new(rules, prices, settings);
        Self { scan, judge: judge.stage(Place::ONLY), rota: Rota::default() }
    }

    /// This instance reads `partition` from `now` on, by the processing clock: windows wait for it.
    pub fn assign(&mut self, partition: TopicPartition, now: EventTime) {
        self.scan.assign(partition, now);
    }

    /// This instance reads `partition` no more.
    pub fn revoke(&mut self, partition: &TopicPartition) {
        self.scan.revoke(partition);
        self.judge.revoke(partition);
    }

    /// We are behind at `now`, by the processing clock: partitions that are not heard may have records that wait for
    /// us, so none falls idle.
    pub fn excuse_silence(&mut self, now: EventTime) {
        self.scan.excuse_silence(now);
    }

    /// Takes one record, read at `now` by the processing clock.
    pub fn absorb(&mut self, record: RecordRef<'_>, now: EventTime) {
        self.scan.absorb(record, now);
    }

    /// Rows taken since the last epoch ended.
    #[must_use]
    pub fn rows_pending(&self) -> usize {
        self.scan.rows_pending()
    }

    /// Ends an epoch at `now`, by the processing clock.
    pub fn end_epoch(&mut self, now: EventTime) -> Epoch {
        let shipments = self.scan.flush(now, false);
        self.judge(shipments)
    }

    /// As [`Pipeline::absorb`] and [`Pipeline::end_epoch`], for records that were decoded elsewhere.
    pub fn take_over(&mut self, decoded: Decoded, now: EventTime) -> Epoch {
        let shipments = self.scan.take_over(decoded, now);
        self.judge(shipments)
    }

    fn judge(&mut self, shipments: Vec<Shipment>) -> Epoch {
        let mut decisions = Vec::new();
        for shipment in shipments {
            decisions.extend(self.judge.absorb(shipment));
        }
        if let Err(error) = self.judge.commit() {
            unreachable!("states of one rule have the same columns: {error}");
        }
        let (dead, late) = self.scan.take_aside();
        let limits = self.judge.take_limit_reports();
        Epoch { decisions, dead, late, counts: self.scan.take_counts(), limits }
    }

    /// The watermark of a signal.
    #[must_use]
    pub fn watermark(&self, signal: Signal) -> EventTime {
        self.judge.watermark(signal)
    }

    /// The newest row that counts; none before the first.
    #[must_use]
    pub fn newest(&self) -> Option<EventTime> {
        self.scan.newest()
    }

    /// How every rule is doing.
    #[must_use]
    pub fn status(&self) -> Vec<RuleStatus> {
        self.judge.status()
    }

    /// The input partition that holds a signal's time back; none if all are idle.
    #[must_use]
    pub fn slowest(&self, signal: Signal) -> Option<&Mark> {
        self.judge.slowest(signal)
    }

    /// Where every input partition stands.
    #[must_use]
    pub fn marks(&self) -> Vec<Mark> {
        self.judge.marks().cloned().collect()
    }

    /// The directives that hold now; at most `max`.
    #[must_use]
    pub fn standing(&self, max: usize) -> AllStanding {
        let mut all = AllStanding::default();
        self.judge.add_standing(max, &mut all);
        all
    }

    /// How long scanning and judging have taken, of each rule.
    #[must_use]
    pub fn spent(&self) -> [BTreeMap<String, Duration>; 2] {
        [self.scan.spent(), self.judge.spent().map(|(rule, spent)| (rule.to_owned(), spent)).collect()]
    }

    /// What groups measure of the rules whose turn it is.
    pub fn observe(&mut self) -> Vec<(String, Observed)> {
        let (mut seen, judge) = (Vec::new(), &mut self.judge);
        self.rota.go(judge.rules(), |number| {
            let Some(look) = judge.observe(RuleId(number)) else { return false };
            seen.extend(look.seen.map(|observed| (judge.name_of(RuleId(number)).to_owned(), observed)));
            true
        });
        seen
    }

    /// The topics whose telemetry some rule reads.
    #[must_use]
    pub fn topics_read(&self) -> Vec<String> {
        self.scan.topics_read().into_iter().collect()
    }
}

#[cfg(test)]
mod tests;
