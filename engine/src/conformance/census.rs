//! Who sent what, and what was found about it: the events of the rules by runtime.

use std::collections::{BTreeMap, BTreeSet};

use lictor_schemas::event::{EnforcementEvent, State};
use serde_json::Value;

use super::clause::{Clause, Counted};
use crate::backtest::Witness;

/// A runtime has some kilobytes. A fleet has hundreds; what has more writes something else into the names.
pub const RUNTIMES_MAX: usize = 10_000;

/// Exemplars kept of each clause and runtime; all are counted.
pub const EXEMPLARS_MAX: usize = 20;

/// SDKs and versions kept of each runtime: in a rolling upgrade there are two.
const WORDS_MAX: usize = 20;

/// Who sends: empty where the telemetry does not say it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Runtime {
    /// `service.name`.
    pub service: String,
    /// The instrumentation scope.
    pub scope: String,
    /// Its version.
    pub scope_version: String,
}

/// One violation, and where to find it.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// The rule that found it.
    pub rule: String,
    /// 32 hex digits; empty if the record has none.
    pub trace_id: String,
    /// 16 hex digits; empty if the record has none.
    pub span_id: String,
    /// Partition and offset of the record, as far as the rule knows one; of files their number and the record in it.
    pub place: Option<(i32, i64)>,
    /// What is wrong.
    pub message: String,
}

/// What is known of a runtime.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// How many of what, summed up over the hours.
    pub counts: BTreeMap<Counted, u64>,
    /// Its SDKs: `opentelemetry python 1.30.0`.
    pub sdks: BTreeSet<String>,
    /// The versions of the specification that it declares.
    pub versions: BTreeSet<String>,
    /// How many violations each rule has found, and the first of them.
    pub found: BTreeMap<String, (u64, Vec<Found>)>,
}

/// Listens to rules that find and rules that count.
#[derive(Debug, Default)]
pub struct Census {
    judging: BTreeSet<String>,
    runtimes: BTreeMap<Runtime, Tally>,
    /// Events about runtimes beyond [`RUNTIMES_MAX`].
    left_out: u64,
}

impl Census {
    /// Nobody was heard of yet.
    #[must_use]
    pub fn new(clauses: &[Clause]) -> Self {
        let judging = clauses.iter().flat_map(|clause| &clause.rules).map(|by| by.rule.clone()).collect();
        Self { judging, ..Self::default() }
    }

    /// Everybody who was heard of.
    #[must_use]
    pub fn runtimes(&self) -> &BTreeMap<Runtime, Tally> {
        &self.runtimes
    }

    /// How many events were about more runtimes than are kept.
    #[must_use]
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    fn tally(&mut self, event: &EnforcementEvent) -> Option<&mut Tally> {
        let word = |name| word(event, name);
        let [service, scope, scope_version] = ["service_name", "scope_name", "scope_version"].map(word);
        let runtime = Runtime { service, scope, scope_version };
        if self.runtimes.len() >= RUNTIMES_MAX && !self.runtimes.contains_key(&runtime) {
            self.left_out += 1;
            return None;
        }
        Some(self.runtimes.entry(runtime).or_default())
    }
}

impl Witness for Census {
    fn see(&mut self, event: &EnforcementEvent) {
        // Every hour of a runtime and every unit of work has a directive of its own: one firing is one of them.
        if event.data.state != State::Firing {
            return;
        }
        let judges = self.judging.contains(&event.data.rule.name);
        let Some(tally) = self.tally(event) else { return };
        if judges { tally.add_found(event) } else { tally.add_counts(event) }
    }
}

impl Tally {
    /// How much was counted; 0 if nothing was.
    #[must_use]
    pub fn count(&self, counted: &Counted) -> u64 {
        self.counts.get(counted).copied().unwrap_or_default()
    }

    fn add_found(&mut self, event: &EnforcementEvent) {
        let rule = &event.data.rule.name;
        let (count, first) = self.found.entry(rule.clone()).or_default();
        *count += 1;
        if first.len() < EXEMPLARS_MAX {
            let place = event.data.finding.exemplars.first().map(|exemplar| (exemplar.partition, exemplar.offset));
            first.push(Found {
                rule: rule.clone(),
                trace_id: word(event, "trace_id"),
                span_id: word(event, "span_id"),
                place,
                message: event.data.finding.message.clone().unwrap_or_default(),
            });
        }
    }

    fn add_counts(&mut self, event: &EnforcementEvent) {
        for (column, value) in &event.data.finding.evidence {
            let Some(number) = value.as_u64() else { continue };
            let counted = Counted { rule: event.data.rule.name.clone(), column: column.clone() };
            *self.counts.entry(counted).or_default() += number;
        }
        for (words, name) in [(&mut self.sdks, "sdk"), (&mut self.versions, "version")] {
            let word = word(event, name);
            if !word.is_empty() && words.len() < WORDS_MAX {
                words.insert(word);
            }
        }
    }
}

/// What an event says in a column, in its subject or beside it.
fn word(event: &EnforcementEvent, column: &str) -> String {
    let said = event.data.selector.matches.get(column).or_else(|| event.data.finding.evidence.get(column));
    said.and_then(Value::as_str).unwrap_or_default().to_owned()
}
