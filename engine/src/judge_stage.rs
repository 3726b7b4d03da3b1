//! The judge stage: partial aggregates in, decisions out.
//!
//! It owns every state that a rule remembers: panes, the history of window functions, what is firing. Windows close
//! when the watermark of the rule's signal passes their end; rules that emit on update are judged after every record
//! that may make them say something, on the groups that it has changed.

mod look;
mod turns;
mod warming;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use lictor_connectors::TopicPartition;
use lictor_queries::{EvaluationError, JoinSide};
use lictor_schemas::rule::{Mode, RuleHeader};
use lictor_schemas::tables::Signal;
use lictor_schemas::time::{EventTime, Window};

use crate::clock::Stopwatch;
use crate::decision::{Decision, Decisions, LimitReport};
use crate::exchange::route::Place;
use crate::exchange::{RuleFailure, RuleId, Shipment, StoreFailure, StoreId};
use crate::frontier::Frontier;
use crate::join::{JoinRule, JoinState, JoinThen, LeafCounts};
use crate::pane::PaneError;
use crate::store::{PaneStore, StorePlan};
use crate::watermark::{Mark, Watermarks};
use crate::windowed::{Closed, Update, WindowedRule, WindowedState};

/// The judging half of a rule: the same for every shard.
#[derive(Debug)]
pub struct JudgeRule {
    /// Its head.
    pub header: RuleHeader,
    /// How far its time has come.
    pub frontier: Frontier,
    /// What it judges.
    pub body: RuleBody,
}

/// What a rule judges.
#[derive(Debug)]
pub enum RuleBody {
    /// Rows, one by one, where they are read.
    Rows,
    /// Windows.
    Windowed(Arc<WindowedRule>),
    /// Joined rows, or windows of them.
    Joined(Arc<JoinRule>),
}

impl JudgeRule {
    /// How its windows are judged, if it has any.
    pub(crate) fn windowed(&self) -> Option<&Arc<WindowedRule>> {
        match &self.body {
            RuleBody::Rows => None,
            RuleBody::Windowed(windowed) => Some(windowed),
            RuleBody::Joined(joined) => match &joined.then {
                JoinThen::Rows(_) => None,
                JoinThen::Windowed { rule, .. } => Some(rule),
            },
        }
    }

    /// What it reads.
    pub(crate) fn stores(&self) -> Vec<StoreId> {
        let sides = match &self.body {
            RuleBody::Joined(joined) => joined.sides.to_vec(),
            RuleBody::Rows | RuleBody::Windowed(_) => Vec::new(),
        };
        sides.into_iter().chain(self.windowed().map(|windowed| windowed.store)).collect()
    }
}

/// What shards judge by: the same for all of them.
#[derive(Clone, Debug)]
pub struct Judging {
    /// The rules, in the order of their numbers.
    pub rules: Arc<[JudgeRule]>,
    /// What they sum up, in the order of their numbers.
    pub stores: Arc<[Arc<StorePlan>]>,
    /// Which stores those are, for whoever feeds them.
    pub fingerprint: u64,
    /// Bounds the groups of one rule over all its open windows, per shard.
    pub groups_max: usize,
}

/// What a rule remembers.
#[derive(Debug)]
pub(crate) struct RuleState {
    /// What it remembers of its windows besides the sums; none for a row-wise rule.
    pub(crate) windowed: Option<WindowedState>,
    /// For a rule over a join: what finds the rows.
    joined: Option<JoinState>,
    /// Why it does not run any more.
    pub(crate) quarantined: Option<String>,
    was_quarantined: bool,
    /// How long judging it has taken; for people who look.
    spent: Duration,
}

/// Owns the state of all rules, of one shard of their groups.
///
/// Between two commits everything can be undone.
#[derive(Debug)]
pub struct JudgeStage {
    judging: Judging,
    states: Vec<RuleState>,
    stores: Vec<PaneStore>,
    decisions: Decisions,
    watermarks: Watermarks,
    committed_watermarks: Watermarks,
}

/// What the console and the metrics show of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleStatus {
    /// Its name.
    pub name: String,
    /// Groups with state, over all open windows, and the rows of closed ones that window functions look back at.
    pub groups: usize,
    /// Memory of that state, in bytes.
    pub state_bytes: usize,
    /// Whether its directives are to be applied.
    pub mode: Mode,
    /// Directives that hold now.
    pub firing: usize,
    /// Violations that have not gone on for long enough yet.
    pub pending: usize,
    /// Groups that came for windows already closed.
    pub dropped: u64,
    /// How often it was not sure which spans of a trace count, if it reads `USAGE_LEAVES`.
    pub leaves: LeafCounts,
    /// Whether it waits for sums over telemetry that was read before it was there.
    pub is_warming: bool,
    /// Why it does not run any more.
    pub quarantined: Option<String>,
}

