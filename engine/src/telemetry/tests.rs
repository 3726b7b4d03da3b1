//! What a receiver in this process gets, and what becomes of it when there is none. What was sent is read by lictor's
//! own decoder and judged by its rules.

use std::collections::VecDeque;
use std::net::{SocketAddr, TcpListener};
use std::sync::Mutex;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::routing::post;
use lictor_connectors::RecordRef;
use lictor_queries::{References, RuleFile, compile};
use lictor_schemas::prices::PriceTable;

use super::*;
use crate::clock::{ManualClock, SystemClock};
use crate::http::{HttpCounts, HttpServer};
use crate::metrics::Metrics;
use crate::pipeline::{Pipeline, PipelineSettings};
use crate::tasks::{EpochTimes, Stage};

/// A request as it came.
struct Got {
    path: String,
    headers: HeaderMap,
    body: Bytes,
}

#[derive(Default)]
struct Script {
    /// The statuses of the next answers; 200 when there are no more.
    statuses: VecDeque<u16>,
    got: Vec<Got>,
}

type Shared = Arc<Mutex<Script>>;

struct Receiver {
    script: Shared,
    server: HttpServer,
}

async fn take(State(script): State<Shared>, uri: Uri, headers: HeaderMap, body: Bytes) -> (StatusCode, &'static str) {
    let mut script = script.lock().unwrap();
    script.got.push(Got { path: uri.path().to_owned(), headers, body });
    (StatusCode::from_u16(script.statuses.pop_front().unwrap_or(200)).unwrap(), "")
}

impl Receiver {
    fn start(statuses: &[u16]) -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), statuses)
    }

    fn start_at(address: SocketAddr, statuses: &[u16]) -> Self {
        let script = Shared::default();
        script.lock().unwrap().statuses = statuses.iter().copied().collect();
        let router = Router::new().route("/otlp/v1/{signal}", post(take)).with_state(Arc::clone(&script));
        let server = HttpServer::serve((address, "receiver"), router, HttpCounts::default()).unwrap();
        Self { script, server }
    }

    fn got(&self) -> Vec<Got> {
        std::mem::take(&mut self.script.lock().unwrap().got)
    }
}

/// When a manual clock begins.
fn start() -> EventTime {
    EventTime::from_ms(1_000_000)
}

fn settings(address: SocketAddr) -> TelemetrySettings {
    let endpoint = Endpoint {
        host: address.ip().to_string(),
        port: address.port(),
        prefix: "/otlp".to_owned(),
        headers: vec![("api-key".parse().unwrap(), "hunter2".parse().unwrap())],
    };
    let interval = Duration::from_millis(20);
    TelemetrySettings { endpoint, interval, resource: Vec::new() }.of_instance("lictor-eu", "a")
}

/// Metrics, epochs that wait, and a sender of both.
fn sender(address: SocketAddr) -> (Arc<Metrics>, Arc<Epochs>, Sender<ManualClock>) {
    let clock = ManualClock::at(start());
    clock.advance(Duration::from_secs(10));
    sender_by(clock, address)
}

fn sender_by<C: Clock>(clock: C, address: SocketAddr) -> (Arc<Metrics>, Arc<Epochs>, Sender<C>) {
    let metrics = Arc::new(Metrics::new());
    let counts = metrics.telemetry().clone();
    let epochs = Arc::new(Epochs::new(counts.clone()));
    let text = Arc::clone(&metrics);
    let exported = Exported { metrics: Box::new(move || text.encode()), epochs: Arc::clone(&epochs), counts };
    (metrics, epochs, Sender::try_new(settings(address), exported, clock).unwrap())
}

/// An epoch of judging with events that took 30 ms.
fn epoch() -> EpochTimes {
    let ms = Duration::from_millis;
    let (begun, read, ended, committed) = (ms(9_000), ms(9_010), ms(9_020), ms(9_030));
    EpochTimes { stage: Stage::Judge, begun, read, ended, committed, busy: ms(1), records: 5, rows: 0, events: 2 }
}

/// A port that nobody listens on.
fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn send<C: Clock>(sender: &mut Sender<C>) {
    sender.send(&str::to_owned);
}

#[track_caller]
fn assert_counted(metrics: &Metrics, signal: &str, outcome: &str, count: u32) {
    let line = format!("lictor_telemetry_posts_total{{signal=\"{signal}\",outcome=\"{outcome}\"}} {count}\n");
    let text = metrics.encode();
    assert!(text.contains(&line), "{line} is not in\n{text}");
}

/// What rules find in what was sent at `now`: subject, observed.
fn judged(rules: &str, topic: &str, (body, now): (&[u8], EventTime)) -> Vec<(String, Option<f64>)> {
    let (rules, faults) = compile(&[RuleFile { file: "r.sql".into(), text: rules.into() }], &References::new());
    assert_eq!(faults, []);
    let mut pipeline = Pipeline::new(rules, Arc::new(PriceTable::empty()), &PipelineSettings::default());
    let record = RecordRef { topic, timestamp_ms: now.to_ms(), payload: Some(body), ..RecordRef::default() };
    pipeline.absorb(record, now);
    let decisions = pipeline.end_epoch(now).decisions;
    let found = decisions.iter().map(|d| (d.event.to_subject_text(), d.event.data.finding.observed));
    found.collect()
}

