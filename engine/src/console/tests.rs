use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, sync_channel};

use lictor_queries::Observation;
use lictor_schemas::genops::{Action, PolicyResult, ReasonCode};
use lictor_schemas::rule::{Mode, RuleHeader};
use lictor_schemas::violation::{Subject, Violation};
use serde_json::{Map, Value, json};

use super::*;
use crate::aside::{DeadNote, LastDead};
use crate::clock::Clock;
use crate::decision::Decisions;
use crate::http::tls::TlsFiles;
use crate::http::tls::tests::Site;
use crate::http::{Health, HttpServer, ReloadRequest};
use crate::join::LeafCounts;
use crate::metrics::Metrics;
use crate::tasks::Stage;

const TOKEN: &str = "correct-horse-battery";

struct Still;

impl Clock for Still {
    fn now(&self) -> EventTime {
        at(100)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_secs(20)
    }
}

fn at(second: i64) -> EventTime {
    EventTime::from_ms(second * 1_000)
}

fn header(name: &str) -> RuleHeader {
    RuleHeader::new(name, Action::Block, ReasonCode::parse("BUDGET_EXCEEDED").unwrap())
}

fn subject(team: &str) -> Subject {
    Subject(Map::from_iter([("team".to_owned(), json!(team))]))
}

fn violation(team: &str, second: i64) -> Violation {
    Violation {
        subject: subject(team),
        result: PolicyResult::Blocked,
        reason_code: ReasonCode::parse("BUDGET_EXCEEDED").unwrap(),
        observed: Some(12.0),
        threshold: Some(10.0),
        unit: Some("USD".to_owned()),
        message: Some(format!("{team} has spent too much")),
        valid_until: None,
        params: None,
        window: None,
        window_kind: None,
        sample_count: Some(3),
        evidence: Map::new(),
        exemplars: Vec::new(),
        at: at(second),
    }
}

/// So many teams violate a rule: what is decided, and what holds.
fn fire(rule: &str, teams: usize) -> (Vec<Decision>, AllStanding) {
    let (header, mut decisions) = (header(rule), Decisions::new("app", 10_000));
    let violations = (0..teams).map(|team| violation(&format!("team-{team}"), 10)).collect();
    let decided = decisions.rows(&header, violations);
    let mut all = AllStanding::default();
    decisions.add_standing(&header, DIRECTIVES_MAX, &mut all);
    (decided, all)
}

fn status(name: &str, firing: usize) -> RuleStatus {
    RuleStatus {
        name: name.to_owned(),
        groups: 7,
        state_bytes: 700,
        mode: Mode::Enforce,
        firing,
        pending: 1,
        dropped: 0,
        leaves: LeafCounts::default(),
        is_warming: false,
        quarantined: None,
    }
}

/// A console that has seen `firing` teams fire, served as `options` say.
struct Served {
    server: HttpServer,
    console: Arc<Console>,
    requests: Receiver<ReloadRequest>,
}

fn serve(options: ConsoleOptions, firing: usize) -> Served {
    serve_over(None, options, firing)
}

fn serve_over(tls: Option<&TlsFiles>, options: ConsoleOptions, firing: usize) -> Served {
    let console = Arc::new(Console::new(options));
    let (decided, standing) = fire("budget", firing);
    console.judged(&decided, Some(Duration::from_millis(40)));
    let note = ReloadNote { at: at(1), is_applied: true, text: "1 rule read\n".to_owned() };
    let card = RuleCard {
        header: RuleHeader { description: "Blocks teams. At once.".to_owned(), ..header("budget") },
        window: "1d".to_owned(),
        emission: "on update".to_owned(),
        sql: "CREATE RULE budget …".to_owned(),
        explain: "reads spans".to_owned(),
    };
    console.set_rules(vec![card], note);
    // Somebody looks already, so that nobody waits for another snapshot.
    console.note_watcher(Still.monotonic());
    let rules = vec![status("budget", firing)];
    console
        .publish(Status { rules, standing: Some(standing), shards: 8, ..Status::default() }, (at(50), Duration::ZERO));
    let (reload, requests) = sync_channel(1);
    let (any, health) = (SocketAddr::from(([127, 0, 0, 1], 0)), Arc::new(Health::default()));
    Stage::ALL.into_iter().for_each(|stage| health.progressed(stage, Still.monotonic()));
    let pages = router(Arc::clone(&console), Arc::clone(&health), Some(reload.clone()), Still);
    let metrics = Arc::new(Metrics::new());
    let server = HttpServer::start_beside((any, tls), (metrics, health), reload, Still, pages).unwrap();
    Served { server, console, requests }
}

