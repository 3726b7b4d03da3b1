//! What is told of directives, without anybody to tell it to.

use lictor_schemas::event::{Finding, Revision, State, WindowBounds};
use lictor_schemas::genops::{Action, PolicyResult, ReasonCode, Severity};
use lictor_schemas::rule::{Mode, RuleHeader, RuleVersion};
use lictor_schemas::violation::Subject;
use serde_json::Map;

use super::*;

const SECOND_NS: i64 = 1_000_000_000;

/// 2026-03-01T08:00:00Z.
pub(super) fn start() -> EventTime {
    EventTime(1_772_352_000 * SECOND_NS)
}

pub(super) fn at(seconds: i64) -> EventTime {
    start().plus(seconds * SECOND_NS)
}

fn rule() -> RuleHeader {
    RuleHeader {
        description: "Blocks a team that has spent its day.".to_owned(),
        severity: Severity::Critical,
        owner: "finops".to_owned(),
        file: "r.sql".to_owned(),
        version: RuleVersion("v".to_owned()),
        ..RuleHeader::new("team_daily_budget", Action::Block, ReasonCode::parse("BUDGET_EXCEEDED").unwrap())
    }
}

fn finding(result: PolicyResult, observed: f64) -> Finding {
    let window = Some(WindowBounds { start: start(), end: at(86_400), kind: None });
    Finding {
        result,
        reason_code: Some(ReasonCode::parse("BUDGET_EXCEEDED").unwrap()),
        observed: Some(observed),
        threshold: Some(100.0),
        unit: Some("USD".to_owned()),
        message: Some(format!("search has spent {observed} of 100 USD")),
        ..Finding::cleared(window)
    }
}

/// A revision at so many seconds after the start, which holds for ten minutes.
fn revision(rule: &RuleHeader, subject: Value, number: u32, finding: Finding, seconds: i64) -> Vec<u8> {
    let Value::Object(subject) = subject else { panic!("{subject}") };
    let state = if number == 1 { State::Firing } else { State::Updated };
    let (at, valid_until) = (at(seconds), at(seconds + 600));
    let subject = Subject(Map::from_iter(subject));
    let revision = Revision {
        directive_id: "d1",
        revision: number,
        state,
        subject: &subject,
        finding,
        mode: Mode::Enforce,
        started_at: None,
        at,
        valid_until,
    };
    EnforcementEvent::new("eu", rule, revision).to_json()
}

/// A team in violation since so many seconds after the start.
pub(super) fn warning(team: &str, seconds: i64) -> Vec<u8> {
    revision(&rule(), json!({"team": team}), 1, finding(PolicyResult::Warning, 81.5), seconds)
}

/// It has become worse.
pub(super) fn blocked(team: &str, seconds: i64) -> Vec<u8> {
    revision(&rule(), json!({"team": team}), 2, finding(PolicyResult::Blocked, 140.0), seconds)
}

fn alerts() -> Alerts {
    Alerts::new("eu", None, 3)
}

impl Alerts {
    fn take(&mut self, id: &str, value: Option<Vec<u8>>, seconds: i64) -> bool {
        self.absorb(id.as_bytes(), value.as_deref(), at(seconds)).unwrap()
    }

    /// What is to be told now; it is.
    fn tell(&mut self, seconds: i64) -> Vec<Value> {
        let batch = self.next_batch(at(seconds));
        let alerts = batch.alerts.clone();
        self.told(batch);
        alerts
    }
}

#[test]
fn a_directive_is_an_alert_with_the_labels_of_its_rule_and_subject() {
    let mut alerts = Alerts::new("eu", Some("https://grafana/d/lictor?var-rule={rule}"), ALERTS_MAX);
    alerts.take("d1", Some(warning("search", 0)), 1);
    let expected = json!([{
        "labels": {
            "alertname": "team_daily_budget", "severity": "critical", "lictor": "eu", "owner": "finops",
            "selector_team": "search",
        },
        "annotations": {
            "summary": "search has spent 81.5 of 100 USD", "description": "Blocks a team that has spent its day.",
            "action": "warn", "result": "WARNING", "reason_code": "BUDGET_EXCEEDED", "observed": "81.5",
            "threshold": "100", "unit": "USD", "valid_until": "2026-03-01T08:10:00Z", "directive_id": "d1",
            "revision": "1",
        },
        "startsAt": "2026-03-01T08:00:00Z",
        "endsAt": "2026-03-01T08:10:00Z",
        "generatorURL": "https://grafana/d/lictor?var-rule=team_daily_budget",
    }]);
    assert_eq!(json!(alerts.tell(1)), expected);
}

