//! The judge stage: partial aggregates in, decisions out.
//!
//! It owns every state that a rule remembers: panes, the history of window functions, what is firing. Windows close when
//! the watermark of the rule's signal passes their end; rules that emit on update are judged at the end of every epoch on
//! the groups that changed in it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::TimestampNanosecondType;
use lictor_queries::{Aggregation, Emission, Finish, GroupRef, History};
use lictor_schemas::rule::RuleHeader;
use lictor_schemas::tables::Signal;
use lictor_schemas::time::{EventTime, Window};

use crate::decision::{Decision, Decisions, LimitReport};
use crate::exchange::{RuleFailure, RuleId, Shipment};
use crate::pane::{Pane, PaneError, PartialRows};
use crate::watermark::Watermarks;

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

/// What a windowed rule knows and remembers.
#[derive(Debug)]
pub struct WindowedState {
    emission: Emission,
    aggregation: Arc<Aggregation>,
    finish: Finish,
    history: History,
    /// By start: panes, or for rules that emit on update whole windows.
    panes: BTreeMap<EventTime, Pane>,
    /// Windows that end here or earlier are closed.
    closed_to: EventTime,
    /// Partial rows that came for panes of closed windows.
    dropped: u64,
}

impl WindowedState {
    /// Nothing has been seen yet.
    #[must_use]
    pub fn new(emission: Emission, aggregation: Arc<Aggregation>, finish: Finish) -> Self {
        let history = finish.empty_history();
        let (panes, closed_to) = (BTreeMap::new(), EventTime::MIN);
        Self { emission, aggregation, finish, history, panes, closed_to, dropped: 0 }
    }

    fn groups(&self) -> usize {
        self.panes.values().map(Pane::len).sum()
    }
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
    /// Groups with state, over all open windows.
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
            state_bytes: windowed.map_or(0, |w| w.panes.values().map(Pane::size_bytes).sum()),
            firing: self.decisions.firing(&rule.header.name),
            dropped: windowed.map_or(0, |w| w.dropped),
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
            windowed.panes.clear();
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
            let message = format!("more than {} groups in open windows (limits.groups_max)", self.groups_max);
            return Err(lictor_queries::EvaluationError { rule: header.name.clone(), message }.into());
        }
        if windowed.emission == Emission::OnUpdate {
            windowed.update(header, &mut self.decisions, decided)?;
        }
        Ok(())
    }

    fn advance(&mut self, rule: RuleId, decided: &mut Vec<Decision>) -> Result<(), PaneError> {
        let JudgeRule { header, windowed, signal, .. } = &mut self.rules[rule.0];
        let watermark = self.watermarks.of(*signal);
        if let Some(windowed) = windowed {
            windowed.close(watermark, header, &mut self.decisions, decided)?;
        }
        decided.extend(self.decisions.advance(header, watermark));
        Ok(())
    }
}

impl WindowedState {
    /// Sorts the rows of a partial batch into panes.
    fn absorb(&mut self, partial: &RecordBatch) -> Result<(), PaneError> {
        let starts = partial.column(0).as_primitive::<TimestampNanosecondType>();
        let mut rows_of: BTreeMap<EventTime, Vec<u64>> = BTreeMap::new();
        for (row, start) in starts.values().iter().enumerate() {
            rows_of.entry(EventTime(*start)).or_default().push(row as u64);
        }
        let key_count = self.aggregation.key_schema().fields().len();
        for (start, rows) in rows_of {
            let rows = PartialRows::select(partial, &rows, key_count)?;
            for place in self.places(start, rows.rows) {
                let pane = match self.panes.entry(place) {
                    std::collections::btree_map::Entry::Occupied(pane) => pane.into_mut(),
                    std::collections::btree_map::Entry::Vacant(free) => free.insert(Pane::try_new(&self.aggregation)?),
                };
                pane.absorb(&self.aggregation, &rows)?;
            }
        }
        Ok(())
    }

    /// Where rows of the pane at `start` are kept: the pane, or every open window that holds it.
    fn places(&mut self, start: EventTime, rows: usize) -> Vec<EventTime> {
        let windows = self.aggregation.spec().windows_at(start).filter(|w| w.end > self.closed_to);
        let open: Vec<EventTime> = windows.map(|w| w.start).collect();
        if open.is_empty() {
            self.dropped += rows as u64;
        }
        match (self.emission, open.is_empty()) {
            (Emission::OnClose, false) => vec![start],
            _ => open,
        }
    }

    /// Judges the groups that have changed, window by window.
    fn update(
        &mut self,
        header: &RuleHeader,
        decisions: &mut Decisions,
        decided: &mut Vec<Decision>,
    ) -> Result<(), PaneError> {
        let size = self.aggregation.spec().size_ns;
        for (start, pane) in &mut self.panes {
            let changed = pane.take_changed();
            if changed.is_empty() {
                continue;
            }
            let window = Window { start: *start, end: start.plus(size) };
            let groups = pane.evaluate(&self.aggregation, &changed, window)?;
            let judged = self.finish.update(&groups, window)?;
            let mut at = judged.iter().map(|j| j.violation.at).max().unwrap_or(window.start);
            let violating: BTreeSet<usize> = judged.iter().filter_map(|j| j.group).map(|g| changed[g.0]).collect();
            let mut cleared = Vec::new();
            for (row, group) in changed.iter().enumerate() {
                let violates = violating.contains(group);
                if pane.set_violating(*group, violates) && !violates {
                    cleared.push((self.finish.subject(&groups, GroupRef(row))?, window));
                    at = at.max(self.finish.latest(&groups, GroupRef(row)).unwrap_or(at));
                }
            }
            let violations = judged.into_iter().map(|j| j.violation).collect();
            decided.extend(decisions.change(header, cleared, violations, at));
        }
        Ok(())
    }

    /// Closes every window that ends at or before the watermark, the earliest first.
    fn close(
        &mut self,
        watermark: EventTime,
        header: &RuleHeader,
        decisions: &mut Decisions,
        decided: &mut Vec<Decision>,
    ) -> Result<(), PaneError> {
        if watermark <= self.closed_to {
            return Ok(());
        }
        let spec = self.aggregation.spec();
        let due: BTreeSet<(EventTime, EventTime)> = match self.emission {
            Emission::OnUpdate => self.panes.keys().map(|s| (s.plus(spec.size_ns), *s)).collect(),
            Emission::OnClose => {
                self.panes.keys().flat_map(|s| spec.windows_at(*s)).map(|w| (w.end, w.start)).collect()
            }
        };
        for (end, start) in due.into_iter().filter(|w| w.0 <= watermark && w.0 > self.closed_to) {
            let window = Window { start, end };
            if self.emission == Emission::OnUpdate {
                decided.extend(decisions.close_window(header, window, end));
                continue;
            }
            let panes: Vec<&Pane> = spec.panes_of(window).filter_map(|p| self.panes.get(&p)).collect();
            let groups = Pane::close(&panes, &self.aggregation, window)?;
            let judged = self.finish.close(&groups, window, &mut self.history)?;
            let violations = judged.into_iter().map(|j| j.violation).collect();
            decided.extend(decisions.replace(header, violations, end));
        }
        self.closed_to = watermark;
        let last_end = |start: EventTime| match self.emission {
            Emission::OnUpdate => start.plus(spec.size_ns),
            Emission::OnClose => spec.windows_at(start).map(|w| w.end).max().unwrap_or(start),
        };
        self.panes.retain(|start, _| last_end(*start) > watermark);
        Ok(())
    }
}
