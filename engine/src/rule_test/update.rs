//! `lictor test --update`: expectations that were not met are rewritten to what was found.
//!
//! Only the text of those expectations changes, and of an event that is nearly right only the values that are not:
//! comments, order and layout of everything else stay as they were written. What was rewritten is read again, and a
//! file in which anything else would have changed is left alone.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::compare::{Comparison, disagreeing, telling};
use super::run::{Outcome, RuleTestError};
use super::yaml_tree::{Entry, Kind, Node, flow_text};
use super::{Row, TestFile};

/// A list of events that is longer is written one event a line.
const LINE_COLUMNS_MAX: usize = 110;

/// What became of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Updated {
    /// The test file.
    pub file: PathBuf,
    /// How many expectations were rewritten; none if something was in the way.
    pub rewritten: usize,
    /// Why nothing was written.
    pub refused: Option<String>,
}

/// An expectation that was not met.
type Unmet<'a> = (usize, &'a (usize, Vec<Row>, Vec<Row>));

/// Rewrites the expectations that were not met, in their files.
///
/// # Errors
/// A file cannot be read or written.
pub fn update(outcomes: &[Outcome]) -> Result<Vec<Updated>, RuleTestError> {
    let mut files: Vec<&Path> = outcomes.iter().filter(|o| !o.unmet.is_empty()).map(|o| o.file.as_path()).collect();
    files.dedup();
    files.into_iter().map(|file| update_file(file, outcomes)).collect()
}

fn update_file(file: &Path, outcomes: &[Outcome]) -> Result<Updated, RuleTestError> {
    let unreadable = |source| RuleTestError::Unreadable { path: file.to_owned(), source };
    let text = fs::read_to_string(file).map_err(unreadable)?;
    let of_file = outcomes.iter().filter(|outcome| outcome.file == file);
    let unmet: Vec<Unmet<'_>> =
        of_file.flat_map(|outcome| outcome.unmet.iter().map(|unmet| (outcome.number, unmet))).collect();
    let (rewritten, refused) = match rewrite(&text, &unmet) {
        Ok(text) => {
            fs::write(file, text).map_err(unreadable)?;
            (unmet.len(), None)
        }
        Err(why) => (0, Some(why)),
    };
    Ok(Updated { file: file.to_owned(), rewritten, refused })
}

