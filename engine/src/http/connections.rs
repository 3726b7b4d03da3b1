//! The connections of an HTTP server, and how much they may ask of it.
//!
//! | limit | why so much | what happens |
//! |---|---|---|
//! | 1,024 connections | some 10 kB each, and gateways keep some dozens | the one that waits longest makes room |
//! | 60 s for a request's head | a gateway's pool keeps connections that nobody uses | it is closed |
//! | 10 s for its body | it comes in one packet | the body ends with an error |
//! | 64 KiB of head, 64 KiB of body | a question takes some hundred bytes | 431, 413 |
//!
//! Whoever opens connections and says nothing, or says it a byte at a time, holds places; but a place that waits for
//! its client is given to the next one who comes once there is none left, and who asks as everybody does is answered.

use std::collections::HashMap;
use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{Request, StatusCode};
use axum::response::Response;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use openssl::ssl::SslAcceptor;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::{AbortHandle, Id, JoinSet};
use tokio::time::{Sleep, interval, sleep, timeout};

use super::STOP_MAX;
use super::tls::{self, Certified, Tls};

/// How much connections may ask; see the module for why it is so much.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Open at a time.
    pub(super) connections_max: usize,
    /// From the end of an answer, or the beginning of the connection, to the end of the next request's head.
    pub(super) head_max: Duration,
    /// From the end of a request's head to the end of its body.
    pub(super) body_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections_max: 1_024, head_max: Duration::from_secs(60), body_max: Duration::from_secs(10) }
    }
}

/// The longest head: hyper asks for a buffer of 8 KiB at least.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// The longest body.
pub(crate) const BODY_BYTES_MAX: usize = 64 * 1024;

/// The pause after a connection that the operating system would not hand over: it has no descriptors left, and closes
/// some by then.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Why connections ended that their clients would have kept.
const REASONS: [&str; 5] = ["crowded_out", "refused", "slow_head", "slow_body", "large_body"];

/// What is counted of connections.
#[derive(Clone, Debug)]
pub struct HttpCounts {
    /// Open now.
    open: Gauge,
    /// Ended by a limit, by reason.
    limited: Family<[(&'static str, &'static str); 1], Counter>,
    crowded_out: Counter,
    refused: Counter,
    slow_head: Counter,
    slow_body: Counter,
    large_body: Counter,
}

impl Default for HttpCounts {
    fn default() -> Self {
        let limited: Family<_, Counter> = Family::default();
        let [crowded_out, refused, slow_head, slow_body, large_body] =
            REASONS.map(|reason| limited.get_or_create(&[("reason", reason)]).clone());
        Self { open: Gauge::default(), limited, crowded_out, refused, slow_head, slow_body, large_body }
    }
}

impl HttpCounts {
    /// Makes them metrics.
    pub(crate) fn register(&self, to: &mut Registry) {
        to.register("http_connections", "Connections to the HTTP servers that are open", self.open.clone());
        let limited = "Connections and requests that a limit of the HTTP servers has ended, by reason";
        to.register("http_limited", limited, self.limited.clone());
    }
}

