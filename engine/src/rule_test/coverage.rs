//! What the tests of a rules directory have seen of its rules, and what no test has.
//!
//! A rule is covered when some test sees it fire, some test sees rows pass that it says nothing of (both sides of its
//! `WHERE` or `HAVING`), and every `result` and `reason_code` that its text can say (the branches of its `CASE`) was
//! said.

use lictor_queries::{CompiledRule, Words};

use super::run::{Outcome, Witnessed};

/// What tests have seen of all rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// In the order of the rule set.
    pub rules: Vec<RuleCoverage>,
}

/// What tests have seen of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleCoverage {
    /// Its name.
    pub rule: String,
    /// Its file, relative to the rules directory.
    pub file: String,
    /// What was seen.
    pub seen: Vec<String>,
    /// What was not.
    pub missing: Vec<String>,
}

impl Coverage {
    /// What these tests have seen of these rules.
    #[must_use]
    pub fn new(rules: &[CompiledRule], outcomes: &[Outcome]) -> Self {
        let mut witnessed = Witnessed::default();
        outcomes.iter().for_each(|outcome| witnessed.add(&outcome.witnessed));
        let of_rule = |rule: &CompiledRule| {
            let (seen, missing) =
                points(&rule.header.name, &rule.source.words, &witnessed).into_iter().partition(|(_, seen)| *seen);
            let names = |points: Vec<(String, bool)>| points.into_iter().map(|(name, _)| name).collect();
            RuleCoverage {
                rule: rule.header.name.clone(),
                file: rule.header.file.clone(),
                seen: names(seen),
                missing: names(missing),
            }
        };
        Self { rules: rules.iter().map(of_rule).collect() }
    }

    /// How much was seen, and how much there is to see.
    #[must_use]
    pub fn points(&self) -> (usize, usize) {
        let seen: usize = self.rules.iter().map(|rule| rule.seen.len()).sum();
        let missing: usize = self.rules.iter().map(|rule| rule.missing.len()).sum();
        (seen, seen + missing)
    }

    /// The share that was seen, 0 to 100, rounded down: 100 means all.
    #[must_use]
    pub fn percent(&self) -> usize {
        let (seen, all) = self.points();
        (seen * 100).checked_div(all).unwrap_or(100)
    }
}

/// What there is to see of a rule, and whether it was.
fn points(rule: &str, words: &Words, witnessed: &Witnessed) -> Vec<(String, bool)> {
    let said = witnessed.said.get(rule);
    let mut points = vec![("fires".to_owned(), said.is_some()), ("silent".to_owned(), witnessed.silent.contains(rule))];
    // One word alone is said whenever the rule fires.
    for words in [&words.results, &words.reason_codes].into_iter().filter(|words| words.len() > 1) {
        points.extend(words.iter().map(|word| (word.clone(), said.is_some_and(|said| said.contains(word)))));
    }
    points
}
