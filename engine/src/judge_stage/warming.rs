//! Rules that wait for sums over what was read before they were there ([`crate::backfill`]): what they wait for, and
//! what it makes them say when it comes.

use std::collections::BTreeSet;

use lictor_connectors::TopicPartition;
use lictor_schemas::tables::Signal;
use lictor_schemas::time::{EventTime, Window};
use lictor_schemas::violation::{Subject, Violation};

use super::JudgeStage;
use crate::backfill::Warming;
use crate::decision::{Cleared, Decision};
use crate::exchange::{RuleId, Shipment, StoreFailure, StoreId};
use crate::pane::PaneError;

impl JudgeStage {
    /// The stores that wait for history, and for what, once it is known from where on every partition of their signals
    /// is fed.
    pub(crate) fn awaited(&self) -> impl Iterator<Item = (StoreId, Warming)> {
        (0..).map(StoreId).zip(&self.stores).filter_map(|(number, store)| {
            let signals: BTreeSet<Signal> = store.plan().frontier.signals().collect();
            let mut warming = store.warming()?.clone();
            let sources: BTreeSet<&TopicPartition> = self.watermarks.sources(&signals).collect();
            warming.ends.retain(|partition, _| sources.contains(partition));
            (warming.ends.len() == sources.len() && !sources.is_empty()).then_some((number, warming))
        })
    }

    /// Takes over sums of what was read before a store was there, and judges what is running now. Windows that began
    /// before `since` are not whole; none if there is nothing to take over.
    pub(crate) fn fill(
        &mut self,
        filled: &BTreeSet<StoreId>,
        history: Vec<Shipment>,
        since: Option<EventTime>,
    ) -> Vec<Decision> {
        let mut decided = Vec::new();
        for Shipment { partials, store_failures, .. } in history {
            for (store, partial) in partials.into_iter().filter(|(store, _)| filled.contains(store)) {
                if self.is_read(store)
                    && let Err(error) = self.try_absorb(store, &partial)
                {
                    self.quarantine_readers(store, &error);
                }
            }
            for StoreFailure { store, message } in store_failures.into_iter().filter(|f| filled.contains(&f.store)) {
                self.quarantine_readers(store, &message);
            }
        }
        for number in filled {
            let newest = self.newest_of(&self.stores[number.0]);
            let Some(silent_to) = self.stores[number.0].warm(since.unwrap_or(newest)) else { continue };
            for rule in self.stores[number.0].plan().readers.clone() {
                self.isolate(rule, &mut decided, |judge, decided| judge.look_back(rule, silent_to, decided));
            }
            self.stores[number.0].let_go(silent_to);
        }
        self.step(&mut decided);
        decided
    }

    /// Closes windows up to `silent_to` without a word, since they were judged before, and judges those that are
    /// running. What was found in them before and is not found any more does not hold any more.
    fn look_back(&mut self, rule: RuleId, silent_to: EventTime, decided: &mut Vec<Decision>) -> Result<(), PaneError> {
        let header = &self.judging.rules[rule.0].header;
        let Some(windowed) = &mut self.states[rule.0].windowed else { return Ok(()) };
        let store = &mut self.stores[windowed.rule().store.0];
        windowed.close(store, silent_to)?;
        windowed.judge_anew();
        let violations = windowed.take_update(store)?.map_or_else(Vec::new, |update| update.violations);
        let cleared = outdated(self.decisions.running(header), &violations, silent_to);
        decided.extend(self.decisions.change(header, cleared, violations));
        Ok(())
    }

    pub(super) fn is_warming(&self, rule: RuleId) -> bool {
        self.judging.rules[rule.0].stores().iter().any(|store| self.stores[store.0].warming().is_some())
    }
}

/// What was found in running windows and is not any more, now that all of their groups are judged anew, as of `at`.
fn outdated(running: Vec<(Subject, Window)>, violations: &[Violation], at: EventTime) -> Vec<Cleared> {
    let found: BTreeSet<(String, Option<Window>)> =
        violations.iter().map(|violation| (violation.subject.to_key(), violation.window)).collect();
    let is_outdated = |(subject, window): &(Subject, Window)| !found.contains(&(subject.to_key(), Some(*window)));
    let cleared =
        |(subject, window): (Subject, Window)| Cleared { subject, window, at: at.max(window.start).min(window.end) };
    running.into_iter().filter(is_outdated).map(cleared).collect()
}
