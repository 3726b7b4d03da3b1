//! What becomes of a letter when letters are replayed.

use std::collections::BTreeSet;
use std::fmt;

use lictor_connectors::{Header, Outgoing};

use super::{Letter, REPLAY_OF, REPLAYS, Selection};

/// Where replayed records go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outlet {
    /// To the partition each was read from, if its topic is one of these: whoever can write dead letters must not
    /// choose where an operator's rights are used.
    Source(BTreeSet<String>),
    /// To this topic; the key chooses the partition.
    Topic(String),
}

/// Which letters are replayed, where to, and how often at most.
#[derive(Clone, Debug)]
pub struct Replay {
    /// Which are meant.
    pub selection: Selection,
    /// Where they go.
    pub outlet: Outlet,
    /// A record that was replayed so often and died again is left.
    pub replays_max: u32,
    /// The topic that the letters lie on.
    pub dead_letter: String,
}

/// What becomes of a letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// It is replayed.
    Replayed,
    /// It is none of those that are meant.
    NotChosen,
    /// It was replayed before.
    Before,
    /// Its record has been replayed and has died again.
    DiedAgain,
    /// Lictor has not put it aside, and no topic was named for it.
    NotOurs,
    /// It comes from a topic that lictor does not read, and no topic was named for it.
    OtherTopic,
    /// The letter goes without some bytes, and its record is not on its topic any more, or has items that were used.
    Gone,
    /// The record is larger than a producer may send.
    TooLarge,
    /// So many letters with others between them are done that it could not be noted.
    NoRoom,
}

impl Fate {
    /// All of them, in the order in which they are reported.
    pub const ALL: [Self; 9] = [
        Self::Replayed,
        Self::Before,
        Self::NotChosen,
        Self::DiedAgain,
        Self::NotOurs,
        Self::OtherTopic,
        Self::Gone,
        Self::TooLarge,
        Self::NoRoom,
    ];

    /// In words.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Replayed => "replayed",
            Self::Before => "replayed before",
            Self::NotChosen => "not chosen",
            Self::DiedAgain => "died again after a replay (--replays-max)",
            Self::NotOurs => "not put aside by lictor (--to)",
            Self::OtherTopic => "from topics that lictor does not read (--to)",
            Self::Gone => "without their bytes, which are nowhere any more",
            Self::TooLarge => "larger than a producer may send",
            Self::NoRoom => "left for later: replay what lies before them first",
        }
    }

    /// Whether a letter that was meant is left.
    #[must_use]
    pub fn is_left(self) -> bool {
        !matches!(self, Self::Replayed | Self::Before | Self::NotChosen)
    }
}

impl Replay {
    /// What becomes of a letter, as far as the letter itself tells; `was_done` says that it was replayed before.
    #[must_use]
    pub fn fate(&self, letter: &Letter, was_done: bool) -> Fate {
        if !self.selection.takes(letter) {
            return Fate::NotChosen;
        }
        if was_done {
            return Fate::Before;
        }
        if letter.replays >= self.replays_max {
            return Fate::DiedAgain;
        }
        match (&self.outlet, &letter.origin) {
            (Outlet::Topic(_), _) => Fate::Replayed,
            (Outlet::Source(_), Some(_)) if !letter.is_ours => Fate::NotOurs,
            (Outlet::Source(_), None) => Fate::NotOurs,
            (Outlet::Source(topics), Some(origin)) if !topics.contains(&*origin.partition.topic) => Fate::OtherTopic,
            (Outlet::Source(_), Some(_)) => Fate::Replayed,
        }
    }

    /// The record as it is written again, and the partition if that is not the key's to choose.
    #[must_use]
    pub fn message(&self, letter: Letter) -> (Outgoing, Option<i32>) {
        let (topic, partition) = match (&self.outlet, &letter.origin) {
            (Outlet::Source(_), Some(origin)) => (origin.partition.topic.to_string(), Some(origin.partition.partition)),
            (Outlet::Source(_), None) => (String::new(), None),
            (Outlet::Topic(topic), _) => (topic.clone(), None),
        };
        let mark = |name: &str, value: String| -> Header { (name.to_owned(), value.into_bytes()) };
        let mut headers = letter.headers;
        headers.push(mark(REPLAYS, letter.replays.saturating_add(1).to_string()));
        headers.push(mark(REPLAY_OF, format!("{}:{}", self.dead_letter, letter.id)));
        (Outgoing { topic, key: letter.key, payload: letter.payload, headers }, partition)
    }
}

/// How many letters went which way: none is unaccounted for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account([u64; Fate::ALL.len()]);

impl Account {
    /// A letter went this way.
    pub fn add(&mut self, fate: Fate) {
        self.0[place(fate)] += 1;
    }

    /// How many went this way.
    #[must_use]
    pub fn of(&self, fate: Fate) -> u64 {
        self.0[place(fate)]
    }

    /// How many there were.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Whether a letter that was meant is left.
    #[must_use]
    pub fn has_left(&self) -> bool {
        Fate::ALL.into_iter().any(|fate| fate.is_left() && self.of(fate) > 0)
    }
}

fn place(fate: Fate) -> usize {
    Fate::ALL.iter().position(|known| *known == fate).unwrap_or_default()
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} letters read", self.total())?;
        let ways = Fate::ALL.into_iter().filter(|fate| self.of(*fate) > 0);
        ways.enumerate().try_for_each(|(number, fate)| {
            write!(f, "{}{} {}", if number == 0 { ": " } else { ", " }, self.of(fate), fate.as_str())
        })
    }
}
