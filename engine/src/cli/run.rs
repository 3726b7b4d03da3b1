//! `lictor run`: judges the telemetry on Kafka until it is stopped.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::sync_channel;

use anyhow::{Context as _, anyhow, bail};
use axum::Router;
use clap::Args;
use lictor_connectors::{KafkaFollower, ensure_topics};
use lictor_engine::alerts::client::Alertmanager;
use lictor_engine::alerts::forwarder::{Forwarder, ForwarderOptions, Teller};
use lictor_engine::clock::{Clock as _, SystemClock};
use lictor_engine::config::{self, Alertmanagers, Config, LogFormat};
use lictor_engine::fingerprint::fingerprint;
use lictor_engine::http::call::Endpoint;
use lictor_engine::http::{Health, HttpServer};
use lictor_engine::metrics::Metrics;
use lictor_engine::pipeline::Stages;
use lictor_engine::rules_dir::{self, LoadedRules};
use lictor_engine::tasks;
use lictor_queries::ReferenceDecl;
use tracing_subscriber::EnvFilter;

use super::check::report_faults;
use super::reload::Reloader;
use super::terminal::Painter;
use super::topic_tables::TopicTables;
use super::watched::Watcher;
use super::{console, explain, stop_flag, telemetry};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The configuration.
    #[arg(short, long)]
    config: PathBuf,
    /// Names this instance (in place of the configuration's `instance_id`): instances that share the work need a name
    /// each, and the same one after a restart.
    #[arg(long)]
    instance: Option<String>,
    /// Where metrics and health are served (in place of the configuration's `http`), or `off`.
    #[arg(long)]
    http: Option<String>,
}

/// Runs until SIGINT or SIGTERM, then commits what is left.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let mut config = Config::load(&arguments.config)?;
    if let Some(instance) = &arguments.instance {
        config.instance_id = config::instance_id(instance).map_err(|reason| anyhow!("--instance: {reason}"))?;
    }
    if let Some(http) = &arguments.http {
        config.http = config::http(http).map_err(|reason| anyhow!("--http: {reason}"))?;
    }
    start_log(config.log)?;
    config.notes.iter().for_each(|note| tracing::warn!("{note}"));
    // Other people's messages may repeat what they were given.
    judge(&config).map_err(|error| anyhow!(config.redact(&explain(&error))))
}

/// The log goes to standard error; `LICTOR_LOG` chooses what, as in `debug` or `lictor_engine=debug,info`.
pub(crate) fn start_log(format: LogFormat) -> anyhow::Result<()> {
    let filter = EnvFilter::builder().with_default_directive(tracing::Level::INFO.into());
    let filter = filter.with_env_var("LICTOR_LOG").from_env()?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let log = log.with_ansi(Painter::for_stream(&io::stderr()).color);
    let started = match format {
        LogFormat::Text => log.try_init(),
        LogFormat::Json => log.json().try_init(),
    };
    started.map_err(|error| anyhow!("cannot start the log: {error}"))
}

fn judge(config: &Config) -> anyhow::Result<ExitCode> {
    let loaded = load_rules(config)?;
    let read = fingerprint(&loaded.sources);
    let stop = stop_flag()?;
    let clock = SystemClock::start();
    let (metrics, health) = (Arc::new(Metrics::new()), Arc::new(Health::default()));
    let (ask, requests) = sync_channel(1);
    let placed = console::Placed::of(config);
    let (pages, _console_server) = match &placed {
        Some(placed) => placed.serve(&health, &ask, &metrics, &clock)?,
        None => (Router::new(), None),
    };
    let tls = config.tls.as_ref();
    let shared = (Arc::clone(&metrics), Arc::clone(&health));
    let serve = |at| HttpServer::start_beside((at, tls), shared, ask.clone(), clock, pages);
    let server = config.http.map(serve).transpose()?;
    if placed.as_ref().is_some_and(console::Placed::is_beside_metrics) {
        server.iter().for_each(|server| console::tell(server.address(), tls.is_some()));
    }
    drop(ask);
    let console = placed.map(|placed| placed.console);
    let (to_tasks, rule_sets) = sync_channel(1);
    let created = ensure_topics(&config.kafka, &config.topic_specs())
        .with_context(|| format!("brokers {}", config.kafka.bootstrap_servers()))?;
    if !created.is_empty() {
        tracing::info!(topics = created.join(", "), "topics created");
    }
    let mut topics = TopicTables::new(config, Arc::clone(&metrics), Arc::clone(&stop));
    let loaded = match read_topic_tables(config, loaded, &mut topics) {
        Err(_) if stop.load(Ordering::Relaxed) => return Ok(ExitCode::SUCCESS),
        loaded => loaded?,
    };
    let (rules, sources) = (loaded.rules.rules.len(), loaded.sources.clone());
    console.iter().for_each(|console| console::set_rules(console, &loaded, clock.now(), None));
    let reloader = Reloader::new(config, (&loaded, read), (Arc::clone(&metrics), console.clone()), topics);
    let stages = Stages::new(loaded.rules, loaded.prices, &config.pipeline_settings());
    let topics: Vec<String> = stages.scan.topics_read().into_iter().collect();
    if topics.is_empty() {
        bail!("no topic carries what the rules read: name one in `topics`");
    }
    let (application_id, instance_id) = (&config.application_id, &config.instance_id);
    tracing::info!(application_id, instance_id, rules, topics = topics.join(", "), "judging");
    reloader.start(requests, sources, to_tasks)?;
    let _forwarders = start_forwarders(config, &metrics, clock)?;
    let telling = telemetry::start(config, of_metrics(&metrics, &health), metrics.telemetry(), clock)?;
    let epochs = telling.as_ref().map(|telling| Arc::clone(&telling.epochs));
    let watcher = Watcher::new((metrics, epochs), health, console, clock);
    let options = config.task_options(topics);
    let summary = tasks::run_reloading(&config.kafka, stages, &options, clock, (&stop, &watcher), rule_sets)?;
    tracing::info!(summary.records, summary.events, "stopped");
    Ok(ExitCode::SUCCESS)
}

