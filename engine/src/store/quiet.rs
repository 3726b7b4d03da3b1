//! Rows of many records summed up at once, where that surely makes no difference.
//!
//! Rules that emit on update are judged after every record. But most records say nothing: a group that violates no rule
//! now, nor with all the rows of an epoch, has not violated one in between if the rules' conditions can only come true
//! by more rows (see [`Finish::rising`](lictor_queries::Finish::rising)). Its rows are merged in one go, in their
//! order, so that sums are the same to the last bit.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use lictor_queries::{Emission, WindowSpec};
use lictor_schemas::time::Window;

use super::PaneStore;
use crate::pane::{PaneError, PartialRows};

/// Which of some finished groups of a window violate a rule.
pub(crate) type Violating<'a> = dyn Fn(&RecordBatch, Window) -> Result<Vec<usize>, PaneError> + 'a;

impl PaneStore {
    /// Whether rows of several records can be summed up at once.
    pub(crate) fn can_be_quiet(&self) -> bool {
        let is_session = matches!(self.plan.aggregation.spec(), WindowSpec::Session { .. });
        let is_plain = !is_session && self.plan.side.is_none() && self.warming().is_none();
        self.plan.emission == Emission::OnUpdate && is_plain
    }

    /// Sums up the rows of keys that surely have nothing to say in any window: those of which each row `may_only_grow`,
    /// that violate no rule, and would not with all of them. Returns which rows were summed up; the others are to be
    /// judged record by record. Those are all if they might be more than `groups_max` groups: what was judged before
    /// the one too many counts.
    pub(crate) fn absorb_quiet(
        &mut self,
        partial: &RecordBatch,
        may_only_grow: &[bool],
        groups_max: usize,
        violating: &Violating<'_>,
    ) -> Vec<bool> {
        // Whatever fails here fails once more at the record that makes it fail.
        let quiet = self.try_absorb_quiet(partial, may_only_grow, groups_max, violating);
        quiet.unwrap_or_else(|_| vec![false; partial.num_rows()])
    }

    fn try_absorb_quiet(
        &mut self,
        partial: &RecordBatch,
        may_only_grow: &[bool],
        groups_max: usize,
        violating: &Violating<'_>,
    ) -> Result<Vec<bool>, PaneError> {
        let windows = self.windows_of(partial);
        if self.groups() + windows.values().map(Vec::len).sum::<usize>() > groups_max {
            return Ok(vec![false; partial.num_rows()]);
        }
        let plan = Arc::clone(&self.plan);
        let aggregation = &plan.aggregation;
        let mut weighed = Vec::new();
        for (window, rows) in windows {
            let rows_of = PartialRows::select(partial, &rows, aggregation)?;
            weighed.push((window, self.pane_to_change(window)?.weigh(aggregation, &rows_of)?, rows));
        }
        let keys = match weighed.as_slice() {
            // In one window keys are what its groups are.
            [(_, groups, rows)] if rows.len() == partial.num_rows() => groups.places.clone(),
            _ => {
                let key_columns = aggregation.key_schema().fields().len();
                aggregation.key_index()?.intern(&partial.columns()[1..=key_columns], partial.num_rows())?
            }
        };
        let mut is_quiet = vec![true; keys.iter().max().map_or(0, |last| last + 1)];
        keys.iter().zip(may_only_grow).for_each(|(key, may_only_grow)| is_quiet[*key] &= may_only_grow);
        let mut in_window = vec![false; partial.num_rows()];
        let mut keyed = Vec::new();
        for (window, groups, rows) in weighed {
            rows.iter().for_each(|row| in_window[number(*row)] = true);
            let mut key_of = vec![0; groups.numbers.len()];
            rows.iter().zip(&groups.places).for_each(|(row, place)| key_of[*place] = keys[number(*row)]);
            let pane = self.pane_to_change(window)?;
            for (group, key) in groups.numbers.iter().zip(&key_of) {
                is_quiet[*key] &= !pane.is_violating_any(*group);
            }
            let finished = pane.evaluate_weighed(aggregation, &groups, window)?;
            violating(&finished, window)?.into_iter().for_each(|place| is_quiet[key_of[place]] = false);
            keyed.push((window, groups, key_of));
        }
        for (window, groups, key_of) in keyed {
            let is_chosen: Vec<bool> = key_of.iter().map(|key| is_quiet[*key]).collect();
            self.pane_to_change(window)?.settle(groups, &is_chosen)?;
        }
        Ok(keys.iter().zip(in_window).map(|(key, in_window)| in_window && is_quiet[*key]).collect())
    }

    /// The open windows that rows of a partial batch are in, with the numbers of those rows in their order.
    fn windows_of(&self, partial: &RecordBatch) -> BTreeMap<Window, Vec<u64>> {
        let spec = self.plan.aggregation.spec();
        let mut rows_of: BTreeMap<Window, Vec<u64>> = BTreeMap::new();
        for (span, rows) in self.plan.aggregation.panes_of(partial) {
            for window in spec.windows_of(span).into_iter().filter(|window| window.end > self.closed_to) {
                rows_of.entry(window).or_default().extend(&rows);
            }
        }
        rows_of.values_mut().for_each(|rows| rows.sort_unstable());
        rows_of
    }
}

fn number(row: u64) -> usize {
    usize::try_from(row).unwrap_or_else(|_| unreachable!("row {row} of a batch in memory"))
}
