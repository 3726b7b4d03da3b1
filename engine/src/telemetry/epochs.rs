//! Epochs as traces: one trace each, with a span for what is read, what it comes to and the commit.
//!
//! Of each stage one epoch per second is told, and every one that has events: it is those that people wait for.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use lictor_schemas::otlp::export::{AttributeValue, Attributes, Span};
use lictor_schemas::time::EventTime;

use super::ExportCounts;
use crate::tasks::{EpochTimes, Stage};

/// An epoch without events is told if the last one of its stage was so long ago.
const TOLD_EVERY: Duration = Duration::from_secs(1);

/// Epochs that wait to be sent, at some 150 bytes each: at the highest rate of commits those of a minute.
pub const EPOCHS_MAX: usize = 2_048;

/// Epochs that wait to be sent. The loops put them there and never wait.
#[derive(Debug)]
pub struct Epochs {
    waiting: Mutex<Waiting>,
    counts: ExportCounts,
}

#[derive(Debug, Default)]
struct Waiting {
    epochs: VecDeque<EpochTimes>,
    told_at: [Option<Duration>; 2],
}

impl Epochs {
    /// None waits; those for which there is no room are counted in `counts`.
    #[must_use]
    pub fn new(counts: ExportCounts) -> Self {
        Self { waiting: Mutex::default(), counts }
    }

    /// Takes an epoch, unless one of its stage was told just now.
    pub fn tell(&self, epoch: EpochTimes) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let told_at = &mut waiting.told_at[epoch.stage as usize];
        let is_due = told_at.is_none_or(|told_at| epoch.committed.saturating_sub(told_at) >= TOLD_EVERY);
        if !is_due && epoch.events == 0 {
            return;
        }
        *told_at = Some(epoch.committed);
        waiting.epochs.push_back(epoch);
        self.keep_newest(&mut waiting);
    }

    /// Those that wait, the oldest first.
    pub(super) fn take(&self) -> Vec<EpochTimes> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).epochs.drain(..).collect()
    }

    /// They were not sent, and wait again.
    pub(super) fn put_back(&self, epochs: Vec<EpochTimes>) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        epochs.into_iter().rev().for_each(|epoch| waiting.epochs.push_front(epoch));
        self.keep_newest(&mut waiting);
    }

    fn keep_newest(&self, waiting: &mut Waiting) {
        let excess = waiting.epochs.len().saturating_sub(EPOCHS_MAX);
        waiting.epochs.drain(..excess);
        self.counts.dropped_epochs(excess);
    }
}

/// The spans of an epoch, the one that all others are part of first. `now` are both clocks at one moment.
pub(super) fn to_spans(
    epoch: &EpochTimes,
    (now, monotonic): (EventTime, Duration),
    ids: &mut fastrand::Rng,
) -> Vec<Span> {
    let at = |then: Duration| {
        let since_ns = monotonic.saturating_sub(then).as_nanos();
        EventTime(now.0.saturating_sub(i64::try_from(since_ns).unwrap_or(i64::MAX)))
    };
    let [whole, read, sum, commit] = match epoch.stage {
        Stage::Scan => ["scan epoch", "read and decode", "sum up", "commit"],
        Stage::Judge => ["judge epoch", "read and merge", "decide", "commit"],
    };
    let trace_id = ids.u128(1..).to_be_bytes();
    let root = ids.u64(1..).to_be_bytes();
    let mut span = |name, start, end, parent_span_id, attributes| {
        let span_id = if parent_span_id == Some(root) { ids.u64(1..).to_be_bytes() } else { root };
        Span { trace_id, span_id, parent_span_id, name, start: at(start), end: at(end), attributes }
    };
    let EpochTimes { begun, read: was_read, ended, committed, busy, .. } = *epoch;
    let busy = vec![("lictor.busy_seconds".to_owned(), AttributeValue::Double(busy.as_secs_f64()))];
    vec![
        span(whole, begun, committed, None, of_epoch(epoch)),
        span(read, begun, was_read, Some(root), busy),
        span(sum, was_read, ended, Some(root), Attributes::new()),
        span(commit, ended, committed, Some(root), Attributes::new()),
    ]
}

