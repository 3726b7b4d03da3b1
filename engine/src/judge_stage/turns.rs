//! Rules that speak on update are judged after every record, as far as it matters.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{AsArray, BooleanArray, PrimitiveArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::UInt32Type;
use lictor_schemas::time::Window;

use super::JudgeStage;
use crate::clock::Stopwatch;
use crate::decision::Decision;
use crate::exchange::{RuleId, StoreId};
use crate::pane::PaneError;
use crate::windowed::WindowedState;

impl JudgeStage {
    /// Takes over what records have said, turn by turn; first, all at once, what surely leads to nothing.
    pub(super) fn absorb_updates(
        &mut self,
        updates: Vec<(StoreId, RecordBatch)>,
        feeder: u64,
        decided: &mut Vec<Decision>,
    ) {
        let mut turns: BTreeMap<u32, Vec<(StoreId, RecordBatch)>> = BTreeMap::new();
        for (store, rows) in updates {
            if !(self.is_read(store) && self.is_fed_by(store, feeder)) {
                continue;
            }
            let (of_rows, partial) = without_turns(&rows);
            // An update too large for one item: before the rest of its rows come those of the first that are left.
            let is_first = turns.values().flatten().all(|(before, _)| *before != store);
            let is_left = match is_first {
                true => self.sum_up_quiet(store, &partial),
                false => BooleanArray::from(vec![true; partial.num_rows()]),
            };
            for (turn, rows) in by_turn(of_rows.values(), &partial, &is_left) {
                turns.entry(turn).or_default().push((store, rows));
            }
        }
        for (number, partials) in turns.into_values().enumerate() {
            let plans = partials.iter().map(|(store, _)| &self.judging.stores[store.0]);
            let readers: BTreeSet<RuleId> = plans.flat_map(|plan| &plan.readers).copied().collect();
            for (store, partial) in partials {
                self.absorb_partial(store, &partial, decided);
            }
            match number {
                0 => self.step(decided),
                // Time stands still, so the others have nothing new to say.
                _ => self.advance_all(readers, decided),
            }
        }
    }

    /// Sums up the rows of groups that surely have nothing to say; returns which others there are.
    fn sum_up_quiet(&mut self, store: StoreId, partial: &RecordBatch) -> BooleanArray {
        let watch = Stopwatch::start();
        let states = &self.states;
        let running = |rule: &&RuleId| states[rule.0].quarantined.is_none();
        let readers: Vec<RuleId> = self.stores[store.0].plan().readers.iter().filter(running).copied().collect();
        let judges: Vec<&WindowedState> = readers.iter().filter_map(|rule| states[rule.0].windowed.as_ref()).collect();
        let sums: Option<Vec<Vec<usize>>> = judges.iter().map(|judge| judge.rising()).collect();
        let store = &mut self.stores[store.0];
        let Some(sums) = sums.filter(|_| store.can_be_quiet()) else {
            return BooleanArray::from(vec![true; partial.num_rows()]);
        };
        let grows = {
            let aggregation = &store.plan().aggregation;
            let states_at = 1 + aggregation.key_schema().fields().len();
            aggregation.may_only_grow(&sums.concat(), &partial.columns()[states_at..])
        };
        let violating = |groups: &RecordBatch, window: Window| {
            let of_each = judges.iter().map(|judge| judge.violating(groups, window));
            Ok(of_each.collect::<Result<Vec<_>, PaneError>>()?.concat())
        };
        let is_done = store.absorb_quiet(partial, &grows, self.judging.groups_max, &violating);
        let each = watch.elapsed() / u32::try_from(readers.len().max(1)).unwrap_or(u32::MAX);
        readers.iter().for_each(|rule| self.states[rule.0].spent += each);
        is_done.into_iter().map(|is_done| Some(!is_done)).collect()
    }
}

/// The turn of each row of an update, and the rows as partial sums.
fn without_turns(rows: &RecordBatch) -> (PrimitiveArray<UInt32Type>, RecordBatch) {
    let mut partial = rows.clone();
    let turns = partial.remove_column(rows.num_columns() - 1);
    (turns.as_primitive().clone(), partial)
}

