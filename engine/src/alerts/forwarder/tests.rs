//! Alerts against an HTTP server in this process that answers as it is told to.

use std::collections::VecDeque;
use std::net::{SocketAddr, TcpListener};
use std::sync::Mutex;

use axum::Router;
use axum::extract::State;
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::routing::get;
use lictor_connectors::{EmbeddedBroker, KafkaSink, Outgoing, Sink};
use serde_json::{Value, json};
use tokio::runtime;
use tokio::sync::oneshot;

use super::super::tests::{at, blocked, start, warning};
use super::*;
use crate::clock::{ManualClock, SystemClock};
use crate::http::call::Endpoint;

const PATIENCE: Duration = Duration::from_secs(30);
const DIRECTIVES: &str = "lictor.directives";

/// What an Alertmanager was asked.
#[derive(Clone, Debug)]
struct Asked {
    path: String,
    authorization: Option<String>,
    alerts: Value,
}

#[derive(Default)]
struct Script {
    /// The statuses of the next posts; 200 when there are no more.
    statuses: VecDeque<StatusCode>,
    /// The statuses of the next answers about what it has; 200 when there are no more.
    ask_statuses: VecDeque<StatusCode>,
    /// What it says it has.
    has: Value,
    asked: Vec<Asked>,
}

/// An Alertmanager that does what it is told; it ends with the value.
struct Server {
    address: SocketAddr,
    script: Arc<Mutex<Script>>,
    _stop: oneshot::Sender<()>,
}

type Shared = Arc<Mutex<Script>>;

async fn list(State(script): State<Shared>, uri: Uri) -> (StatusCode, String) {
    let filter = uri.query().unwrap_or_default().rsplit('&').next().unwrap_or_default().to_owned();
    assert_eq!(filter, "filter=lictor%3D%22eu%22");
    let mut script = script.lock().unwrap();
    (script.ask_statuses.pop_front().unwrap_or(StatusCode::OK), script.has.to_string())
}

async fn post(State(script): State<Shared>, uri: Uri, headers: HeaderMap, body: String) -> (StatusCode, &'static str) {
    let mut script = script.lock().unwrap();
    let status = script.statuses.pop_front().unwrap_or(StatusCode::OK);
    let authorization = headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
    assert_eq!(headers["content-type"], "application/json");
    let alerts = serde_json::from_str(&body).unwrap();
    script.asked.push(Asked { path: uri.path().to_owned(), authorization, alerts });
    (status, "so it is")
}

impl Server {
    fn start(statuses: &[u16]) -> Self {
        Self::start_on(TcpListener::bind("127.0.0.1:0").unwrap(), statuses)
    }

    fn start_on(listener: TcpListener, statuses: &[u16]) -> Self {
        let statuses = statuses.iter().map(|status| StatusCode::from_u16(*status).unwrap()).collect();
        let script = Arc::new(Mutex::new(Script { statuses, has: json!([]), ..Script::default() }));
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let routes = get(list).post(post);
        let router = Router::new().route("/api/v2/alerts", routes.clone()).route("/am/api/v2/alerts", routes);
        let router = router.with_state(Arc::clone(&script));
        let (stop, stopped) = oneshot::channel::<()>();
        thread::spawn(move || {
            let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let serving = axum::serve(tokio::net::TcpListener::from_std(listener).unwrap(), router);
                tokio::select! {
                    ended = serving.into_future() => ended.unwrap(),
                    _ = stopped => {}
                }
            });
        });
        Self { address, script, _stop: stop }
    }

    /// The alerts of each post so far.
    fn posts(&self) -> Vec<Vec<Value>> {
        let script = self.script.lock().unwrap();
        script.asked.iter().map(|asked| asked.alerts.as_array().unwrap().clone()).collect()
    }
}

fn endpoint(address: SocketAddr) -> Endpoint {
    Endpoint { host: address.ip().to_string(), port: address.port(), prefix: String::new(), headers: Vec::new() }
}

/// A teller, and what it counts.
fn teller(endpoint: Endpoint) -> (Teller, Arc<Metrics>) {
    let metrics = Arc::new(Metrics::new());
    let resend = Duration::from_secs(60);
    let options = ForwarderOptions { application_id: "eu".to_owned(), generator_url: None, resend };
    let alertmanager = Alertmanager::try_new(endpoint).unwrap().with_patience(Duration::from_secs(5));
    (Teller::new(alertmanager, options, Arc::clone(&metrics)), metrics)
}

fn take(teller: &mut Teller, key: &str, value: Option<Vec<u8>>, clock: &ManualClock) {
    let (key, payload) = (Some(key.as_bytes()), value.as_deref());
    teller.absorb(
        &RecordRef {
            topic: DIRECTIVES,
            partition: 0,
            offset: 0,
            timestamp_ms: 0,
            key,
            payload,
            ..RecordRef::default()
        },
        clock,
    );
}

