//! The judge stage: partial aggregates in, decisions out.
//!
//! It owns every state that a rule remembers: panes, the history of window functions, what is firing. Windows close
//! when the watermark of the rule's signal passes their end; rules that emit on update are judged at the end of every
//! epoch on the groups that changed in it.

use std::sync::Arc;

use arrow::array::RecordBatch;
use lictor_connectors::TopicPartition;
use lictor_schemas::rule::RuleHeader;
use lictor_schemas::tables::Signal;
use lictor_schemas::time::EventTime;

use crate::decision::{Decision, Decisions, LimitReport};
use crate::exchange::route::Place;
use crate::exchange::{RuleFailure, RuleId, Shipment};
use crate::pane::PaneError;
use crate::watermark::{Mark, Watermarks};
use crate::windowed::{Closed, Update, WindowedRule, WindowedState};

/// The judging half of a rule: the same for every shard.
#[derive(Debug)]
pub struct JudgeRule {
    /// Its head.
    pub header: RuleHeader,
    /// The signal whose watermark it follows.
    pub signal: Signal,
    /// How its windows are judged; none for a row-wise rule.
    pub windowed: Option<Arc<WindowedRule>>,
}

/// What a rule remembers.
#[derive(Debug)]
pub(crate) struct RuleState {
    /// Its windows; none for a row-wise rule.
    pub(crate) windowed: Option<WindowedState>,
    /// Why it does not run any more.
    pub(crate) quarantined: Option<String>,
    was_quarantined: bool,
}

/// Owns the state of all rules, of one shard of their groups.
///
/// Between two commits everything can be undone.
#[derive(Debug)]
pub struct JudgeStage {
    rules: Arc<[JudgeRule]>,
    states: Vec<RuleState>,
    decisions: Decisions,
    watermarks: Watermarks,
    committed_watermarks: Watermarks,
    groups_max: usize,
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
    /// Directives that hold now.
    pub firing: usize,
    /// Groups that came for windows already closed.
    pub dropped: u64,
    /// Why it does not run any more.
    pub quarantined: Option<String>,
}

impl RuleStatus {
    /// Adds what another shard says of the same rule.
    pub fn add(&mut self, other: Self) {
        self.groups += other.groups;
        self.state_bytes += other.state_bytes;
        self.firing += other.firing;
        self.dropped += other.dropped;
        self.quarantined = self.quarantined.take().or(other.quarantined);
    }
}

impl JudgeStage {
    /// Nothing has been judged yet at `place`. `groups_max` bounds the groups of one rule over all its open windows.
    #[must_use]
    pub fn new(
        rules: Arc<[JudgeRule]>,
        place: Place,
        decisions: Decisions,
        watermarks: Watermarks,
        groups_max: usize,
    ) -> Self {
        let state = |rule: &JudgeRule| RuleState {
            windowed: rule.windowed.as_ref().map(|w| WindowedState::new(Arc::clone(w), place)),
            quarantined: None,
            was_quarantined: false,
        };
        let states = rules.iter().map(state).collect();
        let committed_watermarks = watermarks.clone();
        Self { rules, states, decisions, watermarks, committed_watermarks, groups_max }
    }

