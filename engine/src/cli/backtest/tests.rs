//! How the command line is read.

use clap::Parser;

use super::*;

#[derive(Debug, Parser)]
struct CommandLine {
    #[command(flatten)]
    arguments: Arguments,
}

fn parse(arguments: &[&str]) -> Result<Arguments, clap::Error> {
    let words = ["backtest"].iter().chain(arguments);
    CommandLine::try_parse_from(words).map(|line| line.arguments)
}

#[test]
fn what_contradicts_itself_is_refused() {
    assert!(parse(&["r", "--files", "a", "b", "--signal", "logs", "--fail-on", "events,blocks"]).is_ok());
    assert!(parse(&["-c", "lictor.yaml", "--last", "7d", "--lead", "1d", "--offsets", "t[0]=1..2"]).is_ok());
    assert!(parse(&["r", "--bootstrap", "b:1", "--fail-on", "events,changes", "--against", "HEAD"]).is_ok());
    for wrong in [
        &["--files", "a"][..],
        &["r", "--last", "7d", "--from", "2026-03-01"],
        &["r", "--files", "a", "--bootstrap", "b:1"],
        &["r", "--files", "a", "--offsets", "t[0]=1..2"],
        &["r", "--bootstrap", "b:1", "--signal", "logs"],
        &["r", "--bootstrap", "b:1", "--fail-on", "luck"],
        &["r", "--bootstrap", "b:1", "--last", "a week"],
        &["r", "--bootstrap", "b:1", "--fail-on", "added"],
        &["r", "--bootstrap", "b:1", "--fail-on", "events,changes"],
    ] {
        assert!(parse(wrong).is_err(), "{wrong:?}");
    }
}