/// The rows of each turn that are left.
fn by_turn(turns: &[u32], partial: &RecordBatch, is_left: &BooleanArray) -> Vec<(u32, RecordBatch)> {
    let left = filter_record_batch(partial, is_left);
    let left = left.unwrap_or_else(|e| unreachable!("there is a word for each of {} rows: {e}", partial.num_rows()));
    let turns: Vec<u32> =
        turns.iter().zip(is_left.values()).filter_map(|(turn, is_left)| is_left.then_some(*turn)).collect();
    let mut at = 0;
    let of_turn = |rows: &[u32]| {
        at += rows.len();
        (rows[0], left.slice(at - rows.len(), rows.len()))
    };
    turns.chunk_by(|one, next| one == next).map(of_turn).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use lictor_connectors::RecordRef;
    use lictor_queries::{References, RuleFile, compile};
    use lictor_schemas::otlp::encode::{RowDraft, encode_protobuf};
    use lictor_schemas::prices::PriceTable;
    use lictor_schemas::tables::{Signal, Table};
    use lictor_schemas::time::EventTime;
    use serde_json::json;

    use super::*;
    use crate::exchange::route::Place;
    use crate::pipeline::{PipelineSettings, Stages};

    const NOW: EventTime = EventTime(1_772_352_000_000_000_000);

    /// How many rows must be judged record by record, of an epoch in which each of the teams spends once.
    fn left(having: &str, spent: &[(&str, f64)]) -> usize {
        let text = format!(
            "CREATE RULE spent WITH (action = 'block', reason_code = 'BUDGET_EXCEEDED') AS
             SELECT team, window_start, window_end, sum(cost_total) AS observed, count(*) AS calls
             FROM TUMBLE(spans, event_time, INTERVAL '1 hour') WHERE team IS NOT NULL
             GROUP BY team, window_start, window_end HAVING {having} EMIT ON UPDATE;"
        );
        let (rules, faults) = compile(&[RuleFile { file: "r.sql".into(), text }], &References::new());
        assert_eq!(faults, []);
        let stages = Stages::new(rules, Arc::new(PriceTable::empty()), &PipelineSettings::default());
        let (mut scan, mut judge) = (stages.scan, stages.judge.stage(Place::ONLY));
        for (offset, (team, usd)) in (0..).zip(spent) {
            let columns = [("team".to_owned(), json!(team)), ("cost_total".to_owned(), json!(usd))].into();
            let row = RowDraft { table: Table::Spans, event_time: NOW, columns };
            let payload = encode_protobuf(Signal::Traces, &[row]).unwrap();
            let payload = Some(payload.as_slice());
            scan.absorb(RecordRef { topic: "otlp_spans", offset, payload, ..RecordRef::default() }, NOW);
        }
        let updates: Vec<_> = scan.flush(NOW, false).into_iter().flat_map(|shipment| shipment.updates).collect();
        let rows = updates.iter().map(|(_, rows)| rows.num_rows()).sum::<usize>();
        assert_eq!(rows, spent.len(), "a row for each record");
        let left_of = |(store, rows): (StoreId, RecordBatch)| judge.sum_up_quiet(store, &without_turns(&rows).1);
        updates.into_iter().map(left_of).map(|is_left| is_left.true_count()).sum()
    }

    #[test]
    fn only_groups_that_may_say_something_are_judged_record_by_record() {
        let spent = [("a", 4.0), ("b", 1.0), ("a", 4.0), ("b", 1.0), ("c", 0.0), ("a", 4.0)];
        assert_eq!(left("sum(cost_total) > 100", &spent), 0);
        // The first record is shipped by itself, since time begins with it.
        assert_eq!(left("sum(cost_total) > 10", &spent), 2, "those of a");
        assert_eq!(left("sum(cost_total) > 10 OR count(*) >= 2", &spent), 4, "those of a and b");
        assert_eq!(left("sum(cost_total) < 100", &spent), 6, "more rows can make it false");
        assert_eq!(left("sum(cost_total) > 100", &[("a", 4.0), ("b", 1.0), ("a", -1.0)]), 1, "it may have been higher");
    }
}
