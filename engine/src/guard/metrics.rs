//! What the guard tells Prometheus. Labels come from closed sets only: outcomes, and the rules that directives name.

use std::time::Duration;

use lictor_schemas::time::{EventTime, NANOS_PER_MS};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use std::sync::atomic::AtomicU64;

use super::answer::{Outcome, Verdict};
use super::index::{DirectiveIndex, Put};
use crate::http::HttpCounts;
use crate::telemetry::ExportCounts;

/// Upper bounds in seconds: a decision takes microseconds.
const DECISION_BUCKETS: [f64; 9] = [2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 1e-3, 1e-2, 0.1];

/// Upper bounds in seconds: an event is readable a commit after it was written.
const FOLLOW_BUCKETS: [f64; 10] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 60.0];

/// How calls were answered, those first that directives have decided.
const OUTCOMES: [&str; 6] = ["allow", "warn", "throttle", "deny", "stale_allow", "stale_deny"];

/// What became of the records of the topics.
const RECORDS: [&str; 5] = ["taken", "ended", "outdated", "left_out", "unreadable"];

/// What became of spans of stopped calls.
const RECORDED: [&str; 3] = ["written", "left_out", "undelivered"];

/// Counts them, also once the guard is gone.
#[derive(Clone, Debug)]
pub struct RecordedCounts([Counter; RECORDED.len()]);

impl RecordedCounts {
    fn new(registry: &mut Registry) -> Self {
        let recorded: Family<[(&str, &str); 1], Counter> = Family::default();
        registry.register("recorded", "Spans of stopped calls, by what became of them", recorded.clone());
        Self(RECORDED.map(|outcome| recorded.get_or_create(&[("outcome", outcome)]).clone()))
    }

    /// Written, left out, undelivered.
    #[cfg(test)]
    pub(super) fn read(&self) -> [u64; RECORDED.len()] {
        self.0.each_ref().map(Counter::get)
    }

    /// All in-sync replicas have them.
    pub(super) fn add_written(&self, spans: u64) {
        self.0[0].inc_by(spans);
    }

    /// There was no room in the queue.
    pub(super) fn add_left_out(&self) {
        self.0[1].inc();
    }

    /// The brokers did not take them.
    pub(super) fn add_undelivered(&self, spans: u64) {
        self.0[2].inc_by(spans);
    }
}

