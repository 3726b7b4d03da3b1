//! The guard's HTTP server: two ways to ask, and what supervisors ask.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use lictor_schemas::columns::RequestColumns;
use serde::Deserialize;
use serde_json::Value;

use super::Guard;
use super::answer::Verdict;
use super::decisions::Caller;
use crate::clock::Clock;
use crate::http::tls::{Certified, NO_CERTIFICATE, TlsFiles};
use crate::http::{BODY_BYTES_MAX, HttpError, HttpServer, OPENMETRICS, PROGRESS_MAX, verdict};

/// Far more than any rule selects by, and still microseconds: all questions wait for one thread.
const ATTRIBUTES_MAX: usize = 256;

/// Behind it a proxy puts the path that its caller has asked for.
const EXT_AUTHZ: &str = "/v1/ext_authz";

/// Whose call it is.
const TRACEPARENT: &str = "traceparent";

const JSON: &str = "application/json";

/// A question, as JSON.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    attributes: BTreeMap<String, Value>,
}

/// What the answers are made of.
struct Shared<C> {
    guard: Arc<Guard>,
    /// Header, the column it is, in the order in which they count.
    headers: Vec<(String, String)>,
    clock: C,
}

/// Listens where the guard's options say, on a thread of its own; it ends with the value.
/// With `tls` it is asked over TLS, and if clients need a certificate only those who have one are answered.
///
/// # Errors
/// The port is taken or not ours to take, or the files cannot be used.
pub fn serve<C: Clock + Send + Sync + 'static>(
    guard: Arc<Guard>,
    tls: Option<&TlsFiles>,
    clock: C,
) -> Result<HttpServer, HttpError> {
    let address = guard.options().http;
    let headers = guard.options().headers.clone().into_iter().collect();
    let counts = guard.metrics().http().clone();
    let shared = Arc::new(Shared { guard, headers, clock });
    let mut router = router(&shared);
    if tls.is_some_and(|tls| tls.client_ca.is_some()) {
        router = router.layer(from_fn(certified_only));
    }
    HttpServer::serve_over(tls, (address, "guard.http"), router, counts)
}

fn router<C: Clock + Send + Sync + 'static>(shared: &Arc<Shared<C>>) -> Router {
    let each = || Arc::clone(shared);
    let (asked, proxied, counted, alive, ready) = (each(), each(), each(), each(), each());
    Router::new()
        .route(
            "/v1/authorize",
            post(move |headers: HeaderMap, body: Bytes| async move { asked.authorize(&headers, &body) }),
        )
        .route("/metrics", get(move || async move { counted.metrics() }))
        .route("/healthz", get(move || async move { verdict(alive.liveness()) }))
        .route("/readyz", get(move || async move { verdict(ready.readiness()) }))
        // Any path behind the prefix, also one that no route could name.
        .fallback(move |uri: Uri, headers: HeaderMap, body: Body| async move {
            match uri.path().strip_prefix(EXT_AUTHZ) {
                Some(rest) if rest.is_empty() || rest.starts_with('/') => proxied.ext_authz(&headers, body).await,
                _ => (StatusCode::NOT_FOUND, "ask /v1/authorize or /v1/ext_authz\n").into_response(),
            }
        })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
}

/// Probes and Prometheus have no certificate, and learn nothing of directives.
const OPEN_TO_ALL: [&str; 3] = ["/metrics", "/healthz", "/readyz"];

/// Turns away whoever has shown no certificate.
async fn certified_only(request: Request, next: Next) -> Response {
    let is_open = OPEN_TO_ALL.contains(&request.uri().path());
    if is_open || request.extensions().get::<Certified>().is_some() {
        return next.run(request).await;
    }
    let error = serde_json::json!({ "error": NO_CERTIFICATE }).to_string();
    (StatusCode::UNAUTHORIZED, [(header::CONTENT_TYPE, JSON)], error).into_response()
}

