//! What an edit of rules changes in what they say of the same telemetry.
//!
//! Episodes of one rule about one subject are held against each other. Two belong together if they began at the same
//! time; of those that are left, if they held at the same time; of those that are left then, if the one began soon
//! after the other. A pair that says the same is *unchanged*, any other has *moved*; what has no partner was *added* or
//! *removed*.

use std::collections::{BTreeMap, BTreeSet};

use lictor_schemas::time::EventTime;

use super::digest::{Episode, RuleDigest};

/// An episode that begins this much earlier or later is another time of the same; beyond that it is another one.
const SOON_NS: i64 = 60 * 60 * 1_000_000_000;

/// What an edit changes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Difference {
    /// By rule, also those that say the same.
    pub rules: BTreeMap<String, RuleDifference>,
}

/// What an edit changes in what one rule says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RuleDifference {
    /// Whether the rule is there before and after the edit.
    pub is_there: (bool, bool),
    /// Whether its text means something else.
    pub is_edited: bool,
    /// What only the rules after the edit say.
    pub added: Vec<Episode>,
    /// What only the rules before the edit say.
    pub removed: Vec<Episode>,
    /// What both say, at other times or in other words.
    pub moved: Vec<Move>,
    /// How many episodes are the same.
    pub unchanged: u64,
}

/// What both say, at other times or in other words.
#[derive(Clone, Debug, PartialEq)]
pub struct Move {
    /// Before the edit.
    pub before: Episode,
    /// After it.
    pub after: Episode,
}

impl Move {
    /// In what they differ.
    #[must_use]
    pub fn differs_in(&self) -> Vec<&'static str> {
        let (before, after) = (&self.before, &self.after);
        let differs = [
            ("start", before.started != after.started),
            ("end", before.ended != after.ended),
            ("result", before.strongest != after.strongest),
            ("action", before.action != after.action),
            ("mode", before.mode != after.mode),
        ];
        differs.into_iter().filter(|(_, differs)| *differs).map(|(what, _)| what).collect()
    }
}

impl RuleDifference {
    /// Whether anything is said that was not before, or not as before.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.moved.is_empty()
    }
}

impl Difference {
    /// Whether the edit changes nothing in what is said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.values().all(RuleDifference::is_empty)
    }

    /// How many episodes are added, removed, moved and unchanged.
    #[must_use]
    pub fn totals(&self) -> (usize, usize, usize, u64) {
        let sum = |of: fn(&RuleDifference) -> usize| self.rules.values().map(of).sum();
        let unchanged = self.rules.values().map(|rule| rule.unchanged).sum();
        (sum(|rule| rule.added.len()), sum(|rule| rule.removed.len()), sum(|rule| rule.moved.len()), unchanged)
    }
}

/// What the rules `after` an edit say in place of those `before`, over the same telemetry.
#[must_use]
pub fn difference(before: &BTreeMap<String, RuleDigest>, after: &BTreeMap<String, RuleDigest>) -> Difference {
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let of_rule = |name: &String| (name.clone(), of_rule(before.get(name), after.get(name)));
    Difference { rules: names.into_iter().map(of_rule).collect() }
}

fn of_rule(before: Option<&RuleDigest>, after: Option<&RuleDigest>) -> RuleDifference {
    let version = |rule: Option<&RuleDigest>| rule.map(|rule| rule.header.version.clone());
    let mut difference = RuleDifference {
        is_there: (before.is_some(), after.is_some()),
        is_edited: version(before) != version(after),
        ..RuleDifference::default()
    };
    let mut subjects: BTreeMap<&str, (Vec<&Episode>, Vec<&Episode>)> = BTreeMap::new();
    for episode in before.into_iter().flat_map(|rule| &rule.episodes) {
        subjects.entry(&episode.subject).or_default().0.push(episode);
    }
    for episode in after.into_iter().flat_map(|rule| &rule.episodes) {
        subjects.entry(&episode.subject).or_default().1.push(episode);
    }
    for (before, after) in subjects.into_values() {
        let (pairs, removed, added) = paired(before, after);
        for (before, after) in pairs {
            let pair = Move { before: before.clone(), after: after.clone() };
            if pair.differs_in().is_empty() {
                difference.unchanged += 1;
            } else {
                difference.moved.push(pair);
            }
        }
        difference.removed.extend(removed.into_iter().cloned());
        difference.added.extend(added.into_iter().cloned());
    }
    difference.added.sort_by_key(|episode| episode.started);
    difference.removed.sort_by_key(|episode| episode.started);
    difference.moved.sort_by_key(|pair| pair.after.started);
    difference
}

