//! The level that a runtime may claim: GenOps §9.

use std::collections::{BTreeMap, BTreeSet};

use super::verdict::{ClauseReport, Verdict};

/// The requirements of §9.1, by their numbers.
pub const REQUIREMENTS: [(u8, &str); 8] = [
    (1, "required attributes"),
    (2, "accounting invariant"),
    (3, "required events"),
    (4, "decision states"),
    (5, "reason codes"),
    (6, "identifiers"),
    (7, "attribution"),
    (8, "meaningful values"),
];

/// What §9.2 does not ask of a partially compliant runtime.
const OF_ACCOUNTING: [u8; 2] = [2, 3];

/// What telemetry lets a runtime claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing (§9.3).
    None,
    /// "GenOps v0.1 — partial" (§9.2).
    Partial,
    /// "GenOps v0.1" (§9.1).
    Full,
}

impl Level {
    /// `none`, `partial` or `full`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Partial => "partial",
            Self::Full => "full",
        }
    }
}

/// How a runtime stands to one requirement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Some of its clauses have passed, none has failed, and none would need telemetry that was left out.
    Shown,
    /// Telemetry shows neither that it is met nor that it is not; why.
    NotShown(String),
    /// The clauses that were broken.
    Broken(Vec<String>),
}

impl Standing {
    /// `shown`, `not shown` or `broken`.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Shown => "shown",
            Self::NotShown(_) => "not shown",
            Self::Broken(_) => "broken",
        }
    }
}

/// How a runtime stands to each requirement, by number.
pub(super) fn standings(clauses: &[ClauseReport]) -> BTreeMap<u8, Standing> {
    REQUIREMENTS.iter().map(|(number, _)| (*number, standing(*number, clauses))).collect()
}

fn standing(number: u8, clauses: &[ClauseReport]) -> Standing {
    let of_it = || clauses.iter().filter(|report| report.clause.requirements.contains(&number));
    let broken = of_it().filter(|report| matches!(report.verdict, Verdict::Failed { .. }));
    let broken: Vec<String> = broken.map(|report| report.clause.name.clone()).collect();
    if !broken.is_empty() {
        return Standing::Broken(broken);
    }
    let unseen = of_it().find_map(|report| match &report.verdict {
        Verdict::NotAssessable(why) if !why.is_nothing() => Some(format!("{}: {why}", report.clause.name)),
        Verdict::NotAssessable(_) | Verdict::Passed { .. } | Verdict::Failed { .. } => None,
    });
    if let Some(unseen) = unseen {
        return Standing::NotShown(unseen);
    }
    let has_passed = of_it().any(|report| matches!(report.verdict, Verdict::Passed { .. }));
    let misses = of_it().any(|report| report.clause.is_absence);
    let has_missed_nothing =
        of_it().any(|report| report.clause.is_absence && matches!(report.verdict, Verdict::Passed { .. }));
    // That events come when they are due is what accounting is about: others of its clauses hold for who has none.
    if has_passed && (has_missed_nothing || !misses) {
        Standing::Shown
    } else {
        Standing::NotShown("nothing to which it applies".to_owned())
    }
}

/// The highest level that nothing speaks against.
pub(super) fn level(standings: &BTreeMap<u8, Standing>) -> Level {
    let open: BTreeSet<u8> = standings.iter().filter(|(_, s)| **s != Standing::Shown).map(|(n, _)| *n).collect();
    if open.is_empty() {
        Level::Full
    } else if open.iter().all(|number| OF_ACCOUNTING.contains(number)) {
        Level::Partial
    } else {
        Level::None
    }
}
