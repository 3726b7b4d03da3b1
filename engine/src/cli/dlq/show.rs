//! `lictor dlq show`: all that is known of one dead letter.
//!
//! Keys, values of headers and payloads are somebody's: they are only shown if that is asked for, and no more of them
//! than was asked for.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::process::ExitCode;

use anyhow::{anyhow, bail};
use clap::Args;
use lictor_connectors::NextOffset;
use lictor_engine::aside::without_quoted;
use lictor_engine::config::Config;
use lictor_engine::dead_letters::{Letter, LetterId};
use serde_json::Value;

use super::{Letters, Place};
use crate::cli::terminal::plain;

/// Bytes in a line of hexadecimal numbers.
const HEX_WIDTH: usize = 16;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Which letter, as `lictor dlq list` names it: partition:offset of the dead-letter topic.
    letter: LetterId,
    #[command(flatten)]
    pub(super) place: Place,
    /// Show key, payload and what headers and error say, too. There may be prompts and secrets in them.
    #[arg(long)]
    payload: bool,
    /// How many bytes of the payload are shown.
    #[arg(long, default_value_t = 4_096, value_name = "BYTES")]
    bytes: usize,
    /// Write the payload as it is, all of it, and nothing else: for a file or another program.
    #[arg(long, conflicts_with_all = ["payload", "bytes"])]
    raw: bool,
}

pub(super) fn run(arguments: &Arguments, config: &Config) -> anyhow::Result<ExitCode> {
    let mut letters = Letters::open(config)?;
    let LetterId { partition, offset } = arguments.letter;
    let Some(done) = letters.partitions.get(&partition).map(|(_, done)| done.clone()) else {
        bail!("`{}` has no partition {partition}", letters.topic);
    };
    let mut found = None;
    letters.read(partition, NextOffset(offset), &mut |letter| {
        found = Some(letter);
        ControlFlow::Break(())
    })?;
    let letter = found
        .filter(|letter| letter.id == arguments.letter)
        .ok_or_else(|| anyhow!("`{}` has no letter {} (any more)", letters.topic, arguments.letter))?;
    let mut out = io::stdout().lock();
    if arguments.raw {
        out.write_all(letter.payload.as_deref().unwrap_or_default())?;
    } else {
        let shown = arguments.payload.then_some(arguments.bytes);
        out.write_all(text_of(&letter, done.has(offset), shown).as_bytes())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A letter for people; with so many bytes of its payload, if they are asked for.
fn text_of(letter: &Letter, is_replayed: bool, shown: Option<usize>) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "{name:12}{}", plain(value));
    };
    line("letter", &letter.id.to_string());
    line("put aside", &format!("{} by {}", letter.at.to_rfc3339(), letter.application));
    match &letter.origin {
        Some(origin) => line("record", &format!("{} offset {}", origin.partition, origin.offset)),
        None => line("record", "no header says where it was read"),
    }
    line("reason", &letter.reason);
    line("error", &if shown.is_some() { letter.message.clone() } else { without_quoted(&letter.message) });
    let times = if letter.replays == 1 { "time" } else { "times" };
    line("replays", &format!("{} {times} before it was put aside", letter.replays));
    line("replayed", if is_replayed { "yes" } else { "no" });
    line("key", &part_of(letter.key.as_deref(), letter.omitted.key_bytes, shown.is_some()));
    for (name, value) in &letter.headers {
        line("header", &format!("{name}: {}", part_of(Some(value), 0, shown.is_some())));
    }
    if letter.omitted.header_bytes > 0 {
        line("headers", &format!("{} bytes, too many to be kept", letter.omitted.header_bytes));
    }
    let is_part = if letter.is_part() { ", only the rejected items" } else { "" };
    let is_kept = if letter.omitted.payload_bytes > 0 { ", too many to be kept" } else { "" };
    line("payload", &format!("{} bytes{is_part}{is_kept}", letter.bytes()));
    if let (Some(bytes_max), Some(payload)) = (shown, &letter.payload) {
        text.push_str(&payload_of(payload, bytes_max));
    }
    text
}

/// A key or a header's value: how long it is, or what it is.
fn part_of(part: Option<&[u8]>, omitted_bytes: u64, is_shown: bool) -> String {
    match part {
        _ if omitted_bytes > 0 => format!("{omitted_bytes} bytes, too many to be kept"),
        None => "none".to_owned(),
        Some(bytes) if is_shown => String::from_utf8_lossy(bytes).into_owned(),
        Some(bytes) => format!("{} bytes", bytes.len()),
    }
}

