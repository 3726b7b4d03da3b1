//! What a conformance rule says of itself.
//!
//! The last line of its comment is for us, the sentences in front of it are for people:
//!
//! ```sql
//! -- Every decision has its event. GenOps §7.2, §8.1 and §9.1 (3). Fires when … Not assessable: …
//! -- Judges genops_count_awus.decided_by_span_events, for §9.1 (3); absence.
//! CREATE RULE genops_7_2_decision_event WITH (…) AS …
//! ```
//!
//! `Judges` names the rule that counts what there is to judge, and its column. `for` names the requirements of §9.1
//! that a violation breaks; a clause may belong to none of them. `absence` says that the rule misses something.

use std::collections::{BTreeMap, BTreeSet};

use lictor_schemas::rule::RuleHeader;
use thiserror::Error;

const JUDGES: &str = "Judges ";

/// Rules of log records are called as those of span events, with this behind it, and judge the same clause.
const OF_LOGS: &str = "_log";

/// Where it is counted how much there is to judge.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Counted {
    /// The rule that counts.
    pub rule: String,
    /// Its column.
    pub column: String,
}

/// One rule of a clause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JudgedBy {
    /// The rule's name.
    pub rule: String,
    /// How much there is for it to judge.
    pub counted: Counted,
    /// It reads log records and not span events.
    pub is_of_logs: bool,
    /// It compares them with spans, without which it finds nothing.
    pub needs_spans: bool,
}

/// One clause of the specification, as the rules that judge it describe it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clause {
    /// The name of its rules, without `_log`.
    pub name: String,
    /// What is asked for, in a sentence.
    pub title: String,
    /// Where the specification asks for it: `§7.2, §8.1 and §9.1 (3)`.
    pub sections: String,
    /// The numbers of §9.1 that a violation breaks.
    pub requirements: BTreeSet<u8>,
    /// It is broken by something that is not there.
    pub is_absence: bool,
    /// One rule, or one of span events and one of log records.
    pub rules: Vec<JudgedBy>,
}

/// A rule whose comment does not say which clause it judges, in the form in which rules here say it.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{file}: rule {rule}: {why}")]
pub struct Unreadable {
    /// Its file.
    pub file: String,
    /// Its name.
    pub rule: String,
    /// What is missing.
    pub why: &'static str,
}

/// The clauses that the rules judge, in the order of the specification. Rules that judge none are left out.
///
/// # Errors
/// A rule says that it judges something and does not say what, or of which clause.
pub fn clauses<'a>(headers: impl IntoIterator<Item = &'a RuleHeader>) -> Result<Vec<Clause>, Unreadable> {
    let mut clauses = BTreeMap::<(Vec<u32>, String), Clause>::new();
    for header in headers {
        let Some(clause) = clause_of(header)? else { continue };
        let Clause { name, rules, .. } = &clause;
        match clauses.get_mut(&(numbers(name), name.clone())) {
            Some(known) => {
                known.rules.extend(rules.iter().cloned());
                known.rules.sort_by_key(|rule| rule.is_of_logs);
                // The rule of log records says only that it is as the other.
                if !clause.sections.is_empty() {
                    (known.title, known.sections) = (clause.title, clause.sections);
                }
            }
            None => drop(clauses.insert((numbers(name), name.clone()), clause)),
        }
    }
    if let Some(clause) = clauses.values().find(|clause| clause.sections.is_empty()) {
        let rule = clause.rules.first().map(|judged| judged.rule.clone()).unwrap_or_default();
        return Err(Unreadable { file: String::new(), rule, why: "no rule of the clause says `GenOps §…`" });
    }
    Ok(clauses.into_values().collect())
}

