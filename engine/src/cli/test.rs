//! `lictor test`: runs the tests that lie beside the rules.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use lictor_engine::rule_test::{Outcome, run_directory};

use super::terminal::{Paint, Painter};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// A rules directory, whose `*.test.yaml` files are run, or one such file.
    rules: PathBuf,
}

/// Prints a line per test and what went wrong; ends with 1 if a test failed or there was none.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let outcomes = run_directory(&arguments.rules)?;
    let failed = report(&outcomes, &mut io::stdout().lock(), Painter::for_stream(&io::stdout()))?;
    Ok(if failed > 0 || outcomes.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Writes the outcomes; how many tests failed.
fn report(outcomes: &[Outcome], to: &mut impl Write, painter: Painter) -> io::Result<usize> {
    for Outcome { file, name, faults } in outcomes {
        let verdict =
            if faults.is_empty() { painter.paint(Paint::Green, "ok    ") } else { painter.paint(Paint::Red, "FAILED") };
        writeln!(to, "{verdict} {}: {name}", file.display())?;
        for line in faults.iter().flat_map(|fault| fault.lines()) {
            let paint = match line.chars().next() {
                Some('-') => Paint::Red,
                Some('+') => Paint::Green,
                _ => Paint::Dim,
            };
            writeln!(to, "       {}", painter.paint(paint, line))?;
        }
    }
    let failed = outcomes.iter().filter(|o| !o.faults.is_empty()).count();
    writeln!(to, "{} passed, {failed} failed", outcomes.len() - failed)?;
    Ok(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_shows_what_was_expected_and_what_was_found() {
        let outcome = |faults: &[&str]| Outcome {
            file: PathBuf::from("a.test.yaml"),
            name: "it fires".into(),
            faults: faults.iter().map(|f| (*f).to_owned()).collect(),
        };
        let mut text = Vec::new();
        let outcomes = [outcome(&[]), outcome(&["step 2: - expected, + found", "- {}", "+ {}"])];
        assert_eq!(report(&outcomes, &mut text, Painter { color: false }).unwrap(), 1);
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains("ok     a.test.yaml: it fires\nFAILED a.test.yaml: it fires\n"), "{text}");
        assert!(text.ends_with("       + {}\n1 passed, 1 failed\n"), "{text}");
    }
}