fn of_epoch(epoch: &EpochTimes) -> Attributes {
    let mut attributes = vec![("lictor.stage".to_owned(), AttributeValue::Text(epoch.stage.as_str().to_owned()))];
    let mut count = |name: &str, number: u64| {
        let number = i64::try_from(number).unwrap_or(i64::MAX);
        attributes.push((format!("lictor.{name}"), AttributeValue::Integer(number)));
    };
    count("records", epoch.records);
    match epoch.stage {
        Stage::Scan => count("rows", epoch.rows),
        Stage::Judge => count("events", epoch.events),
    }
    attributes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(stage: Stage, committed_ms: u64, events: u64) -> EpochTimes {
        let ms = Duration::from_millis;
        EpochTimes {
            stage,
            begun: ms(committed_ms.saturating_sub(40)),
            read: ms(committed_ms.saturating_sub(15)),
            ended: ms(committed_ms.saturating_sub(5)),
            committed: ms(committed_ms),
            busy: ms(2),
            records: 7,
            rows: 70,
            events,
        }
    }

    #[test]
    fn one_epoch_per_second_and_stage_is_told_and_every_one_with_events() {
        let epochs = Epochs::new(ExportCounts::default());
        for (stage, committed_ms, events) in [
            (Stage::Scan, 100, 0),
            (Stage::Scan, 1_000, 0),
            (Stage::Judge, 1_000, 0),
            (Stage::Judge, 1_010, 2),
            (Stage::Judge, 1_900, 0),
            (Stage::Scan, 1_100, 0),
        ] {
            epochs.tell(epoch(stage, committed_ms, events));
        }
        let told: Vec<_> = epochs.take().iter().map(|epoch| (epoch.stage, epoch.committed.as_millis())).collect();
        let expected = [(Stage::Scan, 100), (Stage::Judge, 1_000), (Stage::Judge, 1_010), (Stage::Scan, 1_100)];
        assert_eq!(told, expected);
        assert_eq!(epochs.take(), []);
    }

    #[test]
    fn there_is_room_for_so_many_and_the_oldest_make_room() {
        let counts = ExportCounts::default();
        let epochs = Epochs::new(counts.clone());
        (0..EPOCHS_MAX as u64 + 3).for_each(|n| epochs.tell(epoch(Stage::Judge, n, 1)));
        assert_eq!(counts.epochs_dropped(), 3);
        let taken = epochs.take();
        assert_eq!((taken.len(), taken[0].committed.as_millis()), (EPOCHS_MAX, 3));
        epochs.tell(epoch(Stage::Judge, 9_999, 1));
        epochs.put_back(taken);
        let taken = epochs.take();
        assert_eq!((taken.len(), taken[0].committed.as_millis(), counts.epochs_dropped()), (EPOCHS_MAX, 4, 4));
        assert_eq!(taken.last().map(|epoch| epoch.committed.as_millis()), Some(9_999));
    }

    #[test]
    fn parts_lie_in_their_epoch_one_behind_the_other() {
        let now = (EventTime::from_ms(10_000), Duration::from_millis(500));
        let spans = to_spans(&epoch(Stage::Judge, 400, 3), now, &mut fastrand::Rng::with_seed(7));
        let [whole, read, decide, commit] = &spans[..] else { panic!("{spans:?}") };
        assert_eq!((whole.start, whole.end), (EventTime::from_ms(9_860), EventTime::from_ms(9_900)));
        assert_eq!([whole.name, read.name, decide.name, commit.name][1..], ["read and merge", "decide", "commit"]);
        assert_eq!((read.start, read.end), (whole.start, decide.start));
        assert_eq!((decide.end, commit.end), (commit.start, whole.end));
        assert!(whole.parent_span_id.is_none());
        for part in [read, decide, commit] {
            assert_eq!((part.trace_id, part.parent_span_id), (whole.trace_id, Some(whole.span_id)));
            assert_ne!(part.span_id, whole.span_id);
        }
        assert!(whole.attributes.contains(&("lictor.events".to_owned(), AttributeValue::Integer(3))));
        let other = to_spans(&epoch(Stage::Scan, 400, 0), now, &mut fastrand::Rng::with_seed(8));
        assert_ne!(other[0].trace_id, whole.trace_id);
        assert!(other[0].attributes.contains(&("lictor.rows".to_owned(), AttributeValue::Integer(70))));
    }
}
