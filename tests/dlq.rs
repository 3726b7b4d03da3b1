//! `lictor dlq` beside a real Kafka: what was put aside is listed, shown and written back, once, whatever dies.
//!
//! Skips when `KAFKA_BOOTSTRAP` is not set.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "support/cluster.rs"]
#[expect(dead_code, reason = "other tests write records without headers")]
mod cluster;
#[path = "support/headers.rs"]
mod headers;
#[path = "support/instance.rs"]
mod instance;

use std::path::PathBuf;
use std::process::{Command, Output};
use std::{fs, str};

use cluster::Cluster;
use headers::headers;
use instance::Instance;
use lictor_connectors::{KafkaSink, Outgoing, Sink};
use serde_json::Value;
use tempfile::TempDir;

const SECRET: &str = "tell me a secret";

/// A payload and its headers.
type Message = (Vec<u8>, Vec<(&'static str, String)>);

/// A deployment of which only the topics are there, and its configuration.
struct Site {
    cluster: Cluster,
    folder: TempDir,
}

impl Site {
    fn find(test: &str) -> Option<Self> {
        let site = Self { cluster: Cluster::from_env(test)?, folder: TempDir::new().unwrap() };
        let Self { cluster, folder } = &site;
        cluster.make_topic("spans", 1, false);
        cluster.make_topic("app.dead", 1, false);
        let text = format!(
            "application_id: {name}.app\nrules: .\nkafka: {{bootstrap.servers: \"{servers}\"}}\n\
             topics: {{traces: [{name}.spans], dead_letter: {name}.app.dead, enforcement: {name}.app.enforcement}}\n",
            name = cluster.name,
            servers = cluster.properties.bootstrap_servers(),
        );
        fs::write(folder.path().join("lictor.yaml"), text).unwrap();
        Some(site)
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("lictor.yaml")
    }

    fn dlq(&self, arguments: &[&str]) -> Output {
        self.dlq_dying(arguments, "")
    }

    /// As `dlq`, and it dies at a failpoint.
    fn dlq_dying(&self, arguments: &[&str], failpoint: &str) -> Output {
        let mut lictor = Command::new(env!("CARGO_BIN_EXE_lictor"));
        lictor.arg("dlq").args(arguments).arg("-c").arg(self.config()).env("LICTOR_FAILPOINT", failpoint);
        lictor.output().unwrap()
    }

    /// What a command says that must end so.
    #[track_caller]
    fn says(&self, arguments: &[&str], code: i32) -> String {
        let output = self.dlq(arguments);
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8(text).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
        text
    }

    /// The listed letters.
    #[track_caller]
    fn list(&self, arguments: &[&str]) -> Vec<Value> {
        let output = self.dlq(&[&["list", "--json"], arguments].concat());
        assert!(output.status.success(), "{output:?}");
        assert!(!str::from_utf8(&output.stdout).unwrap().contains(SECRET));
        str::from_utf8(&output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn states(&self) -> Vec<String> {
        self.list(&[]).iter().map(|letter| letter["state"].as_str().unwrap().to_owned()).collect()
    }

    fn write(&self, purpose: &str, messages: Vec<Message>) {
        let mut sink = KafkaSink::try_new(&self.cluster.properties, "test-out").unwrap();
        for (payload, headers) in messages {
            let headers = headers.into_iter().map(|(name, value)| (name.to_owned(), value.into_bytes())).collect();
            let topic = self.cluster.topic(purpose);
            sink.publish(&Outgoing { topic, key: Some(b"k".to_vec()), payload: Some(payload), headers }).unwrap();
        }
        sink.flush().unwrap();
    }

    /// Letters of these reasons, each of which has its own number for a payload.
    fn put_aside(&self, reasons: &[&str]) {
        let letter = |(number, reason): (usize, &&str)| {
            (number.to_string().into_bytes(), self.why(&self.cluster.topic("spans"), number, reason))
        };
        self.write("app.dead", reasons.iter().enumerate().map(letter).collect());
    }

    fn why(&self, topic: &str, offset: usize, reason: &str) -> Vec<(&'static str, String)> {
        vec![
            ("tenant", "acme".to_owned()),
            ("__connect.errors.topic", topic.to_owned()),
            ("__connect.errors.partition", "0".to_owned()),
            ("__connect.errors.offset", offset.to_string()),
            ("__connect.errors.connector.name", format!("{}.app", self.cluster.name)),
            ("__connect.errors.class.name", format!("lictor.decode.{reason}")),
            ("__connect.errors.exception.message", format!("expected value, found \"{SECRET}\"")),
        ]
    }

    /// Payloads of the records on a topic, once there are so many.
    fn payloads(&self, purpose: &str, count: usize) -> Vec<String> {
        let messages = self.cluster.read(purpose, |read| read.len() >= count);
        messages.into_iter().map(|message| String::from_utf8(message.payload.unwrap()).unwrap()).collect()
    }
}

#[test]
fn what_died_is_replayed_as_it_was_and_what_dies_again_is_left() {
    let Some(site) = Site::find("dlq-cycle") else { return };
    let garbage = |text: &str| (text.as_bytes().to_vec(), vec![("traceparent", format!("of-{}", text.len()))]);
    site.write("spans", vec![garbage("{garbage"), garbage("{\"resourceSpans\": 17}")]);
    let _running = Instance::start(&site.cluster, "app", "");
    site.cluster.read("app.dead", |read| read.len() >= 2);
    assert_eq!(site.states(), ["open", "open"]);

    let said = site.says(&["replay"], 0);
    assert!(said.contains("2 letters read: 2 replayed"), "{said}");
    let replayed = site.cluster.read("spans", |read| read.len() >= 4);
    assert_eq!(replayed[2].payload, replayed[0].payload);
    assert_eq!((replayed[2].key.as_deref(), replayed[3].key.as_deref()), (Some(&b"k"[..]), Some(&b"k"[..])));
    let marks = headers(&site.cluster, "spans", 4);
    assert_eq!((marks[2]["traceparent"].as_str(), marks[2]["lictor-replays"].as_str()), ("of-8", "1"));
    assert_eq!(marks[3]["lictor-replay-of"], format!("{}:0:{}", site.cluster.topic("app.dead"), second(&site)));
    assert!(!marks[2].keys().any(|name| name.starts_with("__connect.errors.")), "{marks:?}");

    site.cluster.read("app.dead", |read| read.len() >= 4);
    assert_eq!(site.states(), ["replayed", "replayed", "died again", "died again"]);
    let said = site.says(&["replay"], 1);
    assert!(said.contains("2 died again after a replay"), "{said}");
    assert_eq!(site.payloads("spans", 4).len(), 4, "nothing was written again");
    let said = site.says(&["replay", "--replays-max", "2", "--limit", "1"], 0);
    assert!(said.contains("1 replayed"), "{said}");
}

/// The offset of the second letter.
fn second(site: &Site) -> String {
    site.list(&[])[1]["letter"].as_str().unwrap().split_once(':').unwrap().1.to_owned()
}

#[test]
fn whatever_instruction_is_the_last_every_letter_is_replayed_once() {
    let Some(site) = Site::find("dlq-killed") else { return };
    site.put_aside(&["empty"; 1_200]);
    for failpoint in ["dlq.begin@1", "dlq.produced@1", "dlq.flushed@2", "dlq.offsets@1", "dlq.committed@1"] {
        let died = site.dlq_dying(&["replay"], failpoint);
        assert!(died.status.code().is_none(), "{failpoint}: {died:?}");
    }
    let said = site.says(&["replay"], 0);
    assert!(said.contains("replayed"), "{said}");
    let again = site.says(&["replay"], 0);
    assert!(again.contains("0 letters read"), "{again}");
    let expected: Vec<String> = (0..1_200).map(|number| number.to_string()).collect();
    assert_eq!(site.payloads("spans", 1_200), expected);
    assert!(site.states().iter().all(|state| state == "replayed"));
}

#[test]
fn letters_are_chosen_and_what_was_not_chosen_is_replayed_later() {
    let Some(site) = Site::find("dlq-choice") else { return };
    site.put_aside(&["empty", "invalid_id", "empty", "invalid_id", "empty", "invalid_id"]);
    assert_eq!(site.list(&["--reason", "empty", "--limit", "2"]).len(), 2);
    assert_eq!(site.list(&["--until", "2020-01-01"]).len(), 0);
    assert_eq!(site.list(&["--last", "1h", "--error", "EXPECTED value"]).len(), 6);
    let dry = site.says(&["replay", "--dry-run", "--reason", "invalid_id"], 0);
    assert!(dry.contains("3 replayed, 3 not chosen") && dry.contains("nothing was written"), "{dry}");

    site.says(&["replay", "0:3"], 0);
    site.says(&["replay", "--reason", "empty", "--limit", "2"], 0);
    assert!(site.says(&["replay", "0:3"], 0).contains("0:3 was replayed before"));
    assert_eq!(site.list(&["--open"]).len(), 3);
    site.says(&["replay"], 0);
    assert_eq!(site.payloads("spans", 6), ["3", "0", "2", "1", "4", "5"]);

    let refused = site.says(&["replay", "0:99"], 1);
    assert!(refused.contains("no letter 0:99"), "{refused}");
    let refused = site.says(&["replay", "--to", &site.cluster.topic("app.dead")], 1);
    assert!(refused.contains("written by lictor itself"), "{refused}");
    let refused = site.says(&["replay", "--to", &site.cluster.topic("nowhere")], 1);
    assert!(refused.contains("there is no topic"), "{refused}");
}

#[test]
fn what_a_letter_goes_without_comes_from_the_record_and_what_is_foreign_stays() {
    let Some(site) = Site::find("dlq-large") else { return };
    site.cluster.make_topic("other", 1, false);
    site.write("spans", vec![(b"the whole record".to_vec(), vec![("tenant", "acme".to_owned())])]);
    let spans = site.cluster.topic("spans");
    let omitted = |offset: usize, reason: &str| {
        let mut headers = site.why(&spans, offset, reason);
        headers.push(("lictor-payload-omitted-bytes", "16".to_owned()));
        (Vec::new(), headers)
    };
    let stray = (b"no letter at all".to_vec(), Vec::new());
    let elsewhere = (b"of another topic".to_vec(), site.why("lictor.directives", 0, "empty"));
    let letters = vec![omitted(0, "empty"), omitted(0, "invalid_items"), omitted(77, "empty"), stray, elsewhere];
    site.write("app.dead", letters);
    let said = site.says(&["replay"], 1);
    for part in ["1 replayed", "1 not put aside by lictor", "1 from topics that lictor does not", "2 without their"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(site.payloads("spans", 2), ["the whole record", "the whole record"]);
    let said = site.says(&["replay", "--to", &site.cluster.topic("other"), "0:3", "0:4"], 0);
    assert!(said.contains("2 replayed"), "{said}");
    assert_eq!(site.payloads("other", 2), ["no letter at all", "of another topic"]);
}

#[test]
fn a_letter_is_shown_without_what_may_be_a_secret_unless_that_is_asked_for() {
    let Some(site) = Site::find("dlq-show") else { return };
    site.write("app.dead", vec![(SECRET.as_bytes().to_vec(), site.why("otlp_spans", 5, "malformed_json"))]);
    let shown = site.says(&["show", "0:0"], 0);
    assert!(!shown.contains(SECRET) && shown.contains("otlp_spans[0] offset 5"), "{shown}");
    let shown = site.says(&["show", "0:0", "--payload"], 0);
    assert!(shown.contains("tenant: acme") && shown.contains("74 65 6c 6c"), "{shown}");
    assert_eq!(site.says(&["show", "0:0", "--raw"], 0), SECRET);
    assert!(site.says(&["show", "0:1"], 1).contains("no letter 0:1"));
    assert!(site.says(&["show", "7:1"], 1).contains("no partition 7"));
}
