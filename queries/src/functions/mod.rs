//! The functions that rules have beside those of DataFusion: what detects drift, and what things cost.
//!
//! Histograms and other summaries are mergeable aggregates, so windows, shards and frames add up; distances are scalars
//! over what they give. [`functions`] is the list of all, by family; a session gets them from [`register`].
//!
//! What all have in common: a null argument makes a scalar null and is skipped by an aggregate; NaN and infinity are
//! left out of samples and histograms, and counted where a result has room for it; what is not defined (of an empty
//! histogram, of a division by zero) is null, never an error; what can never be right (histograms of other cells, a
//! list that is no edges) is an error, which stops the rule.

mod aggregate;
mod aligned;
mod binning;
mod burn;
mod chi2;
mod coerce;
mod cost;
mod distinct_sketch;
mod divergence;
mod exemplar;
mod freq_map;
mod hist;
mod hist_fixed;
mod hist_log;
mod hist_merge;
mod hist_read;
mod hist_summary;
mod hist_text;
mod ks;
mod max_concurrency;
mod moments;
mod psi;
mod scalar;
mod special;
#[cfg(test)]
mod tests;
mod vec_mean;
mod vectors;
mod wasserstein;

use std::sync::Arc;

use datafusion::logical_expr::AggregateUDF;
use datafusion::prelude::SessionContext;
use lictor_schemas::prices::PriceTable;

pub(crate) use hist::{HistColumn, hist_type};
pub(crate) use hist_text::to_text as hist_to_text;

use aggregate::udaf;
use scalar::{ScalarSpec, udf};

/// What a function is, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FunctionDoc {
    /// Its name in SQL.
    pub name: &'static str,
    /// Its arguments, those in brackets optional; forms are parted by `|`.
    pub arguments: &'static str,
    /// What it gives.
    pub meaning: &'static str,
    /// Where its definition comes from.
    pub source: &'static str,
}

/// Functions that belong together.
#[derive(Clone, Debug)]
pub struct FunctionFamily {
    /// What they are for.
    pub title: &'static str,
    /// Each of them, in the order in which one would read them.
    pub functions: Vec<FunctionDoc>,
}

const SCALARS: [(&str, &[ScalarSpec]); 11] = [
    ("Reading and making histograms", &hist_read::HIST_FUNCTIONS),
    ("Histograms as text", &hist_text::HIST_TEXT_FUNCTIONS),
    ("Population stability", &psi::PSI_FUNCTIONS),
    ("Distances of shares", &divergence::DIVERGENCE_FUNCTIONS),
    ("Tests of counts", &chi2::CHI2_FUNCTIONS),
    ("Kolmogorov-Smirnov", &ks::KS_FUNCTIONS),
    ("Wasserstein", &wasserstein::WASSERSTEIN_FUNCTIONS),
    ("Histograms of lists", &binning::BINNING_FUNCTIONS),
    ("Different values", &distinct_sketch::DISTINCT_FUNCTIONS),
    ("Vectors and lists", &vectors::VECTOR_FUNCTIONS),
    ("Budgets", &burn::BURN_FUNCTIONS),
];

fn aggregates() -> Vec<(FunctionDoc, AggregateUDF)> {
    vec![
        (hist_log::HIST_LOG.doc, udaf(&hist_log::HIST_LOG)),
        (hist_fixed::HIST_FIXED.doc, udaf(&hist_fixed::HIST_FIXED)),
        (freq_map::FREQ_MAP.doc, udaf(&freq_map::FREQ_MAP)),
        (hist_merge::HIST_MERGE.doc, udaf(&hist_merge::HIST_MERGE)),
        (moments::MOMENTS.doc, udaf(&moments::MOMENTS)),
        (vec_mean::VEC_MEAN.doc, udaf(&vec_mean::VEC_MEAN)),
        (max_concurrency::MAX_CONCURRENCY.doc, udaf(&max_concurrency::MAX_CONCURRENCY)),
        (distinct_sketch::DISTINCT_SKETCH.doc, udaf(&distinct_sketch::DISTINCT_SKETCH)),
        (distinct_sketch::DISTINCT_MERGE.doc, udaf(&distinct_sketch::DISTINCT_MERGE)),
        (exemplar::EXEMPLAR.doc, udaf(&exemplar::EXEMPLAR)),
    ]
}

/// Every function, by family.
#[must_use]
pub fn functions() -> Vec<FunctionFamily> {
    let aggregates = aggregates().into_iter().map(|(doc, _)| doc).collect();
    let mut families = vec![FunctionFamily { title: "Aggregates", functions: aggregates }];
    families.extend(
        SCALARS
            .iter()
            .map(|(title, specs)| FunctionFamily { title, functions: specs.iter().map(|spec| spec.doc).collect() }),
    );
    families.push(FunctionFamily { title: "Cost", functions: vec![cost::LLM_COST_USD.doc] });
    families
}

/// Makes the functions known to a session; costs are worked out from `prices`.
pub(crate) fn register(context: &SessionContext, prices: &Arc<PriceTable>) {
    for (_, function) in aggregates() {
        context.register_udaf(function);
    }
    for spec in SCALARS.iter().flat_map(|(_, specs)| specs.iter()) {
        context.register_udf(udf(spec));
    }
    context.register_udf(cost::llm_cost_usd(prices));
}
