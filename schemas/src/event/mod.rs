//! The enforcement event: what lictor publishes, as a CloudEvents 1.0 structured JSON message.
//!
//! GenOps §4.4 scopes a decision to one unit of AI work. A rule over many rows therefore publishes a *directive*, and
//! the controller that applies it records the decision on each unit that it stops. The directive's life is a series of
//! events with one `directive_id` and rising revisions: firing, updated .., and resolved, expired or superseded.
//!
//! The JSON Schema of the message is [`JSON_SCHEMA`]; tests hold the types to it.
//!
//! Invariant: the same telemetry gives the same event bytes, except for `detected_at`, the one field with a clock in
//! it.

mod envelope;
mod rfc3339;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

pub use envelope::EventError;

use crate::genops::{Action, PolicyResult, ReasonCode, SPEC_VERSION, Severity};
use crate::rule::{Mode, RuleHeader};
use crate::time::{EventTime, Window};
use crate::violation::{Exemplar, Subject, Violation, WindowKind};

/// The JSON Schema (draft 2020-12) that every published event satisfies.
pub const JSON_SCHEMA: &str = include_str!("../../enforcement-event.v1.schema.json");

/// The CloudEvents type; its last part changes when a consumer would have to.
pub const EVENT_TYPE: &str = "io.lictor.enforcement.v1";

/// The value of the `content-type` header of the Kafka record.
pub const CONTENT_TYPE: &str = "application/cloudevents+json; charset=UTF-8";

/// Where in its life a directive is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It holds from now on.
    Firing,
    /// It still holds, with another result or a later end.
    Updated,
    /// The telemetry says that it no longer holds.
    Resolved,
    /// Its `valid_until` has passed without news.
    Expired,
    /// Its rule was removed or speaks in another mode: nobody will say any more whether it holds.
    Superseded,
}

impl State {
    /// The word in events and rule tests.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Firing => "firing",
            Self::Updated => "updated",
            Self::Resolved => "resolved",
            Self::Expired => "expired",
            Self::Superseded => "superseded",
        }
    }

    /// Whether the directive no longer holds.
    #[must_use]
    pub fn is_ended(self) -> bool {
        matches!(self, Self::Resolved | Self::Expired | Self::Superseded)
    }
}

/// What a controller is to do now, the mildest first: the order is the strength.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Instruction {
    /// Undo whatever the directive asked for.
    Allow,
    /// Tell the rule's owner.
    Notify,
    /// Tell the caller.
    Warn,
    /// Slow requests down.
    Throttle,
    /// Refuse requests.
    Block,
}

impl Instruction {
    /// The milder of what the rule may ask for and what the row found: a blocking rule only warns while its row says
    /// `WARNING`, and a warning rule never blocks.
    #[must_use]
    pub fn of(action: Action, result: PolicyResult) -> Self {
        let permitted = match action {
            Action::Block => Self::Block,
            Action::Throttle => Self::Throttle,
            Action::Warn => Self::Warn,
            Action::Notify => Self::Notify,
        };
        let found = match result {
            PolicyResult::Allowed => Self::Allow,
            PolicyResult::Warning => Self::Warn,
            PolicyResult::RateLimited => Self::Throttle,
            PolicyResult::Blocked => Self::Block,
        };
        permitted.min(found)
    }

    /// The word in events and rule tests.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Notify => "notify",
            Self::Warn => "warn",
            Self::Throttle => "throttle",
            Self::Block => "block",
        }
    }
}

/// One enforcement event.
#[derive(Clone, Debug, PartialEq)]
pub struct EnforcementEvent {
    /// 32 hex digits; two events with the same id say the same, so a consumer may drop the second.
    pub id: String,
    /// `/lictor/<application id>/rules/<rule>`.
    pub source: String,
    /// The event time of the decision.
    pub time: EventTime,
    /// What is to be done, to whom, why and until when.
    pub data: Directive,
}