impl RuleStatus {
    /// Adds what another shard says of the same rule.
    pub fn add(&mut self, other: Self) {
        self.groups += other.groups;
        self.state_bytes += other.state_bytes;
        self.firing += other.firing;
        self.pending += other.pending;
        self.dropped += other.dropped;
        self.leaves.late += other.leaves.late;
        self.leaves.unsearched += other.leaves.unsearched;
        self.is_warming |= other.is_warming;
        self.quarantined = self.quarantined.take().or(other.quarantined);
    }
}

impl JudgeStage {
    /// Nothing has been judged yet at `place`.
    #[must_use]
    pub fn new(judging: Judging, place: Place, decisions: Decisions, watermarks: Watermarks) -> Self {
        let state = |rule: &JudgeRule| RuleState {
            windowed: rule.windowed().map(|w| WindowedState::new(Arc::clone(w), place)),
            joined: match &rule.body {
                RuleBody::Joined(joined) => Some(JoinState::new(Arc::clone(joined))),
                RuleBody::Rows | RuleBody::Windowed(_) => None,
            },
            quarantined: None,
            was_quarantined: false,
            spent: Duration::ZERO,
        };
        let states = judging.rules.iter().map(state).collect();
        let stores = judging.stores.iter().map(|plan| PaneStore::new(Arc::clone(plan))).collect();
        let committed_watermarks = watermarks.clone();
        Self { judging, states, stores, decisions, watermarks, committed_watermarks }
    }

    /// What is there now stays.
    ///
    /// # Errors
    /// States cannot be copied together.
    pub fn commit(&mut self) -> Result<(), PaneError> {
        for state in &mut self.states {
            state.was_quarantined = state.quarantined.is_some();
            if let Some(windowed) = &mut state.windowed {
                windowed.commit();
            }
            if let Some(joined) = &mut state.joined {
                joined.commit();
            }
        }
        self.stores.iter_mut().try_for_each(PaneStore::commit)?;
        self.decisions.commit();
        self.committed_watermarks.clone_from(&self.watermarks);
        Ok(())
    }

    /// Goes back to the last commit.
    ///
    /// # Errors
    /// A key that was there cannot be indexed again; the state is no good any more.
    pub fn undo(&mut self) -> Result<(), PaneError> {
        for state in &mut self.states {
            if !state.was_quarantined {
                state.quarantined = None;
            }
            if let Some(windowed) = &mut state.windowed {
                windowed.undo();
            }
            if let Some(joined) = &mut state.joined {
                joined.undo();
            }
        }
        self.stores.iter_mut().try_for_each(PaneStore::undo)?;
        self.decisions.undo();
        self.watermarks.clone_from(&self.committed_watermarks);
        Ok(())
    }

    /// The rules and what they remember, in the order of the rule set.
    pub(crate) fn states(&self) -> impl Iterator<Item = (&JudgeRule, &RuleState)> {
        self.judging.rules.iter().zip(&self.states)
    }

    /// What they sum up, in the order of the rule set.
    pub(crate) fn stores(&self) -> &[PaneStore] {
        &self.stores
    }

    /// What was decided.
    pub(crate) fn decisions(&self) -> &Decisions {
        &self.decisions
    }

    /// How far time has come.
    pub(crate) fn watermarks(&self) -> &Watermarks {
        &self.watermarks
    }

    /// Takes over what a log remembers; to be called once, before anything is absorbed.
    pub(crate) fn restore(
        &mut self,
        watermarks: Watermarks,
        stores: Vec<PaneStore>,
        states: impl IntoIterator<Item = (RuleId, WindowedState)>,
        quarantined: impl IntoIterator<Item = (RuleId, String)>,
    ) {
        self.committed_watermarks = watermarks.clone();
        self.watermarks = watermarks;
        self.stores = stores;
        for (rule, state) in states {
            self.states[rule.0].windowed = Some(state);
        }
        for (rule, message) in quarantined {
            self.states[rule.0].quarantined = Some(message);
            self.states[rule.0].was_quarantined = true;
        }
    }

