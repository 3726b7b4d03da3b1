//! The real binary, running beside a real Kafka.

use std::fs;
use std::process::{Child, Command};

use lictor_engine::shipped;
use tempfile::TempDir;

use crate::cluster::Cluster;

/// A running `lictor run`; dropping it is `kill -9`.
pub(crate) struct Instance {
    pub(crate) child: Child,
    _folder: TempDir,
}

impl Instance {
    /// Reads the cluster's `spans`; what it writes begins with the application's name. `more` is added to the
    /// configuration. Unless it says otherwise, the demo's rules are judged, and `kafka` has the brokers only.
    pub(crate) fn start(cluster: &Cluster, application: &str, more: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let rules = folder.path().join("rules");
        shipped::write_to(&rules).unwrap();
        let rules = rules.display().to_string();
        let brokers = format!("{{bootstrap.servers: \"{}\"}}", cluster.properties.bootstrap_servers());
        let is_said = |key: &str| more.lines().any(|line| line.starts_with(key));
        let defaults = [("rules: ", rules), ("kafka: ", brokers)].into_iter().filter(|(key, _)| !is_said(key));
        let defaults: String = defaults.map(|(key, value)| format!("{key}{value}\n")).collect();
        let topic = |purpose: &str| cluster.topic(&format!("{application}.{purpose}"));
        let text = format!(
            "application_id: {name}.{application}\n{defaults}\
             topics: {{traces: [{spans}], enforcement: {events}, directives: {directives}, dead_letter: {dead},\n\
             \x20 directives_shadow: {shadow}, late: {late}, otlp: {otlp}}}\n{more}\n",
            name = cluster.name,
            spans = cluster.topic("spans"),
            events = topic("enforcement"),
            directives = topic("directives"),
            dead = topic("dead"),
            shadow = topic("shadow"),
            late = topic("late"),
            otlp = topic("otlp"),
        );
        let config = folder.path().join("lictor.yaml");
        fs::write(&config, text).unwrap();
        let mut lictor = Command::new(env!("CARGO_BIN_EXE_lictor"));
        let child = lictor.args(["run", "-c"]).arg(&config).env("LICTOR_LOG", "warn").spawn().unwrap();
        Self { child, _folder: folder }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
