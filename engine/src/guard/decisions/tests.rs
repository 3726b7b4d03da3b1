use std::time::Duration;

use lictor_connectors::Retry;
use lictor_schemas::event::Instruction;
use lictor_schemas::genops::ReasonCode;
use lictor_schemas::rule::Mode;
use serde_json::json;

use super::super::{Change, Guard, GuardOptions, Held};
use super::*;

const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[test]
fn a_traceparent_is_an_id_of_a_trace_and_one_of_a_span() {
    let caller = Caller::from_traceparent(TRACEPARENT).unwrap();
    assert_eq!(caller.trace_id, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
    assert_eq!(caller.span_id, 0x00f0_67aa_0ba9_02b7);
    assert!(Caller::from_traceparent(&TRACEPARENT.replacen("00", "01", 1)).is_some());
    assert!(Caller::from_traceparent(&format!("{}-more", TRACEPARENT.replacen("00", "cc", 1))).is_some());
    for wrong in [
        "",
        "00",
        &TRACEPARENT[..54],
        &TRACEPARENT.to_uppercase(),
        &TRACEPARENT.replacen("00", "ff", 1),
        &format!("{TRACEPARENT}-more"),
        &TRACEPARENT.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
        &TRACEPARENT.replace("00f067aa0ba902b7", &"0".repeat(16)),
        &TRACEPARENT.replace("4bf", "+bf"),
        &TRACEPARENT.replace("4bf", "é4"),
    ] {
        assert_eq!(Caller::from_traceparent(wrong), None, "{wrong}");
    }
}

/// A guard that records, and holds one directive.
fn guard(action: Instruction) -> (Guard, Receiver<Vec<u8>>) {
    let (queue, waiting) = queue();
    let guard = Guard::new(GuardOptions::default(), &[]).recording(queue);
    guard.staleness().current(Duration::ZERO);
    let held = Held {
        directive_id: "d1".to_owned(),
        revision: 1,
        mode: Mode::Enforce,
        action,
        result: PolicyResult::Blocked,
        reason_code: Some(ReasonCode::parse("BUDGET_EXCEEDED").unwrap()),
        rule: "budget".to_owned(),
        message: None,
        params: None,
        valid_until: EventTime::from_ms(60_000),
    };
    guard.apply(vec![Change::Put(Box::new(held), vec![("team".to_owned(), Some("docs".to_owned()))])]);
    (guard, waiting)
}

fn ask(guard: &Guard, team: &str) {
    let team = json!(team);
    let request = guard.reader().read([("team", &team)]);
    let verdict = guard.decide(&request, EventTime(1), Duration::ZERO);
    guard.record(&verdict, &request, Caller::from_traceparent(TRACEPARENT), EventTime(1));
}

#[test]
fn only_calls_that_are_stopped_are_recorded() {
    for (action, team, spans) in [
        (Instruction::Block, "docs", 1),
        (Instruction::Throttle, "docs", 1),
        (Instruction::Warn, "docs", 0),
        (Instruction::Block, "search", 0),
    ] {
        let (guard, waiting) = guard(action);
        ask(&guard, team);
        assert_eq!(waiting.try_iter().count(), spans, "{action:?} {team}");
    }
}

/// Takes all messages but those that the test refuses, and then has lost some.
#[derive(Default)]
struct Topic {
    taken: usize,
    refused: usize,
    lost: u64,
}

impl Sink for Topic {
    fn publish(&mut self, message: &Outgoing) -> Result<(), ConnectorError> {
        assert_eq!(message.topic, "otlp_spans");
        if self.refused > 0 {
            self.refused -= 1;
            return Err(lost(1));
        }
        self.taken += 1;
        Ok(())
    }

    fn flush(&mut self) -> Result<(), ConnectorError> {
        match std::mem::take(&mut self.lost) {
            0 => Ok(()),
            failed => Err(lost(failed)),
        }
    }
}

fn lost(failed: u64) -> ConnectorError {
    let (topic, message) = ("otlp_spans".to_owned(), "away, password=x".to_owned());
    ConnectorError::Undelivered { failed, topic, message, retry: Retry::Backoff }
}

#[test]
fn what_is_not_delivered_is_counted_and_what_does_not_fit_is_left_out() {
    let (guard, waiting) = guard(Instruction::Block);
    for _ in 0..WAITING_MAX + 3 {
        ask(&guard, "docs");
    }
    let counts = guard.metrics().recorded().clone();
    assert_eq!(counts.read(), [0, 3, 0]);
    assert!(guard.encode(Duration::ZERO).contains("lictor_guard_recorded_total{outcome=\"left_out\"} 3\n"));
    // Nobody can leave anything any more, so that writing ends.
    drop(guard);
    let mut topic = Topic { refused: 2, lost: 5, ..Topic::default() };
    write(&waiting, (&mut topic, "otlp_spans"), &counts, &|text| text.replace("password=x", ""));
    assert_eq!(topic.taken, WAITING_MAX - 2);
    assert_eq!(counts.read(), [WAITING_MAX as u64 - 7, 3, 7]);
}
