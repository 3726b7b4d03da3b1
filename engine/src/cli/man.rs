//! `lictor man`: manual pages, made of what `--help` is made of.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Command};
use clap_mangen::Man;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Write lictor.1 and a page for each command to this directory; otherwise the page of lictor is printed.
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// Prints the page of lictor, or writes all.
pub(super) fn run(arguments: &Arguments, command: Command) -> anyhow::Result<ExitCode> {
    let pages = pages(command)?;
    match &arguments.dir {
        None => io::stdout().lock().write_all(&pages[0].1)?,
        Some(dir) => {
            fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
            for (name, page) in &pages {
                let path = dir.join(name);
                fs::write(&path, page).with_context(|| path.display().to_string())?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// File names and pages: that of lictor, then one for each command, `lictor-run.1`.
fn pages(command: Command) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut command = command.disable_help_subcommand(true);
    // Gives the commands the names by which they are called: `lictor test`, whose page is lictor-test.
    command.build();
    let version = env!("CARGO_PKG_VERSION");
    let of_commands: Vec<Command> = command.get_subcommands().map(|c| c.clone().version(version)).collect();
    [command].into_iter().chain(of_commands).map(page).collect()
}

fn page(command: Command) -> io::Result<(String, Vec<u8>)> {
    let man = Man::new(command);
    let mut page = Vec::new();
    man.render(&mut page)?;
    Ok((man.get_filename(), page))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;
    use tempfile::TempDir;

    use super::*;
    use crate::cli::CommandLine;

    #[test]
    fn every_command_has_a_page() {
        let dir = TempDir::new().unwrap();
        run(&Arguments { dir: Some(dir.path().join("man1")) }, CommandLine::command()).unwrap();
        let read = |name: &str| fs::read_to_string(dir.path().join("man1").join(name)).unwrap();
        assert!(read("lictor.1").contains("lictor\\-test(1)"), "{}", read("lictor.1"));
        for command in CommandLine::command().get_subcommands() {
            let page = read(&format!("lictor-{}.1", command.get_name()));
            let title = format!(".SH NAME\nlictor\\-{} \\- ", command.get_name().replace('-', "\\-"));
            assert!(page.contains(&title), "{page}");
        }
        let test = read("lictor-test.1");
        assert!(test.contains("lictor test") && test.contains("\\-\\-min\\-coverage"), "{test}");
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_an_error() {
        let file = TempDir::new().unwrap();
        let in_the_way = file.path().join("file");
        fs::write(&in_the_way, "").unwrap();
        let error = run(&Arguments { dir: Some(in_the_way) }, CommandLine::command()).unwrap_err();
        assert!(format!("{error:#}").contains("file"), "{error:#}");
    }
}
