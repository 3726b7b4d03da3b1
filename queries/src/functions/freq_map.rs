//! `freq_map(text [, max])`: how often each text occurs.
//!
//! As long as a group has seen no more than `4 * max` different texts, everything is exact and independent of how rows
//! were cut and merged: the result is the `max` most frequent ones (of equals the first in the alphabet) and the sum of
//! the others. Beyond that the rare ones are forgotten by the rule of Misra and Gries: every count is too low by at
//! most `n / (2 * max + 1)` of `n` rows, whatever the order; which rare texts are left then depends on it. The total is
//! exact always: what a count lost is in `__other__`.

use arrow::array::{Array, ArrayRef, AsArray};
use datafusion::common::{Result, ScalarValue};

use super::FunctionDoc;
use super::aggregate::{AggregateSpec, constant_int};
use super::coerce::Kind;
use super::hist::{Cells, Hist, OTHER, hist_type};
use super::hist_summary::{Fill, Hists};

pub(super) static FREQ_MAP: AggregateSpec<Hists<Frequencies>> = AggregateSpec {
    doc: FunctionDoc {
        name: "freq_map",
        arguments: "text [, max = 256]",
        meaning: "how often each text occurs: the `max` (1 to 4096) most frequent, the rest as `__other__`; exact up \
                  to 4 max different texts, then counts are too low by at most 1/(2 max + 1) of the rows",
        source: "Misra and Gries 1982; Agarwal et al., Mergeable Summaries, 2012",
    },
    takes: &[Kind::Text, Kind::Int],
    required: 1,
    state_type: hist_type,
    result_type: hist_type,
    bind: Frequencies::bind,
};

/// More categories than this are no distribution that anybody compares.
const MAX: i64 = 256;
const MAX_MAX: i64 = 4096;

/// A text longer than this counts under its first bytes: the state is bounded whatever the texts are.
const KEY_BYTES_MAX: usize = 256;

#[derive(Debug)]
pub(super) struct Frequencies {
    max: usize,
}

impl Frequencies {
    fn bind(constants: &[Option<ScalarValue>]) -> Result<Hists<Self>> {
        let max = constant_int(constants, 1, "the number of texts of freq_map", MAX, 1..=MAX_MAX)?;
        Ok(Hists(Self { max: usize::try_from(max).unwrap_or(1) }))
    }
}

impl Fill for Frequencies {
    fn fill(
        &self,
        arguments: &[ArrayRef],
        rows: &mut dyn Iterator<Item = (usize, usize)>,
        groups: &mut [Option<Hist>],
    ) -> Result<()> {
        let texts = arguments[0].as_string_view();
        for (row, group) in rows.filter(|(row, _)| texts.is_valid(*row)) {
            let hist = groups[group].get_or_insert_with(|| Hist::new(Cells::Categories(Vec::new())));
            let Cells::Categories(counts) = &mut hist.cells else { continue };
            let text = texts.value(row);
            let text = &text[..text.floor_char_boundary(KEY_BYTES_MAX)];
            match counts.binary_search_by(|c| c.0.as_str().cmp(text)) {
                Ok(at) => counts[at].1 += 1.0,
                Err(at) => {
                    counts.insert(at, (text.to_owned(), 1.0));
                    self.trim(hist);
                }
            }
        }
        Ok(())
    }

    fn trim(&self, hist: &mut Hist) {
        forget_rare(hist, 2 * self.max);
    }

    fn finish(&self, hist: &Hist) -> Hist {
        let Cells::Categories(counts) = &hist.cells else { return hist.clone() };
        let mut ranked: Vec<_> = counts.iter().filter(|c| c.0 != OTHER).collect();
        ranked.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        ranked.truncate(self.max);
        let total: f64 = counts.iter().map(|c| c.1).sum();
        let others = total - ranked.iter().map(|c| c.1).sum::<f64>();
        let mut kept: Vec<_> = ranked.into_iter().cloned().collect();
        if others > 0.0 {
            kept.push((OTHER.to_owned(), others));
        }
        kept.sort_by(|a, b| a.0.cmp(&b.0));
        Hist { cells: Cells::Categories(kept), ignored: hist.ignored }
    }
}

/// Once there are more than twice as many categories as `most`, takes from each the count of the one behind the `most`
/// largest, and forgets those that have nothing left.
pub(super) fn forget_rare(hist: &mut Hist, most: usize) {
    let Cells::Categories(counts) = &mut hist.cells else { return };
    if counts.len() <= 2 * most {
        return;
    }
    let mut sizes: Vec<f64> = counts.iter().filter(|c| c.0 != OTHER).map(|c| c.1).collect();
    let (_, next, _) = sizes.select_nth_unstable_by(most, |a, b| b.total_cmp(a));
    let next = *next;
    let mut taken = 0.0;
    for (_, count) in counts.iter_mut().filter(|c| c.0 != OTHER) {
        let lost = count.min(next);
        *count -= lost;
        taken += lost;
    }
    counts.retain(|c| c.1 > 0.0);
    match counts.binary_search_by(|c| c.0.as_str().cmp(OTHER)) {
        Ok(at) => counts[at].1 += taken,
        Err(at) => counts.insert(at, (OTHER.to_owned(), taken)),
    }
}
