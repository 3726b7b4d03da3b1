//! Sessions: windows that end a gap after their last row, each key's at another time.
//!
//! Sums are kept in panes as long as a gap. A key's rows in one pane are always of one session, and go on in the next
//! pane if its first row there comes less than a gap after the last one here. So a session is a chain of neighbouring
//! panes; when time has passed a pane, what goes on is added to the next one and the pane is let go.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use lictor_queries::Aggregation;
use lictor_schemas::time::{EventTime, Window};

use crate::pane::{Pane, PaneError, PartialRows};

/// A pane's groups at a watermark.
struct Sorted {
    /// Their sessions have ended since the watermark before.
    ended: PartialRows,
    windows: Vec<Window>,
    /// Their sessions go on in the next pane.
    going_on: PartialRows,
}

/// Which sessions of a pane have ended at `watermark` and not at `closed_to`, and which go on in `next`.
fn sort(
    aggregation: &Aggregation,
    (pane, next): (&Pane, Option<&Pane>),
    (gap_ns, closed_to, watermark): (i64, EventTime, EventTime),
) -> Result<Sorted, PaneError> {
    let all = pane.all()?;
    let bounds = |rows: &PartialRows| aggregation.bounds(&rows.states).ok_or(PaneError::Incomplete);
    let (earliest, latest) = bounds(&all)?;
    let mut index = aggregation.key_index()?;
    let (mut rows_next, mut earliest_next) = (0, Vec::new());
    if let Some(next) = next.map(Pane::all).transpose()? {
        index.intern(&next.keys, next.rows)?;
        (rows_next, earliest_next) = (next.rows, bounds(&next)?.0);
    }
    let numbers = index.intern(&all.keys, all.rows)?;
    let (mut ended, mut windows, mut going_on) = (Vec::new(), Vec::new(), Vec::new());
    for (row, number) in numbers.into_iter().enumerate() {
        let window = Window { start: EventTime(earliest[row]), end: EventTime(latest[row]).plus(gap_ns) };
        if number < rows_next && earliest_next[number] < window.end.0 {
            going_on.push(row);
        } else if window.end <= watermark && window.end > closed_to {
            ended.push(row);
            windows.push(window);
        }
    }
    Ok(Sorted { ended: all.take(&ended)?, windows, going_on: all.take(&going_on)? })
}

/// Sessions that have ended, finished: of each key at most one.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Their groups.
    pub groups: RecordBatch,
    /// Their bounds, in the same order.
    pub windows: Vec<Window>,
}

/// Takes the sessions that have ended at `watermark` and not at `closed_to`, each key's in the order of their ends and
/// never two of them in one. What goes on is moved on in `panes`; those that time has passed may be removed afterwards.
/// `touch` is told of panes that change.
pub(crate) fn take_ended(
    panes: &mut BTreeMap<Window, Pane>,
    aggregation: &Aggregation,
    times: (i64, EventTime, EventTime),
    touch: &mut dyn FnMut(Window),
) -> Result<Vec<Ended>, PaneError> {
    let (gap_ns, _, watermark) = times;
    let mut taken = Vec::new();
    let spans: Vec<Window> = panes.keys().copied().take_while(|span| span.end <= watermark).collect();
    for span in spans {
        let after = Window { start: span.end, end: span.end.plus(gap_ns) };
        let Some(pane) = panes.get(&span) else { continue };
        let Sorted { ended, windows, going_on } = sort(aggregation, (pane, panes.get(&after)), times)?;
        if ended.rows > 0 {
            let groups = aggregation.evaluate_each(&ended.keys, &ended.states, &windows)?;
            taken.push(Ended { groups, windows });
        }
        if after.end <= watermark
            && let Some(next) = panes.get_mut(&after).filter(|_| going_on.rows > 0)
        {
            touch(after);
            next.absorb(aggregation, &going_on)?;
        }
    }
    Ok(taken)
}
