//! A violation: one row of a rule's result, as the decision layer sees it.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::genops::{PolicyResult, ReasonCode};
use crate::time::{EventTime, Window};

/// Who a violation is about: column name to scalar value, in name order, never empty.
///
/// The order makes equal subjects have equal JSON text, so the text can be hashed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Subject(pub Map<String, Value>);

impl Subject {
    /// The subject as canonical JSON text, used as a key.
    #[must_use]
    pub fn to_key(&self) -> String {
        Value::Object(self.0.clone()).to_string()
    }
}

/// One telemetry row that weighed in a violation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Exemplar {
    /// 32 lower-case hex digits.
    pub trace_id: String,
    /// 16 lower-case hex digits.
    pub span_id: String,
    /// What it weighed, in the unit of the rule's first aggregate.
    pub value: f64,
    /// Where the row was read.
    pub partition: i32,
    /// The offset of its Kafka record.
    pub offset: i64,
}

/// How the windows of a rule lie in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WindowKind {
    /// One after the other, all of one length.
    Tumbling,
    /// Of one length, each beginning a slide after the one before.
    Hopping,
    /// They begin together and end step after step.
    Cumulative,
    /// From a group's first row to a gap after its last.
    Session,
    /// Hours, days, weeks, months, quarters or years of a zone.
    Calendar,
}

/// One row of a rule's result: something that must not be, and holds now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Violation {
    /// Who it is about.
    pub subject: Subject,
    /// The GenOps decision state a controller should record.
    pub result: PolicyResult,
    /// The row's own `reason_code`, else the rule's.
    pub reason_code: ReasonCode,
    /// The measured value.
    pub observed: Option<f64>,
    /// The value it was compared with.
    pub threshold: Option<f64>,
    /// The unit of both (`USD`, `ms`, `tokens`, …).
    pub unit: Option<String>,
    /// A sentence for a person.
    pub message: Option<String>,
    /// The row's own end of validity; absent means window end or event time plus the rule's `ttl`.
    pub valid_until: Option<EventTime>,
    /// What the action needs to know (`retry_after_ms`, `fallback_model`, …).
    pub params: Option<Value>,
    /// The window it was found in; none for a row-wise rule.
    pub window: Option<Window>,
    /// How such windows lie in time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_kind: Option<WindowKind>,
    /// How many rows the window's group held.
    pub sample_count: Option<u64>,
    /// Every other column of the result.
    pub evidence: Map<String, Value>,
    /// Rows that weighed in it: of an update rule the last one, then the heaviest.
    pub exemplars: Vec<Exemplar>,
    /// The event time of the fact: the latest row's for a running window, the window's end for a closed one.
    pub at: EventTime,
}
