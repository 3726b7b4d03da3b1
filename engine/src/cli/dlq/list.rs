//! `lictor dlq list`: a line for each dead letter, and how many there are of each kind.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::process::ExitCode;

use clap::Args;
use lictor_engine::aside::without_quoted;
use lictor_engine::config::Config;
use lictor_engine::dead_letters::{Letter, LetterId};
use lictor_schemas::time::EventTime;
use serde_json::{Value, json};

use super::{Choice, Letters, Place};
use crate::cli::terminal::{Paint, Painter, columns, plain};

/// A letter in the list takes some hundred bytes of memory.
const LIMIT_MAX: usize = 1_000_000;

/// A fault is told in so many characters; `show` has all of them.
const MESSAGE_CHARS: usize = 100;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) place: Place,
    #[command(flatten)]
    choice: Choice,
    /// Show so many, the latest.
    #[arg(long, default_value_t = 100, value_parser = parse_limit)]
    limit: usize,
    /// Only those that were not replayed.
    #[arg(long)]
    open: bool,
    /// One JSON object per line.
    #[arg(long)]
    json: bool,
}

fn parse_limit(text: &str) -> Result<usize, String> {
    let limit = text.parse::<usize>().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
    limit.ok_or_else(|| format!("is no number from 1 to {LIMIT_MAX}"))
}

/// What is listed of a letter: nothing that could be somebody's prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    id: LetterId,
    at: EventTime,
    /// Topic, partition and offset of the record.
    origin: Option<(String, i32, i64)>,
    reason: String,
    message: String,
    application: String,
    bytes: u64,
    replays: u32,
    is_replayed: bool,
    is_whole: bool,
}

impl Entry {
    fn of(letter: Letter, is_replayed: bool) -> Self {
        let (bytes, is_whole) = (letter.bytes(), letter.omitted.is_nothing());
        let origin = letter.origin.map(|o| (o.partition.topic.to_string(), o.partition.partition, o.offset));
        Self {
            id: letter.id,
            at: letter.at,
            origin,
            reason: letter.reason,
            message: without_quoted(&letter.message),
            application: letter.application,
            bytes,
            replays: letter.replays,
            is_replayed,
            is_whole,
        }
    }

    fn state(&self) -> &'static str {
        match (self.is_replayed, self.replays) {
            (true, _) => "replayed",
            (false, 0) => "open",
            (false, _) => "died again",
        }
    }

    fn to_json(&self) -> Value {
        let origin = self.origin.as_ref();
        json!({
            "letter": self.id.to_string(),
            "at": self.at.to_rfc3339(),
            "state": self.state(),
            "topic": origin.map(|o| &o.0),
            "partition": origin.map(|o| o.1),
            "offset": origin.map(|o| o.2),
            "reason": self.reason,
            "message": self.message,
            "application": self.application,
            "bytes": self.bytes,
            "is_whole": self.is_whole,
            "replays": self.replays,
        })
    }

    fn row(&self) -> [String; 6] {
        let origin = self.origin.as_ref().map_or_else(|| "?".to_owned(), |(t, p, o)| format!("{t}[{p}]@{o}"));
        let size = format!("{} B{}", self.bytes, if self.is_whole { "" } else { " (omitted)" });
        let mut message: String = self.message.chars().take(MESSAGE_CHARS).collect();
        if message.len() < self.message.len() {
            message.push('…');
        }
        let reason = format!("{}: {message}", self.reason);
        let cells = [self.id.to_string(), self.at.to_rfc3339(), self.state().to_owned(), origin, size, reason];
        cells.map(|cell| plain(&cell).into_owned())
    }
}

/// What was found.
#[derive(Default)]
struct Found {
    /// The latest, at most as many as are asked for.
    entries: VecDeque<Entry>,
    /// Source topic and reason of all that were chosen.
    kinds: BTreeMap<(String, String), u64>,
}

impl Found {
    fn add(&mut self, entry: Entry) {
        let topic = entry.origin.as_ref().map_or("?", |origin| &origin.0).to_owned();
        *self.kinds.entry((topic, entry.reason.clone())).or_default() += 1;
        self.entries.push_back(entry);
    }

    /// Leaves the latest of all partitions.
    fn cut(&mut self, limit: usize) {
        self.entries.make_contiguous().sort_by_key(|entry| (entry.at, entry.id));
        let surplus = self.entries.len().saturating_sub(limit);
        self.entries.drain(..surplus);
    }
}

