//! The records of the state topic.
//!
//! | key | value |
//! |---|---|
//! | `m` | the manifest: position, watermarks, rules, where the log itself stands |
//! | `d/<parity>/<number>/<chunk>` | rows that one commit has changed |
//! | `b/<bucket>/<chunk>` | all rows of a bucket, which makes earlier changes of them superfluous |
//! | `h/<rule>/<level>/<chunk>` | what a rule's window functions look back at |
//! | `r/<rule>` | the rule's head, of which events about its directives are made even when it is gone |
//! | `s/<rule>/<subject>` | what was said about a subject; a tombstone when there is nothing to remember |

use std::collections::BTreeMap;
use std::fmt;

use lictor_connectors::NextOffset;
use lictor_schemas::tables::Signal;
use lictor_schemas::time::{EventTime, Window};
use serde::{Deserialize, Serialize};

use crate::exchange::parcel::MarkSaid;

/// A record for the state topic; without a value it is a tombstone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateRecord {
    /// What is replaced.
    pub key: Key,
    /// By what.
    pub value: Option<Vec<u8>>,
}

/// The key of a record of the state topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// The manifest.
    Manifest,
    /// What one commit has changed.
    Delta {
        /// Of the generation: even or odd.
        parity: u8,
        /// Within the generation.
        number: u32,
        /// Counts from 0.
        chunk: u32,
    },
    /// All rows of a bucket.
    Bucket {
        /// Which bucket.
        bucket: u32,
        /// Counts from 0.
        chunk: u32,
    },
    /// A history.
    History {
        /// The rule's name.
        rule: String,
        /// Of nested window functions, counted from the lowest.
        level: u32,
        /// Counts from 0.
        chunk: u32,
    },
    /// A rule's head.
    Rule {
        /// Its name.
        rule: String,
    },
    /// A subject.
    Subject {
        /// The rule's name.
        rule: String,
        /// The subject's key.
        subject: String,
    },
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Manifest => f.write_str("m"),
            Self::Delta { parity, number, chunk } => write!(f, "d/{parity}/{number}/{chunk}"),
            Self::Bucket { bucket, chunk } => write!(f, "b/{bucket}/{chunk}"),
            Self::History { rule, level, chunk } => write!(f, "h/{rule}/{level}/{chunk}"),
            Self::Rule { rule } => write!(f, "r/{rule}"),
            Self::Subject { rule, subject } => write!(f, "s/{rule}/{subject}"),
        }
    }
}

impl Key {
    /// Reads a key; none if no version of ours has written it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once('/').unwrap_or((text, ""));
        let mut parts = rest.split('/');
        let mut number = || parts.next()?.parse::<u32>().ok();
        match kind {
            "m" if rest.is_empty() => Some(Self::Manifest),
            "d" => {
                let parity = u8::try_from(number()?).ok()?;
                Some(Self::Delta { parity, number: number()?, chunk: number()? })
            }
            "b" => Some(Self::Bucket { bucket: number()?, chunk: number()? }),
            "h" => {
                let (rule, rest) = rest.split_once('/')?;
                let (level, chunk) = rest.split_once('/')?;
                Some(Self::History { rule: rule.to_owned(), level: level.parse().ok()?, chunk: chunk.parse().ok()? })
            }
            "r" if !rest.is_empty() => Some(Self::Rule { rule: rest.to_owned() }),
            "s" => {
                let (rule, subject) = rest.split_once('/')?;
                Some(Self::Subject { rule: rule.to_owned(), subject: subject.to_owned() })
            }
            _ => None,
        }
    }
}

/// What ties the records of a shard together.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Manifest {
    /// Counts commits.
    pub(super) seq: u64,
    /// The first parcel that is not absorbed: must be what the group has committed.
    pub(super) next_offset: i64,
    pub(super) marks: Vec<MarkSaid>,
    /// How far the time of each signal has come.
    pub(super) watermarks: BTreeMap<Signal, EventTime>,
    pub(super) rules: Vec<RuleSaid>,
    pub(super) stores: Vec<StoreSaid>,
    pub(super) progress: Progress,
}

impl Manifest {
    pub(super) fn next(&self) -> NextOffset {
        NextOffset(self.next_offset)
    }
}

/// A rule whose state is in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RuleSaid {
    pub(super) name: String,
    pub(super) version: String,
    /// The ids of the states that it reads, parted by blanks; none for a row-wise rule.
    pub(super) state: Option<String>,
    /// The id of its history.
    pub(super) history: Option<String>,
    /// Histories of other incarnations were of a rule of that name that has been removed or reset since.
    pub(super) incarnation: u32,
    /// Why it does not run any more.
    pub(super) quarantined: Option<String>,
    /// Whether what is kept of it are the bytes as they are, because it did not compile.
    #[serde(default)]
    pub(super) is_dormant: bool,
    /// While it waits for history: windows that end by then were judged before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) judged_to: Option<EventTime>,
}

/// A store whose rows are in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoreSaid {
    /// The id of its state.
    pub(super) state: String,
    /// Rows of other incarnations were of a store that nobody read for a while.
    pub(super) incarnation: u32,
    /// Windows that began earlier are not whole: no rule was there yet.
    pub(super) since: Option<EventTime>,
    /// Whether all rules that read it are quarantined: its rows are gone.
    pub(super) is_lost: bool,
    /// The names of the rules that read it.
    pub(super) readers: Vec<String>,
    /// Whether it waits for what was read before it was there: none of its rows are in the log.
    #[serde(default)]
    pub(super) is_warming: bool,
}

/// Where a shard's log stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Progress {
    /// How many times all buckets were written.
    pub(super) generation: u64,
    /// The number of the next delta of this generation.
    pub(super) delta: u32,
    /// The bucket to be written next.
    pub(super) bucket: u32,
    /// The incarnation that the next new rule or store gets.
    pub(super) incarnation: u32,
}

/// A part of a record's bytes: rows of one pane of a store.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct RowsSaid {
    pub(super) state: String,
    pub(super) incarnation: u32,
    /// The pane, or the window.
    pub(super) span: Window,
    pub(super) bytes: usize,
}

/// The head of a history's chunk.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct HistorySaid {
    /// The commit that has written it: chunks of one history have the same.
    pub(super) seq: u64,
    pub(super) chunks: u32,
    pub(super) history: String,
    pub(super) incarnation: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_survive_a_round_trip() {
        let (rule, subject) = ("budget".to_owned(), r#"{"path":"a/b","team":"x"}"#.to_owned());
        let keys = [
            Key::Manifest,
            Key::Delta { parity: 1, number: 12, chunk: 3 },
            Key::Bucket { bucket: 63, chunk: 0 },
            Key::History { rule: rule.clone(), level: 2, chunk: 1 },
            Key::Rule { rule: rule.clone() },
            Key::Subject { rule, subject },
        ];
        for key in keys {
            assert_eq!(Key::parse(&key.to_string()), Some(key));
        }
        for strange in ["", "x", "m/1", "d/1/2", "b/x/0", "h/rule", "s/rule", "r", "r/"] {
            assert_eq!(Key::parse(strange), None, "{strange}");
        }
    }
}
