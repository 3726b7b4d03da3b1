//! The vocabulary of the GenOps Governance Specification, and what lictor adds to it.
//!
//! A rule names an action, a reason code and a severity; a row names a result. All of them are closed sets that
//! machines match on, so they are enums here and text only at the edges.
//!
//! Invariant: for every value `v`, `parse(v.as_str()) == v`, and serde writes the same text.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The version of the specification whose words these are (its §11.3 asks for the exact one).
pub const SPEC_VERSION: &str = "0.1.0";

/// Writes `ALL`, `as_str`, `parse` and the text form of an enum whose values are words.
macro_rules! words {
    ($name:ident, $($variant:ident => $word:literal),+) => {
        impl $name {
            /// Every value, in declaration order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word that stands for the value in rules and events.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }

            /// The value that `word` stands for; the case counts.
            #[must_use]
            pub fn parse(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|value| value.as_str() == word)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

/// What a rule asks a controller to do, the strongest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Refuse the subject's requests.
    Block,
    /// Slow the subject's requests down.
    Throttle,
    /// Let requests pass and tell the caller.
    Warn,
    /// Let requests pass and tell the rule's owner.
    Notify,
}

words!(Action, Block => "block", Throttle => "throttle", Warn => "warn", Notify => "notify");

/// The decision state a controller records (spec §4.1), the mildest first: the order is the severity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum PolicyResult {
    /// No constraint is violated.
    Allowed,
    /// Noted; the work goes on.
    Warning,
    /// Rejected or deferred; a retry may pass.
    RateLimited,
    /// The work must not go on.
    Blocked,
}

words!(PolicyResult, Allowed => "ALLOWED", Warning => "WARNING", RateLimited => "RATE_LIMITED", Blocked => "BLOCKED");

/// How bad a violation is, the mildest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Worth a look during the day.
    Warning,
    /// Something is broken.
    Error,
    /// Somebody has to act now.
    Critical,
}

words!(Severity, Info => "info", Warning => "warning", Error => "error", Critical => "critical");

impl Severity {
    /// The number OpenTelemetry's log data model gives to this severity.
    #[must_use]
    pub fn to_otel_number(self) -> u8 {
        match self {
            Self::Info => 9,
            Self::Warning => 13,
            Self::Error => 17,
            Self::Critical => 21,
        }
    }

    /// The short name OpenTelemetry's log data model gives to this severity.
    #[must_use]
    pub fn to_otel_text(self) -> &'static str {
        match self {
            Self::Info => "INFO",
            Self::Warning => "WARN",
            Self::Error => "ERROR",
            Self::Critical => "FATAL",
        }
    }
}

/// Why a decision was taken: a word of the specification's taxonomy, or an extension that begins with `x_`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ReasonCode(String);

impl ReasonCode {
    /// The codes of spec §5.2, in its order.
    pub const TAXONOMY: &'static [&'static str] = &[
        "BUDGET_EXCEEDED",
        "BUDGET_RESERVATION_FAILED",
        "POLICY_DENY_MODEL",
        "POLICY_DENY_REGION",
        "POLICY_DENY_CONTENT",
        "RATE_LIMITED",
        "SLA_LATENCY_VIOLATION",
        "PROVIDER_ERROR_UPSTREAM",
        "ACCOUNTING_INVARIANT_VIOLATION",
    ];

    /// Checks a code against the taxonomy and the form of extensions (spec §5.5).
    ///
    /// # Errors
    /// `code` is neither; the message names the allowed code that is nearest to it.
    pub fn parse(code: &str) -> Result<Self, String> {
        if Self::TAXONOMY.contains(&code) || is_extension(code) {
            return Ok(Self(code.to_owned()));
        }
        let nearest = closest(&code.to_uppercase(), Self::TAXONOMY).map_or_else(
            || format!("`{}` would be an extension code", to_extension(code)),
            |known| format!("did you mean `{known}`, or the extension code `{}`?", to_extension(code)),
        );
        Err(format!("`{code}` is not a GenOps reason code: {nearest}"))
    }

    /// The code's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for ReasonCode {
    type Error = String;

    fn try_from(code: String) -> Result<Self, String> {
        Self::parse(&code)
    }
}

