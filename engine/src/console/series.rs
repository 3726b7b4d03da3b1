//! What subjects measure over time, beside what they are compared with: the lines of a rule's chart.
//!
//! Points come from looks at a rule's groups (about one per second, [`crate::tasks`]), which see those that violate
//! nothing, too; of who is not looked at (rules over rows or sessions, large windows) from events. All are of event
//! time.

use std::collections::BTreeMap;
use std::sync::Arc;

use lictor_schemas::event::EnforcementEvent;
use lictor_schemas::time::EventTime;
use lictor_schemas::violation::Subject;

use crate::windowed::{OBSERVED_MAX, Observed};

/// Subjects of one rule that have a line: as many as a look returns. Who was not seen for longest makes room.
pub(super) const SUBJECTS_MAX: usize = OBSERVED_MAX;

/// Points of a line: as many as there are pixels for one each on a phone, and four minutes of a look per second. A rule
/// has at most 20 × 240 points of 32 bytes, 150 kB.
pub(super) const POINTS_MAX: usize = 240;

/// A point of a line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Point {
    pub at: EventTime,
    pub observed: f64,
    pub threshold: Option<f64>,
}

/// The line of a subject.
#[derive(Clone, Debug)]
pub(super) struct Series {
    pub subject: Subject,
    pub unit: Option<String>,
    pub points: Vec<Point>,
    /// How close it is now to what it is compared with.
    pub closeness: f64,
    /// Whether looks see it: what events say is then between two of its points.
    is_looked_at: bool,
    /// When it was seen last, as a number that rises.
    seen: u64,
}

/// The last look at a rule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Look {
    pub at: EventTime,
    /// Groups of the window that was looked at.
    pub groups: usize,
    /// How many of them were evaluated.
    pub looked_at: usize,
}

/// The lines of all rules.
#[derive(Default)]
pub(super) struct SeriesBook {
    rules: BTreeMap<String, OfRule>,
    seen: u64,
}

#[derive(Clone, Default)]
struct OfRule {
    lines: Arc<BTreeMap<String, Series>>,
    look: Option<Look>,
}

/// The lines of a rule, by subject.
pub(super) type Lines = Arc<BTreeMap<String, Series>>;

impl SeriesBook {
    pub(super) fn add_look(&mut self, rule: &str, observed: &Observed) {
        let Observed { at, groups, looked_at, closest } = observed;
        for found in closest.iter() {
            let point = Point { at: *at, observed: found.observed, threshold: found.threshold };
            let line = self.line(rule, &found.subject, found.unit.as_ref());
            line.is_looked_at = true;
            line.add(point);
        }
        let look = Look { at: *at, groups: *groups, looked_at: *looked_at };
        self.rules.entry(rule.to_owned()).or_default().look = Some(look);
    }

    /// An event that says what was measured is a point of who is not looked at.
    pub(super) fn add_event(&mut self, event: &EnforcementEvent) {
        let finding = &event.data.finding;
        if let Some(observed) = finding.observed {
            let subject = Subject(event.data.selector.matches.clone());
            let point = Point { at: event.time, observed, threshold: finding.threshold };
            let line = self.line(&event.data.rule.name, &subject, finding.unit.as_ref());
            if !line.is_looked_at {
                line.add(point);
            }
        }
    }

    fn line(&mut self, rule: &str, subject: &Subject, unit: Option<&String>) -> &mut Series {
        self.seen += 1;
        let of_rule = self.rules.entry(rule.to_owned()).or_default();
        // A snapshot may still have it: then it is copied, and else not.
        let lines = Arc::make_mut(&mut of_rule.lines);
        let key = subject.to_key();
        if !lines.contains_key(&key) && lines.len() == SUBJECTS_MAX {
            let oldest = lines.iter().min_by_key(|(_, line)| line.seen).map(|(key, _)| key.clone());
            oldest.map(|key| lines.remove(&key));
        }
        let line = lines.entry(key).or_insert_with(|| Series {
            subject: subject.clone(),
            unit: None,
            points: Vec::new(),
            closeness: 0.0,
            is_looked_at: false,
            seen: 0,
        });
        line.seen = self.seen;
        line.unit = unit.cloned().or_else(|| line.unit.take());
        line
    }