type ByRule = Family<[(&'static str, String); 2], Counter>;

/// Every metric of the guard.
#[derive(Debug)]
pub struct GuardMetrics {
    registry: Registry,
    decisions: [Counter; OUTCOMES.len()],
    records: [Counter; RECORDS.len()],
    recorded: RecordedCounts,
    stopped: ByRule,
    shadowed: ByRule,
    refused: Counter,
    expired: Counter,
    directives: Gauge,
    selector_sets: Gauge,
    staleness: Gauge<f64, AtomicU64>,
    decision_duration: Histogram,
    follow_latency: Histogram,
    ready: Gauge,
    http: HttpCounts,
    telemetry: ExportCounts,
}

impl GuardMetrics {
    /// Nothing has happened yet.
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("lictor_guard");
        let decisions: Family<[(&str, &str); 1], Counter> = Family::default();
        registry.register("decisions", "Calls decided on, by outcome", decisions.clone());
        let records: Family<[(&str, &str); 1], Counter> = Family::default();
        registry.register("records", "Records of the topics of directives, by what became of them", records.clone());
        let metrics = Self {
            recorded: RecordedCounts::new(&mut registry),
            decisions: OUTCOMES.map(|outcome| decisions.get_or_create(&[("outcome", outcome)]).clone()),
            records: RECORDS.map(|outcome| records.get_or_create(&[("outcome", outcome)]).clone()),
            stopped: Family::default(),
            shadowed: Family::default(),
            refused: Counter::default(),
            expired: Counter::default(),
            directives: Gauge::default(),
            selector_sets: Gauge::default(),
            staleness: Gauge::default(),
            decision_duration: Histogram::new(DECISION_BUCKETS),
            follow_latency: Histogram::new(FOLLOW_BUCKETS),
            ready: Gauge::default(),
            http: HttpCounts::default(),
            telemetry: ExportCounts::default(),
            registry: Registry::default(),
        };
        metrics.register(&mut registry);
        Self { registry, ..metrics }
    }

    fn register(&self, to: &mut Registry) {
        to.register("stopped", "Calls that a directive has stopped, by rule and decision", self.stopped.clone());
        let shadowed = "Calls that a shadow directive would have stopped, by rule and decision";
        to.register("shadowed", shadowed, self.shadowed.clone());
        to.register("refused_requests", "Requests that were no question", self.refused.clone());
        to.register("expired", "Directives dropped because their end has passed", self.expired.clone());
        to.register("directives", "Directives held", self.directives.clone());
        let sets = "Sets of columns that directives select by: as many look-ups an answer takes";
        to.register("selector_sets", sets, self.selector_sets.clone());
        let staleness = "How long ago all of the topics was known; -1 before they were read";
        to.register_with_unit("staleness", staleness, Unit::Seconds, self.staleness.clone());
        let duration = "How long it takes to decide and to write the answer";
        to.register_with_unit("decision_duration", duration, Unit::Seconds, self.decision_duration.clone());
        let latency =
            "From the broker timestamp of a record to its being applied, once the topics were read to their ends";
        to.register_with_unit("follow_latency", latency, Unit::Seconds, self.follow_latency.clone());
        to.register("ready", "1 while everything is known, else 0", self.ready.clone());
        self.http.register(to);
        self.telemetry.register(to);
    }

    /// What is counted of connections.
    pub(super) fn http(&self) -> &HttpCounts {
        &self.http
    }

    /// What is counted of telemetry of our own that is sent.
    #[must_use]
    pub fn telemetry(&self) -> &ExportCounts {
        &self.telemetry
    }

    /// Counts a decision.
    pub(super) fn observe(&self, verdict: &Verdict) {
        let stops = verdict.directive.as_ref().filter(|_| verdict.outcome != Outcome::Allow);
        let place = match (verdict.outcome, &verdict.directive) {
            (Outcome::Allow, Some(_)) => 1,
            (Outcome::Throttle, _) => 2,
            (Outcome::Deny, Some(_)) => 3,
            (Outcome::Deny, None) => 5,
            (Outcome::Allow, None) if verdict.stale.is_some() => 4,
            (Outcome::Allow, None) => 0,
        };
        self.decisions[place].inc();
        let labels =
            |rule: &str, outcome: Outcome| [("rule", rule.to_owned()), ("decision", outcome.as_str().to_owned())];
        if let Some(held) = stops {
            self.stopped.get_or_create(&labels(&held.rule, verdict.outcome)).inc();
        }
        if let Some(held) = &verdict.shadow {
            self.shadowed.get_or_create(&labels(&held.rule, Outcome::of(held.action))).inc();
        }
    }

    /// Counts how long a decision took.
    pub(super) fn observe_duration(&self, took: Duration) {
        self.decision_duration.observe(took.as_secs_f64());
    }

    /// Counts a request that was no question.
    pub(super) fn observe_refused(&self) {
        self.refused.inc();
    }

    /// Counts a record.
    pub(super) fn observe_put(&self, put: Put) {
        let place = match put {
            Put::Taken => 0,
            Put::Ended => 1,
            Put::Outdated => 2,
            Put::LeftOut => 3,
        };
        self.records[place].inc();
    }

    /// Counts a record that says nothing.
    pub(super) fn observe_unreadable(&self) {
        self.records[RECORDS.len() - 1].inc();
    }

    /// What is counted of spans of stopped calls.
    #[must_use]
    pub fn recorded(&self) -> &RecordedCounts {
        &self.recorded
    }

    /// Counts directives that were dropped.
    pub(super) fn observe_expired(&self, directives: usize) {
        self.expired.inc_by(directives as u64);
    }

    /// Takes over how much is held.
    pub(super) fn observe_index(&self, index: &DirectiveIndex) {
        let as_gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.directives.set(as_gauge(index.len()));
        self.selector_sets.set(as_gauge(index.selector_sets()));
    }

    /// Counts how long after its writing a record was applied at `now`.
    pub(super) fn observe_follow(&self, written_ms: i64, now: EventTime) {
        if written_ms > 0 {
            let ns = now.0.saturating_sub(written_ms.saturating_mul(NANOS_PER_MS)).max(0);
            self.follow_latency.observe(Duration::from_nanos(ns.unsigned_abs()).as_secs_f64());
        }
    }

    /// All metrics in the OpenMetrics text format, with how stale the guard is.
    pub(crate) fn encode(&self, age: Option<Duration>, is_ready: bool) -> String {
        self.staleness.set(age.map_or(-1.0, |age| age.as_secs_f64()));
        self.ready.set(i64::from(is_ready));
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a string");
        text
    }
}
