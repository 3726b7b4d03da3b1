//! Sessions: windows that end a gap after their last row, each key's at another time.
//!
//! Sums are kept in panes as long as a gap. A key's rows in one pane are always of one session, and go on in the next
//! pane if its first row there comes less than a gap after the last one here. So a session is a chain of neighbouring
//! panes; when time has passed a pane, what goes on is added to the next one and the pane is let go.
//!
//! A pane that time has passed gets no more rows but those that are moved on to it, and they are earlier than its own:
//! when its sessions end stays as it was. So their ends are put in order once, and a step of time looks only at those
//! that it has reached. That follows from the panes: nothing of it is logged, and after an undo it is made anew.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use arrow::array::RecordBatch;
use lictor_queries::Aggregation;
use lictor_schemas::time::{EventTime, Window};

use crate::pane::{Pane, PaneError, to_u32};

type Panes = BTreeMap<Window, Pane>;

/// What is known of the panes that time has passed.
#[derive(Debug, Default)]
pub(crate) struct PassedPanes(BTreeMap<Window, Passed>);

impl PassedPanes {
    /// A pane changes or goes.
    pub(crate) fn forget(&mut self, span: Window) {
        self.0.remove(&span);
    }

    /// Memory held, in bytes.
    pub(crate) fn size_bytes(&self) -> usize {
        self.0.values().map(Passed::size_bytes).sum()
    }
}

/// A group whose key is not known in the next pane.
const NOWHERE: u32 = u32::MAX;

/// The sessions of a pane that time has passed.
#[derive(Debug)]
struct Passed {
    /// When each group's session ends if it does not go on, the earliest last, of those that time has not come to.
    ends: Vec<(EventTime, u32)>,
    /// Each group's number in the next pane.
    next_of: Vec<u32>,
    /// So many groups of the next pane were looked for here.
    next_seen: usize,
}

impl Passed {
    fn of(pane: &Pane, spec: Spec<'_>) -> Result<Self, PaneError> {
        let latest = pane.times(spec.latest, &(0..pane.len()).collect::<Vec<_>>())?;
        let mut ends: Vec<_> = (0..).zip(latest).map(|(group, latest)| (spec.end(latest), group)).collect();
        ends.sort_unstable_by(|a, b| b.cmp(a));
        Ok(Self { ends, next_of: vec![NOWHERE; pane.len()], next_seen: 0 })
    }

    fn size_bytes(&self) -> usize {
        self.ends.capacity() * size_of::<(EventTime, u32)>() + self.next_of.capacity() * size_of::<u32>()
    }

    /// The groups whose ends time has come to by `watermark`, in the order of their numbers. Each is returned once.
    fn take_reached(&mut self, watermark: EventTime) -> Vec<usize> {
        let later = self.ends.partition_point(|(end, _)| *end > watermark);
        let mut reached: Vec<usize> = self.ends.drain(later..).map(|(_, group)| group as usize).collect();
        reached.sort_unstable();
        reached
    }

    /// Looks up what is new in the pane after this one.
    fn follow(&mut self, panes: &mut Panes, (span, after): (Window, Window)) -> Result<(), PaneError> {
        let Some(next) = panes.get(&after).filter(|next| next.len() > self.next_seen) else { return Ok(()) };
        let new: Vec<usize> = (self.next_seen..next.len()).collect();
        let keys = next.keys_of(&new)?;
        let Some(pane) = panes.get_mut(&span) else { return Ok(()) };
        for (number, group) in new.iter().zip(pane.look_up(&keys, new.len())?) {
            if let Some(group) = group {
                self.next_of[group] = to_u32(*number);
            }
        }
        self.next_seen += new.len();
        Ok(())
    }

    /// Of `groups`, which end at these times if they do not go on: which do.
    fn go_on(
        &self,
        groups: &[usize],
        ends: &[EventTime],
        next: Option<&Pane>,
        spec: Spec<'_>,
    ) -> Result<Vec<bool>, PaneError> {
        let mut go_on = vec![false; groups.len()];
        let Some(next) = next else { return Ok(go_on) };
        let known: Vec<usize> = (0..groups.len()).filter(|row| self.next_of[groups[*row]] != NOWHERE).collect();
        let numbers: Vec<usize> = known.iter().map(|row| self.next_of[groups[*row]] as usize).collect();
        for (row, earliest) in known.into_iter().zip(next.times(spec.earliest, &numbers)?) {
            go_on[row] = EventTime(earliest) < ends[row];
        }
        Ok(go_on)
    }
}

