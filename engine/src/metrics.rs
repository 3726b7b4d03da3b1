//! What Prometheus is told.
//!
//! The loop observes epochs and states, the HTTP thread encodes; both share this value. Labels come from closed sets
//! only (rules, tables, reasons, partitions), never from telemetry: a customer's id must not become a time series.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use lictor_connectors::{AbortCause, TopicPartition};
use lictor_schemas::rule::Mode;
use lictor_schemas::tables::{Signal, Table};
use lictor_schemas::time::EventTime;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry, Unit};

use crate::decision::{Decision, LimitReport};
use crate::judge_stage::RuleStatus;
use crate::scan_stage::ScanCounts;
use crate::tasks::Stage;
use crate::watermark::Untimely;

/// Upper bounds in seconds: a commit takes some milliseconds, and an event should be out within a quarter of a second.
const DURATION_BUCKETS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];

/// The limit that a rule reaches by having too many subjects in violation at once.
const LIMIT_SUBJECTS: &str = "subjects";

const RULE_STATES: [&str; 3] = ["running", "warming", "quarantined"];

/// The rules that were read are in use, or those before still are.
const RELOAD_OUTCOMES: [&str; 2] = ["applied", "refused"];

type Labels<const N: usize> = [(&'static str, String); N];
type Seconds = Gauge<f64, AtomicU64>;

/// Every metric of the engine.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    records: Family<Labels<1>, Counter>,
    rows: Family<Labels<2>, Counter>,
    events: Family<Labels<3>, Counter>,
    directives_active: Family<Labels<2>, Gauge>,
    violations_pending: Family<Labels<1>, Gauge>,
    commit_duration: Family<Labels<1>, Histogram, fn() -> Histogram>,
    restore_duration: Histogram,
    restored_bytes: Counter,
    aborts: Family<Labels<2>, Counter>,
    partitions: Family<Labels<1>, Gauge>,
    event_latency: Histogram,
    watermark_lag: Family<Labels<1>, Seconds>,
    consumer_lag: Family<Labels<2>, Gauge>,
    rule_state: Family<Labels<2>, Gauge>,
    /// The rules that were told of last.
    rules: Mutex<BTreeSet<String>>,
    groups: Family<Labels<1>, Gauge>,
    state_bytes: Family<Labels<1>, Gauge>,
    dropped_groups: Family<Labels<1>, Counter>,
    dead_letters: Family<Labels<1>, Counter>,
    late_rows: Family<Labels<2>, Counter>,
    limit_reached: Family<Labels<2>, Counter>,
    reloads: Family<Labels<1>, Counter>,
    refused_references: Family<Labels<1>, Gauge>,
    alerts_firing: Gauge,
    alerts_left_out: Gauge,
    alert_posts: Family<Labels<1>, Counter>,
    ready: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// Registers one metric after the other.
struct Registering(Registry);

impl Registering {
    fn add<M: Metric + Clone + Default>(&mut self, name: &str, help: &str) -> M {
        let metric = M::default();
        self.0.register(name, help, metric.clone());
        metric
    }

    fn add_with_unit<M: Metric + Clone>(&mut self, name: &str, help: &str, unit: Unit, metric: M) -> M {
        self.0.register_with_unit(name, help, unit, metric.clone());
        metric
    }

    fn add_duration(&mut self, name: &str, help: &str) -> Histogram {
        self.add_with_unit(name, help, Unit::Seconds, Histogram::new(DURATION_BUCKETS))
    }
}

impl Metrics {
    /// Nothing has happened yet; series of fixed labels begin at zero, so that rates are right from the start.
    #[must_use]
    pub fn new() -> Self {
        let mut to = Registering(Registry::with_prefix("lictor"));
        let metrics = Self {
            records: to.add("records", "Kafka records, by how they left the pipeline"),
            rows: to.add("rows", "Rows of telemetry, by table and how they left the pipeline"),
            events: to.add("events", "Enforcement events published, by rule, state and mode"),
            directives_active: to.add("directives_active", "Directives that hold now, by rule and mode"),
            violations_pending: to
                .add("violations_pending", "Violations that have not gone on for long enough to fire, by rule"),
            commit_duration: to.add_with_unit(
                "commit_duration",
                "From a transaction's first message to its commit, by stage",
                Unit::Seconds,
                Family::new_with_constructor(|| Histogram::new(DURATION_BUCKETS)),
            ),
            restore_duration: to.add_duration("restore_duration", "How long it took to read a shard's state back"),
            restored_bytes: to.add_with_unit(
                "restored",
                "State read back from the state topic",
                Unit::Bytes,
                Counter::default(),
            ),
            aborts: to.add("aborts", "Transactions that were aborted and are done again, by stage and cause"),
            partitions: to.add("partitions", "Partitions that this instance serves, by stage"),
            event_latency: to.add_duration(
                "event_latency",
                "From the broker timestamp of an epoch's newest record to the commit of its events",
            ),
            watermark_lag: to.add_with_unit(
                "watermark_lag",
                "How far event time is behind the clock, by signal",
                Unit::Seconds,
                Family::default(),
            ),
            consumer_lag: to.add("consumer_lag", "Records of the input that were not read yet, by partition"),
            rules: Mutex::default(),
            rule_state: to.add("rule_state", "1 for the state that a rule is in, else 0"),
            groups: to.add("groups", "Groups with state over all open windows, by rule"),
            state_bytes: to.add_with_unit("state", "Memory of that state, by rule", Unit::Bytes, Family::default()),
            dropped_groups: to.add("dropped_groups", "Groups that came for windows already closed, by rule"),
            dead_letters: to.add("dead_letters", "Records and parts of records that could not be decoded, by reason"),
            late_rows: to.add("late_rows", "Rows that came too late or from the future, by table and reason"),
            limit_reached: to.add("limit_reached", "Epochs that found a rule at one of its limits"),
            reloads: to.add("reloads", "Times that rules were read again, by outcome"),
            refused_references: to.add(
                "refused_references",
                "Keys of a reference table in Kafka whose latest record was refused, by table",
            ),
            alerts_firing: to.add("alerts_firing", "Directives that the Alertmanager is told of"),
            alerts_left_out: to.add("alerts_left_out", "Directives beyond the limit of alerts: it is not told of them"),
            alert_posts: to.add("alert_posts", "Requests with alerts, by outcome: a failed one is sent again"),
            ready: to.add("ready", "1 once both stages serve what they were assigned, else 0"),
            registry: Registry::default(),
        };
        metrics.begin_at_zero();
        Self { registry: to.0, ..metrics }
    }

    fn begin_at_zero(&self) {
        for outcome in ["used", "partly_dead", "dead"] {
            self.records.get_or_create(&[("outcome", outcome.to_owned())]).inc_by(0);
        }
        for stage in Stage::ALL {
            self.partitions.get_or_create(&stage_label(stage)).set(0);
            drop(self.commit_duration.get_or_create(&stage_label(stage)));
            for cause in AbortCause::ALL {
                let labels = [("stage", stage.as_str().to_owned()), ("cause", cause.as_str().to_owned())];
                self.aborts.get_or_create(&labels).inc_by(0);
            }
        }
        for outcome in RELOAD_OUTCOMES {
            self.reloads.get_or_create(&[("outcome", outcome.to_owned())]).inc_by(0);
        }
        for outcome in ["taken", "failed", "refused"] {
            self.alert_posts.get_or_create(&[("outcome", outcome.to_owned())]).inc_by(0);
        }
        for table in Table::ALL {
            self.rows.get_or_create(&row_labels(table, "used")).inc_by(0);
            for reason in [Untimely::Late, Untimely::FutureSkew] {
                self.rows.get_or_create(&row_labels(table, reason.as_str())).inc_by(0);
                self.late_rows.get_or_create(&late_labels(table, reason)).inc_by(0);
            }
        }
    }

    /// Takes over what an epoch of scanning counted, once it is durable.
    pub fn observe_scan(&self, counts: &ScanCounts) {
        let used = counts.records.saturating_sub(counts.records_dead).saturating_sub(counts.records_partly_dead);
        let outcomes = [("used", used), ("partly_dead", counts.records_partly_dead), ("dead", counts.records_dead)];
        for (outcome, records) in outcomes {
            self.records.get_or_create(&[("outcome", outcome.to_owned())]).inc_by(records);
        }
        for (table, rows) in &counts.rows_used {
            self.rows.get_or_create(&row_labels(*table, "used")).inc_by(*rows);
        }
        for ((table, reason), rows) in &counts.rows_untimely {
            self.rows.get_or_create(&row_labels(*table, reason.as_str())).inc_by(*rows);
            self.late_rows.get_or_create(&late_labels(*table, *reason)).inc_by(*rows);
        }
        for (reason, letters) in &counts.dead_letters {
            self.dead_letters.get_or_create(&[("reason", (*reason).to_owned())]).inc_by(*letters);
        }
    }

    /// Takes over what an epoch of judging decided, once it is durable. `latency` is that of the newest record in it.
    pub fn observe_judging(&self, decisions: &[Decision], limits: &[LimitReport], latency: Option<Duration>) {
        for decision in decisions {
            let directive = &decision.event.data;
            let mode = directive.mode.as_str().to_owned();
            let (rule, state) = (directive.rule.name.clone(), directive.state.as_str().to_owned());
            let labels = [("rule", rule), ("state", state), ("mode", mode)];
            self.events.get_or_create(&labels).inc();
        }
        for report in limits {
            let labels = [("rule", report.rule.clone()), ("limit", LIMIT_SUBJECTS.to_owned())];
            self.limit_reached.get_or_create(&labels).inc();
        }
        if let Some(latency) = latency.filter(|_| !decisions.is_empty()) {
            self.event_latency.observe(latency.as_secs_f64());
        }
    }

    /// Counts a committed transaction and how long its commit took.
    pub fn observe_commit(&self, stage: Stage, took: Duration) {
        self.commit_duration.get_or_create(&stage_label(stage)).observe(took.as_secs_f64());
    }

    /// Counts an aborted transaction.
    pub fn observe_abort(&self, stage: Stage, cause: &'static str) {
        self.aborts.get_or_create(&[("stage", stage.as_str().to_owned()), ("cause", cause.to_owned())]).inc();
    }

    /// Takes over how many partitions a stage serves.
    pub fn observe_partitions(&self, stage: Stage, partitions: usize) {
        self.partitions.get_or_create(&stage_label(stage)).set(as_gauge(partitions));
    }

    /// Counts a shard that was read back.
    pub fn observe_restore(&self, bytes: usize, took: Duration) {
        self.restored_bytes.inc_by(bytes as u64);
        self.restore_duration.observe(took.as_secs_f64());
    }

    /// Takes over how the rules are doing; others are forgotten.
    pub fn observe_status(&self, rules: &[RuleStatus]) {
        let names = rules.iter().map(|status| status.name.clone()).collect();
        let before = std::mem::replace(&mut *self.rules.lock().unwrap_or_else(PoisonError::into_inner), names);
        for name in before.iter().filter(|name| rules.iter().all(|status| status.name != **name)) {
            let rule = [("rule", name.clone())];
            for family in [&self.violations_pending, &self.groups, &self.state_bytes] {
                family.remove(&rule);
            }
            for mode in Mode::ALL {
                self.directives_active.remove(&mode_labels(name, mode));
            }
            for state in RULE_STATES {
                self.rule_state.remove(&[("rule", name.clone()), ("state", state.to_owned())]);
            }
        }
        for status in rules {
            let rule = || [("rule", status.name.clone())];
            for mode in Mode::ALL.into_iter().filter(|mode| *mode != status.mode) {
                self.directives_active.remove(&mode_labels(&status.name, mode));
            }
            self.directives_active.get_or_create(&mode_labels(&status.name, status.mode)).set(as_gauge(status.firing));
            self.violations_pending.get_or_create(&rule()).set(as_gauge(status.pending));
            self.groups.get_or_create(&rule()).set(as_gauge(status.groups));
            self.state_bytes.get_or_create(&rule()).set(as_gauge(status.state_bytes));
            // The rule counts by itself; a counter of ours must only follow.
            self.dropped_groups.get_or_create(&rule()).inner().fetch_max(status.dropped, Ordering::Relaxed);
            let now = match status {
                RuleStatus { quarantined: Some(_), .. } => "quarantined",
                RuleStatus { is_warming: true, .. } => "warming",
                RuleStatus { .. } => "running",
            };
            for state in RULE_STATES {
                let labels = [("rule", status.name.clone()), ("state", state.to_owned())];
                self.rule_state.get_or_create(&labels).set(i64::from(state == now));
            }
        }
    }

    /// Takes over a signal's watermark at `now` by the processing clock; one that has not begun has no lag.
    pub fn observe_watermark(&self, signal: Signal, watermark: EventTime, now: EventTime) {
        if watermark > EventTime::MIN {
            let lag_ns = now.0.saturating_sub(watermark.0).max(0);
            let lag = Duration::from_nanos(lag_ns.unsigned_abs());
            self.watermark_lag.get_or_create(&[("signal", signal.as_str().to_owned())]).set(lag.as_secs_f64());
        }
    }

    /// Takes over the lag of every assigned partition; others are forgotten.
    pub fn observe_lag(&self, lag: &[(TopicPartition, i64)]) {
        self.consumer_lag.clear();
        for (partition, records) in lag {
            let labels = [("topic", partition.topic.to_string()), ("partition", partition.partition.to_string())];
            self.consumer_lag.get_or_create(&labels).set(*records);
        }
    }

    /// Counts a reading of rules while others run.
    pub fn observe_reload(&self, is_applied: bool) {
        let outcome = RELOAD_OUTCOMES[usize::from(!is_applied)];
        self.reloads.get_or_create(&[("outcome", outcome.to_owned())]).inc();
    }

    /// Takes over, for every reference table in Kafka, how many keys have a latest record that was refused.
    pub fn observe_refused_references<'a>(&self, tables: impl Iterator<Item = (&'a str, usize)>) {
        self.refused_references.clear();
        for (table, count) in tables {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            self.refused_references.get_or_create(&[("table", table.to_owned())]).set(count);
        }
    }

    /// Takes over how many directives are alerts, and how many are not because there are too many.
    pub fn observe_alerts(&self, firing: usize, left_out: usize) {
        self.alerts_firing.set(as_gauge(firing));
        self.alerts_left_out.set(as_gauge(left_out));
    }

    /// Counts a request to an Alertmanager.
    pub fn observe_alert_post(&self, outcome: &'static str) {
        self.alert_posts.get_or_create(&[("outcome", outcome.to_owned())]).inc();
    }

    /// Takes over whether `/readyz` says yes.
    pub fn observe_ready(&self, is_ready: bool) {
        self.ready.set(i64::from(is_ready));
    }

    /// All metrics in the OpenMetrics text format.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a string");
        text
    }
}

