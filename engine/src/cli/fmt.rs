//! `lictor fmt`: rule files in one layout.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use lictor_engine::rules_dir;
use sqlformat::{FormatOptions, QueryParams};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// A rules directory, or one rule file.
    rules: PathBuf,
    /// Changes nothing, and ends with 1 if something would be.
    #[arg(long)]
    check: bool,
}

/// Lays the files out anew that are not yet, and names them.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let mut out = io::stdout().lock();
    let mut is_well = true;
    for file in rules_dir::rule_files(&arguments.rules)? {
        let path = if arguments.rules.is_dir() { arguments.rules.join(&file.file) } else { arguments.rules.clone() };
        let Some(laid_out) = laid_out(&file.text) else {
            writeln!(
                io::stderr(),
                "{}: left as it is: a new layout would change more than white space, or never settles",
                path.display()
            )?;
            is_well = false;
            continue;
        };
        if laid_out == file.text {
            continue;
        }
        if arguments.check {
            is_well = false;
        } else {
            fs::write(&path, laid_out).with_context(|| format!("{} cannot be written", path.display()))?;
        }
        writeln!(out, "{}", path.display())?;
    }
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The formatter settles after so many passes, or never.
const PASSES_MAX: usize = 4;

/// The text in our layout; none if that has other words, texts or comments, or would be laid out in another way again.
fn laid_out(text: &str) -> Option<String> {
    let mut settled = text.to_owned();
    for _ in 0..PASSES_MAX {
        let next = laid_out_once(&settled)?;
        if next == settled {
            return Some(settled);
        }
        settled = next;
    }
    None
}

fn laid_out_once(text: &str) -> Option<String> {
    let options = FormatOptions {
        lines_between_queries: 2,
        max_inline_block: 100,
        max_inline_arguments: Some(100),
        joins_as_top_level: true,
        ..FormatOptions::default()
    };
    let plain = sqlformat::format(text, &QueryParams::None, &options).trim_end().to_owned() + "\n";
    // How a rule speaks has a line of its own, unless the words stand in a text or a comment.
    let ours = [" EMIT ON ", " GAP FILL"].iter().fold(plain.clone(), |text, clause| {
        let own_line = text.replace(clause, &format!("\n{}", clause.trim_start()));
        if words(&own_line) == words(&text) { own_line } else { text }
    });
    (words(&ours) == words(text)).then_some(ours)
}

/// What a text says, whatever its layout: everything but white space between words; texts and names in quotes as they
/// are, and comments line by line.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let end = match first {
            '\'' | '"' => rest[1..].find(first).map_or(rest.len(), |end| end + 2),
            '-' if rest.starts_with("--") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            c if c.is_alphanumeric() || c == '_' => {
                rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len())
            }
            c => c.len_utf8(),
        };
        words.push(rest[..end].trim_end().to_owned());
        rest = rest[end..].trim_start();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: &str = "-- Warns  of many calls.\nCREATE RULE calls WITH (action='warn', reason_code = 'x_a  b') AS
        SELECT s.team, window_start, window_end, count(*) AS observed /* so many */ FROM
        TUMBLE(spans, event_time, INTERVAL '1 minute') AS s WHERE s.name <> 'EMIT ON UPDATE' -- not those
        GROUP BY s.team, window_start, window_end HAVING count(*) >= 3 EMIT ON UPDATE;CREATE VIEW v AS SELECT 1;";

    #[test]
    fn a_rule_is_laid_out_once_and_says_what_it_said() {
        let once = laid_out(RULE).unwrap();
        assert!(once.starts_with("-- Warns  of many calls.\nCREATE RULE calls\n"), "{once}");
        assert!(once.contains("\n  s.name <> 'EMIT ON UPDATE' -- not those\n"), "{once}");
        assert!(once.contains("reason_code = 'x_a  b'") && once.contains("/* so many */"), "{once}");
        assert!(once.contains("count(*) >= 3\nEMIT ON UPDATE;\n\nCREATE VIEW v AS"), "{once}");
        assert_eq!(laid_out(&once).as_ref(), Some(&once));
    }

    #[test]
    fn every_rule_that_ships_can_be_laid_out_and_has_settled_then() {
        let folder = tempfile::tempdir().unwrap();
        let shipped = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../queries/rules");
        for file in rules_dir::rule_files(&shipped).unwrap() {
            let once = laid_out(&file.text).unwrap_or_else(|| panic!("{} would change", file.file));
            assert_eq!(laid_out(&once).as_ref(), Some(&once), "{}", file.file);
            fs::write(folder.path().join(file.file.replace('/', "_")), once).unwrap();
        }
        let rules = rules_dir::rule_files(folder.path()).unwrap();
        assert!(rules.len() > 30 && rules.iter().all(|rule| !rule.text.is_empty()));
    }

    #[test]
    fn only_what_is_not_laid_out_yet_is_written_and_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("calls.sql");
        fs::write(&path, RULE).unwrap();
        let fmt = |check| run(&Arguments { rules: folder.path().to_owned(), check }).unwrap();
        assert_eq!(format!("{:?}", fmt(true)), format!("{:?}", ExitCode::FAILURE));
        assert_eq!(fs::read_to_string(&path).unwrap(), RULE, "it only looks");
        assert_eq!(format!("{:?}", fmt(false)), format!("{:?}", ExitCode::SUCCESS));
        assert_eq!(Some(fs::read_to_string(&path).unwrap()), laid_out(RULE));
        assert_eq!(format!("{:?}", fmt(true)), format!("{:?}", ExitCode::SUCCESS));
    }
}
