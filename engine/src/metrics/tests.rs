//! What is counted, and under which name.

use std::collections::{BTreeMap, BTreeSet};

use lictor_schemas::event::{EnforcementEvent, Finding, Revision, State};
use lictor_schemas::genops::{Action, ReasonCode};
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
        leaves: LeafCounts { late: 5, unsearched: 0 },
        is_warming: false,
        quarantined,
    }
}

fn decision() -> Decision {
    let rule = RuleHeader {
        file: "a.sql".to_owned(),
        version: RuleVersion("0".repeat(16)),
        ..RuleHeader::new("costly", Action::Warn, ReasonCode::parse("BUDGET_EXCEEDED").unwrap())
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
        ..ScanCounts::default()
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
            "lictor_unsure_usage_leaves_total{rule=\"a\",reason=\"late\"} 5",
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

pub(super) fn names() -> BTreeSet<String> {
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
        "lictor_http_connections",
        "lictor_http_limited_total",
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
        "lictor_telemetry_dropped_epochs_total",
        "lictor_telemetry_posts_total",
        "lictor_unsure_usage_leaves_total",
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