    /// What was decided, to be filled from a log.
    pub(crate) fn decisions_mut(&mut self) -> &mut Decisions {
        &mut self.decisions
    }

    /// Takes a shipment over and decides; what has failed says nothing more. Events of updates come record by record,
    /// then all others. Of each, events come in the order of rules, and within a rule in that of event time.
    pub fn absorb(&mut self, shipment: Shipment) -> Vec<Decision> {
        let mut decided = Vec::new();
        if let Some(feeding) = shipment.feeding {
            let are_ours = feeding.stores == self.judging.fingerprint;
            self.stores.iter_mut().for_each(|store| store.feed(shipment.feeder, &feeding, are_ours));
        }
        for RuleFailure { rule, message } in shipment.failures {
            self.quarantine(rule, message);
        }
        for StoreFailure { store, message } in shipment.store_failures {
            self.quarantine_readers(store, &message);
        }
        self.absorb_updates(shipment.updates, shipment.feeder, &mut decided);
        for (rule, violations) in shipment.violations {
            if self.states[rule.0].quarantined.is_none() {
                decided.extend(self.decisions.rows(&self.judging.rules[rule.0].header, violations));
            }
        }
        for (store, partial) in shipment.partials {
            if self.is_fed_by(store, shipment.feeder) {
                self.absorb_partial(store, &partial, &mut decided);
            }
        }
        let is_beginning = !shipment.sources.is_empty();
        self.watermarks.expect(shipment.sources);
        self.watermarks.absorb(shipment.marks, shipment.now);
        if is_beginning {
            self.begin_new_stores();
        }
        self.step(&mut decided);
        decided
    }

    /// Lets every rule say what the time that has come makes it say.
    fn step(&mut self, decided: &mut Vec<Decision>) {
        self.advance_all((0..self.judging.rules.len()).map(RuleId), decided);
        for store in &mut self.stores {
            let plan = Arc::clone(store.plan());
            store.let_go(plan.frontier.at(&self.watermarks));
        }
    }

    fn advance_all(&mut self, rules: impl IntoIterator<Item = RuleId>, decided: &mut Vec<Decision>) {
        let is_any_warming = self.stores.iter().any(|store| store.warming().is_some());
        for rule in rules {
            // Its time stands still: what is firing neither goes on nor ends before it is known.
            if is_any_warming && self.is_warming(rule) {
                continue;
            }
            self.isolate(rule, decided, |judge, decided| judge.advance(rule, decided));
        }
    }

    fn newest_of(&self, store: &PaneStore) -> EventTime {
        let newest = store.plan().frontier.signals().map(|signal| self.watermarks.newest(signal)).max();
        newest.unwrap_or(EventTime::MIN)
    }

    /// Somebody has begun to read with the rules that we have.
    fn begin_new_stores(&mut self) {
        for number in 0..self.stores.len() {
            let newest = self.newest_of(&self.stores[number]);
            self.stores[number].begins(newest);
        }
    }

    /// Windows wait for `partition` no more.
    pub fn revoke(&mut self, partition: &TopicPartition) {
        self.watermarks.forget(partition);
    }

    /// The watermark of a signal.
    #[must_use]
    pub fn watermark(&self, signal: Signal) -> EventTime {
        self.watermarks.of(signal)
    }

    /// The input partition that holds a signal's time back; none if all are idle.
    #[must_use]
    pub fn slowest(&self, signal: Signal) -> Option<&Mark> {
        self.watermarks.slowest(signal)
    }

    /// How every rule is doing, in the order of the rule set.
    #[must_use]
    pub fn status(&self) -> Vec<RuleStatus> {
        self.states().map(|(rule, state)| self.status_of(rule, state)).collect()
    }

    fn status_of(&self, rule: &JudgeRule, state: &RuleState) -> RuleStatus {
        let windowed = state.windowed.as_ref();
        let stores: Vec<&PaneStore> = rule.stores().into_iter().map(|store| &self.stores[store.0]).collect();
        // Of sums that are kept once each of their rules bears a part.
        let part = |store: &&PaneStore| store.size_bytes() / store.plan().readers.len().max(1);
        RuleStatus {
            name: rule.header.name.clone(),
            groups: windowed.map_or(0, WindowedState::rows_remembered)
                + stores.iter().map(|store| store.groups()).sum::<usize>(),
            state_bytes: windowed.map_or(0, WindowedState::size_bytes) + stores.iter().map(part).sum::<usize>(),
            mode: rule.header.mode,
            firing: self.decisions.firing(&rule.header.name),
            pending: self.decisions.pending(&rule.header.name),
            dropped: stores.iter().map(|store| store.dropped()).sum(),
            leaves: state.joined.as_ref().map(JoinState::leaf_counts).unwrap_or_default(),
            is_warming: stores.iter().any(|store| store.warming().is_some()),
            quarantined: state.quarantined.clone(),
        }
    }