#[track_caller]
fn assert_posts(metrics: &Metrics, outcome: &str, count: u32) {
    let line = format!("lictor_alert_posts_total{{outcome=\"{outcome}\"}} {count}\n");
    let text = metrics.encode();
    assert!(text.contains(&line), "{line} is not in\n{text}");
}

#[test]
fn firing_sending_again_and_ending_are_three_posts() {
    let server = Server::start(&[]);
    let prefixed = Endpoint {
        prefix: "/am".to_owned(),
        headers: vec![(AUTHORIZATION, "Basic bGljdG9yOmh1bnRlcjI=".parse().unwrap())],
        ..endpoint(server.address)
    };
    let ((mut teller, metrics), clock) = (teller(prefixed), ManualClock::at(start()));
    take(&mut teller, "d1", Some(warning("search", 0)), &clock);
    teller.tell(&clock);
    teller.tell(&clock);
    clock.advance(Duration::from_secs(61));
    teller.tell(&clock);
    take(&mut teller, "d1", None, &clock);
    teller.tell(&clock);
    let posts = server.posts();
    assert_eq!(posts.len(), 3, "{posts:?}");
    assert_eq!(posts[0], posts[1]);
    assert_eq!(posts[0][0]["labels"]["alertname"], "team_daily_budget");
    assert_eq!(posts[2][0]["labels"], posts[0][0]["labels"]);
    assert_eq!(posts[2][0]["endsAt"], json!(at(61).to_rfc3339()));
    let asked = server.script.lock().unwrap().asked[0].clone();
    assert_eq!(asked.path, "/am/api/v2/alerts");
    assert_eq!(asked.authorization.as_deref(), Some("Basic bGljdG9yOmh1bnRlcjI="));
    assert_posts(&metrics, "taken", 3);
}

#[test]
fn an_alertmanager_in_trouble_is_asked_again_after_a_pause() {
    let server = Server::start(&[503, 429]);
    let ((mut teller, metrics), clock) = (teller(endpoint(server.address)), ManualClock::at(start()));
    take(&mut teller, "d1", Some(warning("search", 0)), &clock);
    teller.tell(&clock);
    teller.tell(&clock);
    assert_eq!(server.posts().len(), 1, "not before the pause is over");
    for pause_s in [1, 2] {
        clock.advance(Duration::from_secs(pause_s));
        teller.tell(&clock);
    }
    let posts = server.posts();
    assert_eq!(posts.len(), 3);
    assert_eq!(posts[0], posts[2], "nothing was lost");
    assert_posts(&metrics, "failed", 2);
    assert_posts(&metrics, "taken", 1);
}

#[test]
fn an_alertmanager_that_is_not_there_is_told_once_it_is() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let ((mut teller, _), clock) = (teller(endpoint(address)), ManualClock::at(start()));
    take(&mut teller, "d1", Some(warning("search", 0)), &clock);
    take(&mut teller, "d2", Some(warning("docs", 0)), &clock);
    teller.tell(&clock);
    take(&mut teller, "d2", None, &clock);
    let server = Server::start_on(TcpListener::bind(address).unwrap(), &[]);
    clock.advance(Duration::from_secs(2));
    teller.tell(&clock);
    let posts = server.posts();
    assert_eq!(posts.iter().map(Vec::len).collect::<Vec<_>>(), [2]);
    let ends: Vec<&Value> = posts[0].iter().map(|alert| &alert["endsAt"]).collect();
    assert_eq!(ends, [&json!(at(0).to_rfc3339()), &json!(at(600).to_rfc3339())]);
}

#[test]
fn what_is_refused_is_left_out_and_does_not_hold_up_the_rest() {
    for status in [400, 413, 422] {
        let server = Server::start(&[status]);
        let ((mut teller, metrics), clock) = (teller(endpoint(server.address)), ManualClock::at(start()));
        take(&mut teller, "d1", Some(warning("search", 0)), &clock);
        teller.tell(&clock);
        take(&mut teller, "d2", Some(warning("docs", 0)), &clock);
        teller.tell(&clock);
        assert_eq!(server.posts().iter().map(Vec::len).collect::<Vec<_>>(), [1, 1]);
        assert_posts(&metrics, "refused", 1);
        assert_posts(&metrics, "taken", 1);
    }
}

