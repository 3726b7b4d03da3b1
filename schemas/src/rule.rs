//! What a rule says about itself: the `WITH (…)` options and the leading comment.

use serde::{Deserialize, Serialize};

use crate::genops::{Action, ReasonCode, Severity};

/// Whether a rule's directives are to be applied or only looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Controllers apply the directive.
    Enforce,
    /// Controllers record what would have happened.
    Shadow,
}

impl Mode {
    /// Every mode.
    pub const ALL: [Self; 2] = [Self::Enforce, Self::Shadow];

    /// The word in rules, events, metrics and the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Shadow => "shadow",
        }
    }

    /// The mode that `word` stands for; the case counts.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.as_str() == word)
    }
}

/// The head of a rule, checked. As JSON it lies in the state log, so that a directive can be ended once its rule is
/// gone: a field that comes later needs a default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleHeader {
    /// Unique within the rule set; `[a-z0-9_]+`.
    pub name: String,
    /// The comment above the rule, without the dashes.
    pub description: String,
    /// What a controller does about a violation.
    pub action: Action,
    /// Why, unless the row says so itself.
    pub reason_code: ReasonCode,
    /// How bad it is.
    pub severity: Severity,
    /// Who answers for the rule; empty if nobody said.
    pub owner: String,
    /// Enforce or shadow.
    pub mode: Mode,
    /// How long a violation holds after its last row or window, in nanoseconds of event time (`ttl`).
    pub ttl_ns: i64,
    /// For how long a violation goes on before it fires, in nanoseconds of event time (`for`); 0 fires at once.
    #[serde(default)]
    pub for_ns: i64,
    /// How long what was found goes on firing once it does not hold any more, in nanoseconds of event time
    /// (`keep_firing_for`).
    #[serde(default)]
    pub keep_firing_for_ns: i64,
    /// After how many nanoseconds of event time a violation that goes on is published again (`repeat_interval`); none
    /// is only renewed.
    #[serde(default)]
    pub repeat_interval_ns: Option<i64>,
    /// What `observed` measures: its formula in terms of columns of tables; none if that is long or not said.
    #[serde(default)]
    pub metric: Option<String>,
    /// The file the rule was read from, relative to the rules directory.
    pub file: String,
    /// Changes whenever the meaning of the rule may have changed: a hash of its normalised text.
    pub version: RuleVersion,
}

/// A row-wise or closed-window violation that nobody renews ends after this long: long enough for a controller that
/// polls every few minutes, short enough that a forgotten directive does not block for a day.
const TTL_NS: i64 = 5 * 60 * 1_000_000_000;

impl RuleHeader {
    /// A rule that says nothing of itself but what it must; of no file and no version.
    #[must_use]
    pub fn new(name: &str, action: Action, reason_code: ReasonCode) -> Self {
        Self {
            name: name.to_owned(),
            description: String::new(),
            action,
            reason_code,
            severity: Severity::Warning,
            owner: String::new(),
            mode: Mode::Enforce,
            ttl_ns: TTL_NS,
            for_ns: 0,
            keep_firing_for_ns: 0,
            repeat_interval_ns: None,
            metric: None,
            file: String::new(),
            version: RuleVersion(String::new()),
        }
    }
}

/// The first 16 hex digits of the SHA-256 of a rule's tokens (comments and white space do not count).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RuleVersion(pub String);
