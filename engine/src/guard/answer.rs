//! What the guard answers.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use lictor_schemas::event::Instruction;
use lictor_schemas::genops::PolicyResult;
use serde::Serialize;
use serde_json::Value;

use super::held::Held;
use super::index::Found;
use super::options::OnStale;
use super::staleness::Stale;

/// When a throttled caller may come again if the directive does not say.
const RETRY_AFTER_MS: u64 = 1_000;

/// The reason of a refusal that no directive asks for, in the form of GenOps §5.5.
pub(super) const STALE_REASON_CODE: &str = "x_guard_stale";

/// Proxies refuse headers that are much longer; a message is for people.
const HEADER_BYTES_MAX: usize = 512;

/// More warnings stand in the body only, since proxies bound all headers together, too.
const WARNING_HEADERS_MAX: usize = 8;

const DECISION: HeaderName = HeaderName::from_static("x-lictor-decision");
const REASON_CODE: HeaderName = HeaderName::from_static("x-lictor-reason-code");
const RULE: HeaderName = HeaderName::from_static("x-lictor-rule");
const DIRECTIVE_ID: HeaderName = HeaderName::from_static("x-lictor-directive-id");
const WARNING: HeaderName = HeaderName::from_static("x-lictor-warning");
const STALE: HeaderName = HeaderName::from_static("x-lictor-stale");

/// Whether a call may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Yes.
    Allow,
    /// Not now.
    Throttle,
    /// No.
    Deny,
}

impl Outcome {
    /// What a directive that asks for `action` makes of a call.
    pub(super) fn of(action: Instruction) -> Self {
        match action {
            Instruction::Allow | Instruction::Notify | Instruction::Warn => Self::Allow,
            Instruction::Throttle => Self::Throttle,
            Instruction::Block => Self::Deny,
        }
    }

    /// The word in answers and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Throttle => "throttle",
            Self::Deny => "deny",
        }
    }

    /// As Envoy's ext_authz and its like read it.
    #[must_use]
    pub fn to_status(self) -> StatusCode {
        match self {
            Self::Allow => StatusCode::OK,
            Self::Throttle => StatusCode::TOO_MANY_REQUESTS,
            Self::Deny => StatusCode::FORBIDDEN,
        }
    }
}

/// A decision and why it was taken.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// Whether the call may go on.
    pub outcome: Outcome,
    /// The directive that decided: it stops the call or warns of it.
    pub directive: Option<Arc<Held>>,
    /// All directives that warn, if the call may go on.
    pub warnings: Vec<Arc<Held>>,
    /// The directive that would have stopped the call, or stopped it harder, if it were to be applied.
    pub shadow: Option<Arc<Held>>,
    /// Why the guard may not know everything, and what is done then.
    pub stale: Option<(Stale, OnStale)>,
}

/// The answer in JSON.
#[derive(Serialize)]
struct Answer<'a> {
    decision: &'static str,
    #[serde(flatten)]
    why: Why<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stale: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    on_stale: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<Why<'a>>,
}

/// What a directive says, in the words of events.
#[derive(Default, Serialize)]
struct Why<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    action: Option<&'static str>,
    result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason_code: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    directive_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    valid_until: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    params: Option<&'a Value>,
}

impl<'a> Why<'a> {
    fn of(held: &'a Held) -> Self {
        Self {
            action: Some(held.action.as_str()),
            result: held.result.as_str(),
            reason_code: held.reason_code.as_ref().map(|code| code.as_str()),
            rule: Some(&held.rule),
            directive_id: Some(&held.directive_id),
            message: held.message.as_deref(),
            valid_until: Some(held.valid_until.to_rfc3339()),
            retry_after_ms: retry_after_ms(held),
            params: held.params.as_ref(),
        }
    }
}

impl Verdict {
    pub(super) fn new(found: Found, stale: Option<Stale>, on_stale: OnStale) -> Self {
        let Found { strongest, mut warnings, shadow } = found;
        let mut directive = strongest.filter(|held| held.action >= Instruction::Warn);
        let mut outcome = directive.as_ref().map_or(Outcome::Allow, |held| Outcome::of(held.action));
        if stale.is_some() && on_stale == OnStale::Deny && outcome != Outcome::Deny {
            (outcome, directive) = (Outcome::Deny, None);
        }
        if outcome != Outcome::Allow {
            warnings.clear();
        }
        let applied = directive.as_ref().map(|held| held.action);
        let shadow = shadow.filter(|held| {
            Outcome::of(held.action) != Outcome::Allow && applied.is_none_or(|applied| held.action > applied)
        });
        Self { outcome, directive, warnings, shadow, stale: stale.map(|stale| (stale, on_stale)) }
    }

