//! What is said to an Alertmanager.

use std::io;
#[cfg(test)]
use std::time::Duration;

use axum::body::Bytes;
use axum::http::Method;
use lictor_schemas::time::EventTime;
use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;

use super::{DEPLOYMENT, Pairs, Reported};
use crate::http::call::{CallError, Caller, Endpoint, Question};

/// The statuses that are about what was sent: bad, too large, not processable.
const REFUSALS: [u16; 3] = [400, 413, 422];

/// Why something was not taken.
#[derive(Debug, Error)]
pub enum AlertError {
    /// There is no answer, or it is no.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The answer cannot be read.
    #[error("its answer cannot be read: {0}")]
    Answer(#[from] serde_json::Error),
}

impl AlertError {
    /// Whether the same request may be taken later: all but what is refused for what it says. A wrong password or path
    /// is put right some day, and an end that was forgotten by then would fire on.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Call(CallError::Unreachable(_)) => true,
            Self::Call(CallError::Status { status, .. }) => !REFUSALS.contains(status),
            Self::Answer(_) => false,
        }
    }
}

/// An Alertmanager.
#[derive(Debug)]
pub struct Alertmanager {
    caller: Caller,
}

/// An alert as `GET /api/v2/alerts` says it.
#[derive(Deserialize)]
struct Gettable {
    labels: Pairs,
    #[serde(default)]
    annotations: Pairs,
    #[serde(rename = "startsAt")]
    starts_at: String,
    #[serde(rename = "endsAt")]
    ends_at: String,
}

impl Alertmanager {
    /// Nobody is asked yet.
    ///
    /// # Errors
    /// The operating system refuses what waiting needs.
    pub fn try_new(endpoint: Endpoint) -> io::Result<Self> {
        Ok(Self { caller: Caller::try_new(endpoint)? })
    }

    /// Where it is.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        self.caller.endpoint()
    }

    /// Tells of alerts and returns once they were taken.
    ///
    /// # Errors
    /// They were not, or that is not known.
    pub fn post(&self, alerts: &[Value]) -> Result<(), AlertError> {
        let body = serde_json::to_vec(alerts)?;
        Ok(self.ask(Method::POST, "/api/v2/alerts", body).map(drop)?)
    }

    /// What it has from a deployment, silenced and inhibited alerts too.
    ///
    /// # Errors
    /// It does not say.
    pub fn reported(&self, application_id: &str) -> Result<Vec<Reported>, AlertError> {
        // An application id needs no escaping.
        let filter = format!("filter={DEPLOYMENT}%3D%22{application_id}%22");
        let all = "active=true&silenced=true&inhibited=true&unprocessed=true";
        let answer = self.ask(Method::GET, &format!("/api/v2/alerts?{all}&{filter}"), Vec::new())?;
        let alerts: Vec<Gettable> = serde_json::from_slice(&answer)?;
        let to_reported = |alert: Gettable| Reported {
            starts_at: EventTime::from_rfc3339(&alert.starts_at).unwrap_or(EventTime(0)),
            ends_at: EventTime::from_rfc3339(&alert.ends_at).unwrap_or(EventTime::MAX),
            labels: alert.labels,
            annotations: alert.annotations,
        };
        Ok(alerts.into_iter().map(to_reported).collect())
    }

    fn ask(&self, method: Method, path: &str, body: Vec<u8>) -> Result<Bytes, CallError> {
        self.caller.ask(Question { method, path, content_type: "application/json", body })
    }

    /// For tests, which do not wait that long.
    #[cfg(test)]
    pub(crate) fn with_patience(self, answer_max: Duration) -> Self {
        Self { caller: self.caller.with_patience(answer_max) }
    }
}