/// One revision of a directive.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Directive {
    /// The same through the whole life of one violation; 32 hex digits.
    pub directive_id: String,
    /// 1 for the first event of a directive, then rising by one: the highest counts.
    pub revision: u32,
    /// Where in its life the directive is.
    pub state: State,
    /// Whether it is to be applied or only looked at.
    pub mode: Mode,
    /// What to do now.
    pub action: Instruction,
    /// How bad it is.
    pub severity: Severity,
    /// Whom it is about.
    pub selector: Selector,
    /// Which rule decided.
    pub rule: RuleReference,
    /// What `observed` measures: its formula in terms of columns of tables; absent without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<String>,
    /// What the rule found; empty apart from `result` and `window` once the directive has ended.
    #[serde(flatten)]
    pub finding: Finding,
    /// When the directive's first revision counted; absent if it was published by a version that did not keep it.
    #[serde(with = "rfc3339::option", default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<EventTime>,
    /// From when this revision counts.
    #[serde(with = "rfc3339")]
    pub valid_from: EventTime,
    /// When a controller must drop the directive if it has heard nothing newer.
    #[serde(with = "rfc3339")]
    pub valid_until: EventTime,
    /// When the engine took the decision, by its clock; absent in tests and replays.
    #[serde(with = "rfc3339::option", default, skip_serializing_if = "Option::is_none")]
    pub detected_at: Option<EventTime>,
    /// The version of the GenOps specification whose words `result` and `reason_code` are.
    pub spec_version: String,
}

/// Whom a directive is about: a unit of work is selected if it has all of these attributes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Selector {
    /// Canonical column name to value; never empty.
    #[serde(rename = "match")]
    pub matches: Map<String, Value>,
}

/// The rule that decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleReference {
    /// Its name.
    pub name: String,
    /// A hash of its text.
    pub version: String,
    /// The file it lies in.
    pub file: String,
    /// Who answers for it; empty if nobody said.
    pub owner: String,
    /// The comment above it.
    pub description: String,
}

impl From<&RuleHeader> for RuleReference {
    fn from(rule: &RuleHeader) -> Self {
        Self {
            name: rule.name.clone(),
            version: rule.version.0.clone(),
            file: rule.file.clone(),
            owner: rule.owner.clone(),
            description: rule.description.clone(),
        }
    }
}

/// What a rule's row says, in the form in which events carry it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// The decision state a controller records.
    pub result: PolicyResult,
    /// Why; absent exactly when the result is `ALLOWED` (spec §5.3).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason_code: Option<ReasonCode>,
    /// The measured value; finite.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed: Option<f64>,
    /// What it was compared with; finite.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f64>,
    /// The unit of both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// A sentence for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// What the action needs to know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub params: Option<Value>,
    /// How many rows weighed in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample_count: Option<u64>,
    /// The window it was found in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<WindowBounds>,
    /// Rows that weighed in; of an update rule first one of the record with which the line was crossed.
    pub exemplars: Vec<ExemplarRecord>,
    /// Every other column of the row.
    pub evidence: Map<String, Value>,
}

impl Finding {
    /// What an ended directive still says: nothing was found, in the window where it was last found.
    #[must_use]
    pub fn cleared(window: Option<WindowBounds>) -> Self {
        Self {
            result: PolicyResult::Allowed,
            reason_code: None,
            observed: None,
            threshold: None,
            unit: None,
            message: None,
            params: None,
            sample_count: None,
            window,
            exemplars: Vec::new(),
            evidence: Map::new(),
        }
    }
}

impl From<&Violation> for Finding {
    fn from(violation: &Violation) -> Self {
        let is_allowed = violation.result == PolicyResult::Allowed;
        Self {
            result: violation.result,
            reason_code: (!is_allowed).then(|| violation.reason_code.clone()),
            observed: violation.observed.filter(|value| value.is_finite()),
            threshold: violation.threshold.filter(|value| value.is_finite()),
            unit: violation.unit.clone(),
            message: violation.message.clone(),
            params: violation.params.clone(),
            sample_count: violation.sample_count,
            window: violation.window.map(|window| WindowBounds { kind: violation.window_kind, ..window.into() }),
            exemplars: violation.exemplars.iter().filter_map(ExemplarRecord::new).collect(),
            evidence: violation.evidence.clone(),
        }
    }
}

/// A window as events write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct WindowBounds {
    /// The first instant inside.
    #[serde(with = "rfc3339")]
    pub start: EventTime,
    /// The first instant after it.
    #[serde(with = "rfc3339")]
    pub end: EventTime,
    /// How such windows lie in time; absent where only the bounds matter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<WindowKind>,
}

impl From<Window> for WindowBounds {
    fn from(window: Window) -> Self {
        Self { start: window.start, end: window.end, kind: None }
    }
}