    /// Forgets rules that are not there any more.
    pub(super) fn retain(&mut self, is_there: impl Fn(&str) -> bool) {
        self.rules.retain(|rule, _| is_there(rule));
    }

    pub(super) fn look_of(&self, rule: &str) -> Option<Look> {
        self.rules.get(rule)?.look
    }

    pub(super) fn snapshot(&self) -> BTreeMap<String, Lines> {
        self.rules.iter().map(|(rule, of_rule)| (rule.clone(), Arc::clone(&of_rule.lines))).collect()
    }
}

impl Series {
    /// Time may stand still between two looks, and an event may be older than the last look.
    fn add(&mut self, point: Point) {
        let place = self.points.partition_point(|earlier| earlier.at < point.at);
        match self.points.get_mut(place).filter(|same| same.at == point.at) {
            Some(same) => *same = point,
            None => self.points.insert(place, point),
        }
        if self.points.len() > POINTS_MAX {
            self.points.remove(0);
        }
        if let Some(Point { observed, threshold, .. }) = self.points.last() {
            self.closeness = threshold.filter(|t| *t != 0.0).map_or(*observed, |t| observed / t);
        }
    }
}

#[cfg(test)]
mod tests {
    use lictor_queries::Observation;
    use serde_json::{Map, json};

    use super::*;

    fn look(at: i64, teams: impl IntoIterator<Item = (u32, f64)>) -> Observed {
        let closest = teams.into_iter().map(|(team, observed)| Observation {
            subject: Subject(Map::from_iter([("team".to_owned(), json!(format!("t{team}")))])),
            observed,
            threshold: Some(10.0),
            unit: Some("USD".to_owned()),
        });
        Observed { at: EventTime::from_ms(at), groups: 100, looked_at: 50, closest: closest.collect() }
    }

    #[test]
    fn a_line_has_so_many_points_and_the_oldest_go() {
        let mut book = SeriesBook::default();
        for at in 0..1_000 {
            book.add_look("r", &look(at, [(1, 5.0)]));
        }
        let lines = &book.snapshot()["r"];
        let line = lines.values().next().unwrap();
        assert_eq!((line.points.len(), line.points[0].at), (POINTS_MAX, EventTime::from_ms(760)));
        assert_eq!((line.closeness, line.unit.as_deref()), (0.5, Some("USD")));
        assert_eq!(book.look_of("r").map(|look| (look.groups, look.looked_at)), Some((100, 50)));
    }

    #[test]
    fn who_was_not_seen_for_longest_makes_room() {
        let mut book = SeriesBook::default();
        book.add_look("r", &look(0, (0..20).map(|team| (team, 1.0))));
        book.add_look("r", &look(1, (1..20).map(|team| (team, 1.0))));
        book.add_look("r", &look(2, [(99, 1.0)]));
        let lines = book.snapshot().remove("r").unwrap();
        assert_eq!(lines.len(), SUBJECTS_MAX);
        assert!(lines.contains_key(r#"{"team":"t99"}"#) && !lines.contains_key(r#"{"team":"t0"}"#));
    }

    #[test]
    fn points_are_in_the_order_of_time_and_one_at_a_time() {
        let mut book = SeriesBook::default();
        for (at, observed) in [(10, 1.0), (30, 3.0), (20, 2.0), (30, 4.0)] {
            book.add_look("r", &look(at, [(1, observed)]));
        }
        let lines = book.snapshot().remove("r").unwrap();
        let points: Vec<_> = lines.values().flat_map(|line| &line.points).map(|p| (p.at.to_ms(), p.observed)).collect();
        assert_eq!(points, [(10, 1.0), (20, 2.0), (30, 4.0)]);
        book.retain(|rule| rule != "r");
        assert!(book.snapshot().is_empty());
    }
}
