//! Rules that wait for sums over what was read before they were there ([`crate::backfill`]): what they wait for, and
//! what it makes them say when it comes.

use std::collections::{BTreeMap, BTreeSet};

use lictor_connectors::TopicPartition;
use lictor_schemas::tables::Signal;
use lictor_schemas::time::{EventTime, Window};
use lictor_schemas::violation::{Subject, Violation};

use super::JudgeStage;
use crate::backfill::Warming;
use crate::decision::{Cleared, Decision};
use crate::exchange::{RuleId, Shipment, StoreFailure, StoreId};
use crate::pane::PaneError;
use crate::windowed::Update;

impl JudgeStage {
    /// The stores that wait for history, and for what, once it is known from where on every partition of their signals
    /// is fed.
    pub(crate) fn awaited(&self) -> impl Iterator<Item = (StoreId, Warming)> {
        (0..).map(StoreId).zip(&self.stores).filter_map(|(number, store)| {
            let mut warming = store.warming()?.clone();
            let signals: BTreeSet<Signal> = store.plan().frontier.signals().collect();
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
            self.stores[number.0].warm(since.unwrap_or(newest));
            for rule in self.stores[number.0].plan().readers.clone() {
                self.isolate(rule, &mut decided, |judge, decided| judge.look_back(rule, decided));
            }
        }
        self.step(&mut decided);
        decided
    }

    /// Closes windows that the rule has judged before without a word, and judges the others; those that have ended
    /// since as if they had done so just now. What was found in a window before and is not found any more does not
    /// hold any more.
    fn look_back(&mut self, rule: RuleId, decided: &mut Vec<Decision>) -> Result<(), PaneError> {
        let header = &self.judging.rules[rule.0].header;
        let Some(windowed) = &mut self.states[rule.0].windowed else { return Ok(()) };
        let store = &mut self.stores[windowed.rule().store.0];
        let watermark = store.plan().frontier.at(&self.watermarks);
        let judged_to = windowed.is_judged_to();
        windowed.look_back(store)?;
        let judged = windowed.judge_all(store)?;
        let mut before: BTreeMap<Window, Vec<Subject>> = BTreeMap::new();
        for (subject, window) in self.decisions.running(header) {
            before.entry(window).or_default().push(subject);
        }
        let mut found_before = |window| before.remove(&window).unwrap_or_default();
        for (window, Update { violations, .. }) in judged {
            let cleared = outdated((window, found_before(window)), &violations, judged_to);
            decided.extend(self.decisions.change(header, cleared, violations));
            if window.end <= watermark {
                decided.extend(self.decisions.close_window(header, window, window.end));
            }
        }
        for of_window in before {
            decided.extend(self.decisions.change(header, outdated(of_window, &[], judged_to), Vec::new()));
        }
        Ok(())
    }

    /// Up to when a rule had judged windows when it began to wait, if it waits.
    pub(crate) fn awaits_from(&self, rule: RuleId) -> Option<EventTime> {
        let windowed = self.states[rule.0].windowed.as_ref()?;
        self.is_warming(rule).then(|| windowed.is_judged_to())
    }

    pub(super) fn is_warming(&self, rule: RuleId) -> bool {
        self.judging.rules[rule.0].stores().iter().any(|store| self.stores[store.0].warming().is_some())
    }
}

/// Who was found in a window and is not any more, now that all of its groups are judged anew, as of `at`.
fn outdated((window, before): (Window, Vec<Subject>), violations: &[Violation], at: EventTime) -> Vec<Cleared> {
    let found: BTreeSet<String> = violations.iter().map(|violation| violation.subject.to_key()).collect();
    let at = at.max(window.start).min(window.end);
    let is_outdated = |subject: &Subject| !found.contains(&subject.to_key());
    before.into_iter().filter(is_outdated).map(|subject| Cleared { subject, window, at }).collect()
}