/// Episodes that belong together, and those of each side that belong to none.
type Paired<'a> = (Vec<(&'a Episode, &'a Episode)>, Vec<&'a Episode>, Vec<&'a Episode>);

/// How an episode lies to one of the other side.
#[derive(PartialEq, Eq)]
enum Place {
    /// Behind it: so it does to all that begin later.
    Past,
    /// They belong together.
    Partner,
    /// Before it.
    Future,
}

/// Where an episode of the one side lies for one of the other.
type PlaceOf = fn(&Episode, &Episode) -> Place;

/// Pairs the episodes of one subject.
fn paired<'a>(mut before: Vec<&'a Episode>, mut after: Vec<&'a Episode>) -> Paired<'a> {
    before.sort_by_key(|episode| episode.started);
    after.sort_by_key(|episode| episode.started);
    let mut pairs = Vec::new();
    let same_beginning = |a: &Episode, b: &Episode| place(b.started < a.started, b.started == a.started);
    let overlap =
        |a: &Episode, b: &Episode| place(end_of(b) <= a.started, a.started < end_of(b) && b.started < end_of(a));
    let neighbour = |a: &Episode, b: &Episode| {
        let after_ns = b.started.0.saturating_sub(a.started.0);
        place(after_ns < -SOON_NS, after_ns <= SOON_NS)
    };
    let rounds: [PlaceOf; 3] = [same_beginning, overlap, neighbour];
    for place_of in rounds {
        (before, after) = round(&before, &after, place_of, &mut pairs);
    }
    (pairs, before, after)
}

fn place(is_past: bool, is_partner: bool) -> Place {
    match (is_past, is_partner) {
        (true, _) => Place::Past,
        (false, true) => Place::Partner,
        (false, false) => Place::Future,
    }
}

