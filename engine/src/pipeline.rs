//! Both stages with the exchange in memory: telemetry records in, decisions out.
//!
//! This is what `run`, `demo` and `test` have in common. It is a deterministic function of the records, the ticks and
//! the rule set: no clock, no I/O, no randomness.

use std::collections::BTreeMap;
use std::sync::Arc;

use lictor_connectors::{RecordRef, TopicPartition};
use lictor_queries::{Emission, RuleKind, RuleSet, WindowSpec};
use lictor_schemas::columns::ExtraSource;
use lictor_schemas::otlp::Decoder;
use lictor_schemas::prices::PriceTable;
use lictor_schemas::tables::Signal;
use lictor_schemas::time::EventTime;

use crate::aside::{DeadLetter, LateRows};
use crate::decision::{Decision, LimitReport, SUBJECTS_MAX};
use crate::exchange::RuleId;
use crate::exchange::parcel::{RuleName, RuleNames};
use crate::exchange::route::{Place, RuleRoute};
use crate::judge_stage::{JudgeRule, JudgeStage, RuleStatus};
use crate::scan_stage::{ScanCounts, ScanRule, ScanStage, Scanner};
use crate::segment::Boundaries;
use crate::shard::JudgeSettings;
use crate::watermark::{SourceClocks, Tolerances};
use crate::windowed::WindowedRule;

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
    /// Groups of one rule over all its open windows; at about 150 bytes each the default is 150 MB.
    pub groups_max: usize,
    /// Directives of one rule that hold at a time.
    pub subjects_max: usize,
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
    /// How each rule's groups are spread over shards.
    pub routes: Vec<RuleRoute>,
}

impl Stages {
    /// Nothing has been read yet.
    #[must_use]
    pub fn new(rules: RuleSet, prices: Arc<PriceTable>, settings: &PipelineSettings) -> Self {
        let decoder = Decoder::new(&rules.wanted, &settings.columns, prices);
        let mut boundaries = Boundaries::default();
        let (mut scan, mut judge, mut routes, mut names) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let is_whole = rules.is_whole;
        for (number, rule) in rules.rules.into_iter().enumerate() {
            let (id, table, signal, name) = (RuleId(number), rule.table, rule.table.signal(), rule.header.name.clone());
            let (scanner, windowed, keys) = match rule.kind {
                RuleKind::RowWise(row_wise) => {
                    boundaries.add_ttl(signal, rule.header.ttl_ns);
                    names.push(RuleName { name: name.clone(), windowed: None });
                    (Scanner::RowWise(*row_wise), None, Vec::new())
                }
                RuleKind::Windowed(windowed) => {
                    let lictor_queries::WindowedRule { emission, scan, aggregation, finish, distribution, state_id } =
                        *windowed;
                    match (emission, aggregation.spec()) {
                        (Emission::OnUpdate, WindowSpec::Session { .. }) => boundaries.add_every_step(signal),
                        (_, spec) => boundaries.add_windows(signal, spec),
                    }
                    let state = Some((state_id, aggregation.partial_schema()));
                    names.push(RuleName { name: name.clone(), windowed: state });
                    let route = RuleRoute { name: name.clone(), keys: distribution.clone() };
                    let judging = Arc::new(WindowedRule { emission, aggregation, finish, route });
                    (Scanner::Windowed(scan), Some(judging), distribution)
                }
            };
            let emits_on_update = windowed.as_ref().is_some_and(|w| w.emission == Emission::OnUpdate);
            scan.push(ScanRule { id, table, scanner, emits_on_update, is_quarantined: false });
            judge.push(JudgeRule { header: rule.header, signal, windowed });
            routes.push(RuleRoute { name, keys });
        }
        let clocks = SourceClocks::new(settings.tolerances);
        let judge = JudgeSettings {
            rules: judge.into(),
            names: RuleNames::new(names),
            is_whole,
            application_id: settings.application_id.clone(),
            lateness_ns: settings.tolerances.lateness_ns,
            groups_max: settings.groups_max,
            subjects_max: settings.subjects_max,
        };
        let scan = ScanStage::new(decoder, scan, clocks, boundaries, settings.signals.clone());
        Self { scan, judge, routes }
    }
}

/// Two stages with the exchange in memory.
pub struct Pipeline {
    scan: ScanStage,
    judge: JudgeStage,
}

impl Pipeline {
    /// Nothing has been read yet.
    #[must_use]
    pub fn new(rules: RuleSet, prices: Arc<PriceTable>, settings: &PipelineSettings) -> Self {
        let Stages { scan, judge, .. } = Stages::new(rules, prices, settings);
        Self { scan, judge: judge.stage(Place::ONLY) }
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
        let mut decisions = Vec::new();
        for shipment in self.scan.flush(now, false) {
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

    /// How every rule is doing.
    #[must_use]
    pub fn status(&self) -> Vec<RuleStatus> {
        self.judge.status()
    }

    /// The topics whose telemetry some rule reads.
    #[must_use]
    pub fn topics_read(&self) -> Vec<String> {
        self.scan.topics_read().into_iter().collect()
    }
}
