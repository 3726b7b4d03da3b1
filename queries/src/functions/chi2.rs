//! Tests of whether two histograms come from one distribution: chi-squared and its likelihood-ratio relative G.
//!
//! Cells that are empty in both are left out. With thousands of rows every difference is significant: ask for a least
//! effect (`js_distance`, `tvd`) as well.

use datafusion::common::Result;

use super::FunctionDoc;
use super::aligned::both;
use super::coerce::Kind;
use super::scalar::{Gives, ScalarSpec, Value};
use super::special::{chi2_sf, normal_sf};

const fn test(
    name: &'static str,
    meaning: &'static str,
    source: &'static str,
    body: fn(&[Value]) -> Result<Value>,
) -> ScalarSpec {
    let doc = FunctionDoc { name, arguments: "ref, cur", meaning, source };
    ScalarSpec { doc, takes: &[Kind::Hist, Kind::Hist], required: 2, gives: Gives::Number, body }
}

pub(super) static CHI2_FUNCTIONS: [ScalarSpec; 8] = [
    test(
        "chi2_stat",
        "chi-squared of the 2 x cells table, with Yates' correction for two cells",
        "scipy.stats.chi2_contingency",
        |arguments| of_table("chi2_stat", arguments, pearson, |found| found.statistic),
    ),
    test(
        "chi2_pvalue",
        "its p-value with cells - 1 degrees of freedom; from 5 expected per cell on",
        "scipy.stats.chi2_contingency",
        |arguments| of_table("chi2_pvalue", arguments, pearson, Test::p_value),
    ),
    test(
        "chi2_gof_stat",
        "chi-squared of cur against the shares of ref; infinite if ref lacks what cur has",
        "scipy.stats.chisquare, Evidently 0.7",
        |arguments| of_table("chi2_gof_stat", arguments, goodness_of_fit, |found| found.statistic),
    ),
    test(
        "chi2_gof_pvalue",
        "its p-value with cells - 1 degrees of freedom",
        "scipy.stats.chisquare, Evidently 0.7",
        |arguments| of_table("chi2_gof_pvalue", arguments, goodness_of_fit, Test::p_value),
    ),
    test(
        "g_test",
        "likelihood ratio G of the 2 x cells table, without correction",
        "scipy.stats.chi2_contingency, log-likelihood",
        |arguments| of_table("g_test", arguments, likelihood_ratio, |found| found.statistic),
    ),
    test(
        "g_pvalue",
        "its p-value with cells - 1 degrees of freedom",
        "scipy.stats.chi2_contingency, log-likelihood",
        |arguments| of_table("g_pvalue", arguments, likelihood_ratio, Test::p_value),
    ),
    ScalarSpec {
        doc: FunctionDoc {
            name: "chi2_sf",
            arguments: "x, dof",
            meaning: "probability that chi-squared is at least x",
            source: "scipy.stats.chi2.sf",
        },
        takes: &[Kind::Number, Kind::Number],
        required: 2,
        gives: Gives::Number,
        body: |arguments| Ok(Value::of(chi2_sf(arguments[0].number(), arguments[1].number()))),
    },
    ScalarSpec {
        doc: FunctionDoc {
            name: "normal_sf",
            arguments: "z",
            meaning: "probability that a standard normal number is at least z",
            source: "scipy.stats.norm.sf",
        },
        takes: &[Kind::Number],
        required: 1,
        gives: Gives::Number,
        body: |arguments| Ok(Value::of(normal_sf(arguments[0].number()))),
    },
];

/// A statistic and its degrees of freedom.
struct Test {
    statistic: f64,
    dof: f64,
}

impl Test {
    fn p_value(self) -> f64 {
        if self.dof == 0.0 { 1.0 } else { chi2_sf(self.statistic, self.dof) }
    }
}

/// The counts of both sides, and their totals.
struct Counts {
    cells: Vec<(f64, f64)>,
    n: f64,
    m: f64,
}

fn of_table(name: &str, arguments: &[Value], test: fn(&Counts) -> f64, result: impl Fn(Test) -> f64) -> Result<Value> {
    let aligned = both(name, arguments)?;
    let (n, m) = aligned.totals();
    let cells = aligned.without_empty();
    if n <= 0.0 || m <= 0.0 {
        return Ok(Value::Null);
    }
    let dof = cells.len() as f64 - 1.0;
    let statistic = if dof == 0.0 { 0.0 } else { test(&Counts { cells, n, m }) };
    Ok(Value::of(result(Test { statistic, dof })))
}

impl Counts {
    /// Observed and expected counts of both rows of the table.
    fn expected(&self) -> impl Iterator<Item = (f64, f64)> {
        let all = self.n + self.m;
        self.cells.iter().flat_map(move |(r, c)| {
            let column = r + c;
            [(*r, self.n * column / all), (*c, self.m * column / all)]
        })
    }
}

fn pearson(counts: &Counts) -> f64 {
    let correction: f64 = if counts.cells.len() == 2 { 0.5 } else { 0.0 };
    let term = |(observed, expected): (f64, f64)| {
        let apart = (observed - expected).abs();
        (apart - correction.min(apart)).powi(2) / expected
    };
    counts.expected().map(term).sum()
}

fn likelihood_ratio(counts: &Counts) -> f64 {
    let term = |(observed, expected): (f64, f64)| {
        if observed > 0.0 { observed * (observed / expected).ln() } else { 0.0 }
    };
    2.0 * counts.expected().map(term).sum::<f64>()
}

fn goodness_of_fit(counts: &Counts) -> f64 {
    let scale = counts.m / counts.n;
    counts.cells.iter().map(|(r, c)| (c - r * scale).powi(2) / (r * scale)).sum()
}
