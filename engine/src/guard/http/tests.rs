use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Mutex;
use std::time::Duration;

use lictor_schemas::event::Instruction;
use lictor_schemas::genops::{PolicyResult, ReasonCode};
use lictor_schemas::rule::Mode;
use lictor_schemas::time::EventTime;
use serde_json::json;

use super::super::{Change, GuardOptions, Held, OnStale};
use super::*;
use crate::http::tls::tests::Site;

/// A clock that tests move, shared with the server.
#[derive(Clone, Default)]
struct Moved(Arc<Mutex<Duration>>);

impl Moved {
    fn to(&self, s: u64) {
        *self.0.lock().unwrap() = Duration::from_secs(s);
    }
}

impl Clock for Moved {
    fn now(&self) -> EventTime {
        EventTime(i64::try_from(self.monotonic().as_nanos()).unwrap())
    }

    fn monotonic(&self) -> Duration {
        *self.0.lock().unwrap()
    }
}

/// A running server, its guard and its clock.
struct Server {
    http: HttpServer,
    guard: Arc<Guard>,
    clock: Moved,
}

impl Server {
    /// Nothing was read yet.
    fn start(on_stale: OnStale) -> Self {
        let http = "127.0.0.1:0".parse().unwrap();
        let options = GuardOptions { http, on_stale, ..GuardOptions::default() };
        let (guard, clock) = (Arc::new(Guard::new(options, &[])), Moved::default());
        let http = serve(Arc::clone(&guard), None, clock.clone()).unwrap();
        Self { http, guard, clock }
    }

    /// The topic was read to its end, and these directives hold for a minute.
    fn knowing(directives: &[(&str, Instruction, Value)]) -> Self {
        let server = Self::start(OnStale::Allow);
        server.guard.staleness().current(Duration::ZERO);
        let put = |(id, action, matches): &(&str, Instruction, Value)| {
            let matches = matches.as_object().unwrap();
            let selector = matches.iter().map(|(column, value)| (column.clone(), value.as_str().map(str::to_owned)));
            Change::Put(Box::new(held(id, *action)), selector.collect())
        };
        server.guard.apply(directives.iter().map(put).collect());
        server
    }

    /// Status, head and body of the answer to a whole request.
    fn ask(&self, request: impl AsRef<[u8]>) -> (u16, String, String) {
        let mut connection = TcpStream::connect(self.http.address()).unwrap();
        connection.write_all(request.as_ref()).unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), head.to_owned(), body.to_owned())
    }

    fn get(&self, path: &str, headers: &str) -> (u16, String, String) {
        self.ask(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n"))
    }

    fn authorize(&self, body: &str) -> (u16, Value) {
        let head = format!("host: x\r\nconnection: close\r\ncontent-length: {}", body.len());
        let (status, _, body) = self.ask(format!("POST /v1/authorize HTTP/1.1\r\n{head}\r\n\r\n{body}"));
        (status, serde_json::from_str(&body).unwrap_or(Value::Null))
    }

    #[track_caller]
    fn check_metric(&self, line: &str) {
        let (_, _, metrics) = self.get("/metrics", "");
        assert!(metrics.lines().any(|found| found == line), "no `{line}` in\n{metrics}");
    }
}

fn held(id: &str, action: Instruction) -> Held {
    let result = match action {
        Instruction::Block => PolicyResult::Blocked,
        Instruction::Throttle => PolicyResult::RateLimited,
        _ => PolicyResult::Warning,
    };
    Held {
        directive_id: id.to_owned(),
        revision: 1,
        mode: if id.starts_with("shadow") { Mode::Shadow } else { Mode::Enforce },
        action,
        result,
        reason_code: Some(ReasonCode::parse("BUDGET_EXCEEDED").unwrap()),
        rule: format!("rule_{id}"),
        message: Some("65 of 60 USD".to_owned()),
        params: None,
        valid_until: EventTime::from_ms(60_000),
    }
}