    /// Whether the call is refused although no directive asks for it.
    #[must_use]
    pub fn is_refused_unknown(&self) -> bool {
        self.outcome == Outcome::Deny && self.directive.is_none()
    }

    /// The answer as JSON text.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let stale = self.stale.map(|(stale, _)| stale.to_string());
        let refused = || Why {
            result: PolicyResult::Blocked.as_str(),
            reason_code: Some(STALE_REASON_CODE),
            message: stale.as_deref(),
            ..Why::default()
        };
        let why = match &self.directive {
            Some(held) => Why::of(held),
            None if self.outcome == Outcome::Allow => Why { result: PolicyResult::Allowed.as_str(), ..Why::default() },
            None => refused(),
        };
        let answer = Answer {
            decision: self.outcome.as_str(),
            why,
            stale: stale.clone(),
            on_stale: self.stale.map(|(_, on_stale)| on_stale.as_str()),
            warnings: self.warnings.iter().map(|held| Why::of(held)).collect(),
        };
        serde_json::to_vec(&answer).expect("an answer has text keys and finite numbers only")
    }

    /// The same as headers, of which a proxy can pass on what it likes.
    #[must_use]
    pub fn to_headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(8);
        headers.insert(DECISION, HeaderValue::from_static(self.outcome.as_str()));
        if let Some(held) = &self.directive {
            if let Some(code) = &held.reason_code {
                headers.insert(REASON_CODE, header_value(code.as_str()));
            }
            headers.insert(RULE, header_value(&held.rule));
            headers.insert(DIRECTIVE_ID, header_value(&held.directive_id));
        } else if self.is_refused_unknown() {
            headers.insert(REASON_CODE, HeaderValue::from_static(STALE_REASON_CODE));
        }
        for held in self.warnings.iter().take(WARNING_HEADERS_MAX) {
            let message = held.message.as_deref().unwrap_or(held.result.as_str());
            headers.append(WARNING, header_value(&format!("{}: {message}", held.rule)));
        }
        if let Some((_, on_stale)) = self.stale {
            headers.insert(STALE, HeaderValue::from_static(on_stale.as_str()));
        }
        if let Some(ms) = self.directive.as_deref().and_then(retry_after_ms) {
            // Whole seconds are all there is.
            headers.insert(header::RETRY_AFTER, HeaderValue::from(ms.div_ceil(1_000)));
        }
        headers
    }
}

/// When the caller may come again, if that is for the directive to say.
fn retry_after_ms(held: &Held) -> Option<u64> {
    let said = held.params.as_ref().and_then(|params| params.get("retry_after_ms")).and_then(Value::as_u64);
    said.or_else(|| (held.action == Instruction::Throttle).then_some(RETRY_AFTER_MS))
}

/// As much of a text as fits in a header; what is not ASCII is written as JSON writes it.
fn header_value(text: &str) -> HeaderValue {
    let mut value = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            ' '..='~' => value.push(c),
            other => write!(value, "\\u{:04x}", u32::from(other)).expect("writing to a string"),
        }
        if value.len() > HEADER_BYTES_MAX {
            value.truncate(HEADER_BYTES_MAX);
            break;
        }
    }
    HeaderValue::try_from(value).expect("printable ASCII")
}

#[cfg(test)]
mod tests {
    use lictor_schemas::genops::ReasonCode;
    use lictor_schemas::rule::Mode;
    use lictor_schemas::time::EventTime;
    use serde_json::json;

    use super::*;

    fn held(action: Instruction, result: PolicyResult) -> Arc<Held> {
        Arc::new(Held {
            directive_id: "d1".to_owned(),
            revision: 1,
            mode: Mode::Enforce,
            action,
            result,
            reason_code: Some(ReasonCode::parse("BUDGET_EXCEEDED").unwrap()),
            rule: "budget".to_owned(),
            message: Some("docs hat 65 € ausgegeben\n".to_owned()),
            params: None,
            valid_until: EventTime::from_ms(60_000),
        })
    }

    fn verdict(found: Found, stale: Option<Stale>, on_stale: OnStale) -> (Value, HeaderMap) {
        let verdict = Verdict::new(found, stale, on_stale);
        (serde_json::from_slice(&verdict.to_json()).unwrap(), verdict.to_headers())
    }

    fn enforced(held: Arc<Held>) -> Found {
        Found { strongest: Some(held), ..Found::default() }
    }

