//! Every clause is judged: telemetry that keeps to it passes, telemetry that breaks only it fails there and nowhere
//! else, and what was sampled away is not held against anybody.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use lictor_connectors::{ConnectorError, Recorded, TopicPartition, Track};
use lictor_schemas::event::{EnforcementEvent, Finding, Instruction, Revision, State};
use lictor_schemas::genops::{Action, PolicyResult, ReasonCode};
use lictor_schemas::otlp::encode::RowDraft;
use lictor_schemas::otlp::evaluation::{Encoding, messages as messages_of};
use lictor_schemas::rule::{Mode, RuleHeader};
use lictor_schemas::tables::{Signal, Table};
use lictor_schemas::violation::Subject;
use serde_json::{Map, json};

use super::generator::{BREAKS, Carrier, Message, day, messages};
use super::*;
use crate::backtest::{Backtest, Outcome, Range, Witness, run};
use crate::company::Company;
use crate::guard::{Change, Guard, GuardOptions, Held, OnStale, decisions};
use crate::pipeline::PipelineSettings;
use crate::rules_dir;

/// Telemetry of services in memory.
struct Records(VecDeque<Recorded>);

impl Track for Records {
    fn read_next(&mut self) -> Result<Option<Recorded>, ConnectorError> {
        Ok(self.0.pop_front())
    }
}

fn tracks(mut messages: Vec<Message>) -> Vec<Box<dyn Track>> {
    messages.sort_by_key(|(at, ..)| *at);
    let track = |signal: Signal, topic: &str| {
        let payloads = messages.iter().filter(|(_, of, _)| *of == signal).map(|(.., payload)| payload.clone());
        let record = |(offset, payload)| Recorded {
            partition: TopicPartition::new(topic, 0),
            offset,
            timestamp_ms: 0,
            key: None,
            payload: Some(payload),
        };
        Box::new(Records((0..).zip(payloads).map(record).collect())) as Box<dyn Track>
    };
    vec![track(Signal::Traces, "otlp_spans"), track(Signal::Logs, "otlp_logs")]
}

/// What is to be said of every service; those in `of_logs` send their events as log records.
fn judged(messages: Vec<Message>, of_logs: &[&str]) -> BTreeMap<String, RuntimeReport> {
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../queries/rules/conformance");
    let carriers = rules_dir::load(&rules, None).unwrap().references.remove(EVENT_CARRIERS).unwrap().unwrap();
    let carriers = with_log_services(&carriers, of_logs.iter().copied()).unwrap();
    let overrides = BTreeMap::from([(EVENT_CARRIERS.to_owned(), carriers)]);
    let loaded = rules_dir::load_with(&rules, overrides, &|_| true).unwrap();
    assert_eq!(loaded.diagnostics, []);
    let clauses = clauses(loaded.rules.rules.iter().map(|rule| &rule.header)).unwrap();
    let mut census = Census::new(&clauses);
    let (sets, settings) = (vec![(loaded.rules, loaded.prices)], PipelineSettings::default());
    let tracks = tracks(messages);
    let backtest = Backtest { tracks, range: Range::default(), sets, settings, leaves_open: false, decoders: 1 };
    let witnesses: Vec<&mut dyn Witness> = vec![&mut census];
    let Outcome { accounts, .. } = run(backtest, &BTreeSet::new(), witnesses, &AtomicBool::new(false)).unwrap();
    let evidence = Evidence::of(&accounts[0]);
    assert_eq!(accounts[0].dead, []);
    let of_each = census
        .runtimes()
        .iter()
        .map(|(runtime, tally)| (runtime.service.clone(), report(runtime, tally, &clauses, &evidence)));
    of_each.collect()
}

fn all(_: &mut RowDraft) -> bool {
    true
}

/// The clauses of a verdict.
fn of_verdict<'a>(report: &'a RuntimeReport, word: &str) -> Vec<&'a str> {
    let of_it = report.clauses.iter().filter(|clause| clause.verdict.as_str() == word);
    of_it.map(|clause| clause.clause.name.as_str()).collect()
}

const LOG: &str = " by log";

