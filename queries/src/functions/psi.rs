//! The population stability index, and what it exceeds by chance.
//!
//! PSI is the sum of `(p - q) ln(p / q)` over cells, where p and q are shares; what is done about empty cells makes the
//! two forms. Below about `max(200, 20 * cells)` rows chance alone exceeds the customary 0.1: compare with
//! [`psi_critical`](PSI_FUNCTIONS).

use datafusion::common::Result;

use super::FunctionDoc;
use super::aligned::both;
use super::coerce::Kind;
use super::scalar::{Gives, ScalarSpec, Value};
use super::special::chi2_isf;

pub(super) static PSI_FUNCTIONS: [ScalarSpec; 3] = [
    ScalarSpec {
        doc: FunctionDoc {
            name: "psi",
            arguments: "ref, cur [, alpha = 0.5]",
            meaning: "population stability index of shares (count + alpha) / (total + alpha cells); from 200 rows and \
                      20 per cell on",
            source: "PSI with additive smoothing (Jeffreys)",
        },
        takes: &[Kind::Hist, Kind::Hist, Kind::Number],
        required: 2,
        gives: Gives::Number,
        body: psi,
    },
    ScalarSpec {
        doc: FunctionDoc {
            name: "psi_eps",
            arguments: "ref, cur",
            meaning: "PSI where an empty share is 0.0001, or a millionth of the least share if that is smaller",
            source: "Evidently 0.7",
        },
        takes: &[Kind::Hist, Kind::Hist],
        required: 2,
        gives: Gives::Number,
        body: psi_eps,
    },
    ScalarSpec {
        doc: FunctionDoc {
            name: "psi_critical",
            arguments: "ref, cur, p",
            meaning: "the PSI that chance exceeds with probability p: (1/n + 1/m) times the chi-squared quantile of \
                      cells - 1",
            source: "Yurdakul 2018",
        },
        takes: &[Kind::Hist, Kind::Hist, Kind::Number],
        required: 3,
        gives: Gives::Number,
        body: psi_critical,
    },
];

/// Jeffreys' prior: keeps the rate of false alarms at its nominal value where a constant for empty cells does not.
const ALPHA: f64 = 0.5;

fn psi(arguments: &[Value]) -> Result<Value> {
    let aligned = both("psi", arguments)?;
    let alpha = arguments.get(2).map_or(ALPHA, Value::number);
    let (n, m) = aligned.totals();
    if n <= 0.0 || m <= 0.0 || alpha.is_nan() || alpha < 0.0 {
        return Ok(Value::Null);
    }
    let added = alpha * aligned.reference.len() as f64;
    let pairs = aligned.reference.iter().zip(&aligned.current);
    Ok(Value::of(index_of(pairs.map(|(r, c)| ((r + alpha) / (n + added), (c + alpha) / (m + added))))))
}

fn index_of(shares: impl Iterator<Item = (f64, f64)>) -> f64 {
    // A cell that is empty in both says nothing.
    shares.filter(|(p, q)| p != q).map(|(p, q)| (p - q) * (p / q).ln()).sum()
}

fn psi_eps(arguments: &[Value]) -> Result<Value> {
    let Some(shares) = both("psi_eps", arguments)?.shares() else { return Ok(Value::Null) };
    Ok(Value::of(index_of(without_zeros(&shares).into_iter())))
}

/// Shares whose zeros are replaced, on each side by itself and without making their sum one again.
pub(super) fn without_zeros(shares: &[(f64, f64)]) -> Vec<(f64, f64)> {
    const EPSILON: f64 = 1e-4;
    let least = |of: fn(&(f64, f64)) -> f64| {
        let least = shares.iter().map(of).filter(|share| *share > 0.0).fold(f64::INFINITY, f64::min);
        if least <= EPSILON { least / 1e6 } else { EPSILON }
    };
    let (for_ref, for_cur) = (least(|s| s.0), least(|s| s.1));
    let or = |share: f64, instead: f64| if share == 0.0 { instead } else { share };
    shares.iter().map(|(p, q)| (or(*p, for_ref), or(*q, for_cur))).collect()
}

fn psi_critical(arguments: &[Value]) -> Result<Value> {
    let aligned = both("psi_critical", arguments)?;
    let (n, m) = aligned.totals();
    let cells = aligned.reference.len() as f64;
    if n <= 0.0 || m <= 0.0 {
        return Ok(Value::Null);
    }
    if cells < 2.0 {
        return Ok(Value::Number(0.0));
    }
    let p = arguments.get(2).map_or(f64::NAN, Value::number);
    Ok(Value::of((1.0 / n + 1.0 / m) * chi2_isf(p, cells - 1.0)))
}
