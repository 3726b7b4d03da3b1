//! `/metrics`, `/healthz`, `/readyz`, `/watermarks` and, for this machine only, `POST /-/reload`.
//!
//! They are served by a thread of their own, so that a loop that hangs is still seen to hang. The loop and this thread
//! share two values: what is counted ([`Metrics`]) and whether the loop is well ([`Health`]).

pub mod call;
mod connections;
pub mod tls;

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use lictor_connectors::TopicPartition;
use lictor_schemas::tables::Signal;
use lictor_schemas::time::EventTime;
use serde_json::{Value, json};
use thiserror::Error;
use tokio::net::TcpListener as AsyncListener;
use tokio::runtime;
use tokio::sync::oneshot;

pub(crate) use connections::BODY_BYTES_MAX;
pub use connections::HttpCounts;
use connections::Limits;
use tls::{Tls, TlsError, TlsFiles};

use crate::clock::Clock;
use crate::console::is_asked_here;
use crate::metrics::Metrics;
use crate::tasks::Stage;
use crate::watermark::Mark;

/// A loop that did not come round for so long hangs: an epoch takes milliseconds, and a commit that waits for a broker
/// that is away is worth telling.
pub(crate) const PROGRESS_MAX: Duration = Duration::from_secs(30);

/// How long a stopping server waits for answers under way.
const STOP_MAX: Duration = Duration::from_secs(2);

pub(crate) const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What the loops of both stages say of themselves; times are monotonic, by the same clock as the server's.
#[derive(Debug, Default)]
pub struct Health {
    progressed_ms: [AtomicU64; 2],
    is_serving: [AtomicBool; 2],
    times: Mutex<BTreeMap<Signal, SignalTime>>,
}

/// How far the time of a signal has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignalTime {
    /// The watermark of the shard that is furthest behind.
    pub watermark: EventTime,
    /// The input partition that holds it back; none if all are idle.
    pub held_by: Option<Mark>,
}

impl SignalTime {
    fn to_json(&self) -> Value {
        let begun = |at: EventTime| (at > EventTime::MIN).then(|| at.to_rfc3339());
        let held_by = self.held_by.as_ref().map(|mark| {
            let TopicPartition { topic, partition } = &mark.partition;
            json!({"topic": topic.as_ref(), "partition": partition, "high": mark.high.and_then(begun)})
        });
        json!({"watermark": begun(self.watermark), "held_by": held_by})
    }
}

impl Health {
    /// A loop came round at `at`.
    pub fn progressed(&self, stage: Stage, at: Duration) {
        let ms = u64::try_from(at.as_millis()).unwrap_or(u64::MAX);
        self.progressed_ms[stage as usize].store(ms, Ordering::Relaxed);
    }

    /// A stage serves all partitions that it was assigned: for good, since other partitions come and go.
    pub fn serving(&self, stage: Stage) {
        self.is_serving[stage as usize].store(true, Ordering::Relaxed);
    }

    /// How far the time of each signal has come, as of now.
    pub fn set_times(&self, times: BTreeMap<Signal, SignalTime>) {
        *self.times.lock().unwrap_or_else(PoisonError::into_inner) = times;
    }

    fn times(&self) -> Value {
        let times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        times.iter().map(|(signal, time)| (signal.as_str().to_owned(), time.to_json())).collect()
    }

    /// Whether the loops are alive at `now`.
    ///
    /// # Errors
    /// Why they are not.
    pub fn liveness(&self, now: Duration) -> Result<(), String> {
        for stage in Stage::ALL {
            let at = Duration::from_millis(self.progressed_ms[stage as usize].load(Ordering::Relaxed));
            let since = now.saturating_sub(at);
            if since > PROGRESS_MAX {
                return Err(format!("the {} loop has made no progress for {} s", stage.as_str(), since.as_secs()));
            }
        }
        Ok(())
    }

    /// Whether telemetry is being judged.
    ///
    /// # Errors
    /// What is missing.
    pub fn readiness(&self) -> Result<(), String> {
        let waiting = Stage::ALL.into_iter().find(|stage| !self.is_serving[*stage as usize].load(Ordering::Relaxed));
        match waiting {
            None => Ok(()),
            Some(Stage::Scan) => Err("no partitions are assigned yet".to_owned()),
            Some(Stage::Judge) => Err("no shards are restored yet".to_owned()),
        }
    }
}