/// Pairs in one pass over both sides, which are in order: what is past for one is so for all that follow, and behind
/// what is in the future lies no partner. Gives what is left of each.
fn round<'a>(
    before: &[&'a Episode],
    after: &[&'a Episode],
    place_of: PlaceOf,
    pairs: &mut Vec<(&'a Episode, &'a Episode)>,
) -> (Vec<&'a Episode>, Vec<&'a Episode>) {
    let (mut left_before, mut left_after) = (Vec::new(), Vec::new());
    let mut others = after.iter().copied().peekable();
    for &episode in before {
        while let Some(past) = others.next_if(|other| place_of(episode, other) == Place::Past) {
            left_after.push(past);
        }
        match others.next_if(|other| place_of(episode, other) == Place::Partner) {
            Some(partner) => pairs.push((episode, partner)),
            None => left_before.push(episode),
        }
    }
    left_after.extend(others);
    (left_before, left_after)
}

fn end_of(episode: &Episode) -> EventTime {
    episode.ended.map_or(EventTime::MAX, |(_, at)| at)
}

#[cfg(test)]
mod tests {
    use lictor_schemas::event::{Instruction, State};
    use lictor_schemas::genops::{Action, PolicyResult, ReasonCode};
    use lictor_schemas::rule::{Mode, RuleHeader, RuleVersion};

    use super::*;

    const MINUTE: i64 = 60_000_000_000;

    fn episode(subject: &str, (from, to): (i64, i64), strongest: PolicyResult) -> Episode {
        Episode {
            subject: subject.to_owned(),
            started: EventTime(from * MINUTE),
            ended: Some((State::Resolved, EventTime(to * MINUTE))),
            strongest,
            action: Instruction::of(Action::Block, strongest),
            mode: Mode::Enforce,
            peak: None,
            events: 2,
        }
    }

    fn rules(version: &str, episodes: Vec<Episode>) -> BTreeMap<String, RuleDigest> {
        let header = RuleHeader {
            version: RuleVersion(version.to_owned()),
            ..RuleHeader::new("r", Action::Block, ReasonCode::parse("BUDGET_EXCEEDED").unwrap())
        };
        let mut rules = super::super::Digest::new([&header], 10).conclude(None);
        rules.get_mut("r").unwrap().episodes = episodes;
        rules
    }

    /// `+` added, `-` removed, `~` moved with what differs, `=` how many are the same.
    fn check(before: Vec<Episode>, after: Vec<Episode>, expected: &[&str]) {
        let all = difference(&rules("a", before), &rules("b", after));
        let found = &all.rules["r"];
        let minutes = |episode: &Episode| episode.started.0 / MINUTE;
        let mut lines: Vec<String> = found.added.iter().map(|e| format!("+ {} {}", e.subject, minutes(e))).collect();
        lines.extend(found.removed.iter().map(|e| format!("- {} {}", e.subject, minutes(e))));
        let moved = |m: &Move| {
            format!("~ {} {}>{} {}", m.after.subject, minutes(&m.before), minutes(&m.after), m.differs_in().join(","))
        };
        lines.extend(found.moved.iter().map(moved));
        lines.push(format!("= {}", found.unchanged));
        assert_eq!(lines, expected);
        assert_eq!(all.is_empty(), expected.len() == 1);
        assert!(found.is_edited);
    }

    const BLOCKED: PolicyResult = PolicyResult::Blocked;
    const WARNING: PolicyResult = PolicyResult::Warning;

    #[test]
    fn what_is_the_same_is_only_counted() {
        let same = || vec![episode("a", (0, 5), BLOCKED), episode("b", (0, 5), BLOCKED)];
        check(same(), same(), &["= 2"]);
    }

    #[test]
    fn an_episode_without_a_partner_is_added_or_removed() {
        let before = vec![episode("a", (0, 5), BLOCKED), episode("b", (0, 5), BLOCKED)];
        let after = vec![episode("b", (0, 5), BLOCKED), episode("c", (3, 5), BLOCKED)];
        check(before, after, &["+ c 3", "- a 0", "= 1"]);
        check(
            vec![episode("a", (0, 5), BLOCKED)],
            vec![episode("a", (600, 605), BLOCKED)],
            &["+ a 600", "- a 0", "= 0"],
        );
    }

    #[test]
    fn an_episode_at_another_time_or_with_another_result_has_moved() {
        check(
            vec![episode("a", (0, 5), BLOCKED)],
            vec![episode("a", (0, 5), WARNING)],
            &["~ a 0>0 result,action", "= 0"],
        );
        check(vec![episode("a", (0, 90), BLOCKED)], vec![episode("a", (80, 90), BLOCKED)], &["~ a 0>80 start", "= 0"]);
        check(vec![episode("a", (0, 5), BLOCKED)], vec![episode("a", (7, 9), BLOCKED)], &["~ a 0>7 start,end", "= 0"]);
    }

    #[test]
    fn the_same_beginning_comes_before_an_overlap_and_that_before_a_neighbour() {
        let before = vec![episode("a", (0, 50), BLOCKED), episode("a", (60, 70), BLOCKED)];
        let after =
            vec![episode("a", (40, 50), BLOCKED), episode("a", (60, 70), BLOCKED), episode("a", (75, 76), BLOCKED)];
        check(before, after, &["+ a 75", "~ a 0>40 start", "= 1"]);
    }

    #[test]
    fn many_episodes_of_one_subject_are_held_against_each_other_in_one_pass() {
        // Looking through all of the other side for each would be ten thousand million comparisons.
        let count = 100_000;
        let at = |minute: i64| episode("a", (minute, minute + 1), BLOCKED);
        let side = |shift: i64| (0..count).map(move |i| at(300 * i + shift));
        let all = difference(&rules("a", side(0).collect()), &rules("b", side(100).collect()));
        assert_eq!(all.totals(), (100_000, 100_000, 0, 0));
        let all = difference(&rules("a", side(0).collect()), &rules("b", side(10).collect()));
        assert_eq!(all.totals(), (0, 0, 100_000, 0));
    }

    #[test]
    fn a_rule_that_is_new_adds_all_it_says() {
        let all = difference(&BTreeMap::new(), &rules("b", vec![episode("a", (0, 5), BLOCKED)]));
        assert_eq!((all.rules["r"].is_there, all.totals()), ((false, true), (1, 0, 0, 0)));
    }
}