#[test]
fn conformant_telemetry_passes_every_clause_and_each_break_fails_its_own_and_no_other() {
    let mut sent = messages(&day("conformant", 1), Carrier::SpanEvents, &mut all);
    sent.extend(messages(&day("conformant by log", 1), Carrier::Logs, &mut all));
    let mut of_logs = vec!["conformant by log".to_owned()];
    for (clause, breaks) in BREAKS {
        for (carrier, suffix) in [(Carrier::SpanEvents, ""), (Carrier::Logs, LOG)] {
            let service = format!("{clause}{suffix}");
            let mut day = day(&service, 1);
            breaks(&mut day);
            sent.extend(messages(&day, carrier, &mut all));
            of_logs.extend((carrier == Carrier::Logs).then_some(service));
        }
    }
    let of_logs: Vec<&str> = of_logs.iter().map(String::as_str).collect();
    let mut reports = judged(sent, &of_logs);
    for service in ["conformant", "conformant by log"] {
        let conformant = reports.remove(service).unwrap();
        let failed: Vec<_> = conformant.clauses.iter().flat_map(|clause| &clause.exemplars).collect();
        assert_eq!((of_verdict(&conformant, "failed"), failed), (vec![], vec![]), "{service}");
        assert_eq!(of_verdict(&conformant, "not assessable"), Vec::<&str>::new(), "{service}");
        assert_eq!(conformant.level, Level::Full, "{:?}", conformant.standings);
        assert_eq!(conformant.awus(), 7);
    }
    let clauses: Vec<String> = reports.values().next().unwrap().clauses.iter().map(|c| c.clause.name.clone()).collect();
    let broken: Vec<&str> = BREAKS.iter().map(|(clause, _)| *clause).collect();
    assert_eq!(clauses, broken, "every clause has its break");
    let mut faults = Vec::new();
    for (service, report) in &reports {
        let clause = service.strip_suffix(LOG).unwrap_or(service);
        if of_verdict(report, "failed") != [clause] {
            let found: Vec<_> = report.clauses.iter().flat_map(|clause| &clause.exemplars).collect();
            faults.push(format!("{service}: {found:?}"));
        }
    }
    assert_eq!(faults, Vec::<String>::new());
    assert_eq!(reports.len(), BREAKS.len() * 2);
}

#[test]
fn what_a_break_costs_is_the_level_that_its_requirement_is_of() {
    let broken = |clause: &str| {
        let mut day = day(clause, 1);
        BREAKS.iter().find(|(name, _)| *name == clause).unwrap().1(&mut day);
        messages(&day, Carrier::SpanEvents, &mut all)
    };
    let clauses = ["genops_3_3_reservation_event", "genops_4_1_decision_state", "genops_6_3_sla_met"];
    let reports = judged(clauses.into_iter().flat_map(broken).collect(), &[]);
    let levels: Vec<Level> = clauses.iter().map(|clause| reports[*clause].level).collect();
    assert_eq!(levels, [Level::Partial, Level::None, Level::Full]);
    let of_event = &reports["genops_3_3_reservation_event"];
    assert_eq!(of_event.standings[&2], Standing::Broken(vec!["genops_3_3_reservation_event".to_owned()]));
    let failed = of_event.clauses.iter().find(|clause| clause.clause.name == "genops_3_3_reservation_event").unwrap();
    assert_eq!(failed.verdict, Verdict::Failed { found: 1, judged: 4 });
    assert_eq!(failed.exemplars[0].place, Some((0, 0)), "{:?}", failed.exemplars);
}

/// Keeps every other span and log record, or so; `marks` says what they say of it.
fn half(seed: u64, marks: bool) -> impl FnMut(&mut RowDraft) -> bool {
    let mut random = fastrand::Rng::with_seed(seed);
    move |draft| {
        if marks && draft.table == Table::Spans {
            draft.columns.insert("trace_state".to_owned(), json!("ot=th:8"));
        }
        if marks && draft.table == Table::Logs {
            draft.columns.insert("attr:sampling.threshold".to_owned(), json!("8"));
        }
        random.bool()
    }
}

#[test]
fn what_was_sampled_away_is_not_assessable_and_never_failed() {
    let (mut sent, mut of_logs) = (Vec::new(), Vec::new());
    for seed in 0..2 {
        for (marks, how) in [(true, "marked"), (false, "found out")] {
            for carrier in [Carrier::SpanEvents, Carrier::Logs] {
                let service = format!("{how} {carrier:?} {seed}");
                sent.extend(messages(&day(&service, 4), carrier, &mut half(seed, marks)));
                of_logs.extend((carrier == Carrier::Logs).then_some(service));
            }
        }
    }
    let of_logs: Vec<&str> = of_logs.iter().map(String::as_str).collect();
    let reports = judged(sent, &of_logs);
    assert_eq!(reports.len(), 8);
    for (service, report) in &reports {
        assert_eq!(of_verdict(report, "failed"), Vec::<&str>::new(), "{service}");
        for clause in report.clauses.iter().filter(|clause| clause.clause.is_absence) {
            let is_sampled = matches!(clause.verdict, Verdict::NotAssessable(Unknown::Sampled(..)));
            assert!(is_sampled, "{service}: {}: {:?}", clause.clause.name, clause.verdict);
        }
        assert!(report.level < Level::Full, "{service}: what cannot be seen is not shown");
    }
}