/// The text that `/metrics` serves.
fn of_metrics(metrics: &Arc<Metrics>, health: &Arc<Health>) -> impl Fn() -> String + Send + 'static {
    let (metrics, health) = (Arc::clone(metrics), Arc::clone(health));
    move || {
        metrics.observe_ready(health.readiness().is_ok());
        metrics.encode()
    }
}

/// A thread per Alertmanager; they end with the value.
fn start_forwarders(config: &Config, metrics: &Arc<Metrics>, clock: SystemClock) -> anyhow::Result<Vec<Forwarder>> {
    let Some(Alertmanagers { endpoints, resend, generator_url }) = config.alertmanager.clone() else {
        return Ok(Vec::new());
    };
    let application_id = config.application_id.clone();
    let group = format!("{application_id}-alerts");
    let options = ForwarderOptions { application_id, generator_url, resend };
    let start = |endpoint: Endpoint| {
        let directives = KafkaFollower::try_new(&config.kafka, &group, &config.topics.outputs.directives)?;
        tracing::info!(url = endpoint.to_url(), "directives are sent as alerts");
        let teller = Teller::new(Alertmanager::try_new(endpoint)?, options.clone(), Arc::clone(metrics));
        let config = config.clone();
        let redact = move |text: &str| config.redact(text);
        Ok(Forwarder::start(directives, teller, clock, redact)?)
    };
    endpoints.into_iter().map(start).collect()
}

/// The rules that compile; faulty ones are reported and left out. Reference tables in Kafka are empty.
fn load_rules(config: &Config) -> anyhow::Result<LoadedRules> {
    let loaded = rules_dir::load(&config.rules, config.prices.as_deref())?;
    leave_faulty_out(config, &loaded)?;
    Ok(loaded)
}

/// The rules with the rows of the reference tables that lie in Kafka. A topic that is not there costs only the rules
/// that read it, as a file that is not there; one that a broker does not answer for is waited for by the supervisor.
fn read_topic_tables(
    config: &Config,
    mut loaded: LoadedRules,
    topics: &mut TopicTables,
) -> anyhow::Result<LoadedRules> {
    if loaded.topic_tables().is_empty() {
        return Ok(loaded);
    }
    let reported = std::mem::take(&mut loaded.diagnostics);
    let mut read_topic = |decl: &ReferenceDecl| topics.rows(decl);
    let mut loaded = rules_dir::load_with_topics(&config.rules, config.prices.as_deref(), &mut read_topic)?;
    if let Some(why) = topics.unanswered() {
        bail!(why);
    }
    loaded.diagnostics.retain(|fault| !reported.contains(fault));
    leave_faulty_out(config, &loaded)?;
    Ok(loaded)
}

fn leave_faulty_out(config: &Config, loaded: &LoadedRules) -> anyhow::Result<()> {
    report_faults(loaded, &mut io::stderr().lock(), Painter::for_stream(&io::stderr()))?;
    let (rules, faults) = (loaded.rules.rules.len(), loaded.diagnostics.len());
    if rules == 0 {
        bail!("{}: no rule is without a fault: there is nothing to run", config.rules.display());
    }
    if faults > 0 {
        tracing::warn!(rules, faults, "faulty rules are left out, the others run");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    const COSTLY: &str = "CREATE RULE costly WITH (action = 'warn', reason_code = 'BUDGET_EXCEEDED') AS
        SELECT s.team, s.cost_total AS observed FROM spans AS s WHERE s.cost_total > 5;";

    fn config(rules: &[(&str, &str)], more: &str) -> (TempDir, Config) {
        let dir = TempDir::new().unwrap();
        for (name, text) in rules {
            fs::write(dir.path().join(name), text).unwrap();
        }
        let path = dir.path().join("lictor.yaml");
        let text = format!("kafka: {{bootstrap.servers: \"127.0.0.1:1\"}}\nrules: .\nhttp: off\n{more}");
        fs::write(&path, text).unwrap();
        let config = Config::load(&path).unwrap();
        (dir, config)
    }

    #[test]
    fn faulty_rules_are_left_out() {
        let (_dir, config) = config(&[("a.sql", COSTLY), ("b.sql", "CREATE RULE")], "");
        let loaded = load_rules(&config).unwrap();
        assert_eq!((loaded.rules.rules.len(), loaded.diagnostics.len()), (1, 1));
    }

    #[test]
    fn without_a_rule_nothing_starts() {
        let (_dir, config) = config(&[("b.sql", "CREATE RULE")], "");
        let message = judge(&config).unwrap_err().to_string();
        assert!(message.ends_with("no rule is without a fault: there is nothing to run"), "{message}");
    }

    #[test]
    fn a_taken_port_is_found_before_kafka_is_asked() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (_dir, mut config) = config(&[("a.sql", COSTLY)], "");
        config.http = Some(taken.local_addr().unwrap());
        let message = judge(&config).unwrap_err().to_string();
        assert!(message.starts_with("cannot listen on 127.0.0.1:"), "{message}");
    }
}