#[test]
fn all_revisions_and_the_end_of_a_directive_have_the_same_labels() {
    let mut alerts = alerts();
    alerts.take("d1", Some(warning("search", 0)), 1);
    let [fired] = alerts.tell(1).try_into().unwrap();
    alerts.take("d1", Some(blocked("search", 60)), 61);
    let [updated] = alerts.tell(61).try_into().unwrap();
    assert_eq!(updated["labels"], fired["labels"]);
    assert_eq!(
        (&updated["annotations"]["action"], &updated["annotations"]["revision"]),
        (&json!("block"), &json!("2"))
    );
    assert_eq!(updated["startsAt"], fired["startsAt"], "it fires since the first of them");
    assert_eq!(updated["endsAt"], json!("2026-03-01T08:11:00Z"));
    alerts.take("d1", None, 90);
    let [ended] = alerts.tell(90).try_into().unwrap();
    assert_eq!(ended["labels"], fired["labels"]);
    assert_eq!(ended["endsAt"], json!("2026-03-01T08:01:30Z"));
    assert_eq!((alerts.tell(91).len(), alerts.firing()), (0, 0));
}

#[test]
fn what_fires_is_sent_again_when_that_is_due_and_not_before() {
    let mut alerts = alerts();
    alerts.take("d1", Some(warning("search", 0)), 1);
    assert_eq!([alerts.tell(1).len(), alerts.tell(2).len()], [1, 0]);
    alerts.resend();
    assert_eq!([alerts.tell(60).len(), alerts.tell(61).len()], [1, 0]);
    alerts.resend();
    assert_eq!(alerts.tell(600).len(), 0, "it has lapsed, and a controller has dropped it");
}

#[test]
fn a_batch_that_was_not_taken_is_there_again() {
    let mut alerts = alerts();
    alerts.take("d1", Some(warning("search", 0)), 1);
    alerts.take("d2", Some(warning("docs", 0)), 1);
    alerts.take("d2", None, 2);
    assert_eq!(alerts.next_batch(at(3)), alerts.next_batch(at(3)));
    assert_eq!(alerts.tell(3).len(), 2);
}

#[test]
fn an_alert_is_over_once_no_directive_has_its_labels() {
    let mut alerts = alerts();
    alerts.take("d1", Some(warning("search", 0)), 1);
    // The next one about the same subject, from another partition, is read before the end of the first.
    alerts.take("d2", Some(warning("search", 5)), 6);
    alerts.take("d1", None, 7);
    let told = alerts.tell(8);
    assert_eq!(told.len(), 1);
    assert_eq!(told[0]["annotations"]["result"], "WARNING");
    alerts.take("d2", None, 9);
    assert_eq!(alerts.tell(9)[0]["endsAt"], json!("2026-03-01T08:00:09Z"));
}

#[test]
fn what_fires_again_before_its_end_was_told_has_not_ended() {
    let mut alerts = alerts();
    alerts.take("d1", Some(warning("search", 0)), 1);
    alerts.tell(1);
    alerts.take("d1", None, 2);
    alerts.take("d2", Some(warning("search", 3)), 4);
    let [again] = alerts.tell(4).try_into().unwrap();
    assert_eq!(again["endsAt"], json!("2026-03-01T08:10:03Z"));
}

#[test]
fn another_severity_of_the_rule_ends_the_alert_and_begins_another() {
    let mut alerts = alerts();
    alerts.take("d1", Some(warning("search", 0)), 1);
    alerts.tell(1);
    let milder = RuleHeader { severity: Severity::Info, ..rule() };
    let update = revision(&milder, json!({"team": "search"}), 2, finding(PolicyResult::Warning, 82.0), 60);
    alerts.take("d1", Some(update), 61);
    let told = alerts.tell(61);
    let severities: Vec<&Value> = told.iter().map(|alert| &alert["labels"]["severity"]).collect();
    assert_eq!(severities, ["critical", "info"]);
    assert_eq!(told[0]["endsAt"], json!("2026-03-01T08:01:01Z"));
}

fn reported(team: &str) -> Reported {
    let mut other = alerts();
    other.take("x", Some(warning(team, 0)), 0);
    let (labels, annotations) = (other.firing["x"].labels.clone(), other.firing["x"].annotations.clone());
    Reported { labels, annotations, starts_at: start(), ends_at: at(600) }
}