/// The text of a test file with other expectations.
fn rewrite(text: &str, unmet: &[Unmet<'_>]) -> Result<String, String> {
    let root = Node::parse(text).ok_or("it is no YAML")?;
    let mut edits = Vec::new();
    for (test, (step, expected, found)) in unmet {
        let place = || format!("test {}, step {}", test + 1, step + 1);
        let steps = root.entry("tests").and_then(|tests| tests.value.item(*test)?.entry("steps"));
        let step = steps.and_then(|steps| steps.value.item(*step));
        let expect = step.and_then(|step| Some((step, step.entry("expect")?)));
        let (step, expect) = expect.ok_or_else(|| format!("{}: is not written out where it stands", place()))?;
        let Kind::Map { is_flow, .. } = step.kind else { unreachable!("it has an entry") };
        let place_of = Expectation { text, expect, is_in_brackets: is_flow };
        edits.extend(place_of.edits(expected, found).map_err(|why| format!("{}: {why}", place()))?);
    }
    let rewritten = apply(text, 0, edits);
    check(text, &rewritten, unmet)?;
    Ok(rewritten)
}

/// What was rewritten must say what was found, and everything else must say what it said.
fn check(before: &str, after: &str, unmet: &[Unmet<'_>]) -> Result<(), String> {
    let (mut before, after): (TestFile, TestFile) = (super::parse(before)?, super::parse(after)?);
    for (test, (step, _, found)) in unmet {
        let now = &after.tests[*test].steps[*step].expect;
        if !now.as_ref().is_some_and(|now| Comparison::new(now, found).is_equal()) {
            return Err(format!("test {}, step {}: cannot be written in this place", test + 1, step + 1));
        }
        before.tests[*test].steps[*step].expect.clone_from(now);
    }
    if format!("{before:?}") == format!("{after:?}") { Ok(()) } else { Err("other parts would change, too".to_owned()) }
}

/// Bytes of a text, and what is to stand there.
type Edit = (Range<usize>, String);

/// A stretch of text that begins at byte `start` of its file, edited; edits are in bytes of the file.
fn apply(text: &str, start: usize, mut edits: Vec<Edit>) -> String {
    edits.sort_by_key(|(range, _)| range.start);
    let mut edited = text.to_owned();
    for (range, new) in edits.into_iter().rev() {
        edited.replace_range(range.start - start..range.end - start, &new);
    }
    edited
}

/// Where a step says what it expects.
struct Expectation<'a> {
    text: &'a str,
    expect: &'a Entry,
    /// Whether the step stands in brackets: then so must everything in it.
    is_in_brackets: bool,
}

impl Expectation<'_> {
    fn edits(&self, expected: &[Row], found: &[Row]) -> Result<Vec<Edit>, String> {
        let comparison = Comparison::new(expected, found);
        let (items, is_flow): (&[Node], bool) = match &self.expect.value.kind {
            Kind::List { items, is_flow } => (items, *is_flow),
            Kind::Scalar => (&[], true),
            Kind::Alias | Kind::Map { .. } => return Err("what it expects is written elsewhere".to_owned()),
        };
        if items.len() != expected.len() {
            return Err("what it expects is written elsewhere".to_owned());
        }
        let mut edits = Vec::new();
        for (e, event) in &comparison.different {
            for name in disagreeing(&expected[*e], &found[*event]) {
                let value = items[*e].entry(name).ok_or("what it expects is written elsewhere")?;
                let new = found[*event].get(name).map_or_else(|| "null".to_owned(), flow_text);
                edits.push((value.value.range.clone(), new));
            }
        }
        if comparison.missing.is_empty() && comparison.unexpected.is_empty() {
            return Ok(edits);
        }
        if self.loses_a_comment(items, is_flow, &comparison.missing) {
            return Err("events come or go, and a comment among them would be lost: write it by hand".to_owned());
        }
        let kept = (0..items.len()).filter(|e| !comparison.missing.contains(e)).map(|e| &items[e].range);
        let in_item = |item: &Range<usize>| -> Vec<Edit> {
            edits.iter().filter(|(range, _)| item.start <= range.start && range.end <= item.end).cloned().collect()
        };
        let mut texts: Vec<String> =
            kept.map(|item| apply(&self.text[item.clone()], item.start, in_item(item))).collect();
        texts.extend(comparison.unexpected.iter().map(|event| event_text(&found[*event])));
        Ok(vec![(self.value_range(), self.list(&texts, is_flow))])
    }

    /// Whether there is a comment between the events, in one that goes, or behind the last one on its line, which would
    /// stand behind another one then. In an event that goes what only looks like a comment counts, too.
    fn loses_a_comment(&self, items: &[Node], is_flow: bool, missing: &[usize]) -> bool {
        let Range { start, end } = self.value_range();
        let starts = items.iter().map(|item| item.range.start).chain([end]);
        let ends = [start].into_iter().chain(items.iter().map(|item| item.range.end));
        let is_between = ends.zip(starts).any(|(end, start)| self.text[end..start.max(end)].contains('#'));
        let of_event = |item: &Node| {
            let text = &self.text[item.range.clone()];
            text.contains(" #") || text.contains("\n#") || text.contains("\t#")
        };
        let line_end = self.text[end..].find('\n').map_or(self.text.len(), |at| end + at);
        let is_behind = !is_flow && self.text[end..line_end].contains('#');
        is_between || is_behind || missing.iter().any(|e| of_event(&items[*e]))
    }

    /// From behind the colon to the end of the value.
    fn value_range(&self) -> Range<usize> {
        let key_end = self.expect.key_range.end;
        let colon = self.text[key_end..].find(':').map_or(key_end, |at| key_end + at + 1);
        colon..self.expect.value.range.end.max(colon)
    }

    /// A list of events behind the colon: on one line if it was there and fits, else an event a line.
    fn list(&self, events: &[String], is_flow: bool) -> String {
        let key = self.expect.key_range.start;
        let column = key - self.text[..key].rfind('\n').map_or(0, |at| at + 1);
        let line = format!(" [{}]", events.join(", "));
        let fits = column + "expect:".len() + line.len() <= LINE_COLUMNS_MAX && !line.contains('\n');
        if self.is_in_brackets || events.is_empty() || (is_flow && fits) {
            return line;
        }
        let indent = " ".repeat(column + 2);
        events.iter().map(|event| format!("\n{indent}- {event}")).collect()
    }
}

