//! Why a record, or an item in it, is no telemetry.

use crate::tables::Signal;

/// What is wrong with a single item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flaw {
    /// An identifier is missing, all zero, or has the wrong length.
    InvalidId,
    /// It has no time.
    NoTime,
    /// A time lies beyond the year 2262, the end of signed nanoseconds.
    TimeOutOfRange,
    /// A metric has no name.
    NoName,
}

impl Flaw {
    /// A short stable label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidId => "invalid_id",
            Self::NoTime => "no_time",
            Self::TimeOutOfRange => "time_out_of_range",
            Self::NoName => "no_name",
        }
    }
}

/// Why a whole record was refused; nothing of it has become a row.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// No bytes, `null`, or a message that holds no item.
    #[error("the record holds no {}", .0.as_str())]
    Empty(Signal),
    /// The bytes are no protobuf message of this signal, nor of another.
    #[error("not OTLP protobuf: {0}")]
    MalformedProtobuf(String),
    /// The text is no JSON, or no OTLP/JSON.
    #[error("not OTLP/JSON: {0}")]
    MalformedJson(String),
    /// The record holds another signal than its topic is bound to.
    #[error("the record holds {}, not {}", .found.as_str(), .expected.as_str())]
    WrongSignal {
        /// What the topic is bound to.
        expected: Signal,
        /// What the record has the shape of.
        found: Signal,
    },
    /// Every item has a flaw; the one named is the most frequent.
    #[error("none of {items} items is valid: {}", .flaw.as_str())]
    NoValidItem {
        /// How many items the record holds.
        items: usize,
        /// What is wrong with most of them.
        flaw: Flaw,
    },
}

impl DecodeError {
    /// A short stable label from a closed set, for counters and dead-letter headers.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Empty(_) => "empty",
            Self::MalformedProtobuf(_) => "malformed_protobuf",
            Self::MalformedJson(_) => "malformed_json",
            Self::WrongSignal { .. } => "wrong_signal",
            Self::NoValidItem { flaw, .. } => flaw.as_str(),
        }
    }
}
