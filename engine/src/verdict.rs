//! What an edit of the rules means for what each rule remembers.
//!
//! The state log follows these verdicts: partial sums are kept under the id of their state, histories under theirs. So
//! what is said here before an edit applies is what happens when it does.

use std::collections::BTreeSet;
use std::fmt;

use lictor_queries::{CompiledRule, JoinedThen, RuleKind, RuleSet};

/// As much of a rule as its state depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleOutline {
    /// Its name.
    pub name: String,
    version: String,
    /// For a rule that remembers rows or sums: their ids, and that of the history that it looks back at.
    windowed: Option<(String, String)>,
    /// Whether they can be made of what topics still hold.
    can_be_warmed: bool,
}

impl RuleOutline {
    /// The outlines of a rule set, in its order.
    #[must_use]
    pub fn of_set(rules: &RuleSet) -> Vec<Self> {
        rules.rules.iter().map(|rule| Self::of(rules, rule)).collect()
    }

    fn of(rules: &RuleSet, rule: &CompiledRule) -> Self {
        let windowed = match &rule.kind {
            RuleKind::RowWise(_) => None,
            RuleKind::Windowed(windowed) => {
                Some((rules.stores[windowed.store].state_id.clone(), windowed.finish.history_id()))
            }
            RuleKind::Joined(joined) => {
                let mut states = joined.sides.map(|side| rules.stores[side].state_id.clone()).to_vec();
                let mut history = String::new();
                if let JoinedThen::Windowed { rule, .. } = &joined.then {
                    states.push(rules.stores[rule.store].state_id.clone());
                    history = rule.finish.history_id();
                }
                Some((states.join(" "), history))
            }
        };
        let can_be_warmed = match &rule.kind {
            RuleKind::Windowed(windowed) => rules.stores[windowed.store].can_be_warmed(),
            RuleKind::RowWise(_) | RuleKind::Joined(_) => false,
        };
        Self { name: rule.header.name.clone(), version: rule.header.version.0.clone(), windowed, can_be_warmed }
    }
}

/// What becomes of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Its text is the same.
    Unchanged,
    /// What it counts has the same meaning as before: nothing is forgotten.
    Compatible,
    /// Its running windows go on; what `OVER` looks back at begins anew.
    HistoryAnew,
    /// It counts something else: running windows are summed up from what topics still hold, and what is firing stays
    /// until they are judged.
    Warm,
    /// It counts something else: running windows count from now, and what is firing stays until it is judged anew.
    Anew,
    /// It was not there before.
    New,
    /// Its state is deleted and its directives are withdrawn.
    Removed,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unchanged => "unchanged",
            Self::Compatible => "compatible: its state is kept",
            Self::HistoryAnew => "compatible: its running windows are kept, its history begins anew",
            Self::Warm => "warm: counts something else, its running windows are summed up from telemetry read before",
            Self::Anew => "counts something else: its windows begin anew",
            Self::New => "new",
            Self::Removed => "removed: its state is deleted, its directives are withdrawn",
        })
    }
}

/// The verdict on each rule that was there before or is there after, by name.
#[must_use]
pub fn verdicts(before: &[RuleOutline], after: &[RuleOutline]) -> Vec<(String, Verdict)> {
    let find = |outlines: &[RuleOutline], name: &str| outlines.iter().find(|rule| rule.name == name).cloned();
    let names: BTreeSet<&str> = before.iter().chain(after).map(|rule| rule.name.as_str()).collect();
    let verdict = |name: &str| match (find(before, name), find(after, name)) {
        (Some(before), Some(after)) => of_edit(&before, &after),
        (None, _) => Verdict::New,
        (_, None) => Verdict::Removed,
    };
    names.into_iter().map(|name| (name.to_owned(), verdict(name))).collect()
}

fn of_edit(before: &RuleOutline, after: &RuleOutline) -> Verdict {
    if before.version == after.version {
        return Verdict::Unchanged;
    }
    match (&before.windowed, &after.windowed) {
        (None, None) => Verdict::Compatible,
        (Some((state, history)), Some((new_state, new_history))) if state == new_state => {
            if history == new_history {
                Verdict::Compatible
            } else {
                Verdict::HistoryAnew
            }
        }
        _ if after.can_be_warmed => Verdict::Warm,
        _ => Verdict::Anew,
    }
}

#[cfg(test)]
mod tests {
    use lictor_queries::{References, RuleFile, compile};

    use super::*;

    fn outlines(text: &str) -> Vec<RuleOutline> {
        let (rules, faults) = compile(&[RuleFile { file: "r.sql".into(), text: text.into() }], &References::new());
        assert_eq!(faults, []);
        RuleOutline::of_set(&rules)
    }

    fn counted(aggregate: &str, over: &str, having: &str) -> String {
        format!(
            "CREATE RULE counted WITH (action = 'warn', reason_code = 'x_test') AS
             SELECT c.team, c.window_start, c.window_end, c.n AS observed, {over} AS before
             FROM (SELECT team, window_start, window_end, {aggregate} AS n
                   FROM TUMBLE(spans, event_time, INTERVAL '1 minute') GROUP BY team, window_start, window_end) AS c
             {having};"
        )
    }

    const DEAR: &str = "CREATE RULE dear WITH (action = 'warn', reason_code = 'x_test') AS
        SELECT team, cost_total AS observed FROM spans WHERE cost_total > 1;";

    #[track_caller]
    fn check(before: &str, after: &str, expected: &[(&str, Verdict)]) {
        let expected: Vec<_> = expected.iter().map(|(name, verdict)| ((*name).to_owned(), *verdict)).collect();
        assert_eq!(verdicts(&outlines(before), &outlines(after)), expected);
    }

    #[test]
    fn an_edit_above_the_aggregate_keeps_the_state_and_one_below_does_not() {
        let lag = "lag(c.n) OVER (PARTITION BY c.team ORDER BY c.window_end)";
        let two_back = "lag(c.n, 2) OVER (PARTITION BY c.team ORDER BY c.window_end)";
        let before = counted("count(*)", lag, "");
        check(&before, &before, &[("counted", Verdict::Unchanged)]);
        check(&before, &format!("-- why\n{before}"), &[("counted", Verdict::Unchanged)]);
        check(&before, &counted("count(*)", lag, "WHERE c.n > 5"), &[("counted", Verdict::Compatible)]);
        check(&before, &counted("count(*)", two_back, ""), &[("counted", Verdict::HistoryAnew)]);
        let other = counted("sum(input_tokens)", lag, "");
        check(&before, &other, &[("counted", Verdict::Warm)]);
        let in_sessions = "CREATE RULE counted WITH (action = 'warn', reason_code = 'x_test') AS
            SELECT team, window_start, window_end, count(*) AS observed
            FROM SESSION(spans, event_time, INTERVAL '1 minute') GROUP BY team, window_start, window_end;";
        check(&before, in_sessions, &[("counted", Verdict::Anew)]);
    }

    #[test]
    fn rules_come_and_go_and_row_wise_ones_remember_nothing_that_an_edit_could_spoil() {
        let other = DEAR.replace("dear", "other");
        check(DEAR, &other, &[("dear", Verdict::Removed), ("other", Verdict::New)]);
        check(DEAR, &DEAR.replace("> 1", "> 2"), &[("dear", Verdict::Compatible)]);
    }
}
