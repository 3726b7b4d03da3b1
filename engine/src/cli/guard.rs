//! `lictor guard`: answers gateways whether a call may go on, until it is stopped.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use anyhow::anyhow;
use clap::Args;
use lictor_connectors::{KafkaFollower, KafkaSink};
use lictor_engine::clock::{Clock as _, SystemClock};
use lictor_engine::config::{self, Config};
use lictor_engine::guard::{self, Guard, RecordedCounts, decisions};
use lictor_schemas::columns::is_mappable;

use super::run::start_log;
use super::{explain, stop_flag, telemetry};

/// As long as a supervisor waits after SIGTERM, in the main: Kubernetes takes 30 s.
const LAST_WRITE_MAX: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The configuration: the same as that of `lictor run`, with a `guard` section if the defaults do not fit.
    #[arg(short, long)]
    config: PathBuf,
    /// Where gateways ask (in place of the configuration's `guard.http`).
    #[arg(long)]
    http: Option<String>,
}

/// Answers until SIGINT or SIGTERM.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let mut config = Config::load(&arguments.config)?;
    if let Some(http) = &arguments.http {
        config.guard.http = config::guard_http(http).map_err(|reason| anyhow!("--http: `{http}` {reason}"))?;
    }
    start_log(config.log)?;
    config.notes.iter().for_each(|note| tracing::warn!("{note}"));
    // Other people's messages may repeat what they were given.
    answer(&config).map_err(|error| anyhow!(config.redact(&explain(&error))))
}

fn answer(config: &Config) -> anyhow::Result<ExitCode> {
    let (stop, clock) = (stop_flag()?, SystemClock::start());
    let (outputs, group) = (&config.topics.outputs, format!("{}-guard", config.application_id));
    let (topic, shadow_topic) = (&outputs.directives, &outputs.directives_shadow);
    let mut followers = [
        KafkaFollower::try_new(&config.kafka, &group, topic)?,
        KafkaFollower::try_new(&config.kafka, &group, shadow_topic)?,
    ];
    let guard = Guard::new(config.guard.clone(), &config.columns);
    let (guard, _writing) = match &config.guard.decisions {
        Some(topic) => {
            let (queue, waiting) = decisions::queue();
            let writing = Writing::start(config, topic, waiting, guard.metrics().recorded().clone())?;
            (guard.recording(queue), Some(writing))
        }
        None => (guard, None),
    };
    let guard = Arc::new(guard);
    let server = guard::serve(Arc::clone(&guard), config.tls.as_ref(), clock)?;
    let (counts, measured) = (guard.metrics().telemetry().clone(), Arc::clone(&guard));
    let _telling = telemetry::start(config, move || measured.encode(clock.monotonic()), &counts, clock)?;
    let options = guard.options();
    for (header, column) in options.headers.iter().filter(|(_, column)| !is_mappable(column)) {
        tracing::warn!(
            header,
            column,
            "no telemetry has this column: only a rule that makes one of that name is meant"
        );
    }
    let (address, on_stale) = (server.address(), options.on_stale.as_str());
    let stale_after_s = options.stale_after.as_secs_f64();
    tracing::info!(
        %address,
        topic,
        shadow_topic,
        on_stale,
        stale_after_s,
        "guarding; what is not known is for on_stale to decide"
    );
    guard::follow(&guard, &mut followers, &clock, &stop, &|text| config.redact(text));
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

/// The thread that writes spans of stopped calls; it ends when nobody can leave any more.
struct Writing(Receiver<()>);

impl Writing {
    fn start(config: &Config, topic: &str, waiting: Receiver<Vec<u8>>, counts: RecordedCounts) -> anyhow::Result<Self> {
        let mut sink = KafkaSink::try_new(&config.kafka, &format!("{}-guard-decisions", config.application_id))?;
        let (config, topic, (ended, end)) = (config.clone(), topic.to_owned(), sync_channel(0));
        tracing::info!(topic, "calls that are stopped are written");
        thread::Builder::new().name("guard.decisions".to_owned()).spawn(move || {
            decisions::write(&waiting, (&mut sink, &topic), &counts, &|text| config.redact(text));
            drop::<SyncSender<()>>(ended);
        })?;
        Ok(Self(end))
    }
}

impl Drop for Writing {
    /// Lets it write what was left, as long as a broker may take for that.
    fn drop(&mut self) {
        if self.0.recv_timeout(LAST_WRITE_MAX) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("the last decisions were not written in time");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::net::TcpListener;

    use tempfile::TempDir;

    use super::*;

    #[test]
    fn a_taken_port_ends_it_at_once_and_names_the_key() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let (dir, address) = (TempDir::new().unwrap(), taken.local_addr().unwrap());
        let path = dir.path().join("lictor.yaml");
        let text = format!("kafka: {{bootstrap.servers: \"127.0.0.1:1\"}}\nrules: .\nguard: {{http: \"{address}\"}}\n");
        fs::write(&path, text).unwrap();
        let message = answer(&Config::load(&path).unwrap()).unwrap_err().to_string();
        assert!(message.starts_with(&format!("cannot listen on {address} (`guard.http` in the ")), "{message}");
    }
}
