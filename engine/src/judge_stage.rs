//! The judge stage: partial aggregates in, decisions out.
//!
//! It owns every state that a rule remembers: panes, the history of window functions, what is firing. Windows close
//! when the watermark of the rule's signal passes their end; rules that emit on update are judged at the end of every
//! epoch on the groups that changed in it.

use arrow::array::RecordBatch;
use lictor_connectors::TopicPartition;
use lictor_schemas::rule::RuleHeader;
use lictor_schemas::tables::Signal;
use lictor_schemas::time::EventTime;

use crate::decision::{Decision, Decisions, LimitReport};
use crate::exchange::{RuleFailure, RuleId, Shipment};
use crate::pane::PaneError;
use crate::watermark::Watermarks;
use crate::windowed::WindowedState;

/// The judging half of a rule.
#[derive(Debug)]
pub struct JudgeRule {
    /// Its head.
    pub header: RuleHeader,
    /// The signal whose watermark it follows.
    pub signal: Signal,
    /// Its windows; none for a row-wise rule.
    pub windowed: Option<WindowedState>,
    /// Why it does not run any more.
    pub quarantined: Option<String>,
}

/// Owns the state of all rules.
#[derive(Debug)]
pub struct JudgeStage {
    rules: Vec<JudgeRule>,
    decisions: Decisions,
    watermarks: Watermarks,
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

impl JudgeStage {
    /// `groups_max` bounds the groups of one rule over all its open windows.
    #[must_use]
    pub fn new(rules: Vec<JudgeRule>, decisions: Decisions, watermarks: Watermarks, groups_max: usize) -> Self {
        Self { rules, decisions, watermarks, groups_max }
    }

    /// Takes a shipment over and decides; events come in the order of rules, and within a rule in that of event time.
    pub fn absorb(&mut self, shipment: Shipment) -> Vec<Decision> {
        for RuleFailure { rule, message } in shipment.failures {
            self.quarantine(rule, message);
        }
        let mut decided = Vec::new();
        for (rule, violations) in shipment.violations {
            let rule = &self.rules[rule.0];
            if rule.quarantined.is_none() {
                decided.extend(self.decisions.rows(&rule.header, violations));
            }
        }
        for (rule, partial) in shipment.partials {
            self.isolate(rule, &mut decided, |judge, decided| judge.absorb_partial(rule, &partial, decided));
        }
        self.watermarks.absorb(shipment.marks, shipment.now);
        for rule in (0..self.rules.len()).map(RuleId) {
            self.isolate(rule, &mut decided, |judge, decided| judge.advance(rule, decided));
        }
        decided
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

    /// How every rule is doing, in the order of the rule set.
    #[must_use]
    pub fn status(&self) -> Vec<RuleStatus> {
        self.rules.iter().map(|rule| self.status_of(rule)).collect()
    }

    fn status_of(&self, rule: &JudgeRule) -> RuleStatus {
        let windowed = rule.windowed.as_ref();
        RuleStatus {
            name: rule.header.name.clone(),
            groups: windowed.map_or(0, WindowedState::groups),
            state_bytes: windowed.map_or(0, WindowedState::size_bytes),
            firing: self.decisions.firing(&rule.header.name),
            dropped: windowed.map_or(0, WindowedState::dropped),
            quarantined: rule.quarantined.clone(),
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
        if self.rules[rule.0].quarantined.is_some() {
            return;
        }
        if let Err(error) = step(self, decided) {
            self.quarantine(rule, error.to_string());
        }
    }

    fn quarantine(&mut self, rule: RuleId, message: String) {
        let rule = &mut self.rules[rule.0];
        tracing::error!(rule = rule.header.name, message, "rule quarantined");
        rule.quarantined = Some(message);
        if let Some(windowed) = &mut rule.windowed {
            windowed.clear();
        }
    }

    fn absorb_partial(
        &mut self,
        rule: RuleId,
        partial: &RecordBatch,
        decided: &mut Vec<Decision>,
    ) -> Result<(), PaneError> {
        let JudgeRule { header, windowed: Some(windowed), .. } = &mut self.rules[rule.0] else { return Ok(()) };
        windowed.absorb(partial)?;
        if windowed.groups() > self.groups_max {
            let message =
                format!("more than {} groups in open windows and histories (limits.groups_max)", self.groups_max);
            return Err(lictor_queries::EvaluationError { rule: header.name.clone(), message }.into());
        }
        if let Some(update) = windowed.take_update()? {
            decided.extend(self.decisions.change(header, update.cleared, update.violations, update.at));
        }
        Ok(())
    }

    fn advance(&mut self, rule: RuleId, decided: &mut Vec<Decision>) -> Result<(), PaneError> {
        let JudgeRule { header, windowed, signal, .. } = &mut self.rules[rule.0];
        let watermark = self.watermarks.of(*signal);
        let closed = windowed.as_mut().map(|w| w.close(watermark)).transpose()?;
        for (window, violations) in closed.unwrap_or_default() {
            decided.extend(match violations {
                Some(violations) => self.decisions.replace(header, violations, window.end),
                None => self.decisions.close_window(header, window, window.end),
            });
        }
        decided.extend(self.decisions.advance(header, watermark));
        Ok(())
    }
}
