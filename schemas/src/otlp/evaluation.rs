//! Enforcement events as OTLP log records, so that decisions show beside the telemetry they are about.
//!
//! An event is a record with the event name `genops.policy.evaluated` (GenOps §8.1). One that says how much of a budget
//! is used (reason code `BUDGET_EXCEEDED`, observed and threshold known) is also a `genops.budget.alert` (§8.4).
//!
//! GenOps scopes a decision to one unit of AI work, and must not be written onto units that are done: the evaluation is
//! therefore a unit of its own. Its trace id is the event's id and its span id the first half of that, so a replay
//! gives the same ones; no span of that id is published. The units it looked at are named in `lictor.exemplar.*`.
//!
//! | attributes | what |
//! |---|---|
//! | `genops.policy.*`, `genops.budget.*`, `genops.spec.version` | as the specification has them |
//! | `genops.team`, `genops.project` .. | of the selector, what the specification has a name for |
//! | `lictor.selector.*` | of the selector, everything else |
//! | `lictor.*` | the directive |
//!
//! What is only looked at stops nothing: in shadow mode the result is `WARNING` whatever the rule asks for, and what it
//! asks for is in `lictor.result`.
//!
//! Invariant: equal events give equal bytes.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::encode::{RowDraft, encode_json, encode_protobuf};
use crate::event::{Directive, EnforcementEvent};
use crate::genops::PolicyResult;
use crate::rule::Mode;
use crate::tables::{ATTR_PREFIX, RESOURCE_ATTR_PREFIX, Signal, Table};
use crate::time::EventTime;

/// The event name of a decision.
pub const POLICY_EVALUATED: &str = "genops.policy.evaluated";

/// The event name of a budget that is nearly used or exceeded.
pub const BUDGET_ALERT: &str = "genops.budget.alert";

/// The columns whose attribute of the same name is part of the specification's attribution (§2.3, §7.3).
const ATTRIBUTION: [&str; 7] =
    ["team", "project", "environment", "customer_id", "feature", "session_id", "cost_center"];

/// The reason code of a rule whose `observed` and `threshold` are a budget's consumption and allocation.
const BUDGET_EXCEEDED: &str = "BUDGET_EXCEEDED";

/// How a Kafka record holds an OTLP message; the names are those of the Collector's Kafka components.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// `otlp_proto`: protobuf.
    #[default]
    Protobuf,
    /// `otlp_json`: OTLP/JSON.
    Json,
}

/// The log records that an event is, each as one `ExportLogsServiceRequest`.
#[must_use]
pub fn messages(event: &EnforcementEvent, encoding: Encoding) -> Vec<Vec<u8>> {
    let alert = budget_alert(event);
    let drafts = [Some(policy_evaluated(event)), alert].into_iter().flatten();
    let encode = match encoding {
        Encoding::Protobuf => encode_protobuf,
        Encoding::Json => encode_json,
    };
    let to_message = |draft| encode(Signal::Logs, &[draft]).unwrap_or_else(|e| unreachable!("a draft of ours: {e}"));
    drafts.map(to_message).collect()
}

fn policy_evaluated(event: &EnforcementEvent) -> RowDraft {
    let Directive { finding, mode, .. } = &event.data;
    let result = match (mode, finding.result) {
        (Mode::Shadow, result) if result > PolicyResult::Warning => PolicyResult::Warning,
        (_, result) => result,
    };
    let own = [
        ("genops.policy.name", json!(event.data.rule.name)),
        ("genops.policy.result", json!(result.as_str())),
        ("genops.policy.reason_code", json!(finding.reason_code.as_ref().map(|code| code.as_str()))),
        ("genops.policy.reason", json!(finding.message)),
    ];
    log_record(event, POLICY_EVALUATED, own)
}

