//! How far the time of a rule's windows has come.
//!
//! Mostly that is a signal's watermark. Rows that are joined first come later than that: one of the left side is
//! settled when no row that could be its partner can come any more, on neither side.

use lictor_queries::{JoinSide, TimeBounds};
use lictor_schemas::tables::{Signal, Table};
use lictor_schemas::time::EventTime;

use crate::watermark::Watermarks;

/// The least of some terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frontier {
    terms: Vec<Term>,
}

/// A signal's watermark, moved, cut down to a multiple of `quantum_ns` if it has one, and moved again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Term {
    pub signal: Signal,
    pub shift_ns: i64,
    pub quantum_ns: Option<i64>,
    pub plus_ns: i64,
}

impl Term {
    fn of(signal: Signal) -> Self {
        Self { signal, shift_ns: 0, quantum_ns: None, plus_ns: 0 }
    }

    fn at(&self, watermark: EventTime) -> EventTime {
        if watermark == EventTime::MIN {
            return EventTime::MIN;
        }
        let moved = watermark.plus(self.shift_ns);
        let whole = self.quantum_ns.map_or(moved, |quantum| EventTime(moved.0 - moved.0.rem_euclid(quantum)));
        whole.plus(self.plus_ns)
    }
}

/// Two streams that are joined.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Joining {
    pub tables: [Table; 2],
    pub bounds: TimeBounds,
    pub pane_ns: i64,
}

impl Joining {
    /// Left rows before this have met all their partners; a multiple of the panes that they are kept in.
    pub(crate) fn settled(&self) -> Frontier {
        self.settled_plus(0)
    }

    /// What is kept of a side before this is of no use any more.
    pub(crate) fn kept(&self, side: JoinSide) -> Frontier {
        match side {
            JoinSide::Left => self.settled(),
            JoinSide::Right => self.settled_plus(self.bounds.from_ns),
        }
    }

    /// No joined row comes any more with an event time of that side before this.
    pub(crate) fn followed(&self, side: JoinSide) -> Frontier {
        let [left, right] = self.tables.map(|table| Term::of(table.signal()));
        match side {
            JoinSide::Left => self.settled(),
            JoinSide::Right => Frontier { terms: vec![right, Term { shift_ns: self.bounds.from_ns, ..left }] },
        }
    }

    /// No joined row comes to be any more before this.
    pub(crate) fn come_to_be(&self) -> Frontier {
        let mut frontier = self.settled_plus(self.bounds.to_ns.max(0));
        frontier.terms.extend(self.tables.map(|table| Term::of(table.signal())));
        frontier
    }

    fn settled_plus(&self, plus_ns: i64) -> Frontier {
        let [left, right] =
            self.tables.map(|table| Term { quantum_ns: Some(self.pane_ns), plus_ns, ..Term::of(table.signal()) });
        Frontier { terms: vec![left, Term { shift_ns: -self.bounds.to_ns, ..right }] }
    }
}

impl Frontier {
    /// A signal's own watermark.
    #[must_use]
    pub fn of(signal: Signal) -> Self {
        Self { terms: vec![Term::of(signal)] }
    }

    /// How far it has come.
    #[must_use]
    pub fn at(&self, watermarks: &Watermarks) -> EventTime {
        let terms = self.terms.iter().map(|term| term.at(watermarks.of(term.signal)));
        terms.min().unwrap_or(EventTime::MIN)
    }

    /// What it is made of.
    pub(crate) fn terms(&self) -> &[Term] {
        &self.terms
    }

    /// The signals that it follows.
    pub(crate) fn signals(&self) -> impl Iterator<Item = Signal> {
        self.terms.iter().map(|term| term.signal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watermark::Mark;
    use lictor_connectors::TopicPartition;

    const SECOND: i64 = 1_000_000_000;

    fn watermarks(traces: i64, logs: i64) -> Watermarks {
        let mark = |(topic, signal, high): (&str, Signal, i64)| Mark {
            partition: TopicPartition::new(topic, 0),
            signal,
            high: Some(EventTime(high * SECOND)),
            is_idle: false,
        };
        let mut watermarks = Watermarks::new(0);
        let marks = [("spans", Signal::Traces, traces), ("logs", Signal::Logs, logs)].map(mark);
        watermarks.absorb(marks.to_vec(), EventTime(0));
        watermarks
    }

    #[test]
    fn a_left_row_is_settled_when_neither_side_can_bring_a_partner() {
        let bounds = TimeBounds { from_ns: -5 * SECOND, to_ns: 60 * SECOND };
        let joining = Joining { tables: [Table::Spans, Table::Logs], bounds, pane_ns: 10 * SECOND };
        let at = |frontier: Frontier, traces, logs| frontier.at(&watermarks(traces, logs)).0 / SECOND;
        assert_eq!(at(joining.settled(), 1_000, 1_000), 940, "the logs may still have a partner");
        assert_eq!(at(joining.settled(), 1_000, 1_009), 940, "panes are settled as a whole");
        assert_eq!(at(joining.settled(), 1_000, 5_000), 1_000, "the spans are not there yet");
        assert_eq!(at(joining.kept(JoinSide::Right), 1_000, 1_000), 935);
        assert_eq!(at(joining.come_to_be(), 1_000, 1_000), 1_000);
        assert_eq!(at(joining.followed(JoinSide::Right), 1_000, 1_000), 995);
    }
}