impl<C: Clock> Shared<C> {
    fn authorize(&self, headers: &HeaderMap, body: &[u8]) -> Response {
        let began = self.clock.monotonic();
        let question = match question(body) {
            Ok(question) => question,
            Err(why) => return self.refuse(&why),
        };
        let attributes = question.attributes.iter().map(|(name, value)| (name.as_str(), value));
        let verdict = self.decide(&self.guard.reader().read(attributes), headers);
        let answer = ([(header::CONTENT_TYPE, JSON)], verdict.to_json()).into_response();
        self.guard.metrics().observe_duration(self.clock.monotonic().saturating_sub(began));
        answer
    }

    /// Everything that a proxy wants to know is in status and headers; the body is for the caller that is refused.
    async fn ext_authz(&self, headers: &HeaderMap, body: Body) -> Response {
        // A connection goes on only after all of a request was read; a body that is too long ends it.
        to_bytes(body, BODY_BYTES_MAX).await.ok();
        let began = self.clock.monotonic();
        let said = match self.said_by(headers) {
            Ok(said) => said,
            Err(why) => return self.refuse(&why),
        };
        let columns = self.guard.reader().read(said.iter().map(|(column, value)| (*column, value)));
        let verdict = self.decide(&columns, headers);
        let head = (verdict.outcome.to_status(), verdict.to_headers(), [(header::CONTENT_TYPE, JSON)]);
        let answer = (head.0, head.1, head.2, verdict.to_json()).into_response();
        self.guard.metrics().observe_duration(self.clock.monotonic().saturating_sub(began));
        answer
    }

    /// The columns that headers say; the error is why nobody can tell. Of two values one may be the caller's own, in
    /// front of what the gateway knows of him.
    fn said_by(&self, headers: &HeaderMap) -> Result<Vec<(&str, Value)>, String> {
        let mut said = Vec::new();
        for (header, column) in &self.headers {
            let mut values = headers.get_all(header).iter();
            let Some(value) = values.next() else { continue };
            if values.next().is_some() {
                return Err(format!("header `{header}` is there more than once: let the gateway replace what it sets"));
            }
            let text = str::from_utf8(value.as_bytes()).map_err(|_| format!("header `{header}` is not UTF-8"))?;
            said.push((column.as_str(), Value::String(text.to_owned())));
        }
        Ok(said)
    }

    /// What is no question is answered with the reason, and counted.
    fn refuse(&self, why: &str) -> Response {
        self.guard.metrics().observe_refused();
        let error = serde_json::json!({ "error": why }).to_string();
        (StatusCode::BAD_REQUEST, [(header::CONTENT_TYPE, JSON)], error).into_response()
    }

    fn decide(&self, columns: &RequestColumns<'_>, headers: &HeaderMap) -> Verdict {
        let now = self.clock.now();
        let verdict = self.guard.decide(columns, now, self.clock.monotonic());
        let caller = headers.get(TRACEPARENT).and_then(|value| Caller::from_traceparent(value.to_str().ok()?));
        self.guard.record(&verdict, columns, caller, now);
        verdict
    }

    fn metrics(&self) -> Response {
        let text = self.guard.encode(self.clock.monotonic());
        ([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response()
    }

    fn liveness(&self) -> Result<(), String> {
        let since = self.guard.staleness().since_progress(self.clock.monotonic());
        if since <= PROGRESS_MAX {
            return Ok(());
        }
        Err(format!("the loop that follows the directives has made no progress for {} s", since.as_secs()))
    }

    fn readiness(&self) -> Result<(), String> {
        self.guard.staleness().readiness(self.clock.monotonic())
    }
}

/// Reads a question; the error is why it is none.
fn question(body: &[u8]) -> Result<Question, String> {
    const EXAMPLE: &str = r#"{"attributes": {"team": "docs", "request_model": "gpt-4o"}}"#;
    let why = match serde_json::from_slice::<Question>(body) {
        Ok(Question { attributes }) if attributes.len() > ATTRIBUTES_MAX => {
            format!("{} attributes, and at most {ATTRIBUTES_MAX} may be said", attributes.len())
        }
        Ok(question) => match question.attributes.iter().find(|(_, value)| value.is_array() || value.is_object()) {
            None => return Ok(question),
            Some((name, _)) => format!("attribute `{name}` is neither text, a number, true, false nor null"),
        },
        Err(error) => format!("{error}: write {EXAMPLE}"),
    };
    Err(why)
}

#[cfg(test)]
mod tests;