    /// Rules that have reached their limit of subjects since the last call.
    pub fn take_limit_reports(&mut self) -> Vec<LimitReport> {
        self.decisions.take_limit_reports()
    }

    /// Runs a step of one rule; if it fails the rule is quarantined, with what it had decided until then kept.
    fn isolate(
        &mut self,
        rule: RuleId,
        decided: &mut Vec<Decision>,
        step: impl FnOnce(&mut Self, &mut Vec<Decision>) -> Result<(), PaneError>,
    ) {
        if self.states[rule.0].quarantined.is_some() {
            return;
        }
        let watch = Stopwatch::start();
        if let Err(error) = step(self, decided) {
            self.quarantine(rule, error.to_string());
        }
        self.states[rule.0].spent += watch.elapsed();
    }

    /// The rule does not run any more, and forgets everything that no other rule needs.
    pub(crate) fn quarantine(&mut self, rule: RuleId, message: String) {
        tracing::error!(rule = self.judging.rules[rule.0].header.name, message, "rule quarantined");
        let state = &mut self.states[rule.0];
        state.quarantined = Some(message);
        if let Some(windowed) = &mut state.windowed {
            windowed.clear();
        }
        for store in self.judging.rules[rule.0].stores() {
            if !self.is_read(store) {
                self.stores[store.0].clear();
            }
        }
    }

    /// A store is no good any more, and so are the rules that read it.
    pub(crate) fn quarantine_readers(&mut self, store: StoreId, message: &str) {
        let plan = Arc::clone(self.stores[store.0].plan());
        for rule in plan.readers.iter().filter(|rule| self.states[rule.0].quarantined.is_none()).collect::<Vec<_>>() {
            self.quarantine(*rule, message.to_owned());
        }
    }

    /// Whether a rule that runs reads a store.
    pub(crate) fn is_read(&self, store: StoreId) -> bool {
        let readers = &self.judging.stores[store.0].readers;
        readers.iter().any(|rule| self.states[rule.0].quarantined.is_none())
    }

    /// Whether a store takes what a feeder has summed up.
    fn is_fed_by(&self, store: StoreId, feeder: u64) -> bool {
        self.stores[store.0].warming().is_none_or(|warming| warming.feeders.contains(&feeder))
    }

    fn absorb_partial(&mut self, store: StoreId, partial: &RecordBatch, decided: &mut Vec<Decision>) {
        if !self.is_read(store) {
            return;
        }
        let watch = Stopwatch::start();
        let added = match self.try_absorb(store, partial) {
            Ok(added) => added,
            Err(error) => return self.quarantine_readers(store, &error),
        };
        let plan = Arc::clone(self.stores[store.0].plan());
        let each = watch.elapsed() / u32::try_from(plan.readers.len().max(1)).unwrap_or(u32::MAX);
        plan.readers.iter().for_each(|rule| self.states[rule.0].spent += each);
        let is_warming = self.stores[store.0].warming().is_some();
        for rule in plan.readers.iter().filter(|_| !is_warming) {
            self.isolate(*rule, decided, |judge, decided| match plan.side {
                Some(side) => judge.meet(*rule, side, &added, decided),
                None => judge.update(*rule, decided),
            });
        }
        self.stores[store.0].forget_changes();
    }

    fn try_absorb(&mut self, store: StoreId, partial: &RecordBatch) -> Result<Vec<(Window, Range<usize>)>, String> {
        let of_store = &mut self.stores[store.0];
        let added = of_store.absorb(partial).map_err(|error| error.to_string())?;
        of_store.note_changes().map_err(|error| error.to_string())?;
        self.limit_groups(store)?;
        Ok(added)
    }

    fn limit_groups(&self, store: StoreId) -> Result<(), String> {
        let groups_max = self.judging.groups_max;
        let is_full = self.stores[store.0].groups() > groups_max;
        let full = || format!("more than {groups_max} groups in open windows (limits.groups_max)");
        if is_full { Err(full()) } else { Ok(()) }
    }