impl Served {
    fn connect(&self, method: &str, path: &str, headers: &str) -> TcpStream {
        let mut connection = TcpStream::connect(self.server.address()).unwrap();
        let host = if headers.to_lowercase().contains("host:") { "" } else { "host: localhost\r\n" };
        write!(connection, "{method} {path} HTTP/1.1\r\n{host}{headers}connection: close\r\ncontent-length: 0\r\n\r\n")
            .unwrap();
        connection
    }

    fn ask(&self, path: &str, headers: &str) -> (u16, String, Value) {
        answer(self.connect("GET", path, headers))
    }

    #[track_caller]
    fn get(&self, what: &str) -> Value {
        let (status, _, body) = self.ask(&format!("/api/v1/{what}"), "");
        assert_eq!(status, 200, "{what}: {body}");
        body
    }
}

fn answer(mut connection: TcpStream) -> (u16, String, Value) {
    let mut text = String::new();
    connection.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head[9..12].parse().unwrap();
    (status, head.to_owned(), serde_json::from_str(body).unwrap_or(Value::Null))
}

#[test]
fn the_overview_says_how_an_instance_is() {
    let served = serve(ConsoleOptions { application_id: "app".to_owned(), shards: 16, ..Default::default() }, 3);
    let overview = served.get("overview");
    assert_eq!(overview["instance"]["application_id"], "app");
    assert_eq!((&overview["instance"]["shards"], &overview["instance"]["shards_of"]), (&json!(8), &json!(16)));
    assert_eq!(overview["health"], json!({"alive": true, "ready": false, "why": "no partitions are assigned yet"}));
    assert_eq!((&overview["firing"], &overview["by_action"]), (&json!(3), &json!({"block": 3})));
    assert_eq!((&overview["totals"]["events"], &overview["totals"]["latency_ms"]), (&json!(3), &json!(40)));
    assert_eq!(overview["seconds"].as_array().unwrap().len(), 1);
    assert_eq!(overview["now"], 50_000);
}

#[test]
fn a_rule_is_told_with_its_text_and_what_its_subjects_measure() {
    let served = serve(ConsoleOptions::default(), 1);
    let observation =
        |team, observed| Observation { subject: subject(team), observed, threshold: Some(10.0), unit: None };
    for second in [20, 30] {
        let closest = Arc::from([observation("calm", 2.0), observation("team-0", 12.5)]);
        let seen = Observed { at: at(second), groups: 2, looked_at: 2, closest };
        served.console.observed(&[("budget".to_owned(), seen)]);
    }
    let rules = vec![status("budget", 1)];
    served.console.publish(Status { rules, ..Status::default() }, (at(51), Duration::from_secs(1)));
    let rule = served.get("rules/budget");
    assert_eq!(rule["status"]["summary"], "Blocks teams.");
    assert_eq!((&rule["card"]["sql"], &rule["card"]["options"]["ttl"]), (&json!("CREATE RULE budget …"), &json!("5m")));
    assert_eq!(rule["look"], json!({"at": 30_000, "groups": 2, "looked_at": 2}));
    let series = rule["series"].as_array().unwrap();
    assert_eq!(series[0]["subject"], json!({"team": "team-0"}), "who comes closest is first");
    assert_eq!(series[0]["points"], json!([[10_000, 12.0, 10.0], [20_000, 12.5, 10.0], [30_000, 12.5, 10.0]]));
    assert_eq!(series[1]["points"], json!([[20_000, 2.0, 10.0], [30_000, 2.0, 10.0]]), "who violates nothing");
    assert_eq!(served.ask("/api/v1/rules/nobody", "").0, 404);
    assert_eq!(served.get("rules")["rules"][0]["name"], "budget");
}

