//! The same telemetry gives the same events, however it is cut into epochs, interleaved or encoded.
//!
//! The rules are those that ship, and in `golden/language.rs` those of `language/`, one for each construct. What may
//! differ between two runs of a deployment (when an epoch ends, which partition is fetched first, which encoding a
//! collector is set to, when it is killed) must not be visible in what is published: event ids are derived from
//! decisions, and consumers drop what they have seen.
//!
//! Everything is compared exactly but numbers: sums and means of floats are put together from the sums of epochs, and
//! floating-point addition depends on its order in the last digits.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "support/difference.rs"]
mod difference;
#[path = "golden/killed.rs"]
mod killed;
#[path = "golden/language.rs"]
mod language;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::{env, fs};

use difference::difference;
use killed::events_of_the_killed;
use language::{Input, by_id, events_of_pipeline};
use lictor_engine::company::Company;
use lictor_engine::pipeline::Epoch;
use lictor_engine::shipped;
use lictor_schemas::event::{EnforcementEvent, State};
use lictor_schemas::genops::PolicyResult;
use lictor_schemas::otlp::encode::{RowDraft, encode_json, encode_protobuf};
use lictor_schemas::tables::{Signal, Table};
use lictor_schemas::time::EventTime;
use serde_json::{Value, json};
use support::{Arrival, epochs};
use tempfile::TempDir;

const SECOND_NS: i64 = 1_000_000_000;
const MINUTE_NS: i64 = 60 * SECOND_NS;

/// Relative; 52 bits of mantissa leave 2e-16 per addition, and a few thousand are made.
const NUMBER_TOLERANCE: f64 = 1e-11;

/// The company's seconds in one of our records: an update rule is judged after every record, which costs milliseconds
/// in an unoptimised build.
const BUNDLE_S: i64 = 30;

fn start() -> EventTime {
    EventTime::from_rfc3339("2026-03-01T08:00:00Z").unwrap()
}

fn events_of(epochs: Vec<Epoch>) -> Vec<EnforcementEvent> {
    epochs.into_iter().flat_map(|epoch| epoch.decisions).map(|decision| decision.event).collect()
}

/// The company's first hour on one partition, as a collector with larger batches would write it: the bytes of several
/// messages in a row are one message. What is no telemetry stays a record of its own.
fn company_hour() -> Vec<Arrival> {
    let mut company = Company::new(1, start()).with_traces_per_s(1.0);
    let mut payloads: Vec<Vec<u8>> = Vec::new();
    for bundle in 1..=65 * 60 / BUNDLE_S {
        let messages = company.next_batch(start().plus(bundle * BUNDLE_S * SECOND_NS));
        let traces = messages.into_iter().filter(|(signal, ..)| *signal == Signal::Traces).map(|(.., payload)| payload);
        let (garbage, traces): (Vec<_>, Vec<_>) = traces.partition(|payload| payload.starts_with(b"\xff"));
        payloads.extend(garbage);
        payloads.push(traces.concat());
    }
    on_partition(0, payloads)
}

fn on_partition(partition: i32, payloads: Vec<Vec<u8>>) -> Vec<Arrival> {
    let arrival = |(offset, payload)| {
        let payload = Some(payload);
        Arrival { signal: Signal::Traces, partition, offset, timestamp_ms: 0, payload }
    };
    (0..).zip(payloads).map(arrival).collect()
}

/// The events of each rule as JSON, in the order in which they are published; between rules there is none.
fn by_rule(events: Vec<EnforcementEvent>) -> BTreeMap<String, Vec<Value>> {
    let mut sorted: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for event in events {
        let text = serde_json::from_slice(&event.to_json()).unwrap();
        sorted.entry(event.data.rule.name).or_default().push(text);
    }
    sorted
}

#[track_caller]
fn assert_same(run: &str, expected: &BTreeMap<String, Vec<Value>>, found: &BTreeMap<String, Vec<Value>>) {
    let rules: BTreeSet<&String> = expected.keys().chain(found.keys()).collect();
    for rule in rules {
        let of = |events: &BTreeMap<String, Vec<Value>>| events.get(rule).cloned().unwrap_or_default();
        let (expected, found) = (of(expected), of(found));
        for (i, (a, b)) in expected.iter().zip(&found).enumerate() {
            let difference = difference("event", a, b, NUMBER_TOLERANCE);
            assert_eq!(difference, None, "{run}: event {i} of {rule} differs:\n{a}\n{b}");
        }
        assert_eq!(expected.len(), found.len(), "{run}: {rule} has another number of events\n{expected:?}\n{found:?}");
    }
}

