//! Event time: when something happened, as the telemetry says; never when it was read.

use std::fmt;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};

/// Nanoseconds in a millisecond.
pub const NANOS_PER_MS: i64 = 1_000_000;

/// An instant in nanoseconds since the Unix epoch, UTC; the range is 1677 to 2262.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EventTime(pub i64);

impl EventTime {
    /// The beginning of time: before every row.
    pub const MIN: Self = Self(i64::MIN);
    /// The end of time: a watermark here closes every window.
    pub const MAX: Self = Self(i64::MAX);

    /// The instant `ms` milliseconds after the Unix epoch; saturates at the ends of the range.
    #[must_use]
    pub fn from_ms(ms: i64) -> Self {
        Self(ms.saturating_mul(NANOS_PER_MS))
    }

    /// Whole milliseconds since the Unix epoch, rounded down.
    #[must_use]
    pub fn to_ms(self) -> i64 {
        self.0.div_euclid(NANOS_PER_MS)
    }

    /// This instant moved by `ns` nanoseconds; saturates at the ends of the range.
    #[must_use]
    pub fn plus(self, ns: i64) -> Self {
        Self(self.0.saturating_add(ns))
    }

    /// RFC 3339 in UTC with as many fractional digits as needed: `2026-11-22T08:00:03.250Z`.
    #[must_use]
    pub fn to_rfc3339(self) -> String {
        DateTime::<Utc>::from_timestamp_nanos(self.0).to_rfc3339_opts(SecondsFormat::AutoSi, true)
    }

    /// Reads an RFC 3339 instant.
    ///
    /// # Errors
    /// The text is not RFC 3339, or lies outside the range of the type.
    pub fn from_rfc3339(text: &str) -> Result<Self, String> {
        let at = DateTime::parse_from_rfc3339(text).map_err(|e| format!("`{text}` is not an RFC 3339 instant: {e}"))?;
        let ns = at.timestamp_nanos_opt().ok_or_else(|| format!("`{text}` lies outside 1677 to 2262"))?;
        Ok(Self(ns))
    }
}

impl fmt::Display for EventTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_rfc3339())
    }
}

/// A half-open span of event time: `start` belongs to it, `end` does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Window {
    /// The first instant inside.
    pub start: EventTime,
    /// The first instant after it.
    pub end: EventTime,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc3339_survives_a_round_trip() {
        let at = EventTime::from_ms(1_790_000_000_250);
        assert_eq!(EventTime::from_rfc3339(&at.to_rfc3339()), Ok(at));
        assert_eq!(at.to_rfc3339(), "2026-09-21T14:13:20.250Z");
    }

    #[test]
    fn milliseconds_round_down_before_the_epoch_too() {
        assert_eq!(EventTime(-1).to_ms(), -1);
        assert_eq!(EventTime(1).to_ms(), 0);
    }
}
