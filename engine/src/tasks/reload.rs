//! How running tasks go over to other rules.
//!
//! The judge task goes first: parcels of rules that it does not know would be left out. Its shards are read back from
//! the state log with the new rules, as after a restart, while the group stays as it is. Then the scan task takes over
//! its part. Both commit before, so nothing is lost and nothing is repeated.

use std::collections::BTreeSet;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::exchange::parcel::Names;
use crate::exchange::route::Router;
use crate::pipeline::Stages;
use crate::scan_stage::ScanStage;
use crate::shard::JudgeSettings;

/// The scan task's part of a rule set.
pub(super) struct ScanRules {
    pub(super) stage: ScanStage,
    pub(super) router: Router,
    pub(super) names: Names,
    /// The topics that the rules read.
    pub(super) inputs: Vec<String>,
}

/// The scan task's part of the rule set that it has not taken over yet; of two the later one counts.
#[derive(Clone, Default)]
pub(super) struct NextRules(Arc<Mutex<Option<ScanRules>>>);

impl NextRules {
    pub(super) fn take(&self) -> Option<ScanRules> {
        self.lock().take()
    }

    fn put(&self, rules: ScanRules) {
        *self.lock() = Some(rules);
    }

    fn lock(&self) -> MutexGuard<'_, Option<ScanRules>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The judge task's part: whoever reads a shard back asks for it.
#[derive(Clone)]
pub(super) struct JudgeRules {
    pub(super) settings: Arc<JudgeSettings>,
    pub(super) inputs: Vec<String>,
    /// Shards whose quarantined rules get another try when they are read back.
    retried: BTreeSet<i32>,
}

/// The judge task's rules, shared with the thread that reads shards back.
#[derive(Clone)]
pub(super) struct SharedRules(Arc<Mutex<JudgeRules>>);

impl SharedRules {
    pub(super) fn new(settings: JudgeSettings, inputs: Vec<String>) -> Self {
        let settings = Arc::new(settings);
        Self(Arc::new(Mutex::new(JudgeRules { settings, inputs, retried: BTreeSet::new() })))
    }

    /// The rules, and whether those of `shard` that are quarantined get another try: once after each reload.
    pub(super) fn of_shard(&self, shard: i32) -> (JudgeRules, bool) {
        let rules = self.lock();
        (rules.clone(), rules.retried.contains(&shard))
    }

    /// The shard is served with the rules.
    pub(super) fn serves(&self, shard: i32) {
        self.lock().retried.remove(&shard);
    }

    fn replace(&self, settings: JudgeSettings, inputs: Vec<String>, retried: BTreeSet<i32>) {
        *self.lock() = JudgeRules { settings: Arc::new(settings), inputs, retried };
    }

    fn lock(&self) -> MutexGuard<'_, JudgeRules> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The judge task's end: takes rule sets in, hands the scan task its part on.
pub(super) struct Reloading {
    pub(super) shared: SharedRules,
    rule_sets: Receiver<Stages>,
    scan: NextRules,
    shards: u32,
}

impl Reloading {
    /// Rule sets come from `rule_sets`; the other value is the scan task's end.
    pub(super) fn new(shared: SharedRules, rule_sets: Receiver<Stages>, shards: u32) -> (Self, NextRules) {
        let scan = NextRules::default();
        (Self { shared, rule_sets, scan: scan.clone(), shards }, scan)
    }

    /// A rule set that is to be gone over to.
    pub(super) fn next(&self) -> Option<Stages> {
        self.rule_sets.try_recv().ok()
    }

    /// From now on shards are read back with the new rules, and the scan task takes its part over when it comes to it.
    pub(super) fn apply(&self, stages: Stages, retried: BTreeSet<i32>) {
        let Stages { scan, judge, routes } = stages;
        let inputs: Vec<String> = scan.topics_read().into_iter().collect();
        let (names, router) = (judge.names.clone(), Router::new(self.shards, routes));
        self.shared.replace(judge, inputs.clone(), retried);
        self.scan.put(ScanRules { stage: scan, router, names, inputs });
    }
}