#[test]
fn an_hour_of_incidents_gives_the_same_events_however_it_is_cut_into_epochs() {
    let (arrivals, now) = (company_hour(), start().plus(66 * MINUTE_NS));
    let whole = events_of(epochs(&arrivals, now, &mut |_| false));
    assert_incidents_are_found(&whole);
    leave_for_other_validators(&whole);
    let expected = by_rule(whole);
    let each = by_rule(events_of(epochs(&arrivals, now, &mut |_| true)));
    assert_same("an epoch after every record", &expected, &each);
    for seed in 0..8 {
        let mut random = fastrand::Rng::with_seed(seed);
        let cut = by_rule(events_of(epochs(&arrivals, now, &mut |_| random.usize(0..20) == 0)));
        assert_same(&format!("random epochs with seed {seed}"), &expected, &cut);
    }
}

/// Writes the events to the file that `LICTOR_CONTRACT_EVENTS` names, one a line, for `tests/contract.py` to judge.
#[track_caller]
fn leave_for_other_validators(events: &[EnforcementEvent]) {
    let states: BTreeSet<&str> = events.iter().map(|event| event.data.state.as_str()).collect();
    assert_eq!(states, BTreeSet::from(["expired", "firing", "resolved", "updated"]), "a state is not shown");
    let Some(path) = env::var_os("LICTOR_CONTRACT_EVENTS") else { return };
    let lines = events.iter().cloned().flat_map(|mut event| {
        event.data.detected_at = Some(event.time);
        let mut line = event.to_json();
        line.push(b'\n');
        line
    });
    fs::write(path, lines.collect::<Vec<u8>>()).unwrap();
}

/// Everything that is planned in the company's calendar is noticed, in its time.
#[track_caller]
fn assert_incidents_are_found(events: &[EnforcementEvent]) {
    let incidents = Company::new(1, start()).incidents();
    let planned = [
        ("denied model", "model_allow_list", "team", "marketing"),
        ("slow model", "latency_p95", "project", "cart-assistant"),
        ("runaway agent", "session_runaway", "session_id", "lab-loop-7f3a"),
        ("runaway agent", "team_daily_budget", "team", "research"),
        ("silent model swap", "model_mix", "request_model", "gpt-4o"),
        ("cost jump", "cost_anomaly", "team", "fraud"),
    ];
    for (name, rule, key, subject) in planned {
        let incident = incidents.iter().find(|i| i.name == name).unwrap();
        // A rule that waits for its five-minute window speaks when that is over.
        let (from, until) = (incident.at, incident.until.plus(5 * MINUTE_NS));
        let is_it = |e: &&EnforcementEvent| {
            let data = &e.data;
            data.state == State::Firing && data.rule.name == rule && data.selector.matches[key] == json!(subject)
        };
        let firing = events.iter().find(is_it).unwrap_or_else(|| panic!("{name}: {rule} has not fired"));
        assert!(from <= firing.time && firing.time <= until, "{name}: {rule} fired at {}", firing.time);
    }
    let results = |rule: &str| -> Vec<(State, PolicyResult)> {
        let of_rule = events.iter().filter(|e| e.data.rule.name == rule);
        of_rule.map(|e| (e.data.state, e.data.finding.result)).collect()
    };
    let escalation = [
        (State::Firing, PolicyResult::Warning),
        (State::Updated, PolicyResult::Blocked),
        (State::Resolved, PolicyResult::Allowed),
    ];
    assert_eq!(results("team_daily_budget"), escalation);
    assert_eq!(results("latency_p95").last(), Some(&(State::Resolved, PolicyResult::Allowed)));
    assert_eq!(results("model_allow_list").last(), Some(&(State::Expired, PolicyResult::Allowed)));
    let ids: BTreeSet<&String> = events.iter().map(|e| &e.id).collect();
    assert_eq!(ids.len(), events.len(), "an id was given twice");
}

/// A team that shares no group key of any rule with the others, and what goes wrong there.
struct Office {
    team: &'static str,
    project: &'static str,
    provider: &'static str,
    model: &'static str,
    /// By how many minutes its troubles come later.
    delay: i64,
}

const OFFICES: [Office; 3] = [
    Office { team: "checkout", project: "cart-assistant", provider: "openai", model: "gpt-4o", delay: 0 },
    Office { team: "people", project: "onboarding", provider: "anthropic", model: "claude-haiku-4-5", delay: 1 },
    Office { team: "mobile", project: "app-copilot", provider: "mistral_ai", model: "mistral-medium-2505", delay: 2 },
];

/// The seconds between two records of an office, and how long it works.
const OFFICE_STEP_S: i64 = 40;
const OFFICE_S: i64 = 24 * 60;

impl Office {
    /// The spans of each of its records.
    fn records(&self) -> Vec<Vec<RowDraft>> {
        (0..OFFICE_S / OFFICE_STEP_S).map(|step| self.record(step)).collect()
    }

