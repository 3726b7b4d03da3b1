//! Governance: what GenOps asks of the services that speak it, on every call of a model.
//!
//! A gateway in front of the models decides, reserves what a call may cost at most, and reconciles it with what it did
//! cost. It sends its events as log records.

use lictor_schemas::otlp::encode::RowDraft;
use lictor_schemas::tables::Table;
use lictor_schemas::time::EventTime;
use serde_json::{Value, json};

use super::traces::{Columns, texts};

/// The version of the specification.
const VERSION: &str = "0.1.0";

/// A call that takes longer has waited in the gateway's queue, and is decided when it leaves that. Its events are then
/// no later than a collector may be.
const EXECUTION_NS_MAX: i64 = 8 * 1_000_000_000;

/// Reserved is so much more than what a call will cost, since nobody knows how long an answer gets.
const MARGIN: f64 = 1.25;

/// Adds to a call's span what it owes, and gives the events that go with it.
pub(super) fn govern(
    span: &mut Columns,
    (operation_type, cost): (&str, f64),
    end: EventTime,
    took_ns: i64,
) -> Vec<RowDraft> {
    let reserved = cost * MARGIN;
    let name = span.get("name").cloned().unwrap_or_default();
    span.insert("attr:genops.operation.name".to_owned(), name);
    span.extend(texts([
        ("attr:genops.operation.type", operation_type),
        ("attr:genops.policy.result", "ALLOWED"),
        ("attr:genops.spec.version", VERSION),
        ("attr:genops.accounting.unit", "USD"),
    ]));
    span.insert("attr:genops.accounting.reserved".to_owned(), json!(reserved));
    span.insert("attr:genops.accounting.actual".to_owned(), json!(cost));
    let leaves_queue = end.plus(-took_ns.min(EXECUTION_NS_MAX));
    let unit = ("genops.accounting.unit", json!("USD"));
    let accounted = ("genops.accounting.reserved", json!(reserved));
    vec![
        event(span, "genops.policy.evaluated", leaves_queue, &[("genops.policy.result", json!("ALLOWED"))]),
        event(span, "genops.budget.reservation", leaves_queue, &[accounted.clone(), unit.clone()]),
        event(
            span,
            "genops.budget.reconciliation",
            end,
            &[
                accounted,
                unit,
                ("genops.accounting.actual", json!(cost)),
                ("genops.accounting.reconciliation_delta", json!(cost - reserved)),
            ],
        ),
    ]
}

fn event(span: &Columns, name: &str, at: EventTime, attributes: &[(&str, Value)]) -> RowDraft {
    let of_span = ["service_name", "team", "project", "environment", "trace_id", "span_id"];
    let of_span = of_span.iter().filter_map(|column| Some(((*column).to_owned(), span.get(*column)?.clone())));
    let mut columns: Columns = of_span.collect();
    columns.insert("event_name".to_owned(), json!(name));
    columns.extend(attributes.iter().map(|(name, value)| (format!("attr:{name}"), value.clone())));
    RowDraft { table: Table::Logs, event_time: at, columns }
}