/// The beginning of a payload: JSON laid out, else numbers and letters.
fn payload_of(payload: &[u8], bytes_max: usize) -> String {
    let laid_out = serde_json::from_slice::<Value>(payload).ok().and_then(|v| serde_json::to_string_pretty(&v).ok());
    let (mut text, whole) = match laid_out {
        Some(json) => {
            let end = json.floor_char_boundary(bytes_max);
            // Line by line: line breaks are part of the layout, what else is no letter is escaped in JSON already.
            (json[..end].lines().fold(String::new(), |text, line| text + &plain(line) + "\n"), end == json.len())
        }
        None => (hex_of(&payload[..bytes_max.min(payload.len())]), payload.len() <= bytes_max),
    };
    if !whole {
        let _ = writeln!(text, "… (--bytes shows more, --raw writes all)");
    }
    text
}

fn hex_of(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (number, row) in bytes.chunks(HEX_WIDTH).enumerate() {
        let hex: Vec<String> = row.iter().map(|byte| format!("{byte:02x}")).collect();
        let letters: String = row
            .iter()
            .map(|byte| if byte.is_ascii_graphic() || *byte == b' ' { char::from(*byte) } else { '.' })
            .collect();
        let _ = writeln!(text, "{:08x}  {:47}  {letters}", number * HEX_WIDTH, hex.join(" "));
    }
    text
}

#[cfg(test)]
mod tests {
    use lictor_connectors::TopicPartition;
    use lictor_engine::dead_letters::{Omitted, Origin};
    use lictor_schemas::time::EventTime;

    use super::*;

    const SECRET: &str = "tell me a secret";

    fn letter(payload: &[u8]) -> Letter {
        Letter {
            id: LetterId { partition: 0, offset: 7 },
            at: EventTime(0),
            origin: Some(Origin { partition: TopicPartition::new("otlp_spans", 3), offset: 42 }),
            reason: "malformed_json".to_owned(),
            message: format!("invalid type: string \"{SECRET}\", expected u64"),
            application: "lictor".to_owned(),
            is_ours: true,
            key: Some(SECRET.as_bytes().to_vec()),
            payload: Some(payload.to_vec()),
            headers: vec![("authorization".to_owned(), SECRET.as_bytes().to_vec())],
            omitted: Omitted::default(),
            replays: 0,
        }
    }

    #[test]
    fn nothing_that_may_be_a_secret_is_shown_unasked() {
        let text = text_of(&letter(SECRET.as_bytes()), false, None);
        assert!(!text.contains(SECRET), "{text}");
        for part in ["otlp_spans[3] offset 42", "malformed_json", "authorization: 16 bytes", "payload     16 bytes"] {
            assert!(text.contains(part), "{part}\n{text}");
        }
    }

    #[test]
    fn what_is_asked_for_is_shown_and_no_more_than_that() {
        let text = text_of(&letter(SECRET.as_bytes()), true, Some(8));
        assert!(text.contains("authorization: tell me a secret") && text.contains("replayed    yes"), "{text}");
        assert!(text.contains("00000000  74 65 6c 6c 20 6d 65 20"), "{text}");
        assert!(text.ends_with("  tell me \n… (--bytes shows more, --raw writes all)\n"), "{text}");
    }

    #[test]
    fn json_is_laid_out_and_other_bytes_are_numbers() {
        assert_eq!(payload_of(br#"{"a":[1,2]}"#, 100), "{\n  \"a\": [\n    1,\n    2\n  ]\n}\n");
        assert_eq!(payload_of(&[0, 0x1b, b'a'], 100), format!("00000000  {:47}  ..a\n", "00 1b 61"));
        assert!(payload_of("[\"äääää\"]".as_bytes(), 6).contains("--raw writes all"), "cut inside a letter");
    }

    #[test]
    fn nothing_gives_a_terminal_orders() {
        let odd = Letter { key: Some(b"\x1b[2J".to_vec()), message: "\u{1b}]0;x".to_owned(), ..letter(b"\x1b[2J") };
        assert!(!text_of(&odd, false, Some(100)).contains('\u{1b}'));
    }
}
