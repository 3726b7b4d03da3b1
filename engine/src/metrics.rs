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
use crate::http::HttpCounts;
use crate::join::LeafCounts;
use crate::judge_stage::RuleStatus;
use crate::scan_stage::ScanCounts;
use crate::tasks::Stage;
use crate::telemetry::ExportCounts;
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
    unsure_leaves: Family<Labels<2>, Counter>,
    dead_letters: Family<Labels<1>, Counter>,
    late_rows: Family<Labels<2>, Counter>,
    limit_reached: Family<Labels<2>, Counter>,
    reloads: Family<Labels<1>, Counter>,
    refused_references: Family<Labels<1>, Gauge>,
    alerts_firing: Gauge,
    alerts_left_out: Gauge,
    alert_posts: Family<Labels<1>, Counter>,
    http: HttpCounts,
    telemetry: ExportCounts,
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

    fn add_connections(&mut self) -> HttpCounts {
        let counts = HttpCounts::default();
        counts.register(&mut self.0);
        counts
    }

    fn add_telemetry(&mut self) -> ExportCounts {
        let counts = ExportCounts::default();
        counts.register(&mut self.0);
        counts
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
            unsure_leaves: to.add(
                "unsure_usage_leaves",
                "Spans that USAGE_LEAVES counted though another of their trace may repeat their usage, by reason",
            ),
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
            http: to.add_connections(),
            telemetry: to.add_telemetry(),
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
            let LeafCounts { late, unsearched } = status.leaves;
            for (reason, spans) in [("late", late), ("large_trace", unsearched)].into_iter().filter(|(_, n)| *n > 0) {
                let labels = [("rule", status.name.clone()), ("reason", reason.to_owned())];
                self.unsure_leaves.get_or_create(&labels).inner().fetch_max(spans, Ordering::Relaxed);
            }
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

    /// What is counted of the connections to `/metrics` and the console.
    #[must_use]
    pub fn http(&self) -> &HttpCounts {
        &self.http
    }

    /// What is counted of telemetry of our own that is sent.
    #[must_use]
    pub fn telemetry(&self) -> &ExportCounts {
        &self.telemetry
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
mod shown;
#[cfg(test)]
mod tests;