#[test]
fn events_and_directives_are_bounded_and_searched() {
    let served = serve(ConsoleOptions::default(), 1_500);
    let events = served.get("events?limit=1000");
    assert_eq!((&events["total"], events["events"].as_array().unwrap().len()), (&json!(1_500), 200));
    assert_eq!(events["events"][0]["number"], 1_499, "the newest first");
    assert_eq!(served.console.published.borrow().events.len(), EVENTS_MAX);
    assert_eq!(served.console.published.borrow().events[0].0, 500, "of a burst the end is kept");
    let found = |query: &str| served.get(&format!("directives?{query}"))["found"].clone();
    assert_eq!(found("q=team-1499"), 1);
    assert_eq!(found("q=TEAM-1499+much"), 1);
    assert_eq!(found("q=team%2D1499%20much"), 1);
    assert_eq!(found("q=team-1499%20nothing"), 0);
    assert_eq!(
        (found("rule=budget&action=block"), found("action=warn"), found("rule=other")),
        (DIRECTIVES_MAX.into(), 0.into(), 0.into())
    );
    let id = served.get("directives?q=team-1234")["directives"][0]["directive_id"].as_str().unwrap().to_owned();
    assert_eq!(found(&format!("id={id}")), 1);
    assert_eq!(served.get(&format!("events?id={id}"))["events"].as_array().unwrap().len(), 1);
}

#[test]
fn dead_letters_are_told_without_a_word_of_their_payload() {
    let served = serve(ConsoleOptions::default(), 0);
    let mut last_dead = LastDead::default();
    for offset in 0..150 {
        let message = "not OTLP/JSON: invalid type: string \"my secret prompt\", expected a map".to_owned();
        let partition = TopicPartition::new("otlp_spans", 1);
        last_dead.push(DeadNote { reason: "malformed", message, partition, offset, bytes: 17, stamped: Some(at(5)) });
    }
    served.console.scanned(&ScanCounts { last_dead, ..ScanCounts::default() });
    served.console.publish(Status::default(), (at(51), Duration::ZERO));
    let letters = served.get("dead-letters");
    let rows = letters["letters"].as_array().unwrap();
    assert_eq!((rows.len(), &rows[0]["offset"], &rows[0]["bytes"]), (100, &json!(149), &json!(17)));
    assert!(!letters.to_string().contains("secret"), "{letters}");
    assert_eq!(rows[0]["message"], "not OTLP/JSON: invalid type: string \"…\", expected a map");
}

#[test]
fn whoever_does_not_say_the_token_sees_nothing() {
    let served = serve(ConsoleOptions { token: Some(TOKEN.to_owned()), ..Default::default() }, 1);
    for what in ["overview", "rules", "rules/budget", "directives", "events", "partitions", "dead-letters", "reloads"] {
        let path = format!("/api/v1/{what}");
        let (status, _, body) = served.ask(&path, "");
        assert_eq!((status, body.as_object().map(Map::len)), (401, Some(1)), "{what}: {body}");
        assert_eq!(served.ask(&path, "authorization: Bearer wrong-horse-battery!\r\n").0, 401, "{what}");
        assert_eq!(served.ask(&path, &format!("authorization: Bearer {TOKEN}\r\n")).0, 200, "{what}");
    }
    assert_eq!(served.get("access"), json!({"needs_token": true, "can_reload": false}));
    assert_eq!(answer(served.connect("POST", "/api/v1/reload", "x-lictor-console: 1\r\n")).0, 401);
    assert_eq!(served.ask("/", "").0, 200, "the page that asks for the token has nothing to hide");
}

#[test]
fn with_a_client_ca_a_certificate_opens_the_console_and_probes_need_none() {
    let site = Site::new();
    let options = ConsoleOptions { needs_certificate: true, ..ConsoleOptions::default() };
    let served = serve_over(Some(&site.files), options, 1);
    let ask = |client, path| site.ask(served.server.address(), client, path).unwrap();
    let (none, right) = (None, Some(&site.client));
    let refused = ask(none, "/api/v1/overview");
    assert!(refused.starts_with("HTTP/1.1 401 ") && refused.contains("`tls.client_ca`"), "{refused}");
    assert!(ask(right, "/api/v1/overview").starts_with("HTTP/1.1 200 "));
    assert!(site.ask(served.server.address(), Some(&Site::new().client), "/api/v1/overview").is_err());
    assert!(ask(right, "/api/v1/access").ends_with("{\"can_reload\":false,\"needs_token\":false}"));
    for open in ["/metrics", "/healthz"] {
        assert!(ask(none, open).starts_with("HTTP/1.1 200 "), "{open}");
    }
}

#[test]
fn another_sites_page_gets_nothing_out_of_a_console_without_a_token() {
    let served = serve(ConsoleOptions { allow_reload: true, ..Default::default() }, 1);
    assert_eq!(served.ask("/api/v1/overview", "host: evil.example\r\n").0, 403);
    let (status, _, body) = answer(served.connect("POST", "/api/v1/reload", ""));
    assert_eq!(status, 403, "{body}");
    assert!(served.requests.try_recv().is_err(), "nobody was asked");
}

