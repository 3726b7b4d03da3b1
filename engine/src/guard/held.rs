//! A directive as the guard holds it, and what a record of a topic of directives says of one.

use std::fmt;

use lictor_connectors::RecordRef;
use lictor_schemas::columns::selector_text;
use lictor_schemas::event::{Directive, EnforcementEvent, Instruction};
use lictor_schemas::genops::{PolicyResult, ReasonCode};
use lictor_schemas::rule::Mode;
use lictor_schemas::time::EventTime;
use serde_json::Value;

/// What is needed of a directive to apply it.
#[derive(Clone, Debug, PartialEq)]
pub struct Held {
    /// Its id, which is also the key of its records.
    pub directive_id: String,
    /// The highest counts.
    pub revision: u32,
    /// Whether it is applied or only counted.
    pub mode: Mode,
    /// What to do.
    pub action: Instruction,
    /// What a controller records on each unit of work it stops.
    pub result: PolicyResult,
    /// Why.
    pub reason_code: Option<ReasonCode>,
    /// The rule that decided.
    pub rule: String,
    /// A sentence for a person.
    pub message: Option<String>,
    /// What the action needs to know.
    pub params: Option<Value>,
    /// When it is dropped if nothing newer was heard.
    pub valid_until: EventTime,
}

/// The columns by which a directive selects, in the order of their names, and the text each must have; none is a column
/// that the request must say nothing of.
pub type SelectorTexts = Vec<(String, Option<String>)>;

/// What a record says.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// This holds now.
    Put(Box<Held>, SelectorTexts),
    /// The directive with this id does not hold any more.
    End(String),
}

/// Why a record says nothing that can be applied; what its key had stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    topic: String,
    partition: i32,
    offset: i64,
    reason: String,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { topic, partition, offset, reason } = self;
        write!(f, "{topic}[{partition}] offset {offset}: {reason}")
    }
}

impl Change {
    /// Reads a record of a topic of directives.
    ///
    /// # Errors
    /// It has no key, is no enforcement event, is about another directive than its key says, or selects by nothing or
    /// by what no request can have.
    pub fn read(record: &RecordRef<'_>) -> Result<Self, Unreadable> {
        read(record.key, record.payload).map_err(|reason| {
            let RecordRef { topic, partition, offset, .. } = *record;
            Unreadable { topic: topic.to_owned(), partition, offset, reason }
        })
    }
}

fn read(key: Option<&[u8]>, payload: Option<&[u8]>) -> Result<Change, String> {
    let key = key.and_then(|key| str::from_utf8(key).ok()).ok_or("it has no key that is text")?;
    let Some(payload) = payload else { return Ok(Change::End(key.to_owned())) };
    let event = EnforcementEvent::from_json(payload).map_err(|error| error.to_string())?;
    let directive = event.data;
    if directive.directive_id != key {
        return Err(format!("its key is `{key}`, and it is about directive `{}`", directive.directive_id));
    }
    if directive.state.is_ended() || directive.action == Instruction::Allow {
        return Ok(Change::End(key.to_owned()));
    }
    let selector = selector(&directive)?;
    let Directive { directive_id, revision, mode, action, rule, finding, valid_until, .. } = directive;
    let (result, reason_code, message, params) = (finding.result, finding.reason_code, finding.message, finding.params);
    let rule = rule.name;
    let held = Held { directive_id, revision, mode, action, result, reason_code, rule, message, params, valid_until };
    Ok(Change::Put(Box::new(held), selector))
}

/// The map of JSON is in the order of names already.
fn selector(directive: &Directive) -> Result<SelectorTexts, String> {
    let matches = &directive.selector.matches;
    if matches.is_empty() {
        return Err("its selector is empty, which would be everybody".to_owned());
    }
    let texts = matches.iter().map(|(column, value)| match selector_text(value) {
        None if !value.is_null() => Err(format!("its selector compares `{column}` with a list or an object")),
        text => Ok((column.clone(), text)),
    });
    texts.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A directive in the words of the topic, with something else in it.
    fn event(change: impl FnOnce(&mut Value)) -> Vec<u8> {
        let mut event = json!({
            "specversion": "1.0", "type": "io.lictor.enforcement.v1", "source": "/lictor/l/rules/budget", "id": "e",
            "time": "2026-03-01T12:00:00Z", "subject": "team=docs", "datacontenttype": "application/json",
            "partitionkey": "d1", "expirytime": "2026-03-02T00:00:00Z", "severitytext": "FATAL", "severitynumber": 21,
            "sequence": "0000000002",
            "data": {
                "directive_id": "d1", "revision": 2, "state": "updated", "mode": "enforce", "action": "block",
                "severity": "critical", "selector": {"match": {"team": "docs", "tier": 5, "region": null}},
                "rule": {"name": "budget", "version": "v", "file": "a.sql", "owner": "", "description": ""},
                "result": "BLOCKED", "reason_code": "BUDGET_EXCEEDED", "exemplars": [], "evidence": {},
                "valid_from": "2026-03-01T12:00:00Z", "valid_until": "2026-03-02T00:00:00Z", "spec_version": "0.1.0",
            },
        });
        change(&mut event["data"]);
        event.to_string().into_bytes()
    }

    #[track_caller]
    fn check_unreadable(key: Option<&str>, payload: &[u8], why: &str) {
        let (key, payload) = (key.map(str::as_bytes), Some(payload));
        let record =
            RecordRef { topic: "t", partition: 3, offset: 7, timestamp_ms: 0, key, payload, ..RecordRef::default() };
        let told = Change::read(&record).unwrap_err().to_string();
        assert!(told.starts_with("t[3] offset 7: ") && told.contains(why), "{told}");
    }

    #[test]
    fn a_directive_is_read_with_its_selector_as_texts() {
        let Ok(Change::Put(held, selector)) = read(Some(b"d1"), Some(&event(|_| {}))) else { panic!("no directive") };
        assert_eq!((held.revision, held.action, held.rule.as_str()), (2, Instruction::Block, "budget"));
        let said = [("region", None), ("team", Some("docs")), ("tier", Some("5"))];
        assert_eq!(selector, said.map(|(column, text)| (column.to_owned(), text.map(str::to_owned))));
    }

    #[test]
    fn what_is_over_is_an_end_however_it_is_said() {
        let end = Ok(Change::End("d1".to_owned()));
        assert_eq!(read(Some(b"d1"), None), end);
        assert_eq!(read(Some(b"d1"), Some(&event(|data| data["state"] = json!("resolved")))), end);
        assert_eq!(read(Some(b"d1"), Some(&event(|data| data["action"] = json!("allow")))), end);
    }

    #[test]
    fn what_cannot_be_applied_is_told_with_its_place() {
        check_unreadable(None, &event(|_| {}), "it has no key that is text");
        check_unreadable(Some("d1"), b"", "EOF while parsing");
        check_unreadable(Some("d2"), &event(|_| {}), "its key is `d2`, and it is about directive `d1`");
        let selecting = |matches: Value| event(|data| data["selector"]["match"] = matches);
        check_unreadable(Some("d1"), &selecting(json!({})), "its selector is empty");
        check_unreadable(Some("d1"), &selecting(json!({"team": ["a", "b"]})), "compares `team` with a list");
        check_unreadable(Some("d1"), &event(|data| data["action"] = json!("quarantine")), "unknown variant");
    }
}