    fn record(&self, step: i64) -> Vec<RowDraft> {
        let minute = step * OFFICE_STEP_S / 60 - self.delay;
        let is_slow = (5..10).contains(&minute);
        let is_swapped = (14..20).contains(&minute);
        let is_looping = (2..6).contains(&minute);
        let calls = if is_looping { 28 } else { 4 };
        let call = |i: i64| {
            let at = start().plus((step * OFFICE_STEP_S + OFFICE_STEP_S * i / calls) * SECOND_NS);
            let is_denied = i == 0 && step % 4 == 0 && minute < 4;
            let columns = json!({
                "team": self.team, "project": self.project, "provider": self.provider,
                "request_model": if is_denied { "llama-uncensored" } else { self.model },
                "response_model": if is_swapped { "something-else" } else { self.model },
                "session_id": format!("{}-{}", self.team, if is_looping { 0 } else { i }),
                "duration_ms": if is_slow { 40_000 + 10 * i } else { 900 + i },
                "input_tokens": 100 + step, "output_tokens": 10 + i,
                "cost_total": if is_looping { 1.3 } else { 0.01 }, "cost_currency": "USD",
            });
            let columns = columns.as_object().unwrap().clone().into_iter().collect();
            RowDraft { table: Table::Spans, event_time: at, columns }
        };
        (0..calls).map(call).collect()
    }

    fn arrivals(&self, partition: i32, encode: fn(Signal, &[RowDraft]) -> Result<Vec<u8>, String>) -> Vec<Arrival> {
        on_partition(partition, self.records().iter().map(|drafts| encode(Signal::Traces, drafts).unwrap()).collect())
    }
}

fn offices(encode: fn(Signal, &[RowDraft]) -> Result<Vec<u8>, String>) -> Vec<Vec<Arrival>> {
    (0..).zip(&OFFICES).map(|(partition, office)| office.arrivals(partition, encode)).collect()
}

/// Takes from a partition at random until all are empty, in each partition's own order.
fn interleaved(partitions: &[Vec<Arrival>], seed: u64) -> Vec<Arrival> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut rest: Vec<_> = partitions.iter().map(|p| p.iter().cloned().peekable()).collect();
    let mut arrivals = Vec::new();
    while rest.iter_mut().any(|p| p.peek().is_some()) {
        let chosen = random.usize(0..rest.len());
        arrivals.extend(rest[chosen].next());
    }
    arrivals
}

/// What cannot depend on how far one partition is ahead of another, by id.
///
/// While a subject is in violation in several running windows at once, what is published when the first of them closes
/// is what has been seen of the others until then, and windows close when the slowest partition lets them. Of the rule
/// with hopping windows that speaks on update, only when and how a directive begins and when it ends are fixed.
fn sorted_by_id(mut events: Vec<EnforcementEvent>) -> BTreeMap<String, Vec<Value>> {
    let is_between = |e: &EnforcementEvent| e.data.rule.name == "session_runaway" && e.data.state == State::Updated;
    events.retain(|event| !is_between(event));
    for end in events.iter_mut().filter(|e| e.data.rule.name == "session_runaway" && e.data.state == State::Resolved) {
        end.data.revision = 0;
        end.id = format!("the end of {}", end.data.directive_id);
    }
    let mut sorted = by_rule(events);
    sorted.values_mut().for_each(|events| events.sort_by_key(|event| event["id"].to_string()));
    sorted
}

#[test]
fn partitions_without_common_keys_give_the_same_events_however_they_are_interleaved() {
    let partitions = offices(encode_protobuf);
    let now = start().plus(30 * MINUTE_NS);
    let one_after_the_other = sorted_by_id(events_of(epochs(&partitions.concat(), now, &mut |_| false)));
    assert_eq!(one_after_the_other.len(), 5, "{:?}", one_after_the_other.keys());
    for seed in 0..20 {
        let mut random = fastrand::Rng::with_seed(seed);
        let arrivals = interleaved(&partitions, seed);
        let events = events_of(epochs(&arrivals, now, &mut |_| random.usize(0..10) == 0));
        assert_same(&format!("interleaved with seed {seed}"), &one_after_the_other, &sorted_by_id(events));
    }
}

#[test]
fn both_encodings_give_the_same_events() {
    let now = start().plus(30 * MINUTE_NS);
    let [protobuf, json] = [encode_protobuf, encode_json].map(|encode| offices(encode).concat());
    assert_ne!(protobuf[0].payload, json[0].payload);
    let events = |arrivals: &[Arrival]| by_rule(events_of(epochs(arrivals, now, &mut |_| false)));
    assert_same("JSON", &events(&protobuf), &events(&json));
}

#[test]
fn an_office_gives_the_same_events_when_killed_and_restored_at_every_epoch() {
    let rules = TempDir::new().unwrap();
    shipped::write_to(rules.path()).unwrap();
    let mut inputs: Vec<Input> = OFFICES[0].arrivals(0, encode_protobuf).into_iter().map(Input::Record).collect();
    inputs.push(Input::Tick(start().plus(48 * MINUTE_NS)));
    let expected = by_id(events_of_pipeline(rules.path(), &inputs, &mut || false));
    assert!(expected.len() >= 4, "{:?}", expected.keys());
    assert_same("killed", &expected, &by_id(events_of_the_killed(rules.path(), &inputs)));
}