    /// What is there now stays.
    ///
    /// # Errors
    /// States cannot be copied together.
    pub fn commit(&mut self) -> Result<(), PaneError> {
        for state in &mut self.states {
            state.was_quarantined = state.quarantined.is_some();
            state.windowed.as_mut().map_or(Ok(()), WindowedState::commit)?;
        }
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
            state.windowed.as_mut().map_or(Ok(()), WindowedState::undo)?;
        }
        self.decisions.undo();
        self.watermarks.clone_from(&self.committed_watermarks);
        Ok(())
    }

    /// The rules and what they remember, in the order of the rule set.
    pub(crate) fn states(&self) -> impl Iterator<Item = (&JudgeRule, &RuleState)> {
        self.rules.iter().zip(&self.states)
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
        states: impl IntoIterator<Item = (RuleId, WindowedState)>,
        quarantined: impl IntoIterator<Item = (RuleId, String)>,
    ) {
        self.committed_watermarks = watermarks.clone();
        self.watermarks = watermarks;
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

    /// Takes a shipment over and decides; events come in the order of rules, and within a rule in that of event time.
    pub fn absorb(&mut self, shipment: Shipment) -> Vec<Decision> {
        for RuleFailure { rule, message } in shipment.failures {
            self.quarantine(rule, message);
        }
        let mut decided = Vec::new();
        for (rule, violations) in shipment.violations {
            if self.states[rule.0].quarantined.is_none() {
                decided.extend(self.decisions.rows(&self.rules[rule.0].header, violations));
            }
        }
        for (rule, partial) in shipment.partials {
            self.isolate(rule, &mut decided, |judge, decided| judge.absorb_partial(rule, &partial, decided));
        }
        let is_beginning = !shipment.sources.is_empty();
        self.watermarks.expect(shipment.sources);
        self.watermarks.absorb(shipment.marks, shipment.now);
        if is_beginning {
            self.begin_new_rules();
        }
        for rule in (0..self.rules.len()).map(RuleId) {
            self.isolate(rule, &mut decided, |judge, decided| judge.advance(rule, decided));
        }
        decided
    }

    /// Somebody has begun to read with the rules that we have.
    fn begin_new_rules(&mut self) {
        for (rule, state) in self.rules.iter().zip(&mut self.states) {
            if let Some(windowed) = &mut state.windowed {
                windowed.begins(self.watermarks.newest(rule.signal));
            }
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
        RuleStatus {
            name: rule.header.name.clone(),
            groups: windowed.map_or(0, WindowedState::groups),
            state_bytes: windowed.map_or(0, WindowedState::size_bytes),
            firing: self.decisions.firing(&rule.header.name),
            dropped: windowed.map_or(0, WindowedState::dropped),
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
        if let Err(error) = step(self, decided) {
            self.quarantine(rule, error.to_string());
        }
    }

    /// The rule does not run any more, and forgets everything.
    pub(crate) fn quarantine(&mut self, rule: RuleId, message: String) {
        tracing::error!(rule = self.rules[rule.0].header.name, message, "rule quarantined");
        let state = &mut self.states[rule.0];
        state.quarantined = Some(message);
        if let Some(windowed) = &mut state.windowed {
            windowed.clear();
        }
    }

    fn absorb_partial(
        &mut self,
        rule: RuleId,
        partial: &RecordBatch,
        decided: &mut Vec<Decision>,
    ) -> Result<(), PaneError> {
        let header = &self.rules[rule.0].header;
        let Some(windowed) = &mut self.states[rule.0].windowed else { return Ok(()) };
        windowed.absorb(partial)?;
        if windowed.groups() > self.groups_max {
            let message =
                format!("more than {} groups in open windows and histories (limits.groups_max)", self.groups_max);
            return Err(lictor_queries::EvaluationError { rule: header.name.clone(), message }.into());
        }
        let update = windowed.take_update()?;
        decided.extend(update.map_or_else(Vec::new, |update| tell(&mut self.decisions, header, update)));
        Ok(())
    }

    fn advance(&mut self, rule: RuleId, decided: &mut Vec<Decision>) -> Result<(), PaneError> {
        let JudgeRule { header, signal, .. } = &self.rules[rule.0];
        let watermark = self.watermarks.of(*signal);
        let windowed = &mut self.states[rule.0].windowed;
        let sessions = windowed.as_mut().map_or(Ok(Vec::new()), |w| w.close_sessions(watermark))?;
        decided.extend(self.decisions.sessions(header, sessions));
        let update = windowed.as_mut().map(WindowedState::take_update).transpose()?.flatten();
        decided.extend(update.map_or_else(Vec::new, |update| tell(&mut self.decisions, header, update)));
        let closed = windowed.as_mut().map(|w| w.close(watermark)).transpose()?;
        let is_zoned = windowed.as_ref().is_some_and(|w| w.spec().is_zoned());
        for Closed { window, next_end, violations } in closed.unwrap_or_default() {
            decided.extend(match violations {
                Some(violations) if is_zoned => self.decisions.put(header, violations, window, next_end),
                Some(violations) => self.decisions.replace(header, violations, window, next_end),
                None => self.decisions.close_window(header, window, window.end),
            });
        }
        decided.extend(self.decisions.advance(header, watermark));
        Ok(())
    }
}

/// Decides about what has changed in running windows.
fn tell(decisions: &mut Decisions, header: &RuleHeader, update: Update) -> Vec<Decision> {
    let decided = decisions.change(header, update.cleared, update.violations);
    decisions.prolong(header, update.calm);
    decided
}
