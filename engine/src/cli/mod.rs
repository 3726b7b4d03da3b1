//! The command line: each command's arguments and what it prints.
//!
//! A command writes its answer to standard output and everything else to standard error. It ends with 0 if all is well,
//! with 1 if it found something wrong or could not do its work, with 2 if it was called wrongly.

mod acls;
mod backtest;
mod check;
mod completions;
mod conformance;
mod console;
mod demo;
mod demo_console;
mod demo_report;
mod dlq;
mod explain;
mod fmt;
mod guard;
mod man;
mod recorded;
mod reload;
mod rules_folder;
mod run;
mod schema;
mod tail;
mod telemetry;
mod terminal;
mod test;
mod topic_tables;
mod topics;
mod verify;
mod watched;

use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser, Subcommand};
use signal_hook::consts::{SIGINT, SIGTERM};

/// SQL rules over the telemetry of AI workloads: OTLP on Kafka in, enforcement events out.
#[derive(Debug, Parser)]
#[command(name = "lictor", version)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Shows lictor at work: an embedded broker, a small company's telemetry, incidents, the shipped rules.
    Demo(demo::Arguments),
    /// Judges the telemetry on Kafka until it is stopped.
    Run(run::Arguments),
    /// Answers gateways whether a call may go on, by the directives that hold now.
    Guard(guard::Arguments),
    /// Makes the topics that lictor writes to, and says how they are.
    Topics(topics::Arguments),
    /// Compiles a rules directory and reports everything that is wrong with it.
    Check(check::Arguments),
    /// Lays rule files out anew: one clause a line, comments kept.
    Fmt(fmt::Arguments),
    /// Shows how rules run: what they read and keep, windows, plans; or who holds time back.
    Explain(explain::Arguments),
    /// Runs the tests that lie beside the rules.
    Test(test::Arguments),
    /// Replays recorded telemetry under rules: what they would have said, and what an edit of them changes.
    Backtest(Box<backtest::Arguments>),
    /// Sums recorded telemetry up to a reference table: what is usual, for drift against a fixed past.
    Baseline(Box<backtest::baseline::Arguments>),
    /// Says of each runtime whether its recorded telemetry keeps to GenOps, clause by clause.
    Conformance(Box<conformance::Arguments>),
    /// Shows the tables that rules read: columns, types, units and the attributes they come from.
    Schema(schema::Arguments),
    /// Shows enforcement events as they are published.
    Tail(tail::Arguments),
    /// Looks after dead letters: lists them, shows one, writes their records back.
    Dlq(dlq::Arguments),
    /// Prints what a shell needs to complete lictor's commands.
    Completions(completions::Arguments),
    /// Prints the manual page of lictor, or writes one for each command.
    Man(man::Arguments),
    /// Reads the telemetry of an event once more, and says whether the event follows from it.
    Verify(verify::Arguments),
}

/// Does what the command line says.
pub(crate) fn run() -> anyhow::Result<ExitCode> {
    let CommandLine { command } = CommandLine::parse();
    match command {
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Test(arguments) => test::run(&arguments),
        Command::Run(arguments) => run::run(&arguments),
        Command::Backtest(arguments) => backtest::run(&arguments),
        Command::Baseline(arguments) => backtest::baseline::run(&arguments),
        Command::Conformance(arguments) => conformance::run(&arguments),
        Command::Guard(arguments) => guard::run(&arguments),
        Command::Topics(arguments) => topics::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Fmt(arguments) => fmt::run(&arguments),
        Command::Explain(arguments) => explain::run(&arguments),
        Command::Schema(arguments) => schema::run(&arguments),
        Command::Tail(arguments) => tail::run(&arguments),
        Command::Dlq(arguments) => dlq::run(&arguments),
        Command::Completions(arguments) => completions::run(&arguments, CommandLine::command()),
        Command::Man(arguments) => man::run(&arguments, CommandLine::command()),
        Command::Verify(arguments) => verify::run(&arguments),
    }
}

/// Whether an error means that nobody reads our output any more, as after `lictor schema | head`.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io_errors = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    io_errors.into_iter().any(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// An error and its causes in one line. Most of our errors tell their cause themselves: it is not told again.
pub(crate) fn explain(error: &anyhow::Error) -> String {
    error
        .chain()
        .skip(1)
        .map(ToString::to_string)
        .fold(error.to_string(), |text, cause| if text.contains(&cause) { text } else { format!("{text}: {cause}") })
}

/// A flag that SIGINT and SIGTERM set. A second SIGINT ends the process at once, for a person who cannot wait; a second
/// SIGTERM does not, because supervisors send it to a process and again to its group.
pub(crate) fn stop_flag() -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    // In this order: the first SIGINT finds the flag unset and only sets it.
    signal_hook::flag::register_conditional_shutdown(SIGINT, 1, Arc::clone(&stop))
        .and_then(|_| signal_hook::flag::register(SIGINT, Arc::clone(&stop)))
        .and_then(|_| signal_hook::flag::register(SIGTERM, Arc::clone(&stop)))
        .context("cannot take over SIGINT and SIGTERM")?;
    Ok(stop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn causes_are_told_once() {
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        let told = anyhow::Error::from(missing()).context("a.yaml: entity not found");
        assert_eq!(explain(&told), "a.yaml: entity not found");
        let untold = anyhow::Error::from(missing()).context("cannot read a.yaml");
        assert_eq!(explain(&untold), "cannot read a.yaml: entity not found");
    }

    #[test]
    fn tail_wants_one_cluster() {
        let parse = |arguments: &[&str]| CommandLine::try_parse_from([&["lictor", "tail"], arguments].concat());
        assert!(parse(&["-c", "lictor.yaml", "--json"]).is_ok());
        assert!(parse(&["--bootstrap", "b:1", "--topic", "t", "--from-beginning"]).is_ok());
        assert!(parse(&[]).is_err());
        assert!(parse(&["--json"]).is_err());
        assert!(parse(&["-c", "lictor.yaml", "--bootstrap", "b:1"]).is_err());
    }

    #[test]
    fn a_broken_pipe_is_told_from_other_errors() {
        let broken = anyhow::Error::from(io::Error::from(io::ErrorKind::BrokenPipe)).context("writing");
        assert!(is_broken_pipe(&broken));
        assert!(!is_broken_pipe(&anyhow::Error::from(io::Error::from(io::ErrorKind::NotFound))));
        assert!(!is_broken_pipe(&anyhow::anyhow!("broken pipe")));
    }
}