fn stage_label(stage: Stage) -> Labels<1> {
    [("stage", stage.as_str().to_owned())]
}

fn mode_labels(rule: &str, mode: Mode) -> Labels<2> {
    [("rule", rule.to_owned()), ("mode", mode.as_str().to_owned())]
}

fn row_labels(table: Table, outcome: &str) -> Labels<2> {
    [("table", table.name().to_owned()), ("outcome", outcome.to_owned())]
}

fn late_labels(table: Table, reason: Untimely) -> Labels<2> {
    [("table", table.name().to_owned()), ("reason", reason.as_str().to_owned())]
}

fn as_gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use lictor_schemas::event::{EnforcementEvent, Finding, Revision, State};
    use lictor_schemas::genops::{Action, ReasonCode, Severity};
    use lictor_schemas::rule::{RuleHeader, RuleVersion};
    use lictor_schemas::violation::Subject;

    use super::*;
    use crate::decision::DirectiveRecord;

    #[track_caller]
    fn check(metrics: &Metrics, lines: &[&str]) {
        let text = metrics.encode();
        for line in lines {
            assert!(text.lines().any(|l| l == *line), "no line `{line}` in\n{text}");
        }
    }

    fn status(name: &str, quarantined: Option<&str>) -> RuleStatus {
        let quarantined = quarantined.map(str::to_owned);
        RuleStatus {
            name: name.to_owned(),
            groups: 3,
            state_bytes: 450,
            mode: Mode::Enforce,
            firing: 2,
            pending: 1,
            dropped: 7,
            is_warming: false,
            quarantined,
        }
    }

    fn decision() -> Decision {
        let rule = RuleHeader {
            name: "costly".to_owned(),
            description: String::new(),
            action: Action::Warn,
            reason_code: ReasonCode::parse("BUDGET_EXCEEDED").unwrap(),
            severity: Severity::Warning,
            owner: String::new(),
            mode: Mode::Enforce,
            ttl_ns: 0,
            for_ns: 0,
            keep_firing_for_ns: 0,
            repeat_interval_ns: None,
            file: "a.sql".to_owned(),
            version: RuleVersion("0".repeat(16)),
        };
        let subject = Subject(serde_json::Map::from_iter([("team".to_owned(), "search".into())]));
        let directive_id = "d".repeat(32);
        let at = EventTime::default();
        let revision = Revision {
            directive_id: &directive_id,
            revision: 1,
            state: State::Firing,
            subject: &subject,
            finding: Finding::cleared(None),
            mode: rule.mode,
            started_at: Some(at),
            at,
            valid_until: at,
        };
        let event = EnforcementEvent::new("lictor", &rule, revision);
        Decision { event, directive: DirectiveRecord::Put }
    }

    #[test]
    fn an_epoch_is_counted_by_outcome() {
        let metrics = Metrics::new();
        let counts = ScanCounts {
            records: 10,
            records_dead: 2,
            records_partly_dead: 1,
            rows_used: BTreeMap::from([(Table::Spans, 40)]),
            rows_untimely: BTreeMap::from([((Table::Logs, Untimely::FutureSkew), 5)]),
            dead_letters: BTreeMap::from([("malformed_json", 2)]),
        };
        let limits = vec![LimitReport { rule: "r".to_owned(), subjects_max: 1 }];
        for _ in 0..2 {
            metrics.observe_scan(&counts);
            metrics.observe_judging(&[], &limits, Some(Duration::from_millis(30)));
        }
        check(
            &metrics,
            &[
                "lictor_records_total{outcome=\"used\"} 14",
                "lictor_records_total{outcome=\"partly_dead\"} 2",
                "lictor_records_total{outcome=\"dead\"} 4",
                "lictor_rows_total{table=\"spans\",outcome=\"used\"} 80",
                "lictor_rows_total{table=\"logs\",outcome=\"future_skew\"} 10",
                "lictor_rows_total{table=\"metrics\",outcome=\"late\"} 0",
                "lictor_late_rows_total{table=\"logs\",reason=\"future_skew\"} 10",
                "lictor_dead_letters_total{reason=\"malformed_json\"} 4",
                "lictor_limit_reached_total{rule=\"r\",limit=\"subjects\"} 2",
                // Epochs without events say nothing about how long events take.
                "lictor_event_latency_seconds_count 0",
            ],
        );
    }

    #[test]
    fn a_rule_is_in_one_state() {
        let metrics = Metrics::new();
        metrics.observe_status(&[status("a", None), status("b", Some("overflow")), status("gone", None)]);
        metrics.observe_status(&[status("a", None), status("b", Some("overflow"))]);
        assert!(!metrics.encode().contains("_state{rule=\"gone\""), "a rule that was removed has no state");
        check(
            &metrics,
            &[
                "lictor_rule_state{rule=\"a\",state=\"running\"} 1",
                "lictor_rule_state{rule=\"a\",state=\"warming\"} 0",
                "lictor_rule_state{rule=\"a\",state=\"quarantined\"} 0",
                "lictor_rule_state{rule=\"b\",state=\"running\"} 0",
                "lictor_rule_state{rule=\"b\",state=\"quarantined\"} 1",
                "lictor_directives_active{rule=\"a\",mode=\"enforce\"} 2",
                "lictor_violations_pending{rule=\"a\"} 1",
                "lictor_groups{rule=\"a\"} 3",
                "lictor_state_bytes{rule=\"a\"} 450",
                "lictor_dropped_groups_total{rule=\"a\"} 7",
            ],
        );
    }

    #[test]
    fn lags_and_the_rest_are_gauges_of_now() {
        let metrics = Metrics::new();
        let second = 1_000;
        metrics.observe_watermark(Signal::Traces, EventTime::from_ms(5 * second), EventTime::from_ms(7 * second + 500));
        metrics.observe_watermark(Signal::Logs, EventTime::MIN, EventTime::from_ms(second));
        metrics.observe_lag(&[(TopicPartition::new("t", 0), 9), (TopicPartition::new("t", 1), 4)]);
        metrics.observe_lag(&[(TopicPartition::new("t", 1), 3)]);
        metrics.observe_commit(Stage::Judge, Duration::from_millis(4));
        metrics.observe_abort(Stage::Scan, "rebalanced");
        metrics.observe_partitions(Stage::Judge, 8);
        metrics.observe_restore(1_000, Duration::from_millis(30));
        metrics.observe_ready(true);
        check(
            &metrics,
            &[
                "lictor_watermark_lag_seconds{signal=\"traces\"} 2.5",
                "lictor_consumer_lag{topic=\"t\",partition=\"1\"} 3",
                "lictor_commit_duration_seconds_bucket{le=\"0.005\",stage=\"judge\"} 1",
                "lictor_commit_duration_seconds_count{stage=\"scan\"} 0",
                "lictor_aborts_total{stage=\"scan\",cause=\"rebalanced\"} 1",
                "lictor_partitions{stage=\"judge\"} 8",
                "lictor_restored_bytes_total 1000",
                "lictor_restore_duration_seconds_count 1",
                "lictor_ready 1",
            ],
        );
        let text = metrics.encode();
        assert!(!text.contains("signal=\"logs\"") && !text.contains("partition=\"0\""), "{text}");
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn events_are_counted_by_rule_and_state_and_timed() {
        let metrics = Metrics::new();
        metrics.observe_judging(&[decision(), decision()], &[], Some(Duration::from_millis(30)));
        check(
            &metrics,
            &[
                "lictor_events_total{rule=\"costly\",state=\"firing\",mode=\"enforce\"} 2",
                "lictor_event_latency_seconds_bucket{le=\"0.025\"} 0",
                "lictor_event_latency_seconds_bucket{le=\"0.05\"} 1",
            ],
        );
    }

    fn names() -> BTreeSet<String> {
        let metrics = Metrics::new();
        let counts = ScanCounts { dead_letters: BTreeMap::from([("empty", 1)]), ..ScanCounts::default() };
        let limits = vec![LimitReport { rule: "r".to_owned(), subjects_max: 1 }];
        metrics.observe_scan(&counts);
        metrics.observe_judging(&[decision()], &limits, None);
        metrics.observe_status(&[status("r", None)]);
        metrics.observe_lag(&[(TopicPartition::new("t", 0), 1)]);
        metrics.observe_watermark(Signal::Logs, EventTime::default(), EventTime::default());
        metrics.observe_refused_references([("budgets", 1)].into_iter());
        let text = metrics.encode();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.filter_map(|line| line.split(['{', ' ']).next()).map(str::to_owned).collect()
    }

    #[test]
    fn these_are_all_metrics() {
        let mut expected = BTreeSet::from([
            "lictor_aborts_total",
            "lictor_alert_posts_total",
            "lictor_alerts_firing",
            "lictor_alerts_left_out",
            "lictor_consumer_lag",
            "lictor_dead_letters_total",
            "lictor_directives_active",
            "lictor_dropped_groups_total",
            "lictor_events_total",
            "lictor_groups",
            "lictor_late_rows_total",
            "lictor_limit_reached_total",
            "lictor_partitions",
            "lictor_ready",
            "lictor_records_total",
            "lictor_refused_references",
            "lictor_reloads_total",
            "lictor_restored_bytes_total",
            "lictor_rows_total",
            "lictor_rule_state",
            "lictor_state_bytes",
            "lictor_violations_pending",
            "lictor_watermark_lag_seconds",
        ])
        .into_iter()
        .map(str::to_owned)
        .collect::<BTreeSet<_>>();
        for histogram in ["commit_duration", "event_latency", "restore_duration"] {
            expected.extend(["sum", "count", "bucket"].map(|part| format!("lictor_{histogram}_seconds_{part}")));
        }
        assert_eq!(names(), expected);
    }

    #[test]
    fn the_dashboard_asks_for_metrics_that_exist() {
        let dashboard = include_str!("../deploy/grafana/dashboards/lictor.json");
        let known = names();
        let mut asked = 0;
        for expression in dashboard.lines().filter(|line| line.contains("\"expr\"")) {
            let words = expression.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
            for word in words.filter(|word| word.starts_with("lictor_")) {
                assert!(known.contains(word), "{word} in {expression}");
                asked += 1;
            }
        }
        assert!(asked > 10, "only {asked} metrics found in the dashboard");
    }
}