    /// New rows of one side of a join meet those of the other.
    fn meet(
        &mut self,
        rule: RuleId,
        side: JoinSide,
        added: &[(Window, Range<usize>)],
        decided: &mut Vec<Decision>,
    ) -> Result<(), PaneError> {
        let Some(joined) = &mut self.states[rule.0].joined else { return Ok(()) };
        let rows = joined.meet(&self.stores, side, added)?;
        self.judge_joined(rule, &rows, decided)
    }

    /// Judges left rows of a join that are settled now.
    fn settle(&mut self, rule: RuleId, decided: &mut Vec<Decision>) -> Result<(), PaneError> {
        let Some(joined) = &mut self.states[rule.0].joined else { return Ok(()) };
        let left = &self.stores[joined.rule().sides[JoinSide::Left as usize].0];
        let times = (left.closed_to(), left.plan().frontier.at(&self.watermarks));
        let rows = joined.settle(&self.stores, times)?;
        self.judge_joined(rule, &rows, decided)
    }

    fn judge_joined(
        &mut self,
        rule: RuleId,
        rows: &[RecordBatch],
        decided: &mut Vec<Decision>,
    ) -> Result<(), PaneError> {
        for batch in rows.iter().filter(|batch| batch.num_rows() > 0) {
            let Some(joined) = &mut self.states[rule.0].joined else { continue };
            let of_rule = Arc::clone(joined.rule());
            match &of_rule.then {
                JoinThen::Rows(row_wise) => {
                    let header = &self.judging.rules[rule.0].header;
                    decided.extend(self.decisions.rows(header, row_wise.judge(batch)?));
                }
                JoinThen::Windowed { scan, rule: windowed } => {
                    for partial in joined.sum_up(scan, batch)? {
                        self.try_absorb(windowed.store, &partial).map_err(|message| self.failed(rule, message))?;
                        self.update(rule, decided)?;
                        self.stores[windowed.store.0].forget_changes();
                    }
                }
            }
        }
        Ok(())
    }

    fn failed(&self, rule: RuleId, message: String) -> PaneError {
        EvaluationError { rule: self.judging.rules[rule.0].header.name.clone(), message }.into()
    }

    /// Judges what has changed in a rule's running windows.
    fn update(&mut self, rule: RuleId, decided: &mut Vec<Decision>) -> Result<(), PaneError> {
        let header = &self.judging.rules[rule.0].header;
        let Some(windowed) = &mut self.states[rule.0].windowed else { return Ok(()) };
        let store = &mut self.stores[windowed.rule().store.0];
        if let Some(update) = windowed.take_update(store)? {
            let Update { cleared, violations, calm } = update;
            decided.extend(self.decisions.change(header, cleared, violations));
            self.decisions.prolong(header, calm);
        }
        Ok(())
    }

    fn advance(&mut self, rule: RuleId, decided: &mut Vec<Decision>) -> Result<(), PaneError> {
        self.settle(rule, decided)?;
        self.update(rule, decided)?;
        self.close(rule, decided)?;
        let JudgeRule { header, frontier, .. } = &self.judging.rules[rule.0];
        decided.extend(self.decisions.advance(header, frontier.at(&self.watermarks)));
        Ok(())
    }

    /// Judges the windows of a rule that have ended.
    fn close(&mut self, rule: RuleId, decided: &mut Vec<Decision>) -> Result<(), PaneError> {
        let header = &self.judging.rules[rule.0].header;
        if let Some(windowed) = &mut self.states[rule.0].windowed {
            let store = &mut self.stores[windowed.rule().store.0];
            let watermark = store.plan().frontier.at(&self.watermarks);
            store.end_sessions(watermark)?;
            decided.extend(self.decisions.sessions(header, windowed.close_sessions(store)?));
            let is_zoned = store.plan().aggregation.spec().is_zoned();
            for Closed { window, next_end, violations } in windowed.close(store, watermark)? {
                decided.extend(match violations {
                    Some(violations) if is_zoned => self.decisions.put(header, violations, window, next_end),
                    Some(violations) => self.decisions.replace(header, violations, window, next_end),
                    None => self.decisions.close_window(header, window, window.end),
                });
            }
            let remembered = windowed.rows_remembered();
            if remembered > self.judging.groups_max {
                let max = self.judging.groups_max;
                let message =
                    format!("more than {max} rows in what OVER and GAP FILL look back at (limits.groups_max)");
                return Err(self.failed(rule, message));
            }
        }
        Ok(())
    }
}