#[test]
fn a_question_in_json_is_answered_in_json() {
    let server = Server::knowing(&[
        ("d1", Instruction::Block, json!({"team": "docs"})),
        ("d2", Instruction::Throttle, json!({"provider": "openai"})),
        ("d3", Instruction::Warn, json!({"team": "search"})),
    ]);
    let (status, answer) = server.authorize(r#"{"attributes": {"team": "docs", "request_model": "gpt-4o"}}"#);
    let expected = json!({"decision": "deny", "action": "block", "result": "BLOCKED", "rule": "rule_d1",
        "reason_code": "BUDGET_EXCEEDED", "directive_id": "d1", "message": "65 of 60 USD",
        "valid_until": "1970-01-01T00:01:00Z"});
    assert_eq!((status, answer), (200, expected));
    let (_, answer) = server.authorize(r#"{"attributes": {"gen_ai.system": "OpenAI", "genops.team": "search"}}"#);
    assert_eq!((&answer["decision"], &answer["retry_after_ms"]), (&json!("throttle"), &json!(1_000)));
    let (_, answer) = server.authorize(r#"{"attributes": {"genops.team": "search"}}"#);
    assert_eq!((&answer["decision"], &answer["warnings"][0]["directive_id"]), (&json!("allow"), &json!("d3")));
    let (status, answer) = server.authorize(r#"{"attributes": {}}"#);
    assert_eq!((status, answer), (200, json!({"decision": "allow", "result": "ALLOWED"})));
    for line in [
        "lictor_guard_decisions_total{outcome=\"deny\"} 1",
        "lictor_guard_decisions_total{outcome=\"throttle\"} 1",
        "lictor_guard_decisions_total{outcome=\"warn\"} 1",
        "lictor_guard_decisions_total{outcome=\"allow\"} 1",
        "lictor_guard_stopped_total{rule=\"rule_d1\",decision=\"deny\"} 1",
        "lictor_guard_directives 3",
        "lictor_guard_selector_sets 2",
        "lictor_guard_decision_duration_seconds_count 4",
        "lictor_guard_ready 1",
    ] {
        server.check_metric(line);
    }
}

#[test]
fn what_is_no_question_is_refused_with_the_reason() {
    let server = Server::knowing(&[]);
    for (body, why) in [
        ("", "EOF while parsing"),
        ("{\"attributes\": {\"team\"", "EOF while parsing"),
        ("[]", "write {\\\"attributes\\\": {"),
        ("{\"attribs\": {}}", "unknown field `attribs`"),
        ("{\"attributes\": {}, \"more\": 1}", "unknown field `more`"),
        ("{\"attributes\": {\"team\": [\"docs\"]}}", "attribute `team` is neither text, a number"),
    ] {
        let (status, answer) = server.authorize(body);
        assert!(status == 400 && answer.to_string().contains(why), "{body}: {status} {answer}");
    }
    let many = |count: usize| {
        let attributes: Value = (0..count).map(|n| (format!("a{n}"), json!(n))).collect();
        server.authorize(&json!({ "attributes": attributes }).to_string())
    };
    let (status, answer) = many(ATTRIBUTES_MAX + 1);
    assert!(status == 400 && answer["error"] == "257 attributes, and at most 256 may be said", "{answer}");
    assert_eq!(many(ATTRIBUTES_MAX).0, 200);
    assert_eq!(server.authorize(&"x".repeat(BODY_BYTES_MAX + 1)).0, 413);
    assert_eq!(server.get("/v1/authorize", "").0, 405);
    server.check_metric("lictor_guard_refused_requests_total 7");
}

#[test]
fn a_proxy_asks_with_the_callers_path_and_headers() {
    let server = Server::knowing(&[
        ("d1", Instruction::Block, json!({"team": "docs"})),
        ("d2", Instruction::Throttle, json!({"request_model": "o3"})),
        ("d3", Instruction::Warn, json!({"project": "p"})),
        ("d4", Instruction::Block, json!({"feature": "Förderung"})),
    ]);
    assert_eq!(server.get("/v1/ext_authz", "x-genops-feature: Förderung\r\n").0, 403);
    let (status, head, body) = server.get("/v1/ext_authz/v1/chat/completions?x=1", "X-GenOps-Team: docs\r\n");
    assert_eq!(status, 403);
    for header in ["x-lictor-decision: deny", "x-lictor-reason-code: BUDGET_EXCEEDED", "x-lictor-rule: rule_d1"] {
        assert!(head.contains(header), "{head}");
    }
    assert!(head.contains("x-lictor-directive-id: d1") && body.contains("65 of 60 USD"), "{head}\n{body}");
    for path in ["/v1/ext_authz", "/v1/ext_authz/", "/v1/ext_authz//a", "/v1/ext_authz/%20"] {
        assert_eq!(server.get(path, "x-genops-team: docs\r\n").0, 403, "{path}");
    }
    let (status, head, _) = server.get("/v1/ext_authz/", "x-ai-eg-model: o3\r\nx-genops-model: gpt-4o\r\n");
    assert!(status == 429 && head.contains("retry-after: 1\r\n"), "{head}");
    let (status, head, _) = server.get("/v1/ext_authz/", "x-genops-project: p\r\n");
    assert_eq!(status, 200);
    assert!(head.contains("x-lictor-warning: rule_d3: 65 of 60 USD"), "{head}");
    assert_eq!(server.get("/v1/ext_authzzz", "x-genops-team: docs\r\n").0, 404);
}

#[test]
fn a_mapped_header_that_is_there_twice_or_cannot_be_read_is_refused() {
    let server = Server::knowing(&[("d1", Instruction::Block, json!({"team": "docs"}))]);
    for first in ["search", "docs"] {
        let headers = format!("x-genops-team: {first}\r\nX-GenOps-Team: docs\r\n");
        let (status, _, body) = server.get("/v1/ext_authz/", &headers);
        assert!(status == 400 && body.contains("header `x-genops-team` is there more than once"), "{status} {body}");
    }
    let head = b"GET /v1/ext_authz/ HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-genops-team: do\xffcs\r\n\r\n";
    let (status, _, body) = server.ask(head);
    assert!(status == 400 && body.contains("header `x-genops-team` is not UTF-8"), "{status} {body}");
    server.check_metric("lictor_guard_refused_requests_total 3");
    let others = "x-other: a\r\nx-other: b\r\nx-genops-team: docs\r\n";
    assert_eq!(server.get("/v1/ext_authz/", others).0, 403, "what is no column may be there as often as it likes");
}

#[test]
fn a_proxy_may_send_any_method_and_a_body() {
    let server = Server::knowing(&[("d1", Instruction::Block, json!({"team": "docs"}))]);
    let mut connection = TcpStream::connect(server.http.address()).unwrap();
    let mut answers = BufReader::new(connection.try_clone().unwrap());
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let head = format!("{method} /v1/ext_authz/v1/chat HTTP/1.1\r\nhost: x\r\nx-genops-team: docs\r\n");
        connection.write_all(format!("{head}content-length: 4\r\n\r\nbody").as_bytes()).unwrap();
        let (mut line, mut bytes) = (String::new(), 0);
        answers.read_line(&mut line).unwrap();
        assert!(line.starts_with("HTTP/1.1 403"), "{method}: {line}");
        while line != "\r\n" {
            line.clear();
            answers.read_line(&mut line).unwrap();
            bytes = line.strip_prefix("content-length: ").map_or(bytes, |n| n.trim().parse().unwrap());
        }
        answers.read_exact(&mut vec![0; bytes]).unwrap();
    }
}

#[test]
fn before_the_topic_was_read_the_configuration_decides() {
    let server = Server::start(OnStale::Allow);
    let (status, _, why) = server.get("/readyz", "");
    assert_eq!((status, why.as_str()), (503, "the topics of directives were not read to their ends yet\n"));
    let (_, answer) = server.authorize(r#"{"attributes": {"team": "docs"}}"#);
    assert_eq!((&answer["decision"], &answer["on_stale"]), (&json!("allow"), &json!("allow")));
    let (status, head, _) = server.get("/v1/ext_authz/", "");
    assert!(status == 200 && head.contains("x-lictor-stale: allow"), "{head}");
    server.check_metric("lictor_guard_decisions_total{outcome=\"stale_allow\"} 2");
    server.check_metric("lictor_guard_staleness_seconds -1.0");

    let server = Server::start(OnStale::Deny);
    let (status, head, _) = server.get("/v1/ext_authz/", "");
    assert!(status == 403 && head.contains("x-lictor-reason-code: x_guard_stale"), "{head}");
    server.check_metric("lictor_guard_decisions_total{outcome=\"stale_deny\"} 1");
    server.guard.staleness().current(Duration::ZERO);
    assert_eq!((server.get("/v1/ext_authz/", "").0, server.get("/readyz", "").0), (200, 200));
}

#[test]
fn a_broker_that_is_away_makes_it_stale_and_what_is_in_force_applies() {
    let server = Server::knowing(&[("d1", Instruction::Block, json!({"team": "docs"}))]);
    server.clock.to(31);
    let (status, _, why) = server.get("/readyz", "");
    assert_eq!((status, why.as_str()), (503, "the topics of directives were last heard of 31 s ago\n"));
    let (_, answer) = server.authorize(r#"{"attributes": {"team": "search"}}"#);
    assert_eq!((&answer["decision"], &answer["on_stale"]), (&json!("allow"), &json!("allow")));
    let (_, answer) = server.authorize(r#"{"attributes": {"team": "docs"}}"#);
    assert_eq!((&answer["decision"], &answer["on_stale"]), (&json!("deny"), &json!("allow")));
    server.clock.to(60);
    let (_, answer) = server.authorize(r#"{"attributes": {"team": "docs"}}"#);
    assert_eq!(answer["decision"], "allow", "its end has passed");
    server.guard.staleness().current(Duration::from_secs(60));
    assert_eq!(server.get("/readyz", "").0, 200);
}

#[test]
fn a_shadow_directive_is_counted_and_stops_nobody() {
    let server = Server::knowing(&[
        ("shadow", Instruction::Block, json!({"team": "docs"})),
        ("shadow_too", Instruction::Throttle, json!({"project": "p"})),
        ("d1", Instruction::Block, json!({"project": "p"})),
    ]);
    let (_, answer) = server.authorize(r#"{"attributes": {"team": "docs"}}"#);
    assert_eq!(answer, json!({"decision": "allow", "result": "ALLOWED"}));
    server.check_metric("lictor_guard_shadowed_total{rule=\"rule_shadow\",decision=\"deny\"} 1");
    server.authorize(r#"{"attributes": {"project": "p"}}"#);
    let (_, _, metrics) = server.get("/metrics", "");
    assert!(!metrics.contains("rule_shadow_too"), "it would have changed nothing: {metrics}");
}

#[test]
fn a_loop_that_hangs_is_seen_to_hang() {
    let server = Server::knowing(&[]);
    assert_eq!(server.get("/healthz", "").0, 200);
    server.clock.to(31);
    let (status, _, why) = server.get("/healthz", "");
    assert!(status == 503 && why.contains("no progress for 31 s"), "{why}");
    server.guard.staleness().progressed(Duration::from_secs(31));
    assert_eq!(server.get("/healthz", "").0, 200);
}

#[test]
fn with_a_client_ca_only_gateways_with_a_certificate_are_answered() {
    let site = Site::new();
    let http = "127.0.0.1:0".parse().unwrap();
    let guard = Arc::new(Guard::new(GuardOptions { http, ..GuardOptions::default() }, &[]));
    let server = serve(Arc::clone(&guard), Some(&site.files), Moved::default()).unwrap();
    let stranger = Site::new().client;
    let ask = |client, path| site.ask(server.address(), client, path);
    let refused = ask(None, "/v1/ext_authz/v1/chat").unwrap();
    assert!(refused.starts_with("HTTP/1.1 401 ") && refused.contains("`tls.client_ca`"), "{refused}");
    assert!(guard.encode(Duration::ZERO).contains("outcome=\"stale_allow\"} 0"), "nothing was decided");
    assert!(ask(Some(&site.client), "/v1/ext_authz/v1/chat").unwrap().starts_with("HTTP/1.1 200 "));
    assert!(guard.encode(Duration::ZERO).contains("outcome=\"stale_allow\"} 1"));
    assert!(ask(Some(&stranger), "/v1/ext_authz").is_err(), "somebody else's certificate");
    for open in ["/metrics", "/healthz"] {
        assert!(ask(None, open).unwrap().starts_with("HTTP/1.1 200 "), "{open}");
    }
}