#[test]
fn an_end_is_told_once_whoever_stands_in_the_way_lets_it_through() {
    let server = Server::start(&[]);
    let ((mut teller, metrics), clock) = (teller(endpoint(server.address)), ManualClock::at(start()));
    take(&mut teller, "d1", Some(warning("search", 0)), &clock);
    teller.tell(&clock);
    let away = [401, 403, 404, 408, 429, 500];
    server.script.lock().unwrap().statuses = away.map(|status| StatusCode::from_u16(status).unwrap()).into();
    take(&mut teller, "d1", None, &clock);
    for _ in 0..=away.len() {
        teller.tell(&clock);
        clock.advance(PAUSE_MAX);
    }
    let posts = server.posts();
    assert_eq!((posts.len(), &posts[1]), (away.len() + 2, posts.last().unwrap()));
    assert_eq!(posts[1][0]["endsAt"], json!(at(0).to_rfc3339()));
    assert_posts(&metrics, "failed", 6);
    assert_posts(&metrics, "taken", 2);
}

#[test]
fn an_alertmanager_that_does_not_say_what_it_has_is_told_and_asked_again() {
    let server = Server::start(&[]);
    let ((mut before, _), clock) = (teller(endpoint(server.address)), ManualClock::at(start()));
    take(&mut before, "d1", Some(warning("search", 0)), &clock);
    before.tell(&clock);
    {
        let mut script = server.script.lock().unwrap();
        script.has = script.asked[0].alerts.clone();
        script.ask_statuses = [StatusCode::FORBIDDEN, StatusCode::BAD_GATEWAY].into();
    }
    let (mut after, _) = teller(endpoint(server.address));
    take(&mut after, "d2", Some(warning("docs", 0)), &clock);
    after.tell(&clock);
    assert_eq!(server.posts()[1][0]["labels"]["selector_team"], "docs", "what fires does not wait for that");
    for pause_s in [1, 2] {
        assert_eq!(server.posts().len(), 2);
        clock.advance(Duration::from_secs(pause_s));
        after.tell(&clock);
    }
    after.tell(&clock);
    let posts = server.posts();
    assert_eq!(posts[2][0]["labels"]["selector_team"], "search");
    assert_eq!(posts[2][0]["endsAt"], json!(at(3).to_rfc3339()));
}

#[test]
fn what_ended_while_nobody_followed_is_resolved_after_the_start() {
    let server = Server::start(&[]);
    let ((mut before, _), clock) = (teller(endpoint(server.address)), ManualClock::at(start()));
    take(&mut before, "d1", Some(warning("search", 0)), &clock);
    take(&mut before, "d2", Some(warning("docs", 0)), &clock);
    before.tell(&clock);
    server.script.lock().unwrap().has = json!(server.posts()[0]);

    let (mut after, _) = teller(endpoint(server.address));
    take(&mut after, "d2", Some(blocked("docs", 10)), &clock);
    clock.advance(Duration::from_secs(20));
    after.tell(&clock);
    after.tell(&clock);
    let posts = server.posts();
    let told: Vec<(&Value, &Value)> =
        posts[1..].iter().flatten().map(|alert| (&alert["labels"]["selector_team"], &alert["endsAt"])).collect();
    let ended = json!(at(20).to_rfc3339());
    assert_eq!(told, [(&json!("docs"), &json!(at(610).to_rfc3339())), (&json!("search"), &ended)]);
}

#[test]
fn directives_of_a_topic_become_alerts_and_stopping_resolves_nothing() {
    let server = Server::start(&[]);
    let broker = EmbeddedBroker::start(&[(DIRECTIVES, 1)]).unwrap();
    let mut sink = KafkaSink::try_new(&broker.properties(), "test").unwrap();
    let mut write = |key: &str, payload: Option<Vec<u8>>| {
        let key = Some(key.as_bytes().to_vec());
        sink.publish(&Outgoing { topic: DIRECTIVES.to_owned(), key, payload, headers: Vec::new() }).unwrap();
        sink.flush().unwrap();
    };
    // They hold for ten minutes from now on.
    let clock = SystemClock::start();
    let now_s = (clock.now().0 - start().0) / 1_000_000_000;
    write("d1", Some(warning("search", now_s)));
    let follower = KafkaFollower::try_new(&broker.properties(), "eu-alerts", DIRECTIVES).unwrap();
    let (teller, _) = teller(endpoint(server.address));
    let forwarder = Forwarder::start(follower, teller, clock, str::to_owned).unwrap();
    let wait = |posts: usize| {
        while server.posts().len() < posts {
            assert!(clock.monotonic() < PATIENCE, "{:?}", server.posts());
            thread::yield_now();
        }
    };
    wait(1);
    write("d2", Some(blocked("docs", now_s)));
    wait(2);
    write("d1", None);
    wait(3);
    drop(forwarder);
    let posts = server.posts();
    let teams: Vec<&Value> = posts.iter().flatten().map(|alert| &alert["labels"]["selector_team"]).collect();
    assert_eq!(teams, ["search", "docs", "search"]);
    let ends = |post: usize| posts[post][0]["endsAt"].as_str().unwrap().to_owned();
    assert!(ends(2) < ends(0), "resolved before it would have lapsed");
}