/// What rows of sessions mean.
#[derive(Clone, Copy)]
struct Spec<'a> {
    aggregation: &'a Aggregation,
    gap_ns: i64,
    /// Which state column has the time of a group's first row.
    earliest: usize,
    /// Which has that of its last row.
    latest: usize,
}

impl Spec<'_> {
    fn end(self, latest: i64) -> EventTime {
        EventTime(latest).plus(self.gap_ns)
    }
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
    (panes, passed): (&mut Panes, &mut PassedPanes),
    aggregation: &Aggregation,
    (gap_ns, closed_to, watermark): (i64, EventTime, EventTime),
    touch: &mut dyn FnMut(Window),
) -> Result<Vec<Ended>, PaneError> {
    let [earliest, latest] = aggregation.bound_columns().ok_or(PaneError::Incomplete)?;
    let spec = Spec { aggregation, gap_ns, earliest, latest };
    let mut taken = Vec::new();
    let spans: Vec<Window> = panes.keys().copied().take_while(|span| span.end <= watermark).collect();
    for span in spans {
        let after = Window { start: span.end, end: span.end.plus(gap_ns) };
        let Some(pane) = panes.get(&span) else { continue };
        let passed = match passed.0.entry(span) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(free) => free.insert(Passed::of(pane, spec)?),
        };
        let reached = passed.take_reached(watermark);
        if !reached.is_empty() {
            passed.follow(panes, (span, after))?;
            taken.extend(ended(panes, passed, (span, after), (&reached, closed_to), spec)?);
        }
        if after.end <= watermark && panes.contains_key(&after) {
            passed.follow(panes, (span, after))?;
            move_on(panes, passed, (span, after), spec, touch)?;
        }
    }
    Ok(taken)
}

/// Of groups whose ends time has come to, the sessions that do not go on and had not ended at `closed_to`.
fn ended(
    panes: &Panes,
    passed: &Passed,
    (span, after): (Window, Window),
    (reached, closed_to): (&[usize], EventTime),
    spec: Spec<'_>,
) -> Result<Option<Ended>, PaneError> {
    let Some(pane) = panes.get(&span) else { return Ok(None) };
    let ends: Vec<EventTime> = pane.times(spec.latest, reached)?.into_iter().map(|latest| spec.end(latest)).collect();
    let go_on = passed.go_on(reached, &ends, panes.get(&after), spec)?;
    let rows: Vec<usize> = (0..reached.len()).filter(|row| !go_on[*row] && ends[*row] > closed_to).collect();
    if rows.is_empty() {
        return Ok(None);
    }
    let groups: Vec<usize> = rows.iter().map(|row| reached[*row]).collect();
    let starts = pane.times(spec.earliest, &groups)?;
    let window = |(row, start): (&usize, i64)| Window { start: EventTime(start), end: ends[*row] };
    let windows: Vec<Window> = rows.iter().zip(starts).map(window).collect();
    let groups = spec.aggregation.evaluate_each(&pane.keys_of(&groups)?, &pane.states_of(&groups)?, &windows)?;
    Ok(Some(Ended { groups, windows }))
}

/// Adds what goes on in the next pane to it.
fn move_on(
    panes: &mut Panes,
    passed: &Passed,
    (span, after): (Window, Window),
    spec: Spec<'_>,
    touch: &mut dyn FnMut(Window),
) -> Result<(), PaneError> {
    let (Some(pane), Some(next)) = (panes.get(&span), panes.get(&after)) else { return Ok(()) };
    let all: Vec<usize> = (0..pane.len()).collect();
    let ends: Vec<EventTime> = pane.times(spec.latest, &all)?.into_iter().map(|latest| spec.end(latest)).collect();
    let go_on = passed.go_on(&all, &ends, Some(next), spec)?;
    let going_on: Vec<usize> = all.into_iter().filter(|group| go_on[*group]).collect();
    let rows = pane.rows(&going_on)?;
    if let Some(next) = panes.get_mut(&after).filter(|_| rows.rows > 0) {
        touch(after);
        next.absorb(spec.aggregation, &rows)?;
    }
    Ok(())
}