/// A new expectation of an event.
fn event_text(event: &Row) -> String {
    let fields = telling(event).into_iter().map(|(name, value)| format!("{name}: {}", flow_text(&value)));
    format!("{{{}}}", fields.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn rows(value: Value) -> Vec<Row> {
        serde_json::from_value(value).unwrap()
    }

    /// A file whose only step expects what is written behind `expect:`.
    fn file(expect: &str) -> String {
        format!(
            "# head\nrules: [r.sql] # which\ntests:\n  - name: it  # says\n    steps:\n      - expect:{expect}
      # end\n"
        )
    }

    #[track_caller]
    fn rewritten(expect: &str, found: Value) -> Result<String, String> {
        let text = file(expect);
        let expected = crate::rule_test::parse(&text).unwrap().tests[0].steps[0].expect.clone().unwrap();
        rewrite(&text, &[(0, &(0, expected, rows(found)))])
    }

    #[track_caller]
    fn check(expect: &str, found: Value, after: &str) {
        assert_eq!(rewritten(expect, found).unwrap(), file(after));
    }

    #[test]
    fn of_an_event_that_is_nearly_right_only_the_wrong_values_change() {
        let found = json!([{"rule": "r", "state": "firing", "observed": 4, "subject": {"team": "a b"}, "unit": null}]);
        let after = " [{rule: r,  observed: 4, subject: {team: a b}, unit: null}]  # why";
        check(" [{rule: r,  observed: 3, subject: {team: x}, unit: s}]  # why", found.clone(), after);
        let before = "\n          - rule: r  # this one\n            observed: 3
            # the team\n            subject:\n              team: x";
        let after = "\n          - rule: r  # this one\n            observed: 4
            # the team\n            subject:\n              {team: a b}";
        check(before, found, after);
    }

    #[test]
    fn events_come_and_go() {
        let event = json!({"rule": "r", "state": "firing", "at": "2026-03-01T10:00:00Z"});
        let text = "{rule: r, state: firing, at: 2026-03-01T10:00:00Z}";
        for none in [" []", " none", ""] {
            if !none.is_empty() {
                check(none, json!([event]), &format!(" [{text}]"));
            }
        }
        check(" [{rule: r}]", json!([]), " []");
        check("\n          - {rule: r}", json!([]), " []");
        let (a, b) = (json!({"rule": "a", "state": "firing"}), json!({"rule": "b", "state": "firing"}));
        check(
            "\n          - {rule: a}",
            json!([a, b]),
            "\n          - {rule: a}\n          - {rule: b, state: firing}",
        );
        check(" [{rule: a}, {rule: c}]", json!([a]), " [{rule: a}]");
    }

    #[test]
    fn comments_are_not_lost_when_events_come_or_go() {
        let (a, b) = (json!({"rule": "a", "state": "firing"}), json!({"rule": "b", "state": "firing"}));
        let item = "\n          ";
        let lost = [
            format!("{item}# the first{item}- {{rule: a}}"),
            format!("{item}- {{rule: a}}  # why"),
            format!("{item}- {{rule: a}}{item}# gone{item}- {{rule: c}}"),
            format!("{item}- {{rule: a}}{item}- rule: c  # gone{item}  state: firing"),
        ];
        for expect in lost {
            let refused = rewritten(&expect, json!([a, b])).unwrap_err();
            assert!(refused.starts_with("test 1, step 1: events come or go, and a comment"), "{refused}");
        }
        check(" [{rule: a}]  # why", json!([a, b]), " [{rule: a}, {rule: b, state: firing}]  # why");
        let inner = "\n          - rule: a  # kept\n            state: firing";
        check(inner, json!([a, b]), &format!("{inner}\n          - {{rule: b, state: firing}}"));
    }

    #[test]
    fn a_line_that_grows_too_long_becomes_a_list() {
        let event = |n: u32| json!({"rule": "a_rule_with_a_long_name", "state": "firing", "observed": n});
        let text = |n: u32| format!("\n          - {{rule: a_rule_with_a_long_name, state: firing, observed: {n}}}");
        check(" []", json!([event(1), event(2)]), &format!("{}{}", text(1), text(2)));
    }

    #[test]
    fn what_is_written_elsewhere_is_left_alone() {
        let text =
            "rules: [r.sql]\ntests:\n  - name: a\n    steps:\n      - expect: &all [{rule: r}]\n      - expect: *all\n";
        let expected = rows(json!([{"rule": "r"}]));
        let refused = rewrite(text, &[(0, &(1, expected, Vec::new()))]).unwrap_err();
        assert_eq!(refused, "test 1, step 2: what it expects is written elsewhere");
    }
}
