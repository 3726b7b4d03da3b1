//! The CloudEvents envelope around a directive, and the way from event to bytes and back.
//!
//! Structured mode on purpose: a binary-mode event without data would be a null value, which a compacted topic reads as
//! a deletion. Everything in the envelope that is not in [`EnforcementEvent`] is derived from the directive.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Directive, EVENT_TYPE, EnforcementEvent, rfc3339};
use crate::time::EventTime;

/// Why bytes are not an enforcement event.
#[derive(Debug, Error)]
pub enum EventError {
    /// They are not the JSON text of one.
    #[error("not an enforcement event: {0}")]
    Json(#[from] serde_json::Error),
    /// They are a CloudEvents message of another kind.
    #[error("a CloudEvents {specversion} message of type `{found}`, expected 1.0 and `{EVENT_TYPE}`")]
    Foreign {
        /// The version of the envelope.
        specversion: String,
        /// The type it names.
        found: String,
    },
}

/// The message as it is written: CloudEvents attributes, then documented extensions, then the data.
#[derive(Serialize, Deserialize)]
struct Envelope {
    specversion: String,
    #[serde(rename = "type")]
    event_type: String,
    source: String,
    id: String,
    #[serde(with = "rfc3339")]
    time: EventTime,
    subject: String,
    datacontenttype: String,
    partitionkey: String,
    #[serde(with = "rfc3339")]
    expirytime: EventTime,
    severitytext: String,
    severitynumber: u8,
    sequence: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    traceparent: Option<String>,
    data: Directive,
}

impl EnforcementEvent {
    /// Whom the event is about as one line of text: `project=chat,team=search`.
    #[must_use]
    pub fn to_subject_text(&self) -> String {
        let parts = self.data.selector.matches.iter().map(|(column, value)| match value.as_str() {
            Some(text) => format!("{column}={text}"),
            None => format!("{column}={value}"),
        });
        parts.collect::<Vec<_>>().join(",")
    }

    /// The message as JSON text without line breaks.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let envelope = Envelope {
            specversion: "1.0".to_owned(),
            event_type: EVENT_TYPE.to_owned(),
            source: self.source.clone(),
            id: self.id.clone(),
            time: self.time,
            subject: self.to_subject_text(),
            datacontenttype: "application/json".to_owned(),
            partitionkey: self.data.directive_id.clone(),
            expirytime: self.data.valid_until,
            severitytext: self.data.severity.to_otel_text().to_owned(),
            severitynumber: self.data.severity.to_otel_number(),
            sequence: format!("{:010}", self.data.revision),
            traceparent: self.to_traceparent(),
            data: self.data.clone(),
        };
        serde_json::to_vec(&envelope).expect("an event has text keys and finite numbers only")
    }

    /// Reads a message back.
    ///
    /// # Errors
    /// `bytes` are not JSON, lack a field, hold a word outside its closed set, or are an event of another type.
    pub fn from_json(bytes: &[u8]) -> Result<Self, EventError> {
        let head: Head = serde_json::from_slice(bytes)?;
        if head.specversion != "1.0" || head.event_type != EVENT_TYPE {
            return Err(EventError::Foreign { specversion: head.specversion, found: head.event_type });
        }
        let envelope: Envelope = serde_json::from_slice(bytes)?;
        Ok(Self { id: envelope.id, source: envelope.source, time: envelope.time, data: envelope.data })
    }

    /// The W3C trace context of the first exemplar, so that a trace viewer can jump to the cause.
    fn to_traceparent(&self) -> Option<String> {
        let exemplar = self.data.finding.exemplars.first()?;
        Some(format!("00-{}-{}-01", exemplar.trace_id, exemplar.span_id))
    }
}

/// As much of a message as tells whether it is one of ours.
#[derive(Deserialize)]
struct Head {
    specversion: String,
    #[serde(rename = "type")]
    event_type: String,
}