/// Why nothing is served.
#[derive(Debug, Error)]
pub enum HttpError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address} (`{key}` in the configuration): {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What says so.
        key: &'static str,
        /// The operating system's answer.
        source: io::Error,
    },
    /// It cannot be done over TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The server's thread or its runtime cannot be started.
    #[error("cannot start the HTTP server: {0}")]
    Start(io::Error),
}

/// A running server; it ends with the value.
#[derive(Debug)]
pub struct HttpServer {
    address: SocketAddr,
    /// Dropping it is the signal to stop.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Asks for rules to be read again; the answer is what has changed, or what is wrong.
pub type ReloadRequest = oneshot::Sender<Result<String, String>>;

/// What the answers are made of.
struct Shared<C> {
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    /// Where rules are asked for; none if others than this machine could.
    reload: Option<SyncSender<ReloadRequest>>,
    clock: C,
}

impl HttpServer {
    /// Listens on `address`; port 0 takes a free one, see [`HttpServer::address`]. `reload` is asked for other rules,
    /// if only this machine can ask: nobody is asked for a password.
    ///
    /// # Errors
    /// [`HttpError::Listen`] if the port is taken or not ours to take.
    pub fn start<C: Clock + Send + Sync + 'static>(
        address: SocketAddr,
        metrics: Arc<Metrics>,
        health: Arc<Health>,
        reload: SyncSender<ReloadRequest>,
        clock: C,
    ) -> Result<Self, HttpError> {
        Self::start_beside((address, None), (metrics, health), reload, clock, Router::new())
    }

