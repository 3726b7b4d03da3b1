//! What is said to other people's HTTP servers, over plain HTTP/1.1.
//!
//! A connection per question: there is one every few seconds, and a connection that was kept would have to be watched.

use std::fmt;
use std::io;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::runtime;

/// How long an answer may take: those to come wait for it.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// What may be answered: twenty thousand alerts of ours are half of that.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Of what a server says when it refuses something, so much is told.
const REASON_CHARS_MAX: usize = 200;

/// Where a server is.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// A name or an address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// What its paths begin with; empty, or with a slash at the beginning and none at the end.
    pub prefix: String,
    /// Sent with every request; secrets.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

impl Endpoint {
    /// Reads a URL, up to what its paths begin with.
    ///
    /// # Errors
    /// What is wrong with it; `example` is one as it should be.
    pub fn parse(text: &str, example: &str) -> Result<Self, String> {
        let not_a_url = || format!("is not a URL such as {example}");
        let uri: Uri = text.parse().map_err(|_| not_a_url())?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => {
                return Err("is https, which lictor does not speak: name a proxy that does".to_owned());
            }
            _ => return Err(not_a_url()),
        }
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(not_a_url)?;
        let port = uri.port_u16().ok_or_else(|| format!("has no port: write it as in {example}"))?;
        if uri.query().is_some() {
            return Err(format!("has a query: write it as in {example}"));
        }
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let prefix = uri.path().trim_end_matches('/').to_owned();
        Ok(Self { host, port, prefix, headers: Vec::new() })
    }

    /// The address as people write it.
    #[must_use]
    pub fn to_url(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        format!("http://{host}:{}{}", self.port, self.prefix)
    }
}

/// Shows where it is, and nothing that could be a secret.
impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_url())
    }
}

/// Why something was not taken.
#[derive(Debug, Error)]
pub enum CallError {
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
}

/// What is asked.
#[derive(Debug)]
pub struct Question<'a> {
    /// How.
    pub method: Method,
    /// Behind the endpoint's prefix.
    pub path: &'a str,
    /// What `body` is.
    pub content_type: &'static str,
    /// Empty if there is nothing to say.
    pub body: Vec<u8>,
}

/// Asks one server.
#[derive(Debug)]
pub struct Caller {
    endpoint: Endpoint,
    runtime: runtime::Runtime,
    answer_max: Duration,
}

impl Caller {
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

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// There is none within ten seconds, unless other patience was asked for, or it is no.
    pub fn ask(&self, question: Question<'_>) -> Result<Bytes, CallError> {
        let answer = async { tokio::time::timeout(self.answer_max, self.exchange(question)).await };
        let (status, answer) = self
            .runtime
            .block_on(answer)
            .map_err(|_| CallError::Unreachable(format!("no answer within {} s", self.answer_max.as_secs())))?
            .map_err(|error| CallError::Unreachable(error.to_string()))?;
        if status.is_success() {
            return Ok(answer);
        }
        let reason = String::from_utf8_lossy(&answer).chars().take(REASON_CHARS_MAX).collect::<String>();
        Err(CallError::Status { status: status.as_u16(), reason: reason.trim().escape_debug().to_string() })
    }

    async fn exchange(
        &self,
        Question { method, path, content_type, body }: Question<'_>,
    ) -> Result<(StatusCode, Bytes), Box<dyn std::error::Error + Send + Sync>> {
        let Endpoint { host, port, prefix, headers } = &self.endpoint;
        let stream = TcpStream::connect((host.as_str(), *port)).await?;
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
        // It ends with the sender; what goes wrong the answer says.
        let connection = tokio::spawn(connection);
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{prefix}{path}"))
            .header(header::HOST, format!("{host}:{port}"))
            .header(header::CONTENT_TYPE, content_type)
            .header(header::USER_AGENT, "lictor");
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let answer = sender.send_request(request.body(Full::new(Bytes::from(body)))?).await?;
        let status = answer.status();
        let answer = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await?.to_bytes();
        connection.abort();
        Ok((status, answer))
    }

    /// Waits that long for an answer, and no longer.
    #[must_use]
    pub fn with_patience(self, answer_max: Duration) -> Self {
        Self { answer_max, ..self }
    }
}
