//! Rows of many records summed up at once, where that surely makes no difference.
//!
//! Rules that emit on update are judged after every record. But most records say nothing: a group that violates no rule
//! now, nor with all the rows of an epoch, has not violated one in between if the rules' conditions can only come true
//! by more rows (see [`Finish::rising`](lictor_queries::Finish::rising)). Its rows are merged in one go, in their order,
//! so that sums are the same to the last bit.

use std::sync::Arc;

use arrow::array::RecordBatch;
use lictor_queries::Emission;
use lictor_schemas::time::Window;

use super::PaneStore;
use crate::pane::{PaneError, PartialRows};

/// Which of some finished groups of a window violate a rule.
pub(crate) type Violating<'a> = dyn Fn(&RecordBatch, Window) -> Result<Vec<usize>, PaneError> + 'a;

impl PaneStore {
    /// Whether rows of several records can be summed up at once: each of them belongs to one window.
    pub(crate) fn can_be_quiet(&self) -> bool {
        let is_alone = self.plan.aggregation.spec().is_disjoint() && self.plan.side.is_none();
        self.plan.emission == Emission::OnUpdate && is_alone && self.warming().is_none()
    }

    /// Sums up the rows of groups that surely have nothing to say: those of which each row `may_only_grow`, that violate
    /// no rule, and would not with all of them. Returns which rows were summed up; the others are to be judged record by
    /// record.
    pub(crate) fn absorb_quiet(
        &mut self,
        partial: &RecordBatch,
        may_only_grow: &[bool],
        violating: &Violating<'_>,
    ) -> Vec<bool> {
        let plan = Arc::clone(&self.plan);
        let mut is_done = vec![false; partial.num_rows()];
        for (span, rows) in plan.aggregation.panes_of(partial) {
            if span.end <= self.closed_to {
                continue;
            }
            // Whatever fails here fails once more at the record that makes it fail.
            let Ok(quiet) = self.absorb_quiet_of(span, (partial, &rows), may_only_grow, violating) else { continue };
            rows.iter().zip(quiet).for_each(|(row, is_quiet)| is_done[number(*row)] = is_quiet);
        }
        is_done
    }

    /// As [`PaneStore::absorb_quiet`], of some rows that are all in one window.
    fn absorb_quiet_of(
        &mut self,
        window: Window,
        (partial, rows): (&RecordBatch, &[u64]),
        may_only_grow: &[bool],
        violating: &Violating<'_>,
    ) -> Result<Vec<bool>, PaneError> {
        let plan = Arc::clone(&self.plan);
        let pane = self.pane_to_change(window)?;
        let weighed = pane.weigh(&plan.aggregation, &PartialRows::select(partial, rows, &plan.aggregation)?)?;
        let mut is_quiet: Vec<bool> = weighed.numbers.iter().map(|group| !pane.is_violating_any(*group)).collect();
        for (row, place) in rows.iter().zip(&weighed.places) {
            is_quiet[*place] &= may_only_grow[number(*row)];
        }
        if is_quiet.contains(&true) {
            let groups = pane.evaluate_weighed(&plan.aggregation, &weighed, window)?;
            violating(&groups, window)?.into_iter().for_each(|group| is_quiet[group] = false);
        }
        let of_rows = weighed.places.iter().map(|place| is_quiet[*place]).collect();
        pane.settle(weighed, &is_quiet)?;
        Ok(of_rows)
    }
}

fn number(row: u64) -> usize {
    usize::try_from(row).unwrap_or_else(|_| unreachable!("row {row} of a batch in memory"))
}
