//! A call that was stopped before it began, as the unit of AI work that it would have been.
//!
//! GenOps scopes a decision to one unit of work (§4.4). Whoever stops a call ends one: a span with the decision on it
//! and as the event `genops.policy.evaluated` (§8.1), and nothing of accounting, since none was reached (§7.2.1). What
//! is let through is the caller's to record: only he knows what it reserves and consumes.
//!
//! Invariant: equal calls give equal bytes; nothing here draws a random number or reads a clock.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::trace::v1::span::Event;
use prost::Message as _;
use serde_json::{Value, json};

use super::encode::{RowDraft, encode_traces};
use super::evaluation::POLICY_EVALUATED;
use crate::genops::{PolicyResult, SPEC_VERSION};
use crate::tables::{ATTR_PREFIX, RESOURCE_ATTR_PREFIX, Table};
use crate::time::EventTime;

/// Columns of a call that tell whose it was and what it was about.
pub const TOLD: [&str; 16] = [
    "team",
    "project",
    "environment",
    "cost_center",
    "customer_id",
    "feature",
    "session_id",
    "user_id",
    "agent_name",
    "operation_name",
    "operation_type",
    "provider",
    "request_model",
    "region",
    "tool_name",
    "data_sensitivity",
];

/// What the unit of work is if the caller does not say: it ended where it was asked whether it may go on.
const OPERATION: (&str, &str) = ("authorize", "guardrail");

/// A call that was stopped.
#[derive(Clone, Debug, PartialEq)]
pub struct StoppedCall<'a> {
    /// When.
    pub at: EventTime,
    /// Its trace; not 0.
    pub trace_id: u128,
    /// The span that it is; not 0.
    pub span_id: u64,
    /// The caller's span, if he has one.
    pub parent_span_id: Option<u64>,
    /// What it said, of [`TOLD`]; others are left out.
    pub said: Vec<(&'a str, &'a str)>,
    /// `BLOCKED` or `RATE_LIMITED`.
    pub result: PolicyResult,
    /// Why.
    pub reason_code: Option<&'a str>,
    /// The rule that decided.
    pub rule: Option<&'a str>,
    /// Why, for a person.
    pub message: Option<&'a str>,
    /// The directive that was applied.
    pub directive_id: Option<&'a str>,
}

impl StoppedCall<'_> {
    /// The span as one OTLP protobuf message of traces, of the service `lictor-guard`.
    #[must_use]
    pub fn to_message(&self) -> Vec<u8> {
        let mut data = encode_traces(&[self.draft()]).unwrap_or_else(|e| unreachable!("a draft of ours: {e}"));
        let scopes = data.resource_spans.iter_mut().flat_map(|resource| &mut resource.scope_spans);
        for span in scopes.flat_map(|scope| &mut scope.spans) {
            let decision = span.attributes.iter().filter(|attribute| attribute.key.starts_with("genops.policy."));
            span.events = vec![Event {
                time_unix_nano: span.start_time_unix_nano,
                name: POLICY_EVALUATED.to_owned(),
                attributes: decision.cloned().collect(),
                dropped_attributes_count: 0,
            }];
        }
        data.encode_to_vec()
    }

    fn draft(&self) -> RowDraft {
        let attribute = |name: &str, value: Value| (format!("{ATTR_PREFIX}{name}"), value);
        let mut columns = BTreeMap::from([
            ("trace_id".to_owned(), json!(format!("{:032x}", self.trace_id))),
            ("span_id".to_owned(), json!(format!("{:016x}", self.span_id))),
            ("parent_span_id".to_owned(), json!(self.parent_span_id.map(|id| format!("{id:016x}")))),
            ("name".to_owned(), json!(OPERATION.0)),
            ("kind".to_owned(), json!("SERVER")),
            ("scope_name".to_owned(), json!("lictor")),
            (format!("{RESOURCE_ATTR_PREFIX}service.name"), json!("lictor-guard")),
            ("operation_name".to_owned(), json!(OPERATION.0)),
            ("operation_type".to_owned(), json!(OPERATION.1)),
            attribute("genops.policy.result", json!(self.result.as_str())),
            attribute("genops.policy.reason_code", json!(self.reason_code)),
            attribute("genops.policy.name", json!(self.rule)),
            attribute("genops.policy.reason", json!(self.message)),
            attribute("genops.spec.version", json!(SPEC_VERSION)),
            attribute("lictor.directive_id", json!(self.directive_id)),
        ]);
        let told = self.said.iter().filter(|(column, _)| TOLD.contains(column));
        columns.extend(told.map(|(column, text)| ((*column).to_owned(), json!(text))));
        // OTLP has no time before 1970.
        RowDraft { table: Table::Spans, event_time: self.at.max(EventTime(0)), columns }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::otlp::{Decoder, RecordMeta, Wanted};
    use crate::prices::PriceTable;
    use crate::tables::{Signal, describe};
    use arrow::util::display::{ArrayFormatter, FormatOptions};

    #[test]
    fn a_stopped_call_decodes_to_a_span_and_its_decision() {
        let call = StoppedCall {
            at: EventTime(1_790_000_000_000_000_000),
            trace_id: 0x0101,
            span_id: 2,
            parent_span_id: Some(3),
            said: vec![("team", "docs"), ("request_model", "gpt-4o"), ("input_tokens", "7"), ("my own", "8")],
            result: PolicyResult::Blocked,
            reason_code: Some("BUDGET_EXCEEDED"),
            rule: Some("budget"),
            message: None,
            directive_id: Some("d1"),
        };
        let message = call.to_message();
        assert_eq!(message, call.clone().to_message());
        let all = |table| (table, describe(table).into_iter().map(|column| column.name.to_owned()).collect());
        let wanted = Wanted([Table::Spans, Table::SpanEvents].map(all).into());
        let mut decoder = Decoder::new(&wanted, &[], Arc::new(PriceTable::default()));
        let meta = RecordMeta { topic: "t", partition: 0, offset: 0, timestamp_ms: 0 };
        decoder.absorb(Signal::Traces, &message, meta).unwrap();
        let batches: BTreeMap<_, _> = decoder.take().into_iter().collect();
        let cell = |table: Table, column: &str| {
            let array = batches[&table].column_by_name(column).unwrap();
            ArrayFormatter::try_new(array.as_ref(), &FormatOptions::default()).unwrap().value(0).to_string()
        };
        for (table, column, expected) in [
            (Table::Spans, "trace_id", "00000000000000000000000000000101"),
            (Table::Spans, "parent_span_id", "0000000000000003"),
            (Table::Spans, "team", "docs"),
            (Table::Spans, "request_model", "gpt-4o"),
            (Table::Spans, "input_tokens", ""),
            (Table::Spans, "operation_type", "guardrail"),
            (Table::Spans, "policy_result", "BLOCKED"),
            (Table::Spans, "spec_version", "0.1.0"),
            (Table::SpanEvents, "name", POLICY_EVALUATED),
            (Table::SpanEvents, "policy_reason_code", "BUDGET_EXCEEDED"),
            (Table::SpanEvents, "span_id", "0000000000000002"),
        ] {
            assert_eq!(cell(table, column), expected, "{column}");
        }
    }
}