#[test]
fn without_log_records_those_that_are_missed_are_not_assessable() {
    let mut sent = messages(&day("gateway", 1), Carrier::Logs, &mut all);
    sent.retain(|(_, signal, _)| *signal == Signal::Traces);
    let report = judged(sent, &["gateway"]).remove("gateway").unwrap();
    assert_eq!(of_verdict(&report, "failed"), Vec::<&str>::new());
    let event = report.clauses.iter().find(|clause| clause.clause.name == "genops_3_3_reservation_event").unwrap();
    assert_eq!(event.verdict, Verdict::NotAssessable(Unknown::NoSignal(Signal::Logs)));
    assert_eq!(report.level, Level::Partial);
}

#[test]
fn who_sends_log_records_and_is_not_said_to_is_known_by_them() {
    let sent = messages(&day("gateway", 1), Carrier::Logs, &mut all);
    assert!(judged(sent.clone(), &[])["gateway"].is_carrier_unsaid());
    assert!(!judged(sent, &["gateway"])["gateway"].is_carrier_unsaid());
}

#[test]
fn the_demos_services_that_speak_genops_may_claim_all_of_it_and_the_others_claim_nothing() {
    let until = generator::start().plus(60_000_000_000);
    let sent = Company::new(1, generator::start()).governed().next_batch(until);
    let sent: Vec<Message> = sent.into_iter().map(|(signal, _, payload)| (until, signal, payload)).collect();
    // As `lictor conformance` does: who is found out to send log records is judged by them.
    let first = judged(sent.clone(), &[]);
    let of_logs: Vec<&str> = first.iter().filter(|(_, r)| r.is_carrier_unsaid()).map(|(s, _)| s.as_str()).collect();
    let reports = judged(sent, &of_logs);
    let (claiming, silent): (Vec<_>, Vec<_>) = reports.iter().partition(|(_, report)| report.claims());
    assert!(claiming.len() >= 6 && silent.iter().any(|(service, _)| *service == "helpdesk"), "{}", reports.len());
    for (service, report) in claiming {
        assert_eq!(of_verdict(report, "failed"), Vec::<&str>::new(), "{service}");
        assert_eq!(report.level, Level::Full, "{service}: {:?}", report.standings);
    }
}

/// What the engine writes with `decisions` set: an event of a budget rule as OTLP log records.
#[test]
fn the_engines_own_decisions_are_judged_and_nothing_speaks_against_them() {
    let header = RuleHeader::new("budget", Action::Block, ReasonCode::parse("BUDGET_EXCEEDED").unwrap());
    let subject = Subject(Map::from_iter([("team".to_owned(), json!("search")), ("region".to_owned(), json!("eu"))]));
    let of = |state: State, result: PolicyResult, mode: Mode| {
        let reason_code = (result != PolicyResult::Allowed).then(|| header.reason_code.clone());
        let measured = (!state.is_ended()).then_some(12.0);
        let finding =
            Finding { result, reason_code, observed: measured, threshold: Some(10.0), ..Finding::cleared(None) };
        let revision = Revision {
            directive_id: "d",
            revision: 1,
            state,
            subject: &subject,
            finding,
            mode,
            started_at: None,
            at: generator::start(),
            valid_until: generator::start().plus(60_000_000_000),
        };
        EnforcementEvent::new("lictor", &header, revision)
    };
    let events = [
        of(State::Firing, PolicyResult::Warning, Mode::Enforce),
        of(State::Updated, PolicyResult::Blocked, Mode::Enforce),
        of(State::Firing, PolicyResult::Blocked, Mode::Shadow),
        of(State::Resolved, PolicyResult::Allowed, Mode::Enforce),
    ];
    let payloads = events.iter().flat_map(|event| messages_of(event, Encoding::Protobuf));
    let sent = payloads.map(|payload| (generator::start(), Signal::Logs, payload)).collect();
    let report = judged(sent, &["lictor"]).remove("lictor").unwrap();
    assert_eq!(of_verdict(&report, "failed"), Vec::<&str>::new());
    assert_eq!(of_verdict(&report, "passed"), ["genops_8_1_policy_evaluated", "genops_8_4_optional_events"]);
    let parent = report.clauses.iter().find(|clause| clause.clause.name == "genops_4_4_parent_awu").unwrap();
    assert_eq!(parent.verdict, Verdict::NotAssessable(Unknown::NoSignal(Signal::Traces)));
}

