//! How fast a budget is spent, and when it will be gone.

use datafusion::common::Result;

use super::FunctionDoc;
use super::coerce::Kind;
use super::scalar::{Gives, ScalarSpec, Value};

pub(super) static BURN_FUNCTIONS: [ScalarSpec; 4] = [
    ScalarSpec {
        doc: FunctionDoc {
            name: "burn_rate",
            arguments: "spent, window, limit, period",
            meaning: "spending rate over a window as a multiple of the rate that spends the limit in exactly the \
                      period; lengths are intervals (a month is 30 days) or seconds; alert on two windows at 14.4 \
                      (1 h and 5 min), 6 (6 h, 30 min), 3 (1 d, 2 h) or 1.5 (3 d, 6 h) of a month's budget",
            source: "SRE Workbook, chapter 5",
        },
        takes: &[Kind::Number, Kind::Length, Kind::Number, Kind::Length],
        required: 4,
        gives: Gives::Number,
        body: burn_rate,
    },
    ScalarSpec {
        doc: FunctionDoc {
            name: "burn_rate_ratio",
            arguments: "bad, total, slo",
            meaning: "share of bad ones as a multiple of the share that the objective (such as 0.99) allows; null \
                      without any; from 50 on",
            source: "SRE Workbook, chapter 5",
        },
        takes: &[Kind::Number, Kind::Number, Kind::Number],
        required: 3,
        gives: Gives::Number,
        body: burn_rate_ratio,
    },
    ScalarSpec {
        doc: FunctionDoc {
            name: "linear_projection",
            arguments: "spent, period_start, period_end, now",
            meaning: "what will be spent by the end of the period at the rate so far; less than 1/24 of the period \
                      counts as 1/24",
            source: "litellm, _project_within_window",
        },
        takes: &[Kind::Number, Kind::Time, Kind::Time, Kind::Time],
        required: 4,
        gives: Gives::Number,
        body: linear_projection,
    },
    ScalarSpec {
        doc: FunctionDoc {
            name: "linear_exhaustion",
            arguments: "spent, limit, period_start, period_end, now",
            meaning: "when the limit is reached at the same rate: now if it is, null if it never will be; may be after \
                      the end of the period",
            source: "litellm, _project_within_window",
        },
        takes: &[Kind::Number, Kind::Number, Kind::Time, Kind::Time, Kind::Time],
        required: 5,
        gives: Gives::Time,
        body: linear_exhaustion,
    },
];

fn burn_rate(arguments: &[Value]) -> Result<Value> {
    let [spent, window, limit, period] = [0, 1, 2, 3].map(|at: usize| arguments[at].number());
    if window > 0.0 && limit > 0.0 && period > 0.0 {
        return Ok(Value::of((spent / window) / (limit / period)));
    }
    Ok(Value::Null)
}

fn burn_rate_ratio(arguments: &[Value]) -> Result<Value> {
    let [bad, total, slo] = [0, 1, 2].map(|at: usize| arguments[at].number());
    if total > 0.0 && (0.0..1.0).contains(&slo) {
        return Ok(Value::of((bad / total) / (1.0 - slo)));
    }
    Ok(Value::Null)
}

/// The share of a period that counts as passed from its beginning: a first call would else predict ruin.
const PASSED_MIN: f64 = 1.0 / 24.0;

/// Spending per nanosecond; none before the period, or if it has no length.
fn rate(spent: f64, start: i64, end: i64, now: i64) -> Option<f64> {
    let (period, passed) = (end.saturating_sub(start) as f64, now.saturating_sub(start) as f64);
    (period > 0.0 && passed >= 0.0 && spent.is_finite()).then(|| spent / passed.max(period * PASSED_MIN))
}

fn linear_projection(arguments: &[Value]) -> Result<Value> {
    let [spent, Value::Time(start), Value::Time(end), Value::Time(now)] = arguments else { return Ok(Value::Null) };
    let spent = spent.number();
    let left = end.saturating_sub(*now).max(0) as f64;
    Ok(rate(spent, *start, *end, *now).map_or(Value::Null, |rate| Value::of(spent + rate * left)))
}

#[expect(clippy::cast_possible_truncation, reason = "what is beyond the range of times is null before")]
fn linear_exhaustion(arguments: &[Value]) -> Result<Value> {
    let [spent, limit, Value::Time(start), Value::Time(end), Value::Time(now)] = arguments else {
        return Ok(Value::Null);
    };
    let (spent, limit) = (spent.number(), limit.number());
    if spent >= limit {
        return Ok(Value::Time(*now));
    }
    let Some(rate) = rate(spent, *start, *end, *now) else { return Ok(Value::Null) };
    let left = (limit - spent) / rate;
    let is_time = rate > 0.0 && left < (i64::MAX - (*now).max(0)) as f64;
    Ok(if is_time { Value::Time(now.saturating_add(left as i64)) } else { Value::Null })
}