impl From<ReasonCode> for String {
    fn from(code: ReasonCode) -> Self {
        code.0
    }
}

fn is_extension(code: &str) -> bool {
    let is_allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_';
    code.strip_prefix("x_").is_some_and(|rest| !rest.is_empty() && rest.bytes().all(is_allowed))
}

/// The extension code that looks most like `code`.
fn to_extension(code: &str) -> String {
    let lower = code.to_lowercase();
    let rest = lower.strip_prefix("x_").unwrap_or(&lower);
    let kept: String = rest.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    format!("x_{}", if kept.is_empty() { "other" } else { &kept })
}

/// The candidate with the smallest edit distance to `word`, the first of equals; none is near enough if more than half
/// of the longer word would have to change.
#[must_use]
pub fn closest<'a>(word: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let near = |candidate: &&&str| edit_distance(word, candidate) * 2 <= word.len().max(candidate.len());
    candidates.iter().filter(near).min_by_key(|candidate| edit_distance(word, candidate)).copied()
}

/// Levenshtein distance in bytes, with one row of the matrix in memory.
#[must_use]
pub fn edit_distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, byte_a) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, byte_b) in b.bytes().enumerate() {
            let substituted = diagonal + usize::from(byte_a != byte_b);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn round_trips<T>(values: &[T], as_str: fn(T) -> &'static str, parse: fn(&str) -> Option<T>)
    where
        T: Copy + PartialEq + fmt::Debug + Serialize + for<'de> Deserialize<'de>,
    {
        for value in values {
            let word = as_str(*value);
            assert_eq!(parse(word), Some(*value));
            let json = serde_json::to_string(value).unwrap();
            assert_eq!(json, format!("\"{word}\""), "serde and as_str agree");
            assert_eq!(serde_json::from_str::<T>(&json).unwrap(), *value);
        }
    }

    #[test]
    fn every_word_reads_back_as_its_value() {
        round_trips(Action::ALL, Action::as_str, Action::parse);
        round_trips(PolicyResult::ALL, PolicyResult::as_str, PolicyResult::parse);
        round_trips(Severity::ALL, Severity::as_str, Severity::parse);
    }

    #[test]
    fn words_are_read_exactly() {
        assert_eq!(PolicyResult::parse("blocked"), None, "the specification knows only upper case");
        assert_eq!(Action::parse("kill"), None);
        assert_eq!(Severity::parse(""), None);
    }

    #[test]
    fn results_are_ordered_by_severity() {
        assert!(PolicyResult::ALL.is_sorted());
        assert!(PolicyResult::Blocked > PolicyResult::RateLimited);
        assert!(PolicyResult::Allowed < PolicyResult::Warning);
    }

    #[test]
    fn reason_codes_are_the_taxonomy_and_its_extensions() {
        for code in ReasonCode::TAXONOMY {
            assert_eq!(ReasonCode::parse(code).unwrap().as_str(), *code);
        }
        assert!(ReasonCode::parse("x_cost_anomaly2").is_ok());
        for bad in ["", "x_", "x_Cost", "x-cost", "budget_exceeded", "FREE TEXT"] {
            assert!(ReasonCode::parse(bad).is_err(), "{bad:?} is refused");
        }
    }

    #[test]
    fn a_refused_reason_code_names_the_nearest_one() {
        let misspelt = ReasonCode::parse("BUDGET_EXEEDED").unwrap_err();
        assert!(misspelt.contains("`BUDGET_EXCEEDED`"), "{misspelt}");
        let invented = ReasonCode::parse("Cost Anomaly!").unwrap_err();
        assert!(invented.contains("`x_cost_anomaly_`"), "{invented}");
    }

    #[test]
    fn a_bad_reason_code_does_not_come_in_through_serde() {
        assert!(serde_json::from_str::<ReasonCode>("\"because\"").is_err());
        assert_eq!(serde_json::from_str::<ReasonCode>("\"x_ok\"").unwrap().as_str(), "x_ok");
    }

    #[test]
    fn closest_prefers_fewer_edits_and_rejects_strangers() {
        assert_eq!(closest("modle", &["mode", "model", "team"]), Some("mode"));
        assert_eq!(closest("zzzz", &["mode", "team"]), None);
        assert_eq!(edit_distance("kitten", "sitting"), 3);
    }
}
