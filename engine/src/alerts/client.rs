//! What is said to an Alertmanager, over plain HTTP/1.1.
//!
//! A connection per question: there is one a minute, and a connection that was kept would have to be watched.

use std::io;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use lictor_schemas::time::EventTime;
use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::runtime;

use super::{DEPLOYMENT, Pairs, Reported};

/// How long an answer may take: those to come wait for it.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// What an Alertmanager may answer: twenty thousand alerts of ours have half of that.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Of what it says when it refuses something, so much is told.
const REASON_CHARS_MAX: usize = 200;

/// The statuses that are about what was sent: bad, too large, not processable.
const REFUSALS: [u16; 3] = [400, 413, 422];

/// Where an Alertmanager is.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// A name or an address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// What its paths begin with; empty, or with a slash at the beginning and none at the end.
    pub prefix: String,
    /// The value of the `Authorization` header, a secret.
    pub authorization: Option<String>,
}

impl Endpoint {
    /// The address as people write it.
    #[must_use]
    pub fn to_url(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        format!("http://{host}:{}{}", self.port, self.prefix)
    }
}

/// Shows where it is, and nothing that could be a secret.
impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.to_url())
    }
}

/// Why something was not taken.
#[derive(Debug, Error)]
pub enum AlertError {
    /// Nobody answers, or not in time.
    #[error("{0}")]
    Unreachable(String),
    /// The answer is no.
    #[error("it answers {status}: {reason}")]
    Status {
        /// The status.
        status: u16,
        /// The beginning of what it says.
        reason: String,
    },
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
            Self::Unreachable(_) => true,
            Self::Status { status, .. } => !REFUSALS.contains(status),
            Self::Answer(_) => false,
        }
    }
}

/// An Alertmanager.
#[derive(Debug)]
pub struct Alertmanager {
    endpoint: Endpoint,
    runtime: runtime::Runtime,
    answer_max: Duration,
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
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { endpoint, runtime, answer_max: ANSWER_MAX })
    }

    /// Where it is.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Tells of alerts and returns once they were taken.
    ///
    /// # Errors
    /// They were not, or that is not known.
    pub fn post(&self, alerts: &[Value]) -> Result<(), AlertError> {
        let body = serde_json::to_vec(alerts)?;
        self.ask(Method::POST, "/api/v2/alerts", body).map(drop)
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

    fn ask(&self, method: Method, path: &str, body: Vec<u8>) -> Result<Bytes, AlertError> {
        let answer = async { tokio::time::timeout(self.answer_max, self.exchange(method, path, body)).await };
        let (status, answer) = self
            .runtime
            .block_on(answer)
            .map_err(|_| AlertError::Unreachable(format!("no answer within {} s", self.answer_max.as_secs())))?
            .map_err(|error| AlertError::Unreachable(error.to_string()))?;
        if status.is_success() {
            return Ok(answer);
        }
        let reason = String::from_utf8_lossy(&answer).chars().take(REASON_CHARS_MAX).collect::<String>();
        Err(AlertError::Status { status: status.as_u16(), reason: reason.trim().escape_debug().to_string() })
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<(StatusCode, Bytes), Box<dyn std::error::Error + Send + Sync>> {
        let Endpoint { host, port, prefix, authorization } = &self.endpoint;
        let stream = TcpStream::connect((host.as_str(), *port)).await?;
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
        // It ends with the sender; what goes wrong the answer says.
        let connection = tokio::spawn(connection);
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{prefix}{path}"))
            .header(header::HOST, format!("{host}:{port}"))
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, "lictor");
        if let Some(authorization) = authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let answer = sender.send_request(request.body(Full::new(Bytes::from(body)))?).await?;
        let status = answer.status();
        let answer = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await?.to_bytes();
        connection.abort();
        Ok((status, answer))
    }

    /// For tests, which do not wait that long.
    #[cfg(test)]
    pub(crate) fn with_patience(self, answer_max: Duration) -> Self {
        Self { answer_max, ..self }
    }
}