/// What the guard writes with `guard.decisions` set, of calls that it stops: by a directive that blocks for `reason`,
/// by one that throttles, and because it does not know everything.
fn guards_decisions(reason: Option<&str>) -> Vec<Message> {
    let held = |team: &str, action: Instruction, reason: Option<&str>| {
        let held = Held {
            directive_id: format!("d-{team}"),
            revision: 1,
            mode: Mode::Enforce,
            action,
            result: PolicyResult::Blocked,
            reason_code: reason.map(|code| ReasonCode::parse(code).unwrap()),
            rule: "budget".to_owned(),
            message: Some("65 of 60 USD".to_owned()),
            params: None,
            valid_until: generator::start().plus(60_000_000_000),
        };
        Change::Put(Box::new(held), vec![("team".to_owned(), Some(team.to_owned()))])
    };
    let directives = vec![
        held("docs", Instruction::Block, reason),
        held("search", Instruction::Throttle, Some("RATE_LIMITED")),
        held("ads", Instruction::Warn, Some("x_near_budget")),
    ];
    let (queue, waiting) = decisions::queue();
    let options = GuardOptions { on_stale: OnStale::Deny, ..GuardOptions::default() };
    let guard = Guard::new(options, &[]).recording(queue);
    guard.staleness().current(Duration::ZERO);
    guard.apply(directives);
    let caller = decisions::Caller::from_traceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    let said = |team: &str| json!({"team": team, "project": "answers", "environment": "production"});
    let ask = |team: &str, caller, monotonic: Duration| {
        let attributes = said(team);
        let attributes = attributes.as_object().unwrap();
        let request = guard.reader().read(attributes.iter().map(|(name, value)| (name.as_str(), value)));
        let verdict = guard.decide(&request, generator::start(), monotonic);
        guard.record(&verdict, &request, caller, generator::start());
    };
    ["docs", "search", "ads", "others"].into_iter().for_each(|team| ask(team, caller, Duration::ZERO));
    ask("docs", None, Duration::ZERO);
    ask("others", None, Duration::from_secs(3_600));
    waiting.try_iter().map(|span| (generator::start(), Signal::Traces, span)).collect()
}

#[test]
fn the_guards_decisions_are_judged_and_nothing_speaks_against_them() {
    let sent = guards_decisions(Some("BUDGET_EXCEEDED"));
    assert_eq!(sent.len(), 4, "what is let through is the caller's to record");
    let report = judged(sent, &[]).remove("lictor-guard").unwrap();
    assert_eq!(of_verdict(&report, "failed"), Vec::<&str>::new());
    let passed = [
        "genops_2_2_identifier_reused",
        "genops_2_3_attribution_immutable",
        "genops_4_1_blocked_child_proceeds",
        "genops_4_1_blocked_proceeds",
        "genops_4_1_decision_state",
        "genops_4_3_decision_modified",
        "genops_4_4_parent_awu",
        "genops_5_3_reason_code_required",
        "genops_5_4_reason_code_taxonomy",
        "genops_7_1_attribute_types",
        "genops_7_1_required_attributes",
        "genops_7_2_decision_event",
        "genops_7_2_1_reconciliation_without_execution",
        "genops_8_1_policy_evaluated",
        "genops_9_1_8_meaningful_values",
        "genops_11_3_version_format",
    ];
    // Nothing that was stopped reserves or consumes: the accounting of §3 is not to be seen on it.
    for name in passed {
        assert!(of_verdict(&report, "passed").contains(&name), "{name}: {:?}", of_verdict(&report, "passed"));
    }
    assert_eq!((report.level, report.awus()), (Level::Partial, 4));
}

#[test]
fn a_guard_that_refuses_without_a_reason_code_is_found_out() {
    let report = judged(guards_decisions(None), &[]).remove("lictor-guard").unwrap();
    let failed = ["genops_5_3_reason_code_required", "genops_8_1_policy_evaluated"];
    assert_eq!((of_verdict(&report, "failed"), report.level), (failed.to_vec(), Level::None));
}
