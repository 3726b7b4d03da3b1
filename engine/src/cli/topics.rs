//! `lictor topics`: makes the topics that lictor writes to, or says what is wrong with them, or who needs which rights.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, anyhow};
use clap::Args;
use lictor_connectors::{TopicSpec, TopicState, ensure_topics, inspect_topics};
use lictor_engine::config::Config;

use super::acls::{self, Principals};
use super::explain;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The configuration.
    #[arg(short, long)]
    config: PathBuf,
    /// Change nothing: only say what is missing or different; the exit code is 1 if anything is.
    #[arg(long)]
    check: bool,
    /// Ask no broker: print the kafka-acls.sh commands that grant this principal (User:lictor) what lictor needs.
    #[arg(long, value_name = "PRINCIPAL", conflicts_with = "check")]
    acls: Option<String>,
    /// The same for somebody who reads what lictor decides.
    #[arg(long, value_name = "PRINCIPAL", conflicts_with = "check")]
    acls_consumer: Option<String>,
    /// The same for somebody who lists and replays dead letters.
    #[arg(long, value_name = "PRINCIPAL", conflicts_with = "check")]
    acls_operator: Option<String>,
    /// That consumer's group; without it the principal's name.
    #[arg(long, requires = "acls_consumer")]
    group: Option<String>,
}

/// Creates what is missing, then prints how every topic is.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let config = Config::load(&arguments.config)?;
    let principals = Principals {
        lictor: arguments.acls.as_deref(),
        consumer: arguments.acls_consumer.as_deref(),
        group: arguments.group.as_deref(),
        operator: arguments.acls_operator.as_deref(),
    };
    if principals.are_named() {
        acls::print(&mut io::stdout().lock(), &config, principals)?;
        return Ok(ExitCode::SUCCESS);
    }
    make(arguments, &config).map_err(|error| anyhow!(config.redact(&explain(&error))))
}

fn make(arguments: &Arguments, config: &Config) -> anyhow::Result<ExitCode> {
    let specs = config.topic_specs();
    let brokers = || format!("brokers {}", config.kafka.bootstrap_servers());
    let created = match arguments.check {
        true => Vec::new(),
        false => {
            let states = inspect_topics(&config.kafka, &specs).with_context(brokers)?;
            let missing: Vec<TopicSpec> =
                specs.iter().zip(&states).filter(|(_, state)| !state.exists).map(|(spec, _)| spec.clone()).collect();
            ensure_topics(&config.kafka, &missing).with_context(brokers)?
        }
    };
    let states = inspect_topics(&config.kafka, &specs).with_context(brokers)?;
    print(&mut io::stdout().lock(), &specs, &states, &created)?;
    let is_fine = states.iter().all(|state| state.exists && state.differences.is_empty());
    Ok(if is_fine { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A line per topic, and one per difference.
fn print(out: &mut dyn Write, specs: &[TopicSpec], states: &[TopicState], created: &[String]) -> io::Result<()> {
    let width = specs.iter().map(|spec| spec.name.len()).max().unwrap_or_default();
    for (spec, state) in specs.iter().zip(states) {
        let verdict = match state {
            TopicState { exists: false, .. } => "missing",
            _ if created.contains(&spec.name) => "created",
            TopicState { differences, .. } if differences.is_empty() => "fine",
            _ => "different",
        };
        let count = |count: Option<i32>| count.map_or_else(|| "?".to_owned(), |count| count.to_string());
        let policy = if spec.compacted { "compact" } else { "delete" };
        let (partitions, replicas) = (count(state.partitions), count(state.replication));
        writeln!(
            out,
            "{:<width$}  {verdict:<9}  partitions={partitions} replicas={replicas} cleanup.policy={policy}",
            spec.name
        )?;
        for difference in &state.differences {
            let weight = if difference.is_fatal() { "must be" } else { "should be" };
            writeln!(
                out,
                "{:<width$}    {} is {}, {weight} {}",
                "", difference.name, difference.found, difference.wanted
            )?;
        }
    }
    Ok(())
}
