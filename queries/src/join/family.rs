//! The spans of a trace and how they descend from each other: whose usage may be summed up.
//!
//! Frameworks repeat the usage of a call on the spans around it. A span counts if it bears usage and no span below it
//! does, however many spans without usage lie between, and whichever records they came in. Of the spans of a trace only
//! those count as known that ended at most so long before and after the span that is decided.

use std::collections::{HashMap, HashSet};
use std::ops::RangeInclusive;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::TimestampNanosecondType;

use super::{JoinSide, StreamJoin};

/// A trace with more known spans than this is not looked through: its spans count as their own records say. Real traces
/// have some hundreds; this many are a loop that nobody has ended, and a walk through them takes milliseconds.
const TRACE_SPANS_MAX: usize = 10_000;

/// A span, as far as descent goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kin<'a> {
    pub span_id: &'a str,
    pub parent_span_id: Option<&'a str>,
    /// When it ended, in nanoseconds.
    pub at: i64,
    /// Whether it bears usage that no other span of its record repeats.
    pub bears_usage: bool,
}

/// The known spans of a trace.
#[derive(Debug, Default)]
pub(crate) struct Family<'a> {
    spans: Vec<Kin<'a>>,
    /// The spans below a span.
    below: HashMap<&'a str, Vec<usize>>,
    by_id: HashMap<&'a str, usize>,
}

impl<'a> Family<'a> {
    pub(crate) fn add(&mut self, span: Kin<'a>) {
        let number = self.spans.len();
        if let Some(parent) = span.parent_span_id {
            self.below.entry(parent).or_default().push(number);
        }
        self.by_id.insert(span.span_id, number);
        self.spans.push(span);
    }

    fn is_too_large(&self) -> bool {
        self.spans.len() > TRACE_SPANS_MAX
    }

    /// Whether a span that bears usage descends from `span_id` through spans that ended within `known`.
    pub(crate) fn has_usage_below(&self, span_id: &str, known: &RangeInclusive<i64>) -> bool {
        let mut seen = HashSet::from([span_id]);
        let mut open = vec![span_id];
        while let Some(at) = open.pop() {
            let below = self.below.get(at).into_iter().flatten().map(|number| self.spans[*number]);
            for span in below.filter(|span| known.contains(&span.at)) {
                // A span that was sent twice, or is its own ancestor, is not below itself.
                if !seen.insert(span.span_id) {
                    continue;
                }
                if span.bears_usage {
                    return true;
                }
                open.push(span.span_id);
            }
        }
        false
    }

    /// Whether a span above `span_id` that bears usage ended before `decided_to`.
    fn has_usage_above(&self, span_id: &str, decided_to: i64) -> bool {
        let mut seen = HashSet::from([span_id]);
        let parent_of = |span_id: &str| self.by_id.get(span_id).and_then(|number| self.spans[*number].parent_span_id);
        let mut at = parent_of(span_id);
        while let Some(span) = at.and_then(|at| self.by_id.get(at)).map(|number| self.spans[*number]) {
            if !seen.insert(span.span_id) {
                return false;
            }
            if span.bears_usage && span.at < decided_to {
                return true;
            }
            at = span.parent_span_id;
        }
        false
    }
}

/// Which spans count, and how sure that is.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Leaves {
    /// For each span that is decided whether it counts.
    pub counts: Vec<bool>,
    /// Spans that count though a span above them that bears usage had been decided before: it may have counted, too.
    pub late: u64,
    /// Spans that count as their records say because their traces have too many spans.
    pub unsearched: u64,
}

/// Where a right row of a join of spans with their descendants has what, among the columns behind its keys.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KinColumns {
    pub parent_span_id: usize,
    pub usage_leaf: usize,
}

impl StreamJoin {
    /// Whether it finds the spans whose usage counts: [`StreamJoin::leaves`] says then which left rows stay alone.
    #[must_use]
    pub fn has_families(&self) -> bool {
        self.kin.is_some()
    }