#[test]
fn rules_are_read_again_only_if_that_is_allowed() {
    let own = "x-lictor-console: 1\r\n";
    let served = serve(ConsoleOptions::default(), 0);
    assert_eq!(answer(served.connect("POST", "/api/v1/reload", own)).0, 403);
    let served = serve(ConsoleOptions { allow_reload: true, ..Default::default() }, 0);
    assert_eq!(served.get("access"), json!({"needs_token": false, "can_reload": true}));
    for (said, status, applied) in [(Ok("rule a: new"), 200, true), (Err("a.sql:1:1: no"), 422, false)] {
        let connection = served.connect("POST", "/api/v1/reload", own);
        let request = served.requests.recv().unwrap();
        request.send(said.map(str::to_owned).map_err(str::to_owned)).unwrap();
        let text = said.unwrap_or_else(|why| why);
        let (found, _, body) = answer(connection);
        assert_eq!((found, body), (status, json!({"applied": applied, "text": text})));
    }
    let refused = ReloadNote { at: at(9), is_applied: false, text: "a.sql:1:1: no".to_owned() };
    served.console.set_refused(refused);
    assert_eq!(served.get("reloads")["notes"][0], json!({"at": 9_000, "applied": false, "text": "a.sql:1:1: no"}));
    assert_eq!(served.get("overview")["rules"]["reload_refused"], true);
    for second in [12, 13] {
        let note = ReloadNote { at: at(second), is_applied: true, text: "taken back".to_owned() };
        served.console.set_unchanged(note);
    }
    assert_eq!(served.get("overview")["rules"]["reload_refused"], false);
    let notes = served.get("reloads")["notes"].clone();
    assert_eq!((&notes[0]["at"], &notes[1]["at"]), (&json!(12_000), &json!(9_000)), "it is said once");
}

#[test]
fn pages_load_nothing_from_elsewhere_and_run_nothing_inline() {
    let served = serve(ConsoleOptions::default(), 0);
    for (path, kind, text) in pages::PAGES {
        let (status, head, _) = served.ask(path, "");
        assert_eq!(status, 200, "{path}");
        assert!(head.contains(&format!("content-type: {kind}")), "{path}: {head}");
        assert!(head.contains("content-security-policy: default-src 'none'"), "{path}: {head}");
        assert!(head.contains("x-content-type-options: nosniff"), "{path}: {head}");
        // The name space of SVG is a name, and nobody is asked for it.
        let text = text.replace("http://www.w3.org/2000/svg", "");
        for refused in ["http://", "https://", "style=\"", "innerHTML", "eval(", "document.cookie"] {
            assert!(!text.contains(refused), "{path}: {refused}");
        }
    }
    assert_eq!(served.ask("/console/nothing.js", "").0, 404);
    assert_eq!(served.ask("/api/v1/nothing", "").0, 404);
}

#[test]
fn what_has_not_changed_is_not_sent_again() {
    let served = serve(ConsoleOptions::default(), 2);
    let (_, head, _) = served.ask("/api/v1/events", "");
    let tag = head.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap();
    let (status, _, body) = served.ask("/api/v1/events", &format!("if-none-match: {tag}\r\n"));
    assert_eq!((status, body), (304, Value::Null));
    served.console.judged(&fire("budget", 1).0, None);
    served.console.publish(Status::default(), (at(51), Duration::ZERO));
    assert_eq!(served.ask("/api/v1/events", &format!("if-none-match: {tag}\r\n")).0, 200);
}

#[test]
fn whoever_comes_first_waits_for_a_snapshot_of_his_own() {
    let served = serve(ConsoleOptions::default(), 0);
    served.console.asked_ms.store(0, Ordering::Relaxed);
    let connection = served.connect("GET", "/api/v1/overview", "");
    while !served.console.is_watched(Still.monotonic()) {
        std::thread::yield_now();
    }
    let more = DIRECTIVES_MAX + 5;
    let (_, standing) = fire("budget", more);
    let rules = vec![status("budget", more)];
    served.console.publish(Status { rules, standing: Some(standing), ..Status::default() }, (at(60), Duration::ZERO));
    assert_eq!(answer(connection).2["by_action"], json!({"block": more}));
}
