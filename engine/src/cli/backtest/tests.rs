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
fn times_may_be_short() {
    let at = |text| EventTime::from_rfc3339(text).unwrap();
    assert_eq!(parse_time("2026-03-01").unwrap(), at("2026-03-01T00:00:00Z"));
    assert_eq!(parse_time("2026-03-01T08:30Z").unwrap(), at("2026-03-01T08:30:00Z"));
    assert_eq!(parse_time("2026-03-01T08:30+01:00").unwrap(), at("2026-03-01T07:30:00Z"));
    assert_eq!(parse_time("2026-03-01T08:30:15.5Z").unwrap(), at("2026-03-01T08:30:15.5Z"));
    for wrong in ["", "today", "2026-13-01", "2026-03-01T08:30", "2026-03-01T08:30:15", "ääääääääää"] {
        assert!(parse_time(wrong).unwrap_err().starts_with("is no instant: write "), "{wrong}");
    }
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

#[test]
fn the_last_days_are_until_now_and_the_lead_is_before_them() {
    let now = EventTime::from_rfc3339("2026-03-08T00:00:00Z").unwrap();
    let arguments = parse(&["r", "--bootstrap", "b:1", "--last", "7d", "--lead", "1d"]).unwrap();
    let range = range_of(&arguments, now).unwrap();
    let days = [range.read_from, range.from, range.to].map(|at| at.unwrap().to_rfc3339()[..10].to_owned());
    assert_eq!(days, ["2026-02-28", "2026-03-01", "2026-03-08"]);
    let arguments = parse(&["r", "--bootstrap", "b:1", "--lead", "1d"]).unwrap();
    assert!(range_of(&arguments, now).is_err());
}

#[test]
fn brokers_alone_are_configuration_enough() {
    let config = config_of(&parse(&["some rules", "--bootstrap", "b:1,c:2"]).unwrap()).unwrap();
    assert_eq!((config.kafka.bootstrap_servers(), config.rules), ("b:1,c:2", PathBuf::from("some rules")));
    assert_eq!(config.topics.signals().len(), 3);
}