fn clause_of(header: &RuleHeader) -> Result<Option<Clause>, Unreadable> {
    let Some(line) = header.description.lines().find_map(|line| line.trim().strip_prefix(JUDGES)) else {
        return Ok(None);
    };
    let unreadable = |why| Unreadable { file: header.file.clone(), rule: header.name.clone(), why };
    let line = line.trim_end_matches('.');
    let until = line.find([',', ';']).unwrap_or(line.len());
    let (counted, rest) = line.split_at(until);
    let counted = counted.trim().split_once('.').ok_or_else(|| unreadable("write `Judges <rule>.<column>`"))?;
    let (is_of_logs, name) = match header.name.strip_suffix(OF_LOGS) {
        Some(name) => (true, name),
        None => (false, header.name.as_str()),
    };
    let (title, sections) = sentences(&header.description).unwrap_or_default();
    let counted = Counted { rule: counted.0.to_owned(), column: counted.1.to_owned() };
    Ok(Some(Clause {
        name: name.to_owned(),
        title,
        sections,
        requirements: rest.split('(').skip(1).filter_map(|part| part.split(')').next()?.parse().ok()).collect(),
        is_absence: rest.ends_with("absence"),
        rules: vec![JudgedBy { rule: header.name.clone(), counted, is_of_logs, needs_spans: rest.ends_with("spans") }],
    }))
}

/// What is asked for, and where: `What is asked for. GenOps §… and §…. Fires …`.
fn sentences(description: &str) -> Option<(String, String)> {
    let text = description.split_whitespace().collect::<Vec<_>>().join(" ");
    let (title, rest) = text.split_once(" GenOps §")?;
    let sections = rest.split(". ").next()?;
    Some((title.to_owned(), format!("§{}", sections.trim_end_matches('.'))))
}

/// The section in a rule's name: `genops_7_2_1_…` is 7, 2, 1.
fn numbers(name: &str) -> Vec<u32> {
    let parts = name.split('_').skip_while(|part| part.parse::<u32>().is_err());
    parts.map_while(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use lictor_schemas::genops::{Action, ReasonCode};

    use super::*;

    fn header(name: &str, description: &str) -> RuleHeader {
        let header = RuleHeader::new(name, Action::Notify, ReasonCode::parse("x_test").unwrap());
        RuleHeader { description: description.to_owned(), ..header }
    }

    #[test]
    fn the_last_line_says_what_is_judged_and_the_first_sentences_what_is_asked_for() {
        let of_spans = header(
            "genops_7_2_decision_event",
            "Every decision\nhas its event. GenOps §7.2, §8.1 and §9.1\n(3). Fires when it has none.\n\
             Judges genops_count_awus.decided, for §9.1 (3) and (4); absence.",
        );
        let of_logs = header("genops_7_2_decision_event_log", "As that one.\nJudges genops_count_logs.all; absence.");
        let other = header("genops_11_3_version", "One. GenOps §11.3. Fires.\nJudges genops_count_awus.versions.");
        let counts = header("genops_count_awus", "Counts AWUs.");
        let found = clauses([&of_logs, &other, &of_spans, &counts]).unwrap();
        let [event, version] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!(
            (event.title.as_str(), event.sections.as_str()),
            ("Every decision has its event.", "§7.2, §8.1 and §9.1 (3)")
        );
        assert_eq!((event.is_absence, version.is_absence), (true, false));
        let rules: Vec<_> = event.rules.iter().map(|by| (by.rule.as_str(), by.counted.column.as_str())).collect();
        assert_eq!(rules, [("genops_7_2_decision_event", "decided"), ("genops_7_2_decision_event_log", "all")]);
        assert_eq!((version.name.as_str(), version.requirements.len()), ("genops_11_3_version", 0));
    }

    #[test]
    fn requirements_are_those_of_any_rule_of_the_clause() {
        let found = clauses([&header("genops_2_2_x", "A. GenOps §2.2. Fires.\nJudges a.b, for §9.1 (2) and (3).")]);
        assert_eq!(found.unwrap()[0].requirements, BTreeSet::from([2, 3]));
    }

    #[test]
    fn what_cannot_be_read_is_an_error_that_names_the_rule() {
        let refused = |description| clauses([&header("genops_2_2_x", description)]).unwrap_err().to_string();
        assert!(refused("A. GenOps §2.2. Fires.\nJudges awus.").contains("write `Judges <rule>.<column>`"));
        assert!(refused("A.\nJudges a.b.").contains("no rule of the clause says `GenOps §…`"));
    }
}