    /// Which spans among the rows of the left side count, given the rows of the right side that are of their traces.
    #[must_use]
    pub fn leaves(&self, left: &[ArrayRef], right: &[Vec<ArrayRef>]) -> Leaves {
        let mut leaves = Leaves::default();
        let Some(columns) = self.kin else { return leaves };
        let mut families: HashMap<&str, Family<'_>> = HashMap::new();
        for rows in right {
            self.add_rows(&mut families, rows, columns);
        }
        let (traces, spans) = (left[0].as_string_view(), self.span_ids(JoinSide::Left, left).as_string_view());
        for (row, at) in self.times(JoinSide::Left, left).iter().enumerate() {
            let family = (!traces.is_null(row) && !spans.is_null(row)).then(|| families.get(traces.value(row)));
            let Some(family) = family.flatten() else {
                leaves.counts.push(true);
                continue;
            };
            if family.is_too_large() {
                leaves.unsearched += 1;
                leaves.counts.push(true);
                continue;
            }
            let known = at.saturating_add(self.bounds.from_ns)..=at.saturating_add(self.bounds.to_ns);
            let counts = !family.has_usage_below(spans.value(row), &known);
            let decided_to = at.saturating_sub(self.bounds.to_ns);
            leaves.late += u64::from(counts && family.has_usage_above(spans.value(row), decided_to));
            leaves.counts.push(counts);
        }
        leaves
    }

    fn add_rows<'a>(&self, families: &mut HashMap<&'a str, Family<'a>>, rows: &'a [ArrayRef], columns: KinColumns) {
        let keys = self.layouts[JoinSide::Right as usize].keys;
        let traces = rows[0].as_string_view();
        let spans = self.span_ids(JoinSide::Right, rows).as_string_view();
        let parents = rows[keys + columns.parent_span_id].as_string_view();
        let leaves = rows[keys + columns.usage_leaf].as_boolean();
        for (row, at) in self.times(JoinSide::Right, rows).iter().enumerate() {
            if traces.is_null(row) || spans.is_null(row) {
                continue;
            }
            families.entry(traces.value(row)).or_default().add(Kin {
                span_id: spans.value(row),
                parent_span_id: (!parents.is_null(row)).then(|| parents.value(row)),
                at: *at,
                bears_usage: !leaves.is_null(row) && leaves.value(row),
            });
        }
    }

    /// The last of the carried columns.
    fn span_ids<'a>(&self, side: JoinSide, rows: &'a [ArrayRef]) -> &'a ArrayRef {
        let layout = self.layouts[side as usize];
        &rows[layout.keys + layout.columns + crate::carry::CARRIED.len() - 1]
    }
}

/// The event time of a row, as arrays of telemetry have it.
pub(crate) fn instants(array: &ArrayRef) -> &[i64] {
    array.as_primitive::<TimestampNanosecondType>().values()
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVER: RangeInclusive<i64> = i64::MIN..=i64::MAX;

    /// Spans as (id, parent, when it ended, bears usage).
    fn family(spans: &[(&'static str, &'static str, i64, bool)]) -> Family<'static> {
        let mut family = Family::default();
        for (span_id, parent, at, bears_usage) in spans {
            let parent_span_id = Some(*parent).filter(|parent| !parent.is_empty());
            family.add(Kin { span_id, parent_span_id, at: *at, bears_usage: *bears_usage });
        }
        family
    }

    #[test]
    fn usage_is_found_below_spans_without_it_whatever_came_first() {
        let spans = [("a", "", 4, true), ("b", "a", 3, false), ("c", "b", 2, false), ("d", "c", 1, true)];
        for turned in 0..spans.len() {
            let mut turned_spans = spans;
            turned_spans.rotate_left(turned);
            let family = family(&turned_spans);
            assert!(family.has_usage_below("a", &EVER));
            assert!(!family.has_usage_below("d", &EVER));
        }
    }

    #[test]
    fn spans_that_ended_too_early_or_too_late_are_not_known() {
        let family = family(&[("a", "", 10, true), ("b", "a", 5, false), ("c", "b", 8, true)]);
        assert!(family.has_usage_below("a", &(5..=10)));
        assert!(!family.has_usage_below("a", &(6..=10)), "the link is not known");
        assert!(!family.has_usage_below("a", &(5..=7)), "the descendant is not known");
    }

    #[test]
    fn a_span_is_not_below_itself() {
        assert!(!family(&[("a", "a", 1, true)]).has_usage_below("a", &EVER));
        assert!(!family(&[("a", "b", 1, true), ("b", "a", 1, false), ("a", "b", 2, true)]).has_usage_below("a", &EVER));
    }

    #[test]
    fn who_came_after_an_ancestor_was_decided_is_late() {
        let family = family(&[("a", "", 10, true), ("b", "a", 90, false), ("c", "b", 80, true)]);
        assert!(family.has_usage_above("c", 11));
        assert!(!family.has_usage_above("c", 10), "it is decided only now");
        assert!(!family.has_usage_above("a", 100));
    }
}