/// An exemplar as events write it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExemplarRecord {
    /// 32 lower-case hex digits.
    pub trace_id: String,
    /// 16 lower-case hex digits.
    pub span_id: String,
    /// What it weighed; finite.
    pub value: f64,
    /// Where the row was read.
    pub partition: i32,
    /// The offset of its Kafka record.
    pub offset: i64,
}

impl ExemplarRecord {
    /// None if the row has no trace context (log records often have none) or its weight is not a number JSON can write.
    fn new(exemplar: &Exemplar) -> Option<Self> {
        let is_whole = is_hex(&exemplar.trace_id, 32) && is_hex(&exemplar.span_id, 16);
        (is_whole && exemplar.value.is_finite()).then(|| Self {
            trace_id: exemplar.trace_id.clone(),
            span_id: exemplar.span_id.clone(),
            value: exemplar.value,
            partition: exemplar.partition,
            offset: exemplar.offset,
        })
    }
}

/// What one revision of a directive is made of, apart from what the rule's head says.
#[derive(Clone, Debug)]
pub struct Revision<'a> {
    /// The directive it belongs to.
    pub directive_id: &'a str,
    /// Its number.
    pub revision: u32,
    /// Where in its life the directive is.
    pub state: State,
    /// Whom it is about.
    pub subject: &'a Subject,
    /// What was found.
    pub finding: Finding,
    /// In which mode the directive began; the rule may have been given another one since.
    pub mode: Mode,
    /// When the directive's first revision counted, if that is known.
    pub started_at: Option<EventTime>,
    /// The event time of the decision.
    pub at: EventTime,
    /// When a controller drops the directive.
    pub valid_until: EventTime,
}

impl EnforcementEvent {
    /// The event that says `revision` of `rule`, published by the engine called `application_id`.
    #[must_use]
    pub fn new(application_id: &str, rule: &RuleHeader, revision: Revision<'_>) -> Self {
        let window_start = revision.finding.window.map(|window| window.start.0);
        let id = hash(&json!([
            rule.name,
            rule.version.0,
            revision.directive_id,
            window_start,
            revision.revision,
            revision.state.as_str(),
            revision.finding.result.as_str(),
        ]));
        let data = Directive {
            directive_id: revision.directive_id.to_owned(),
            revision: revision.revision,
            state: revision.state,
            mode: revision.mode,
            action: Instruction::of(rule.action, revision.finding.result),
            severity: rule.severity,
            selector: Selector { matches: revision.subject.0.clone() },
            rule: RuleReference::from(rule),
            metric: rule.metric.clone().filter(|_| revision.finding.observed.is_some()),
            finding: revision.finding,
            started_at: revision.started_at,
            valid_from: revision.at,
            valid_until: revision.valid_until,
            detected_at: None,
            spec_version: SPEC_VERSION.to_owned(),
        };
        let source = format!("/lictor/{application_id}/rules/{}", rule.name);
        Self { id, source, time: revision.at, data }
    }

    /// The headers of the Kafka record: the content type, and copies of what a router wants to see without parsing.
    #[must_use]
    pub fn headers(&self) -> BTreeMap<&'static str, String> {
        BTreeMap::from([
            ("content-type", CONTENT_TYPE.to_owned()),
            ("ce_id", self.id.clone()),
            ("ce_type", EVENT_TYPE.to_owned()),
            ("ce_source", self.source.clone()),
        ])
    }
}

/// The id of the `nth` (from 0) directive about a subject that began at `started_at`.
///
/// `nth` tells apart the violations of one group that come and go within one window. What a rule says in shadow mode
/// is another directive than what it enforces: who takes a rule out of the shadow must not find it applied already.
#[must_use]
pub fn directive_id((rule, mode): (&str, Mode), subject_key: &str, started_at: EventTime, nth: u32) -> String {
    hash(&match mode {
        Mode::Enforce => json!([rule, subject_key, started_at.0, nth]),
        Mode::Shadow => json!([rule, subject_key, started_at.0, nth, mode.as_str()]),
    })
}

/// The first 32 hex digits of the SHA-256 of a JSON text: JSON, because joined strings could collide.
fn hash(parts: &Value) -> String {
    Sha256::digest(parts.to_string()).iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// Whether `text` is `digits` lower-case hex digits, not all of them zero.
fn is_hex(text: &str, digits: usize) -> bool {
    let is_digit = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
    text.len() == digits && text.bytes().all(is_digit) && text.bytes().any(|c| c != b'0')
}

#[cfg(test)]
mod examples;
#[cfg(test)]
mod tests;
