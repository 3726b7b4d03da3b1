//! One measurement's place: topics nobody else uses, rules, configuration, and the instance that runs there.

use std::env;
use std::fs;
use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::process::{Child, ChildStdout, Command, Stdio};

use lictor_connectors::{KafkaProperties, TopicSpec, ensure_topics};
use lictor_engine::clock::{Clock, SystemClock};
use serde::de::DeserializeOwned;
use tempfile::TempDir;

use crate::instance::{ROLE, Served, Stopped};

pub(crate) const PARTITIONS: i32 = 4;
pub(crate) const SHARDS: i32 = 8;

pub(crate) struct Site {
    pub(crate) properties: KafkaProperties,
    /// Names the application; its topics begin with it.
    pub(crate) name: String,
    folder: TempDir,
}

impl Site {
    /// Makes the input topic; the instance makes the others.
    pub(crate) fn new(servers: &str, delivery: &str, rules: String) -> Self {
        let properties = KafkaProperties::from_bootstrap(servers);
        let name = format!("bench-{}-{delivery}", SystemClock::start().now().to_ms());
        let folder = TempDir::new().unwrap();
        let delivery = if delivery == "at_least_once" { delivery } else { "exactly_once" };
        let config = format!(
            "application_id: {name}\ninstance_id: only\nshards: {SHARDS}\ndelivery: {delivery}\nrules: rules.sql\n\
             kafka: {{bootstrap.servers: \"{servers}\"}}\n\
             topics: {{traces: [{name}.spans], logs: [], metrics: [], enforcement: {name}.enforcement,\n\
             \x20 directives: {name}.directives, dead_letter: {name}.dead, late: {name}.late}}\n\
             time: {{idle_after: 1h}}\n"
        );
        fs::write(folder.path().join("lictor.yaml"), config).unwrap();
        fs::write(folder.path().join("rules.sql"), rules).unwrap();
        // A cluster that goes on after us need not keep it.
        let configs = vec![("retention.ms", "3600000".to_owned())];
        let input = TopicSpec { configs, ..TopicSpec::new(format!("{name}.spans"), PARTITIONS, false) };
        ensure_topics(&properties, &[input]).unwrap();
        Self { properties, name, folder }
    }

    pub(crate) fn input(&self) -> String {
        format!("{}.spans", self.name)
    }

    /// Starts the instance, and returns once it serves everything.
    pub(crate) fn start(&self) -> (Instance, Served) {
        let mut command = Command::new(env::current_exe().unwrap());
        command.arg(ROLE).arg(self.folder.path().join("lictor.yaml"));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let said = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut instance = Instance { child, said };
        let served = instance.next_said();
        (instance, served)
    }
}

/// A running instance; dropping it kills it.
pub(crate) struct Instance {
    child: Child,
    said: Lines<BufReader<ChildStdout>>,
}

impl Instance {
    /// What it counts counts from now.
    pub(crate) fn begin(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"begin\n").unwrap();
    }

    /// And until now.
    pub(crate) fn end(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"end\n").unwrap();
    }

    /// Stops it in order; what it has counted.
    pub(crate) fn stop(mut self) -> Stopped {
        drop(self.child.stdin.take());
        let stopped = self.next_said();
        assert!(self.child.wait().unwrap().success(), "the instance failed");
        stopped
    }

    fn next_said<T: DeserializeOwned>(&mut self) -> T {
        let line = self.said.next().expect("the instance ended without a word").unwrap();
        serde_json::from_str(&line).unwrap()
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
