//! Dead letters, as whoever looks after them reads them: what was put aside, why, and whether it was replayed.
//!
//! A dead letter is a record with its own key, bytes and headers, and Kafka Connect's headers around it
//! ([`DeadLetter`](crate::aside::DeadLetter) writes them). Connectors write the same, so theirs are read, too; only
//! what lictor has put aside is replayed without a topic being named.
//!
//! Invariant: nothing here reads or writes a topic.

mod done;
mod replay;

use std::fmt;
use std::str::FromStr;

use lictor_connectors::{Header, RecordRef, TopicPartition};
use lictor_schemas::time::EventTime;

pub use done::{Done, DoneError, Walk};
pub use replay::{Account, Fate, Outlet, Replay};

use crate::aside::{CLASS_PREFIX, CONNECT_PREFIX, HEADERS_OMITTED, INVALID_ITEMS, KEY_OMITTED, PAYLOAD_OMITTED};

/// Counts on a record how often it was replayed.
pub const REPLAYS: &str = "lictor-replays";

/// Names on a replayed record the dead letter that it was.
pub const REPLAY_OF: &str = "lictor-replay-of";

/// Where a letter lies in the dead-letter topic, written `partition:offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LetterId {
    /// The partition of the dead-letter topic.
    pub partition: i32,
    /// The offset in it.
    pub offset: i64,
}

impl fmt::Display for LetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.partition, self.offset)
    }
}

impl FromStr for LetterId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text.split_once(':').map(|(partition, offset)| (partition.parse(), offset.parse()));
        match parts {
            Some((Ok(partition), Ok(offset))) if partition >= 0 && offset >= 0 => Ok(Self { partition, offset }),
            _ => Err("is no letter: write partition:offset, such as 0:17".to_owned()),
        }
    }
}

/// Where the record of a letter was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The partition.
    pub partition: TopicPartition,
    /// The offset.
    pub offset: i64,
}

/// Bytes that a letter goes without because they were too many; 0 if it has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Omitted {
    /// Of the payload.
    pub payload_bytes: u64,
    /// Of the key.
    pub key_bytes: u64,
    /// Of all the headers together.
    pub header_bytes: u64,
}

impl Omitted {
    /// Whether the letter has everything.
    #[must_use]
    pub fn is_nothing(self) -> bool {
        self == Self::default()
    }
}

/// A dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// Where it lies.
    pub id: LetterId,
    /// When it was put aside, by the broker's timestamp.
    pub at: EventTime,
    /// Where the record was read; none if no header says it, and then this is no dead letter.
    pub origin: Option<Origin>,
    /// What kind of fault it is; a connector's letter has the name of a class.
    pub reason: String,
    /// The fault in words, which may quote the record.
    pub message: String,
    /// Who has put it aside: the application, or the connector.
    pub application: String,
    /// Whether lictor has put it aside.
    pub is_ours: bool,
    /// The record's key.
    pub key: Option<Vec<u8>>,
    /// The record's bytes, or those of the items of it that were rejected.
    pub payload: Option<Vec<u8>>,
    /// The record's own headers.
    pub headers: Vec<Header>,
    /// What was too long.
    pub omitted: Omitted,
    /// How often the record has been replayed already.
    pub replays: u32,
}

impl Letter {
    /// Reads a record of a dead-letter topic.
    #[must_use]
    pub fn of(record: &RecordRef<'_>) -> Self {
        let all = record.headers.to_vec();
        let text = |name: &str| text_of(&all, name);
        let why = |name: &str| text(&format!("{CONNECT_PREFIX}{name}"));
        let number = |name: &str| text(name).and_then(|text| text.parse().ok());
        let class = why("class.name").or_else(|| why("exception.class.name")).unwrap_or_default();
        let reason = class.strip_prefix(CLASS_PREFIX);
        let omitted = Omitted {
            payload_bytes: number(PAYLOAD_OMITTED).unwrap_or_default(),
            key_bytes: number(KEY_OMITTED).unwrap_or_default(),
            header_bytes: number(HEADERS_OMITTED).unwrap_or_default(),
        };
        let coordinates = why("partition").and_then(|p| p.parse().ok()).zip(why("offset").and_then(|o| o.parse().ok()));
        let origin = why("topic")
            .zip(coordinates)
            .map(|(topic, (partition, offset))| Origin { partition: TopicPartition::new(&topic, partition), offset });
        // What cannot be read counts as too often.
        let replays = text(REPLAYS).map_or(0, |text| text.parse().unwrap_or(u32::MAX));
        Self {
            id: LetterId { partition: record.partition, offset: record.offset },
            at: EventTime::from_ms(record.timestamp_ms),
            origin,
            reason: reason.unwrap_or(&class).to_owned(),
            message: why("exception.message").unwrap_or_default(),
            application: why("connector.name").unwrap_or_default(),
            is_ours: reason.is_some(),
            key: record.key.map(<[u8]>::to_vec),
            payload: record.payload.map(<[u8]>::to_vec),
            headers: all.into_iter().filter(|(name, _)| !is_of_letter(name)).collect(),
            omitted,
            replays,
        }
    }

    /// Whether it holds some items of a record, of which the others were used.
    #[must_use]
    pub fn is_part(&self) -> bool {
        self.is_ours && self.reason == INVALID_ITEMS
    }

    /// How many bytes the record has, or its rejected items.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let here = self.payload.as_ref().map_or(0, |payload| payload.len() as u64);
        here.max(self.omitted.payload_bytes)
    }
}

/// Whether a header was put on a record with its being put aside, or with its being replayed.
fn is_of_letter(name: &str) -> bool {
    name.starts_with(CONNECT_PREFIX)
        || [PAYLOAD_OMITTED, KEY_OMITTED, HEADERS_OMITTED, REPLAYS, REPLAY_OF].contains(&name)
}

/// The last header of a name: a letter's own come behind those of the record.
fn text_of(headers: &[Header], name: &str) -> Option<String> {
    let found = headers.iter().rev().find(|(found, _)| found == name)?;
    Some(String::from_utf8_lossy(&found.1).into_owned())
}

/// Which letters are meant; what is not said excludes none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// These, and no others.
    pub letters: Vec<LetterId>,
    /// The topic that the record was read from.
    pub topic: Option<String>,
    /// The partition of that topic.
    pub partition: Option<i32>,
    /// The kind of fault.
    pub reason: Option<String>,
    /// A part of the fault in words, whatever the case.
    pub error: Option<String>,
    /// Put aside then or later.
    pub from: Option<EventTime>,
    /// Put aside before.
    pub to: Option<EventTime>,
}

impl Selection {
    /// Whether a letter is meant.
    #[must_use]
    pub fn takes(&self, letter: &Letter) -> bool {
        let origin = letter.origin.as_ref().map(|origin| &origin.partition);
        let has = |text: &String| letter.message.to_lowercase().contains(&text.to_lowercase());
        (self.letters.is_empty() || self.letters.contains(&letter.id))
            && self.topic.as_ref().is_none_or(|topic| origin.is_some_and(|origin| *origin.topic == **topic))
            && self.partition.is_none_or(|partition| origin.is_some_and(|origin| origin.partition == partition))
            && self.reason.as_ref().is_none_or(|reason| letter.reason == *reason)
            && self.error.as_ref().is_none_or(has)
            && self.from.is_none_or(|from| letter.at >= from)
            && self.to.is_none_or(|to| letter.at < to)
    }
}

#[cfg(test)]
mod tests;