#[test]
fn what_the_alertmanager_has_and_the_topic_has_not_is_over() {
    let mut alerts = alerts();
    alerts.take("d1", Some(warning("search", 0)), 1);
    alerts.tell(1);
    alerts.suspect(vec![reported("search"), reported("docs"), reported("people")]);
    assert_eq!(alerts.tell(2).len(), 0, "another instance may have been quicker than our reading");
    alerts.take("d3", Some(warning("people", 3)), 3);
    alerts.end_suspects(at(4));
    let told = alerts.tell(4);
    let told: Vec<_> = told.iter().map(|alert| (&alert["labels"]["selector_team"], &alert["endsAt"])).collect();
    let docs = (&json!("docs"), &json!("2026-03-01T08:00:04Z"));
    assert_eq!(told, [docs, (&json!("people"), &json!("2026-03-01T08:10:03Z"))]);
}

#[test]
fn directives_beyond_the_limit_are_left_out_and_counted_until_there_is_room() {
    let mut alerts = alerts();
    let teams = ["a", "b", "c", "d"];
    let left_out: Vec<bool> = teams.iter().map(|team| alerts.take(team, Some(warning(team, 0)), 1)).collect();
    assert_eq!(left_out, [false, false, false, true]);
    assert!(!alerts.take("d", Some(blocked("d", 1)), 2), "it is told of once");
    assert_eq!((alerts.firing(), alerts.left_out(), alerts.tell(2).len()), (3, 1, 3));
    alerts.take("a", None, 3);
    alerts.take("d", Some(blocked("d", 4)), 5);
    assert_eq!((alerts.firing(), alerts.left_out()), (3, 0));
}

#[test]
fn an_end_that_the_alertmanager_knows_by_itself_is_forgotten() {
    let mut alerts = alerts();
    alerts.take("d1", Some(warning("search", 0)), 1);
    alerts.take("d1", None, 2);
    alerts.forget_lapsed(at(599));
    assert_eq!(alerts.next_batch(at(599)).alerts.len(), 1);
    alerts.forget_lapsed(at(600));
    assert_eq!(alerts.next_batch(at(600)).alerts.len(), 0);
}

#[test]
fn an_end_is_never_before_the_beginning_nor_after_now() {
    let mut alerts = alerts();
    // By the clocks of those who wrote the telemetry it is five minutes later.
    alerts.take("d1", Some(warning("search", 300)), 1);
    alerts.take("d1", None, 2);
    let [ended] = alerts.tell(2).try_into().unwrap();
    assert_eq!((&ended["startsAt"], &ended["endsAt"]), (&json!(at(2).to_rfc3339()), &json!(at(2).to_rfc3339())));
}

#[test]
fn columns_whose_names_are_no_labels_stay_apart() {
    let mut alerts = alerts();
    let subject = json!({"a.b": "1", "a-b": "2", "is_leaf": true});
    alerts.take("d1", Some(revision(&rule(), subject, 1, finding(PolicyResult::Warning, 1.0), 0)), 1);
    let told = alerts.tell(1);
    let labels = &told[0]["labels"];
    assert_eq!((&labels["selector_a_b"], &labels["selector_a_b_"]), (&json!("2"), &json!("1")));
    assert_eq!(labels["selector_is_leaf"], json!("true"));
}

#[test]
fn a_column_without_text_is_no_label_so_that_the_alert_is_found_again() {
    let mut alerts = alerts();
    let subject = json!({"team": "search", "feature": ""});
    alerts.take("d1", Some(revision(&rule(), subject, 1, finding(PolicyResult::Warning, 1.0), 0)), 1);
    let told = alerts.tell(1);
    assert_eq!(told[0]["labels"].get("selector_feature"), None, "{told:?}");
    // What the Alertmanager has, which has no empty labels, is what fires.
    alerts.suspect(vec![reported("search")]);
    alerts.end_suspects(at(2));
    assert_eq!(alerts.tell(2), Vec::<Value>::new());
}

#[test]
fn an_alert_starts_with_its_directive_whichever_revision_is_read_first() {
    let started = |at: EventTime| {
        let mut event: Value = serde_json::from_slice(&blocked("search", 60)).unwrap();
        event["data"]["started_at"] = json!(at.to_rfc3339());
        event.to_string().into_bytes()
    };
    let mut alerts = alerts();
    alerts.take("d1", Some(started(at(5))), 61);
    assert_eq!(alerts.tell(61)[0]["startsAt"], json!("2026-03-01T08:00:05Z"));
}

#[test]
fn a_value_that_is_no_event_changes_nothing() {
    let mut alerts = alerts();
    alerts.take("d1", Some(warning("search", 0)), 1);
    assert!(alerts.absorb(b"d1", Some(b"{}"), at(2)).is_err());
    assert_eq!(alerts.tell(2).len(), 1);
}
