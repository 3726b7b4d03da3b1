//! What the console's pages ask for, as JSON under `/api/v1/`.
//!
//! Pages ask again every second while somebody looks at them: a stream of events could not say a token
//! (`EventSource` sends no headers). An answer that has not changed costs nobody anything (`ETag`).

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use axum::Router;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::access::{Asked, Refused, may_change, may_look};
use super::pages::{self, PAGES};
use super::view::Filter;
use super::{Console, Snapshot};
use crate::clock::Clock;
use crate::http::tls::Certified;
use crate::http::{Health, ReloadRequest};

/// Whoever comes first waits for a snapshot that was made for him, this long at most; it comes once per second.
const FIRST_WAIT: Duration = Duration::from_millis(1_500);

/// Rows of an answer, unless fewer are asked for.
const ROWS_MAX: usize = 200;

/// Characters of a search: a line.
const SEARCH_CHARS_MAX: usize = 200;

const JSON: &str = "application/json";

/// What the answers are made of.
struct Shared<C> {
    console: Arc<Console>,
    health: Arc<Health>,
    /// Where rules are asked for; none if that is not possible here.
    reload: Option<SyncSender<ReloadRequest>>,
    clock: C,
}

/// The console's pages, and what they ask for.
pub fn router<C: Clock + Send + Sync + 'static>(
    console: Arc<Console>,
    health: Arc<Health>,
    reload: Option<SyncSender<ReloadRequest>>,
    clock: C,
) -> Router {
    let shared = Arc::new(Shared { console, health, reload, clock });
    let mut router = Router::new();
    for page in PAGES {
        router = router.route(page.0, get(move || async move { pages::answer(page) }));
    }
    let (accessed, reloaded, asked) = (Arc::clone(&shared), Arc::clone(&shared), shared);
    router
        .route("/api/v1/access", get(move |who: Who| async move { accessed.access(&who) }))
        .route("/api/v1/reload", post(move |who: Who| async move { reloaded.reload(&who).await }))
        .route("/api/v1/{*path}", get(move |uri: Uri, who: Who| async move { asked.answer(&uri, &who).await }))
}

/// What is known of whoever asks.
struct Who {
    headers: HeaderMap,
    is_certified: bool,
}

impl<S: Sync> FromRequestParts<S> for Who {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let is_certified = parts.extensions.get::<Certified>().is_some();
        Ok(Self { headers: parts.headers.clone(), is_certified })
    }
}