pub(super) fn run(arguments: &Arguments, config: &Config) -> anyhow::Result<ExitCode> {
    let mut letters = Letters::open(config)?;
    let selection = arguments.choice.selection(&[]);
    let mut found = Found::default();
    let partitions: Vec<_> = letters.partitions.iter().map(|(p, (_, done))| (*p, done.clone())).collect();
    for (partition, done) in partitions {
        let from = letters.first_at(partition, selection.from)?;
        letters.read(partition, from, &mut |letter| {
            let is_replayed = done.has(letter.id.offset);
            if selection.takes(&letter) && !(arguments.open && is_replayed) {
                found.add(Entry::of(letter, is_replayed));
            }
            if found.entries.len() >= 2 * arguments.limit.max(500) {
                found.cut(arguments.limit);
            }
            ControlFlow::Continue(())
        })?;
    }
    found.cut(arguments.limit);
    let mut out = io::stdout().lock();
    write(&found, arguments.json, &mut out)?;
    tell(&found, &mut io::stderr().lock(), Painter::for_stream(&io::stderr()))?;
    Ok(ExitCode::SUCCESS)
}

fn write(found: &Found, as_json: bool, to: &mut impl Write) -> io::Result<()> {
    if as_json {
        return found.entries.iter().try_for_each(|entry| writeln!(to, "{}", entry.to_json()));
    }
    let rows: Vec<_> = found.entries.iter().map(Entry::row).collect();
    columns(&rows).iter().try_for_each(|line| writeln!(to, "{line}"))
}

/// How many there are of each kind, beside the list: it may be cut.
fn tell(found: &Found, to: &mut impl Write, painter: Painter) -> io::Result<()> {
    let total: u64 = found.kinds.values().sum();
    let shown = found.entries.len();
    writeln!(to, "{}", painter.paint(Paint::Bold, &format!("{total} dead letters, {shown} shown")))?;
    let kinds = found.kinds.iter();
    kinds
        .into_iter()
        .try_for_each(|((topic, reason), count)| writeln!(to, "  {count} {} of {}", plain(reason), plain(topic)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(offset: i64, at_ms: i64) -> Entry {
        Entry {
            id: LetterId { partition: 0, offset },
            at: EventTime::from_ms(at_ms),
            origin: Some(("otlp_spans".to_owned(), 3, 42)),
            reason: "malformed_json".to_owned(),
            message: "cut off".to_owned(),
            application: "lictor".to_owned(),
            bytes: 17,
            replays: 0,
            is_replayed: false,
            is_whole: true,
        }
    }

    fn written(found: &Found, as_json: bool) -> String {
        let mut text = Vec::new();
        write(found, as_json, &mut text).unwrap();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn a_line_says_which_when_from_where_and_why() {
        let mut found = Found::default();
        found.add(entry(7, 0));
        let expected = "0:7  1970-01-01T00:00:00Z  open  otlp_spans[3]@42  17 B  malformed_json: cut off\n";
        assert_eq!(written(&found, false), expected);
        let json: Value = serde_json::from_str(&written(&found, true)).unwrap();
        assert_eq!((&json["letter"], &json["offset"], &json["state"]), (&json!("0:7"), &json!(42), &json!("open")));
    }

    #[test]
    fn a_letter_gives_a_terminal_no_orders() {
        let mut found = Found::default();
        found.add(Entry { reason: "\u{1b}[2J".to_owned(), ..entry(1, 0) });
        assert!(!written(&found, false).contains('\u{1b}'));
        let mut told = Vec::new();
        tell(&found, &mut told, Painter { color: false }).unwrap();
        assert!(!told.contains(&0x1b));
    }

    #[test]
    fn the_latest_are_kept_and_all_are_counted() {
        let mut found = Found::default();
        (0..10).for_each(|n| found.add(entry(n, 100 - n)));
        found.cut(3);
        let kept: Vec<i64> = found.entries.iter().map(|entry| entry.id.offset).collect();
        assert_eq!(kept, [2, 1, 0]);
        assert_eq!(found.kinds[&("otlp_spans".to_owned(), "malformed_json".to_owned())], 10);
    }

    #[test]
    fn what_was_replayed_and_what_died_again_is_said() {
        assert_eq!(Entry { is_replayed: true, ..entry(0, 0) }.state(), "replayed");
        assert_eq!(Entry { replays: 1, ..entry(0, 0) }.state(), "died again");
    }

    #[test]
    fn a_limit_is_a_number_within_memory() {
        assert_eq!(parse_limit("5"), Ok(5));
        for text in ["0", "-1", "x", "1000001"] {
            assert!(parse_limit(text).is_err(), "{text}");
        }
    }
}