    #[test]
    fn a_block_is_denied_with_the_directives_words() {
        let block = held(Instruction::Block, PolicyResult::Blocked);
        let (answer, headers) = verdict(enforced(block), None, OnStale::Allow);
        let expected = json!({"decision": "deny", "action": "block", "result": "BLOCKED",
            "reason_code": "BUDGET_EXCEEDED", "rule": "budget", "directive_id": "d1",
            "message": "docs hat 65 € ausgegeben\n", "valid_until": "1970-01-01T00:01:00Z"});
        assert_eq!(answer, expected);
        let said = [DECISION, REASON_CODE, RULE, DIRECTIVE_ID].map(|name| headers[name].to_str().unwrap().to_owned());
        assert_eq!(said, ["deny", "BUDGET_EXCEEDED", "budget", "d1"]);
        assert!(!headers.contains_key(header::RETRY_AFTER));
    }

    #[test]
    fn a_throttle_says_when_to_come_again() {
        let mut throttle = Held::clone(&held(Instruction::Throttle, PolicyResult::RateLimited));
        let (answer, headers) = verdict(enforced(Arc::new(throttle.clone())), None, OnStale::Allow);
        assert_eq!((&answer["decision"], &answer["retry_after_ms"]), (&json!("throttle"), &json!(1_000)));
        assert_eq!(headers[header::RETRY_AFTER], "1");
        throttle.params = Some(json!({"retry_after_ms": 2_500}));
        let (answer, headers) = verdict(enforced(Arc::new(throttle)), None, OnStale::Allow);
        assert_eq!(answer["params"], json!({"retry_after_ms": 2_500}));
        assert_eq!((&answer["retry_after_ms"], &headers[header::RETRY_AFTER]), (&json!(2_500), &"3".parse().unwrap()));
    }

    #[test]
    fn warnings_stand_beside_an_allow_and_a_header_is_always_ascii() {
        let warn = held(Instruction::Warn, PolicyResult::Warning);
        let found = Found { strongest: Some(Arc::clone(&warn)), warnings: vec![warn], shadow: None };
        let (answer, headers) = verdict(found, None, OnStale::Allow);
        assert_eq!((&answer["decision"], &answer["result"]), (&json!("allow"), &json!("WARNING")));
        assert_eq!(answer["warnings"][0]["rule"], "budget");
        assert_eq!(headers[WARNING], "budget: docs hat 65 \\u20ac ausgegeben\\u000a");
        let many = vec![held(Instruction::Warn, PolicyResult::Warning); 20];
        let (answer, headers) = verdict(Found { warnings: many, ..Found::default() }, None, OnStale::Allow);
        assert_eq!(answer["warnings"].as_array().map(Vec::len), Some(20));
        assert_eq!(headers.get_all(WARNING).iter().count(), WARNING_HEADERS_MAX);
        let long = "ä".repeat(1_000);
        assert_eq!(header_value(&long).len(), HEADER_BYTES_MAX);
    }

    #[test]
    fn nothing_known_is_allowed_and_a_notice_is_for_the_owner_only() {
        let allowed = json!({"decision": "allow", "result": "ALLOWED"});
        assert_eq!(verdict(Found::default(), None, OnStale::Deny).0, allowed);
        let notify = enforced(held(Instruction::Notify, PolicyResult::Warning));
        assert_eq!(verdict(notify, None, OnStale::Deny).0, allowed);
    }

    #[test]
    fn what_is_not_known_is_decided_by_the_configuration_and_said() {
        let stale = Some(Stale::Reading);
        let (answer, headers) = verdict(Found::default(), stale, OnStale::Allow);
        let why = "the topics of directives were not read to their ends yet";
        let allowed = json!({"decision": "allow", "result": "ALLOWED", "stale": why, "on_stale": "allow"});
        assert_eq!((answer, &headers[STALE]), (allowed, &"allow".parse().unwrap()));
        let (answer, headers) = verdict(Found::default(), stale, OnStale::Deny);
        let denied = json!({"decision": "deny", "result": "BLOCKED", "reason_code": "x_guard_stale", "message": why,
            "stale": why, "on_stale": "deny"});
        assert_eq!((answer, &headers[REASON_CODE]), (denied, &"x_guard_stale".parse().unwrap()));
    }

    #[test]
    fn a_directive_in_force_applies_although_the_topic_is_silent() {
        let block = held(Instruction::Block, PolicyResult::Blocked);
        let (answer, _) = verdict(enforced(block), Some(Stale::Incomplete), OnStale::Allow);
        assert_eq!((&answer["decision"], &answer["rule"]), (&json!("deny"), &json!("budget")));
        assert_eq!(answer["on_stale"], "allow");
    }
}
