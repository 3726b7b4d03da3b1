//! The real binary beside a Kafka that lets nobody do what no ACL grants, over TLS and SASL.
//!
//! What `lictor topics --acls` prints is granted, and nothing else; then telemetry becomes events, a gateway reads
//! them, and nobody can do more than that. The node of `tests/kafka.sh` has such a listener; skips beside another
//! cluster.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "support/cluster.rs"]
mod cluster;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use cluster::{Cluster, PATIENCE};
use lictor_connectors::{KafkaProperties, KafkaSink, KafkaSource, Outgoing, RecordRef, Sink, Source};
use lictor_engine::clock::{Clock, SystemClock};
use lictor_schemas::event::EnforcementEvent;
use lictor_schemas::otlp::encode::{RowDraft, encode_protobuf};
use lictor_schemas::tables::{Signal, Table};
use serde_json::json;
use tempfile::TempDir;

/// What `tests/kafka.sh` has made of its users.
const PASSWORD: &str = "test-password";

const RULES: &str = "CREATE EXTERNAL TABLE budgets (key VARCHAR, usd DOUBLE) STORED AS KAFKA LOCATION '{budgets}';
    CREATE RULE dear WITH (action = 'block', reason_code = 'BUDGET_EXCEEDED') AS
    SELECT s.team, window_start, window_end, sum(s.cost_total) AS observed, max(s.usd) AS threshold
    FROM TUMBLE((SELECT s.event_time, s.team, s.cost_total, b.usd FROM spans AS s JOIN budgets AS b ON b.key = s.team),
                event_time, INTERVAL '1 day') AS s
    GROUP BY s.team, window_start, window_end HAVING sum(s.cost_total) >= max(s.usd) EMIT ON UPDATE;";

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/kafka.sh")
}

/// The other listener of the node under test, and a folder with a configuration for it.
struct Site {
    cluster: Cluster,
    servers: String,
    ca: String,
    folder: TempDir,
}

impl Site {
    fn find(test: &str) -> Option<Self> {
        let cluster = Cluster::from_env(test)?;
        let said = Command::new(script()).arg("secure").output().unwrap();
        let said = String::from_utf8(said.stdout).unwrap();
        let of = |name: &str| said.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
        let (Some(servers), Some(ca)) = (of("KAFKA_SECURE="), of("KAFKA_CA=")) else {
            eprintln!("{test}: skipped: this cluster is not of tests/kafka.sh");
            return None;
        };
        let folder = TempDir::new().unwrap();
        let rules = RULES.replace("{budgets}", &cluster.topic("budgets"));
        fs::write(folder.path().join("dear.sql"), rules).unwrap();
        fs::write(folder.path().join("password"), PASSWORD).unwrap();
        Some(Self { cluster, servers, ca, folder })
    }

    /// A configuration that comes to the brokers so.
    fn config(&self, name: &str, sasl: &str) -> PathBuf {
        let topic = |purpose: &str| self.cluster.topic(purpose);
        let text = format!(
            "application_id: {app}\nrules: .\nshards: 1\nhttp: off\n\
             kafka: {{bootstrap.servers: \"{servers}\", security.protocol: SASL_SSL, ssl.ca.location: {ca}, {sasl}}}\n\
             topics: {{traces: [{spans}], enforcement: {events}, directives: {directives}, dead_letter: {dead},\n\
             \x20 directives_shadow: {shadow}, late: {late}}}\n",
            app = self.cluster.name,
            servers = self.servers,
            ca = self.ca,
            spans = topic("spans"),
            events = topic("enforcement"),
            directives = topic("directives"),
            dead = topic("dead"),
            shadow = topic("shadow"),
            late = topic("late"),
        );
        let path = self.folder.path().join(format!("{name}.yaml"));
        fs::write(&path, text).unwrap();
        path
    }

    fn scram(&self) -> PathBuf {
        self.config(
            "scram",
            "sasl.mechanism: SCRAM-SHA-512, sasl.username: lictor, sasl.password: \"${file:password}\"",
        )
    }