/// Serves until `stopped`, then lets answers under way end, but not for ever.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    (limits, counts): (Limits, HttpCounts),
    tls: Option<Tls>,
    mut stopped: oneshot::Receiver<()>,
) {
    let (stop, stopping) = watch::channel(());
    let shared =
        Arc::new(Shared { router: TowerToHyperService::new(router), limits, counts, turns: AtomicU64::new(1) });
    let mut open = Open { shared, tls, tasks: JoinSet::new(), waiting: HashMap::new(), stopping };
    let mut renewals = interval(tls::READ_EVERY);
    loop {
        tokio::select! {
            // The value or the end of the sender: both mean stop.
            _ = &mut stopped => break,
            Some(ended) = open.tasks.join_next_with_id() => {
                let id = match ended { Ok((id, ())) => id, Err(error) => error.id() };
                open.forget(id);
            }
            _ = renewals.tick(), if open.tls.is_some() => open.tls.iter_mut().for_each(Tls::read_again),
            accepted = listener.accept() => match accepted {
                Ok((connection, _)) => open.add(connection),
                Err(error) => {
                    tracing::warn!(%error, "a connection was not taken");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    drop(stop);
    // What is not done by then ends with the set.
    timeout(STOP_MAX, async { while open.tasks.join_next().await.is_some() {} }).await.ok();
    open.shared.counts.open.dec_by(i64::try_from(open.waiting.len()).unwrap_or_default());
}

/// What all connections have in common.
struct Shared {
    router: TowerToHyperService<Router>,
    limits: Limits,
    counts: HttpCounts,
    /// The next turn of those that wait.
    turns: AtomicU64,
}

/// Since which turn a connection waits for its client; 0 while it does not.
struct Waiting(AtomicU64);

impl Waiting {
    fn begin(&self, shared: &Shared) {
        self.0.store(shared.turns.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
    }

    fn end(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

/// The connections that are open.
struct Open {
    shared: Arc<Shared>,
    tls: Option<Tls>,
    tasks: JoinSet<()>,
    waiting: HashMap<Id, (AbortHandle, Arc<Waiting>)>,
    /// Ends when the server stops.
    stopping: watch::Receiver<()>,
}

impl Open {
    fn add(&mut self, connection: TcpStream) {
        if self.waiting.len() >= self.shared.limits.connections_max && !self.make_room() {
            self.shared.counts.refused.inc();
            return;
        }
        // An answer is one small write: it must not wait for more.
        connection.set_nodelay(true).ok();
        let waiting = Arc::new(Waiting(AtomicU64::new(0)));
        waiting.begin(&self.shared);
        let (shared, stopping) = (Arc::clone(&self.shared), self.stopping.clone());
        let handle = match self.tls.as_ref().map(Tls::acceptor) {
            None => self.tasks.spawn(attend(connection, false, shared, Arc::clone(&waiting), stopping)),
            Some(acceptor) => {
                self.tasks.spawn(attend_over_tls(connection, acceptor, shared, Arc::clone(&waiting), stopping))
            }
        };
        self.waiting.insert(handle.id(), (handle, waiting));
        self.shared.counts.open.inc();
    }

    /// Ends the connection that has waited longest for its client; false if none waits.
    fn make_room(&mut self) -> bool {
        let turn = |waiting: &Waiting| waiting.0.load(Ordering::Relaxed);
        let waiting = self.waiting.iter().filter(|(_, (_, waiting))| turn(waiting) > 0);
        let Some(id) = waiting.min_by_key(|(_, (_, waiting))| turn(waiting)).map(|(id, _)| *id) else { return false };
        if let Some((handle, _)) = self.waiting.remove(&id) {
            handle.abort();
            self.shared.counts.open.dec();
            self.shared.counts.crowded_out.inc();
        }
        true
    }

    fn forget(&mut self, id: Id) {
        if self.waiting.remove(&id).is_some() {
            self.shared.counts.open.dec();
        }
    }
}

/// As [`attend`], once hands are shaken, for which there is as much time as for a head.
async fn attend_over_tls(
    connection: TcpStream,
    acceptor: SslAcceptor,
    shared: Arc<Shared>,
    waiting: Arc<Waiting>,
    stopping: watch::Receiver<()>,
) {
    match timeout(shared.limits.head_max, tls::accept(&acceptor, connection)).await {
        Ok(Ok((connection, is_certified))) => attend(connection, is_certified, shared, waiting, stopping).await,
        // Whoever scans ports makes many of these.
        Ok(Err(error)) => tracing::debug!(%error, "a TLS connection was not made"),
        Err(_) => {
            shared.counts.slow_head.inc();
        }
    }
}

/// Answers the requests of one connection, one after the other.
async fn attend(
    connection: impl AsyncRead + AsyncWrite + Unpin,
    is_certified: bool,
    shared: Arc<Shared>,
    waiting: Arc<Waiting>,
    mut stopping: watch::Receiver<()>,
) {
    let answer = service_fn(|mut request: Request<Incoming>| {
        if is_certified {
            request.extensions_mut().insert(Certified);
        }
        answer(request, Arc::clone(&shared), Arc::clone(&waiting))
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(shared.limits.head_max)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(connection), answer);
    let mut serving = pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        _ = stopping.changed() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    // Anything else is the client's affair: it has gone, or speaks no HTTP.
    if ended.is_err_and(|error| error.is_timeout()) {
        shared.counts.slow_head.inc();
    }
}

async fn answer(
    request: Request<Incoming>,
    shared: Arc<Shared>,
    waiting: Arc<Waiting>,
) -> Result<Response, Infallible> {
    let request = request.map(|body| {
        if hyper::body::Body::is_end_stream(&body) {
            waiting.end();
            return Body::empty();
        }
        // Only when all of it has come does the connection wait for us.
        let (shared, waiting) = (Arc::clone(&shared), Arc::clone(&waiting));
        let deadline = Box::pin(sleep(shared.limits.body_max));
        Body::new(Coming { body, deadline, shared, waiting })
    });
    let answered = shared.router.call(request).await;
    waiting.begin(&shared);
    if answered.as_ref().is_ok_and(|answer| answer.status() == StatusCode::PAYLOAD_TOO_LARGE) {
        shared.counts.large_body.inc();
    }
    answered
}

/// The body of a request, which comes within its time or not at all.
struct Coming {
    body: Incoming,
    deadline: Pin<Box<Sleep>>,
    shared: Arc<Shared>,
    waiting: Arc<Waiting>,
}

impl hyper::body::Body for Coming {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let come = Pin::new(&mut self.body).poll_frame(context);
        match come {
            Poll::Ready(frame) => {
                if self.body.is_end_stream() || !matches!(frame, Some(Ok(_))) {
                    self.waiting.end();
                }
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
            Poll::Pending if self.deadline.as_mut().poll(context).is_ready() => {
                self.shared.counts.slow_body.inc();
                self.waiting.end();
                Poll::Ready(Some(Err(io::Error::from(io::ErrorKind::TimedOut).into())))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests;
