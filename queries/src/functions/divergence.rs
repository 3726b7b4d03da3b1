//! Distances between shares: Kullback–Leibler, Jensen–Shannon, Hellinger, total variation, L∞.

use datafusion::common::Result;

use super::FunctionDoc;
use super::aligned::both;
use super::coerce::Kind;
use super::psi::without_zeros;
use super::scalar::{Gives, ScalarSpec, Value};

const fn distance(
    name: &'static str,
    meaning: &'static str,
    source: &'static str,
    body: fn(&[Value]) -> Result<Value>,
) -> ScalarSpec {
    let doc = FunctionDoc { name, arguments: "ref, cur", meaning, source };
    ScalarSpec { doc, takes: &[Kind::Hist, Kind::Hist], required: 2, gives: Gives::Number, body }
}

pub(super) static DIVERGENCE_FUNCTIONS: [ScalarSpec; 7] = [
    distance(
        "kl_divergence",
        "sum of p ln(p / q); infinite where cur has nothing and ref something",
        "scipy.stats.entropy",
        |arguments| of_shares("kl_divergence", arguments, kl),
    ),
    distance(
        "kl_divergence_eps",
        "the same with empty shares filled as in psi_eps and both sides made shares again",
        "Evidently 0.7",
        |arguments| of_shares("kl_divergence_eps", arguments, kl_eps),
    ),
    ScalarSpec {
        doc: FunctionDoc {
            name: "js_distance",
            arguments: "ref, cur [, base = e]",
            meaning: "square root of the Jensen-Shannon divergence: 0 to 0.8326, with base 2 to 1",
            source: "scipy.spatial.distance.jensenshannon",
        },
        takes: &[Kind::Hist, Kind::Hist, Kind::Number],
        required: 2,
        gives: Gives::Number,
        body: |arguments| Ok(map(js_divergence("js_distance", arguments)?, f64::sqrt)),
    },
    ScalarSpec {
        doc: FunctionDoc {
            name: "js_divergence",
            arguments: "ref, cur [, base = e]",
            meaning: "Jensen-Shannon divergence, the square of js_distance",
            source: "Vertex AI, TFDV",
        },
        takes: &[Kind::Hist, Kind::Hist, Kind::Number],
        required: 2,
        gives: Gives::Number,
        body: |arguments| js_divergence("js_divergence", arguments),
    },
    distance("hellinger", "Hellinger distance, 0 to 1", "NannyML, whylogs", |arguments| {
        of_shares("hellinger", arguments, hellinger)
    }),
    distance("tvd", "total variation distance: half the sum of |p - q|, 0 to 1", "Evidently, NannyML", |arguments| {
        of_shares("tvd", arguments, |shares| 0.5 * shares.iter().map(|(p, q)| (p - q).abs()).sum::<f64>())
    }),
    distance("linf", "greatest |p - q|, 0 to 1", "Vertex AI, SageMaker", |arguments| {
        of_shares("linf", arguments, |shares| shares.iter().map(|(p, q)| (p - q).abs()).fold(0.0, f64::max))
    }),
];

fn of_shares(name: &str, arguments: &[Value], formula: fn(&[(f64, f64)]) -> f64) -> Result<Value> {
    Ok(both(name, arguments)?.shares().map_or(Value::Null, |shares| Value::of(formula(&shares))))
}

fn map(value: Value, formula: fn(f64) -> f64) -> Value {
    match value {
        Value::Number(x) => Value::of(formula(x)),
        other => other,
    }
}

/// `p ln(p / q)`: 0 for an empty p, infinite for an empty q.
fn relative_entropy(p: f64, q: f64) -> f64 {
    match (p > 0.0, q > 0.0) {
        (false, _) => 0.0,
        (true, false) => f64::INFINITY,
        (true, true) => p * (p / q).ln(),
    }
}

fn kl(shares: &[(f64, f64)]) -> f64 {
    shares.iter().map(|(p, q)| relative_entropy(*p, *q)).sum()
}

fn kl_eps(shares: &[(f64, f64)]) -> f64 {
    let filled = without_zeros(shares);
    let (all_p, all_q): (f64, f64) = filled.iter().fold((0.0, 0.0), |sum, s| (sum.0 + s.0, sum.1 + s.1));
    filled.iter().map(|(p, q)| relative_entropy(p / all_p, q / all_q)).sum()
}

fn js_divergence(name: &str, arguments: &[Value]) -> Result<Value> {
    let Some(shares) = both(name, arguments)?.shares() else { return Ok(Value::Null) };
    let unit = match arguments.get(2).map(Value::number) {
        None => 1.0,
        Some(base) if base > 0.0 && base != 1.0 => base.ln(),
        Some(_) => return Ok(Value::Null),
    };
    let (mut left, mut right) = (0.0, 0.0);
    for (p, q) in shares {
        let middle = (p + q) / 2.0;
        left += relative_entropy(p, middle);
        right += relative_entropy(q, middle);
    }
    Ok(Value::of(((left + right) / 2.0 / unit).max(0.0)))
}

fn hellinger(shares: &[(f64, f64)]) -> f64 {
    let squares: f64 = shares.iter().map(|(p, q)| (p.sqrt() - q.sqrt()).powi(2)).sum();
    squares.sqrt() / std::f64::consts::SQRT_2
}