    /// As [`HttpServer::start`], with the pages of `others` beside ours, and over TLS if there are files for it.
    ///
    /// # Errors
    /// As [`HttpServer::serve_over`].
    pub fn start_beside<C: Clock + Send + Sync + 'static>(
        (address, tls): (SocketAddr, Option<&TlsFiles>),
        (metrics, health): (Arc<Metrics>, Arc<Health>),
        reload: SyncSender<ReloadRequest>,
        clock: C,
        others: Router,
    ) -> Result<Self, HttpError> {
        let reload = Some(reload).filter(|_| address.ip().is_loopback());
        let counts = metrics.http().clone();
        let router = router(Arc::new(Shared { metrics, health, reload, clock })).merge(others);
        Self::serve_over(tls, (address, "http"), router, counts)
    }

    /// Answers by `router` at an address that a key of the configuration has named; its thread is called
    /// by that key. Connections are counted in `counts`.
    ///
    /// # Errors
    /// As [`HttpServer::start`].
    pub fn serve(at: (SocketAddr, &'static str), router: Router, counts: HttpCounts) -> Result<Self, HttpError> {
        Self::serve_within(at, router, (Limits::default(), counts), None)
    }

    /// As [`HttpServer::serve`], over TLS if there are files for it.
    ///
    /// # Errors
    /// As [`HttpServer::start`], and [`HttpError::Tls`] if the files cannot be used.
    pub fn serve_over(
        tls: Option<&TlsFiles>,
        at: (SocketAddr, &'static str),
        router: Router,
        counts: HttpCounts,
    ) -> Result<Self, HttpError> {
        let tls = tls.cloned().map(Tls::try_new).transpose()?;
        Self::serve_within(at, router, (Limits::default(), counts), tls)
    }

    fn serve_within(
        (address, key): (SocketAddr, &'static str),
        router: Router,
        limited: (Limits, HttpCounts),
        tls: Option<Tls>,
    ) -> Result<Self, HttpError> {
        let listen = |source| HttpError::Listen { address, key, source };
        let listener = TcpListener::bind(address).map_err(listen)?;
        listener.set_nonblocking(true).map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let runtime = runtime::Builder::new_current_thread().enable_all().build().map_err(HttpError::Start)?;
        let (stop, stopped) = oneshot::channel();
        let run = move || {
            runtime.block_on(async move {
                match AsyncListener::from_std(listener) {
                    Ok(listener) => connections::serve(listener, router, limited, tls, stopped).await,
                    Err(error) => tracing::error!(%error, "the HTTP server has ended"),
                }
            });
        };
        let thread = thread::Builder::new().name(key.to_owned()).spawn(run).map_err(HttpError::Start)?;
        Ok(Self { address, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the HTTP server's thread panicked");
        }
    }
}

fn router<C: Clock + Send + Sync + 'static>(shared: Arc<Shared<C>>) -> Router {
    let (for_metrics, for_health, for_reload) = (Arc::clone(&shared), Arc::clone(&shared), Arc::clone(&shared));
    let for_times = Arc::clone(&shared);
    Router::new()
        .route("/metrics", get(move || async move { for_metrics.metrics() }))
        .route(
            "/healthz",
            get(move || async move { verdict(for_health.health.liveness(for_health.clock.monotonic())) }),
        )
        .route("/watermarks", get(move || async move { for_times.watermarks() }))
        .route("/-/reload", post(move |headers: HeaderMap| async move { for_reload.reload(&headers).await }))
        .route("/readyz", get(move || async move { verdict(shared.health.readiness()) }))
}

impl<C> Shared<C> {
    fn metrics(&self) -> Response {
        self.metrics.observe_ready(self.health.readiness().is_ok());
        ([(header::CONTENT_TYPE, OPENMETRICS)], self.metrics.encode()).into_response()
    }

    fn watermarks(&self) -> Response {
        ([(header::CONTENT_TYPE, "application/json")], self.health.times().to_string()).into_response()
    }

    async fn reload(&self, headers: &HeaderMap) -> Response {
        if !is_asked_here(headers) {
            let why = "rules are not read again for pages of other sites: ask from a shell of this machine\n";
            return (StatusCode::FORBIDDEN, why).into_response();
        }
        let Some(reload) = &self.reload else {
            let why = "rules are read again for this machine only: let `http` be a loopback address, or send SIGHUP\n";
            return (StatusCode::FORBIDDEN, why).into_response();
        };
        let (request, answer) = oneshot::channel();
        if reload.try_send(request).is_err() {
            return (StatusCode::SERVICE_UNAVAILABLE, "somebody else has asked just now\n").into_response();
        }
        match answer.await {
            Ok(Ok(said)) => (StatusCode::OK, said).into_response(),
            Ok(Err(why)) => (StatusCode::UNPROCESSABLE_ENTITY, why).into_response(),
            Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "lictor is stopping\n").into_response(),
        }
    }
}

/// `ok`, or what is not.
pub(crate) fn verdict(verdict: Result<(), String>) -> Response {
    match verdict {
        Ok(()) => (StatusCode::OK, "ok\n").into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpStream;
    use std::sync::mpsc::sync_channel;

    use super::*;

    struct At(Duration);

    impl Clock for At {
        fn now(&self) -> EventTime {
            EventTime::default()
        }

        fn monotonic(&self) -> Duration {
            self.0
        }
    }

    fn start(health: &Arc<Health>, monotonic: Duration) -> HttpServer {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let (reload, _) = sync_channel(1);
        HttpServer::start(any, Arc::new(Metrics::new()), Arc::clone(health), reload, At(monotonic)).unwrap()
    }

    fn ask(server: &HttpServer, path: &str) -> String {
        let mut connection = TcpStream::connect(server.address()).unwrap();
        write!(connection, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        answer
    }

    #[track_caller]
    fn check(server: &HttpServer, path: &str, status: u16, end: &str) {
        let answer = ask(server, path);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.ends_with(end), "{answer}");
    }

    #[test]
    fn metrics_are_served_as_openmetrics() {
        let health = Arc::new(Health::default());
        let server = start(&health, Duration::ZERO);
        let answer = ask(&server, "/metrics");
        assert!(answer.contains(&format!("content-type: {OPENMETRICS}")), "{answer}");
        assert!(answer.contains("\nlictor_ready 0\n") && answer.ends_with("# EOF\n"), "{answer}");
        Stage::ALL.into_iter().for_each(|stage| health.serving(stage));
        assert!(ask(&server, "/metrics").contains("\nlictor_ready 1\n"));
        check(&server, "/nothing", 404, "");
    }

    #[test]
    fn healthy_is_who_made_progress_within_half_a_minute() {
        let health = Arc::new(Health::default());
        Stage::ALL.into_iter().for_each(|stage| health.progressed(stage, Duration::from_secs(10)));
        check(&start(&health, Duration::from_secs(40)), "/healthz", 200, "\r\n\r\nok\n");
        let server = start(&health, Duration::from_secs(52));
        check(&server, "/healthz", 503, "\r\n\r\nthe scan loop has made no progress for 42 s\n");
        Stage::ALL.into_iter().for_each(|stage| health.progressed(stage, Duration::from_secs(52)));
        check(&server, "/healthz", 200, "ok\n");
    }

    #[test]
    fn ready_is_who_serves_what_it_was_assigned_in_both_stages() {
        let health = Arc::new(Health::default());
        let server = start(&health, Duration::ZERO);
        check(&server, "/readyz", 503, "no partitions are assigned yet\n");
        health.serving(Stage::Scan);
        check(&server, "/readyz", 503, "no shards are restored yet\n");
        health.serving(Stage::Judge);
        check(&server, "/readyz", 200, "ok\n");
    }

    #[test]
    fn rules_are_asked_for_with_post_and_the_answer_is_passed_on() {
        let (reload, requests) = sync_channel::<ReloadRequest>(1);
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = HttpServer::start(any, Arc::default(), Arc::default(), reload, At(Duration::ZERO)).unwrap();
        check(&server, "/-/reload", 405, "");
        let answer = |answer: Result<&str, &str>| {
            let request = requests.recv().unwrap();
            request.send(answer.map(str::to_owned).map_err(str::to_owned)).unwrap();
        };
        let asked = |server: &HttpServer| {
            let mut connection = TcpStream::connect(server.address()).unwrap();
            connection.write_all(post_reload("localhost").as_bytes()).unwrap();
            connection
        };
        for (said, status) in [(Ok("rule a: new\n"), " 200 "), (Err("a.sql:1:1: no\n"), " 422 ")] {
            let mut connection = asked(&server);
            answer(said);
            let mut text = String::new();
            connection.read_to_string(&mut text).unwrap();
            assert!(text.starts_with(&format!("HTTP/1.1{status}")), "{text}");
            assert!(text.ends_with(said.unwrap_or_else(|why| why)), "{text}");
        }
    }

    fn post_reload(host: &str) -> String {
        format!("POST /-/reload HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
    }

    #[test]
    fn a_page_of_another_site_does_not_have_rules_read_again() {
        let (reload, requests) = sync_channel::<ReloadRequest>(1);
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = HttpServer::start(any, Arc::default(), Arc::default(), reload, At(Duration::ZERO)).unwrap();
        let own = server.address().to_string();
        for (host, more) in [
            ("evil.example", ""),
            (own.as_str(), "origin: https://evil.example\r\n"),
            (own.as_str(), "sec-fetch-site: cross-site\r\n"),
        ] {
            let mut connection = TcpStream::connect(server.address()).unwrap();
            let asked = post_reload(host).replace("connection:", &format!("{more}connection:"));
            connection.write_all(asked.as_bytes()).unwrap();
            let mut text = String::new();
            connection.read_to_string(&mut text).unwrap();
            assert!(text.starts_with("HTTP/1.1 403 "), "{host} {more}: {text}");
        }
        assert!(requests.try_recv().is_err());
    }

    #[test]
    fn who_holds_time_back_is_told() {
        let health = Arc::new(Health::default());
        let server = start(&health, Duration::ZERO);
        check(&server, "/watermarks", 200, "{}");
        let (partition, signal) = (TopicPartition::new("spans", 3), Signal::Traces);
        let mark = Mark { partition, signal, high: Some(EventTime::from_ms(2_000)), is_idle: false };
        let time = SignalTime { watermark: EventTime::from_ms(1_000), held_by: Some(mark) };
        health.set_times(BTreeMap::from([(Signal::Traces, time)]));
        let held_by = r#"{"high":"1970-01-01T00:00:02Z","partition":3,"topic":"spans"}"#;
        let expected = format!(r#"{{"traces":{{"held_by":{held_by},"watermark":"1970-01-01T00:00:01Z"}}}}"#);
        check(&server, "/watermarks", 200, &expected);
    }

    #[test]
    fn a_taken_port_is_named() {
        let server = start(&Arc::new(Health::default()), Duration::ZERO);
        let (reload, _) = sync_channel(1);
        let again = HttpServer::start(server.address(), Arc::default(), Arc::default(), reload, At(Duration::ZERO));
        let message = again.unwrap_err().to_string();
        let expected = format!("cannot listen on {} (`http` in the configuration): ", server.address());
        assert!(message.starts_with(&expected) && message.to_lowercase().contains("in use"), "{message}");
    }

    #[test]
    fn a_stopped_server_closes_its_port_even_under_an_idle_connection() {
        let server = start(&Arc::new(Health::default()), Duration::ZERO);
        let address = server.address();
        let idle = TcpStream::connect(address).unwrap();
        drop(server);
        assert!(TcpStream::connect(address).is_err(), "{address} still accepts connections");
        drop(idle);
    }
}