    /// Grants what `lictor topics` prints, in its own words.
    fn grant(&self, config: &Path, whom: &[&str]) -> String {
        let printed = lictor(config, &[&["topics"], whom].concat());
        assert!(printed.status.success(), "{printed:?}");
        let commands = String::from_utf8(printed.stdout).unwrap();
        // The node's own tool knows the brokers and may do everything.
        let as_admin = format!("kafka-acls.sh() {{ shift 4; '{}' acls \"$@\"; }}\n", script().display());
        let granted = Command::new("bash").args(["-euc", &format!("{as_admin}{commands}")]).output().unwrap();
        assert!(granted.status.success(), "{commands}\n{granted:?}");
        commands
    }

    /// How the gateway comes to the brokers.
    fn gateway(&self) -> KafkaProperties {
        let said = [
            ("security.protocol", "SASL_SSL"),
            ("ssl.ca.location", &self.ca),
            ("sasl.mechanism", "SCRAM-SHA-256"),
            ("sasl.username", "gateway"),
            ("sasl.password", PASSWORD),
        ];
        let with = |properties: KafkaProperties, (name, value): (&str, &str)| properties.with(name, value).unwrap();
        said.into_iter().fold(KafkaProperties::from_bootstrap(&self.servers), with)
    }
}

/// Those who run lictor, and read what it decides.
const RUNNING: &[&str] = &["--acls", "User:lictor", "--acls-consumer", "User:gateway"];

/// What the binary says and how it ends.
fn lictor(config: &Path, arguments: &[&str]) -> Output {
    let mut lictor = Command::new(env!("CARGO_BIN_EXE_lictor"));
    lictor.args(arguments).arg("-c").arg(config).output().unwrap()
}