/// None if the event says nothing of a budget.
fn budget_alert(event: &EnforcementEvent) -> Option<RowDraft> {
    let finding = &event.data.finding;
    finding.reason_code.as_ref().filter(|code| code.as_str() == BUDGET_EXCEEDED)?;
    let (consumed, allocated) = (finding.observed?, finding.threshold?);
    let own = [
        // Whose budget of that name it is says the attribution.
        ("genops.budget.name", json!(event.data.rule.name)),
        ("genops.budget.consumed", json!(consumed)),
        ("genops.budget.allocated", json!(allocated)),
    ];
    Some(log_record(event, BUDGET_ALERT, own))
}

fn log_record<const N: usize>(event: &EnforcementEvent, name: &str, own: [(&str, Value); N]) -> RowDraft {
    let directive = &event.data;
    let severity = directive.severity;
    let body = directive.finding.message.clone().unwrap_or_else(|| {
        format!("{} {}: {}", directive.rule.name, directive.state.as_str(), event.to_subject_text())
    });
    // OTLP has no time before 1970.
    let event_time = event.time.max(EventTime(0));
    let observed_time = directive.detected_at.unwrap_or(event_time).max(EventTime(0));
    let mut columns = BTreeMap::from([
        ("event_name".to_owned(), json!(name)),
        ("body".to_owned(), json!(body)),
        ("severity_number".to_owned(), json!(severity.to_otel_number())),
        ("severity_text".to_owned(), json!(severity.to_otel_text())),
        ("observed_time".to_owned(), json!(observed_time.0)),
        ("trace_id".to_owned(), json!(event.id)),
        ("span_id".to_owned(), json!(&event.id[..16])),
        ("scope_name".to_owned(), json!("lictor")),
        (format!("{RESOURCE_ATTR_PREFIX}service.name"), json!("lictor")),
    ]);
    let mut attribute = |name: &str, value: Value| {
        if !value.is_null() {
            columns.insert(format!("{ATTR_PREFIX}{name}"), value);
        }
    };
    own.into_iter().for_each(|(name, value)| attribute(name, value));
    attribute("genops.spec.version", json!(directive.spec_version));
    for (column, value) in &directive.selector.matches {
        let owner = if ATTRIBUTION.contains(&column.as_str()) { "genops" } else { "lictor.selector" };
        attribute(&format!("{owner}.{column}"), value.clone());
    }
    of_directive(event).into_iter().for_each(|(name, value)| attribute(&format!("lictor.{name}"), value));
    RowDraft { table: Table::Logs, event_time, columns }
}

/// What the directive says, by the names that follow `lictor.`; null is absent.
fn of_directive(event: &EnforcementEvent) -> [(&'static str, Value); 18] {
    let Directive { finding, rule, .. } = &event.data;
    let exemplar = finding.exemplars.first();
    [
        ("event_id", json!(event.id)),
        ("source", json!(event.source)),
        ("directive_id", json!(event.data.directive_id)),
        ("revision", json!(event.data.revision)),
        ("state", json!(event.data.state.as_str())),
        ("mode", json!(event.data.mode)),
        ("action", json!(event.data.action.as_str())),
        ("result", json!(finding.result.as_str())),
        ("observed", json!(finding.observed)),
        ("threshold", json!(finding.threshold)),
        ("unit", json!(finding.unit)),
        ("valid_until", json!(event.data.valid_until.to_rfc3339())),
        ("rule.version", json!(rule.version)),
        ("rule.owner", if rule.owner.is_empty() { Value::Null } else { json!(rule.owner) }),
        ("window.start", json!(finding.window.map(|window| window.start.to_rfc3339()))),
        ("window.end", json!(finding.window.map(|window| window.end.to_rfc3339()))),
        ("exemplar.trace_id", json!(exemplar.map(|exemplar| &exemplar.trace_id))),
        ("exemplar.span_id", json!(exemplar.map(|exemplar| &exemplar.span_id))),
    ]
}

#[cfg(test)]
mod tests;