#[test]
fn metrics_and_traces_arrive_and_lictor_can_judge_them() {
    let receiver = Receiver::start(&[]);
    let (metrics, epochs, mut sender) = sender(receiver.server.address());
    metrics.observe_commit(Stage::Judge, Duration::from_secs(2));
    epochs.tell(epoch());
    send(&mut sender);
    let got = receiver.got();
    assert_eq!(got.iter().map(|got| got.path.as_str()).collect::<Vec<_>>(), ["/otlp/v1/metrics", "/otlp/v1/traces"]);
    for Got { headers, .. } in &got {
        assert_eq!(headers["content-type"], "application/x-protobuf");
        assert_eq!(headers["api-key"], "hunter2");
    }
    let slow_commits = "CREATE RULE slow_commits WITH (action = 'notify', reason_code = 'x_slow') AS
        SELECT attr('stage') AS stage, resource_attr('service.instance.id') AS instance, sum / count AS observed,
               unit
        FROM metrics WHERE metric_name = 'lictor_commit_duration' AND temporality = 'cumulative' AND count > 0;";
    let found = judged(slow_commits, "otlp_metrics", (&got[0].body, start()));
    assert_eq!(found, [("instance=a,stage=judge".to_owned(), Some(2.0))]);
    let epochs_with_events = "CREATE RULE long_epochs WITH (action = 'notify', reason_code = 'x_slow') AS
        SELECT name, duration_ms AS observed FROM spans
        WHERE parent_span_id IS NULL AND CAST(attr('lictor.events') AS BIGINT) > 1 AND duration_ms >= 30;";
    let found = judged(epochs_with_events, "otlp_spans", (&got[1].body, start()));
    assert_eq!(found, [("name=judge epoch".to_owned(), Some(30.0))]);
    assert_counted(&metrics, "metrics", "taken", 1);
    assert_counted(&metrics, "traces", "taken", 1);
    send(&mut sender);
    assert_eq!(receiver.got().len(), 1, "no epoch waits");
}

#[test]
fn without_a_receiver_epochs_wait_and_it_is_counted() {
    let address = nobody();
    let (metrics, epochs, mut sender) = sender(address);
    epochs.tell(epoch());
    send(&mut sender);
    send(&mut sender);
    assert_counted(&metrics, "metrics", "failed", 2);
    assert_counted(&metrics, "traces", "failed", 2);
    assert!(metrics.encode().contains("\nlictor_telemetry_dropped_epochs_total 0\n"));
    let receiver = Receiver::start_at(address, &[]);
    send(&mut sender);
    assert_eq!(receiver.got().len(), 2, "the epoch has waited");
}

#[test]
fn what_is_refused_is_not_sent_again_and_what_is_put_off_is() {
    let receiver = Receiver::start(&[200, 400, 200, 503, 404]);
    let (metrics, epochs, mut sender) = sender(receiver.server.address());
    epochs.tell(epoch());
    send(&mut sender);
    assert!(metrics.encode().contains("\nlictor_telemetry_dropped_epochs_total 1\n"));
    epochs.tell(epoch());
    send(&mut sender);
    assert_counted(&metrics, "traces", "refused", 1);
    assert_counted(&metrics, "traces", "failed", 1);
    send(&mut sender);
    assert_counted(&metrics, "metrics", "refused", 1);
    assert_counted(&metrics, "traces", "taken", 1);
    assert!(metrics.encode().contains("\nlictor_telemetry_dropped_epochs_total 1\n"));
    assert_eq!(receiver.got().len(), 6);
}

#[test]
fn many_epochs_are_many_requests_and_those_behind_a_failure_wait() {
    let receiver = Receiver::start(&[200, 200, 503]);
    let (_, epochs, mut sender) = sender(receiver.server.address());
    (0..BATCH_EPOCHS * 2 + 1).for_each(|_| epochs.tell(epoch()));
    send(&mut sender);
    assert_eq!(receiver.got().len(), 3);
    assert_eq!(epochs.take().len(), BATCH_EPOCHS + 1);
}

#[test]
fn the_thread_sends_again_and_again_and_a_last_time_when_it_ends() {
    let receiver = Receiver::start(&[]);
    let (metrics, _, sender) = sender_by(SystemClock::start(), receiver.server.address());
    let exporter = Exporter::start(sender, Duration::from_millis(20), str::to_owned).unwrap();
    let mut requests = 0;
    while requests < 2 {
        requests += receiver.got().len();
        thread::yield_now();
    }
    metrics.observe_partitions(Stage::Scan, 77);
    drop(exporter);
    let last = receiver.got().pop().expect("one more when it ends");
    let served = "CREATE RULE served WITH (action = 'notify', reason_code = 'x_test') AS
        SELECT attr('stage') AS stage, value AS observed FROM metrics
        WHERE metric_name = 'lictor_partitions' AND value > 0;";
    assert_eq!(
        judged(served, "otlp_metrics", (&last.body, SystemClock::start().now())),
        [("stage=scan".to_owned(), Some(77.0))]
    );
}

#[test]
fn a_receiver_that_is_away_does_not_keep_a_process_from_ending() {
    let (metrics, _, mut sender) = sender_by(SystemClock::start(), nobody());
    send(&mut sender);
    drop(Exporter::start(sender, Duration::from_secs(3_600), str::to_owned).unwrap());
    assert_counted(&metrics, "metrics", "failed", 1);
}