/// `lictor run`, with everything that it says in a file; dropping it is `kill -9`.
struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    fn start(config: &Path) -> Self {
        let log = config.with_extension("log");
        let mut lictor = Command::new(env!("CARGO_BIN_EXE_lictor"));
        lictor.args(["run", "-c"]).arg(config).env("LICTOR_LOG", "debug");
        lictor.stdout(Stdio::null()).stderr(File::create(&log).unwrap());
        Self { child: lictor.spawn().unwrap(), log }
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The first payload of a topic, as this reader gets it; or what it is told instead.
fn first(properties: &KafkaProperties, group: &str, topic: &str) -> Result<Vec<u8>, String> {
    let topics = [topic.to_owned()];
    let mut source = KafkaSource::try_new(properties, group, "test-in", &topics).map_err(|e| e.to_string())?;
    let clock = SystemClock::start();
    let mut payload = None;
    while payload.is_none() {
        if clock.monotonic() > PATIENCE {
            return Err(format!("neither a record of {topic} nor an error came"));
        }
        let take = &mut |record: RecordRef<'_>| payload = record.payload.map(<[u8]>::to_vec);
        source.poll(Duration::from_millis(50), take).map_err(|e| e.to_string())?;
    }
    Ok(payload.unwrap())
}

fn write(properties: &KafkaProperties, topic: &str) -> Result<(), String> {
    let mut sink = KafkaSink::try_new(properties, "test-out").map_err(|e| e.to_string())?;
    let message = Outgoing { topic: topic.to_owned(), key: None, payload: Some(b"{}".to_vec()), headers: Vec::new() };
    sink.publish(&message).and_then(|()| sink.flush()).map_err(|e| e.to_string())
}

#[test]
fn with_the_rights_that_it_asks_for_telemetry_becomes_events_and_nobody_can_do_more() {
    let Some(site) = Site::find("secure-run") else { return };
    let Site { cluster, .. } = &site;
    cluster.make_topic("spans", 1, false);
    cluster.make_topic("budgets", 1, true);
    let config = site.scram();
    let refused = lictor(&config, &["topics"]);
    assert!(!refused.status.success(), "nothing is granted yet: {refused:?}");
    site.grant(&config, RUNNING);
    let budget = Outgoing {
        topic: cluster.topic("budgets"),
        key: Some(b"docs".to_vec()),
        payload: Some(br#"{"usd": 40.0}"#.to_vec()),
        headers: Vec::new(),
    };
    let mut admin = KafkaSink::try_new(&cluster.properties, "test-budgets").unwrap();
    admin.publish(&budget).and_then(|()| admin.flush()).unwrap();
    let running = Running::start(&config);
    let now = SystemClock::start().now();
    let columns = [("team".to_owned(), json!("docs")), ("cost_total".to_owned(), json!(50.0))].into();
    let costly = RowDraft { table: Table::Spans, event_time: now, columns };
    cluster.produce("spans", vec![Some(encode_protobuf(Signal::Traces, &[costly]).unwrap())]).unwrap();

    let gateway = site.gateway();
    let event = first(&gateway, "gateway", &cluster.topic("enforcement"));
    let event = event.unwrap_or_else(|why| panic!("{why}; lictor said\n{}", running.said()));
    let event = EnforcementEvent::from_json(&event).unwrap();
    assert_eq!((event.data.rule.name.as_str(), event.data.finding.threshold), ("dear", Some(40.0)));
    assert_eq!(event.to_subject_text(), "team=docs");
    for topic in ["enforcement", "directives", "spans"] {
        assert!(write(&gateway, &cluster.topic(topic)).is_err(), "{topic}");
    }
    for (group, topic) in [("gateway", "spans"), ("another", "enforcement")] {
        let error = first(&gateway, group, &cluster.topic(topic)).unwrap_err();
        assert!(error.to_lowercase().contains("authorization"), "{group} {topic}: {error}");
    }
    let log = running.said();
    assert!(log.contains("lictor"), "it says something");
    assert!(!log.contains(PASSWORD), "{log}");
}

#[test]
fn dead_letters_are_replayed_with_the_rights_that_this_asks_for() {
    let Some(site) = Site::find("secure-dlq") else { return };
    let cluster = &site.cluster;
    ["spans", "dead"].iter().for_each(|topic| cluster.make_topic(topic, 1, false));
    let letter = |name: &str, value: String| (format!("__connect.errors.{name}"), value.into_bytes());
    let headers = vec![
        letter("topic", cluster.topic("spans")),
        letter("partition", "0".to_owned()),
        letter("offset", "0".to_owned()),
        letter("class.name", "lictor.decode.empty".to_owned()),
    ];
    let dead = Outgoing { topic: cluster.topic("dead"), key: None, payload: Some(b"{}".to_vec()), headers };
    let mut admin = KafkaSink::try_new(&cluster.properties, "test-dead").unwrap();
    admin.publish(&dead).and_then(|()| admin.flush()).unwrap();
    let config = site.scram();
    let refused = lictor(&config, &["dlq", "replay"]);
    assert!(!refused.status.success(), "nothing is granted yet: {refused:?}");
    site.grant(&config, &["--acls-operator", "User:lictor"]);
    for command in [&["dlq", "list"][..], &["dlq", "replay"]] {
        let done = lictor(&config, command);
        assert!(done.status.success(), "{command:?}: {done:?}");
    }
    assert_eq!(cluster.read("spans", |read| !read.is_empty())[0].payload.as_deref(), Some(&b"{}"[..]));
}

#[test]
fn every_mechanism_of_sasl_leads_in_and_a_wrong_password_does_not() {
    let Some(site) = Site::find("secure-sasl") else { return };
    site.cluster.make_topic("spans", 1, false);
    site.cluster.make_topic("budgets", 1, true);
    site.grant(&site.scram(), RUNNING);
    let made = lictor(&site.scram(), &["topics"]);
    assert!(made.status.success(), "{made:?}");
    let user = format!("sasl.username: lictor, sasl.password: {PASSWORD}");
    let token = "sasl.oauthbearer.config: \"principal=lictor\", enable.sasl.oauthbearer.unsecure.jwt: true";
    let mechanisms = [("PLAIN", &*user), ("SCRAM-SHA-256", &user), ("SCRAM-SHA-512", &user), ("OAUTHBEARER", token)];
    for (mechanism, rest) in mechanisms {
        let config = site.config(mechanism, &format!("sasl.mechanism: {mechanism}, {rest}"));
        let said = lictor(&config, &["topics", "--check"]);
        assert!(said.status.success(), "{mechanism}: {said:?}");
    }
    let wrong = "sasl.mechanism: PLAIN, sasl.username: lictor, sasl.password: not-the-password";
    let said = lictor(&site.config("wrong", wrong), &["topics", "--check"]);
    let text = String::from_utf8_lossy(&said.stderr);
    assert!(!said.status.success() && text.to_lowercase().contains("authentication"), "{text}");
    assert!(!text.contains("not-the-password"), "{text}");
}