impl<C: Clock> Shared<C> {
    fn asked(&self) -> Asked<'_> {
        let options = &self.console.options;
        Asked { token: options.token.as_deref(), needs_certificate: options.needs_certificate }
    }

    /// What a page must know before it may know anything else.
    fn access(&self, who: &Who) -> Response {
        let options = &self.console.options;
        let can_reload = options.allow_reload && self.reload.is_some();
        let has_shown_enough = options.needs_certificate && who.is_certified;
        let needs_token = options.token.is_some() && !has_shown_enough;
        said(StatusCode::OK, &json!({"needs_token": needs_token, "can_reload": can_reload}))
    }

    async fn answer(&self, uri: &Uri, Who { headers, is_certified }: &Who) -> Response {
        if let Err(refused) = may_look(self.asked(), *is_certified, headers) {
            return refusal(refused);
        }
        let snapshot = self.snapshot().await;
        let what = uri.path().trim_start_matches("/api/v1/");
        let Some(body) = self.body(&snapshot, what, uri.query().unwrap_or_default()) else {
            return said(StatusCode::NOT_FOUND, &json!({"error": "there is nothing of this name"}));
        };
        let body = body.to_string();
        // Only whether it is the same matters, and only within one process.
        let tag = format!("\"{:016x}\"", crate::exchange::route::Hash::of(body.as_bytes()).value());
        let is_known = headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes());
        let about = [(header::ETAG, tag), (header::CACHE_CONTROL, "no-cache".to_owned())];
        pages::guarded(match is_known {
            true => (StatusCode::NOT_MODIFIED, about).into_response(),
            false => (StatusCode::OK, about, [(header::CONTENT_TYPE, JSON)], body).into_response(),
        })
    }

    /// The last snapshot; if nobody has looked for a while, the next one, which has everything.
    async fn snapshot(&self) -> Arc<Snapshot> {
        let mut published = self.console.published.subscribe();
        if !self.console.note_watcher(self.clock.monotonic()) {
            // A loop that hangs publishes nothing: then what there was must do.
            tokio::time::timeout(FIRST_WAIT, published.changed()).await.ok();
        }
        Arc::clone(&self.console.published.borrow())
    }

    fn body(&self, snapshot: &Snapshot, what: &str, query: &str) -> Option<Value> {
        let (cards, options) = (self.console.cards(), &self.console.options);
        let mut body = match what {
            "overview" => snapshot.overview(options, self.health(), &cards),
            "rules" => snapshot.rules(&cards),
            "directives" => snapshot.directives(&filter(query)),
            "events" => snapshot.events(&filter(query)),
            "partitions" => snapshot.partitions(options),
            "dead-letters" => snapshot.dead_letters(),
            "reloads" => json!({ "notes": cards.notes() }),
            other => snapshot.rule(other.strip_prefix("rules/")?, &cards)?,
        };
        if what == "overview" || what == "partitions" {
            body["now"] = json!(snapshot.at.to_ms());
        }
        Some(body)
    }

    fn health(&self) -> Value {
        let alive = self.health.liveness(self.clock.monotonic());
        let ready = self.health.readiness();
        let why = alive.as_ref().err().or(ready.as_ref().err());
        json!({"alive": alive.is_ok(), "ready": ready.is_ok(), "why": why})
    }

    async fn reload(&self, who: &Who) -> Response {
        if let Err(refused) = may_change(self.asked(), who.is_certified, &who.headers) {
            return refusal(refused);
        }
        let Some(reload) = self.reload.as_ref().filter(|_| self.console.options.allow_reload) else {
            return refusal((StatusCode::FORBIDDEN, "console.allow_reload is off: change files, or send SIGHUP"));
        };
        let (request, answer) = oneshot::channel();
        if reload.try_send(request).is_err() {
            return refusal((StatusCode::SERVICE_UNAVAILABLE, "somebody else has asked just now"));
        }
        match answer.await {
            Ok(Ok(text)) => said(StatusCode::OK, &json!({"applied": true, "text": text})),
            Ok(Err(text)) => said(StatusCode::UNPROCESSABLE_ENTITY, &json!({"applied": false, "text": text})),
            Err(_) => refusal((StatusCode::SERVICE_UNAVAILABLE, "lictor is stopping")),
        }
    }
}

fn said(status: StatusCode, body: &Value) -> Response {
    let about = [(header::CONTENT_TYPE, JSON), (header::CACHE_CONTROL, "no-store")];
    pages::guarded((status, about, body.to_string()).into_response())
}

fn refusal((status, why): Refused) -> Response {
    said(status, &json!({ "error": why }))
}

/// What a query says: `q` is words, `rule`, `action` and `id` are what they are, `limit` is rows.
fn filter(query: &str) -> Filter {
    let mut filter = Filter { limit: ROWS_MAX, ..Filter::default() };
    for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
        let value: String = unescaped(value).chars().take(SEARCH_CHARS_MAX).collect();
        match name {
            _ if value.is_empty() => {}
            "q" => filter.words = value.to_lowercase().split_whitespace().map(str::to_owned).collect(),
            "rule" => filter.rule = Some(value),
            "action" => filter.action = Some(value),
            "id" => filter.id = Some(value),
            "limit" => filter.limit = value.parse().unwrap_or(ROWS_MAX).min(ROWS_MAX),
            _ => {}
        }
    }
    filter
}

/// A value of a query without its escapes; what is no escape stays as it is.
fn unescaped(value: &str) -> String {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = tail.get(..2).and_then(|hex| u8::from_str_radix(str::from_utf8(hex).ok()?, 16).ok());
        let (byte, taken) = match (first, escaped) {
            (b'%', Some(byte)) => (byte, 3),
            (b'+', _) => (b' ', 1),
            (other, _) => (*other, 1),
        };
        bytes.push(byte);
        rest = &rest[taken..];
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
