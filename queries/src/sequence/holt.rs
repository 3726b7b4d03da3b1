//! `holt` and `holt_exhaustion`: a level and a trend, smoothed, and where they lead.
//!
//! Holt's linear method: `level = alpha·x + (1 − alpha)·(level + trend)`, `trend = beta·(level − level before) +
//! (1 − beta)·trend`. The first value is the first level, the second less the first is the first trend.

use super::arguments::{Parameter, Settings};
use super::ew::settled_for;
use super::readings::Field;
use super::saved::{Saved, Saving};
use super::{Detector, Row, Sequence, Value, no_check};

const ALPHA: Parameter = Parameter::number("alpha", 0.3, 1e-6, 1.0);
const BETA: Parameter = Parameter::number("beta", 0.05, 0.0, 1.0);

/// Who looks further ahead than this does not forecast any more.
const AHEAD_MAX: f64 = 1e6;

pub(super) const HOLT: Detector = Detector {
    name: "holt",
    says: "the forecast for so many windows ahead",
    source: "Holt's linear trend",
    values: &[Value::Number],
    parameters: &[ALPHA, BETA, Parameter::number("ahead", 1.0, 0.0, AHEAD_MAX)],
    fields: &[Field::number("forecast"), Field::number("level"), Field::number("trend")],
    version: 1,
    check: no_check,
    start: |settings| Box::new(Holt::new(settings, Question::Value { ahead: settings.number(2) })),
    settled,
};

pub(super) const HOLT_EXHAUSTION: Detector = Detector {
    name: "holt_exhaustion",
    says: "in how many windows the values to come add up to what is left; null if not within a million",
    values: &[Value::Number, Value::Number],
    parameters: &[ALPHA, BETA],
    fields: &[Field::number("windows"), Field::number("level"), Field::number("trend")],
    start: |settings| Box::new(Holt::new(settings, Question::Exhaustion)),
    ..HOLT
};

fn settled(settings: &Settings) -> usize {
    settled_for(settings.number(0).min(settings.number(1).max(1e-3)))
}

#[derive(Clone, Copy, Debug)]
enum Question {
    Value { ahead: f64 },
    Exhaustion,
}

#[derive(Debug)]
struct Holt {
    alpha: f64,
    beta: f64,
    question: Question,
    rows: u32,
    level: f64,
    trend: f64,
}

impl Holt {
    fn new(settings: &Settings, question: Question) -> Self {
        Self { alpha: settings.number(0), beta: settings.number(1), question, rows: 0, level: 0.0, trend: 0.0 }
    }
}

impl Sequence for Holt {
    fn step(&mut self, row: Row, reading: &mut [f64]) {
        match self.rows {
            0 => self.level = row.x,
            1 => (self.level, self.trend) = (row.x, row.x - self.level),
            _ => {
                let before = self.level;
                self.level = self.alpha * row.x + (1.0 - self.alpha) * (before + self.trend);
                self.trend = self.beta * (self.level - before) + (1.0 - self.beta) * self.trend;
            }
        }
        self.rows = self.rows.saturating_add(1);
        reading[0] = match self.question {
            Question::Value { ahead } => self.level + ahead * self.trend,
            Question::Exhaustion => exhausted_in(self.level, self.trend, row.y).unwrap_or(f64::NAN),
        };
        (reading[1], reading[2]) = (self.level, self.trend);
    }

    fn save(&self, to: &mut Saving) {
        to.u32(self.rows).f64(self.level).f64(self.trend);
    }

    fn load(&mut self, from: &mut Saved<'_>) -> Option<()> {
        (self.rows, self.level, self.trend) = (from.u32()?, from.f64()?, from.f64()?);
        Some(())
    }
}

/// The smallest whole `h` such that `Σ (level + i·trend)` for `i` from 1 to `h` reaches `left`.
fn exhausted_in(level: f64, trend: f64, left: f64) -> Option<f64> {
    if left <= 0.0 {
        return Some(0.0);
    }
    let sum = |h: f64| h * level + trend * h * (h + 1.0) / 2.0;
    // Where the sum of real `h` reaches it: trend/2·h² + (level + trend/2)·h = left.
    let (a, b) = (trend / 2.0, level + trend / 2.0);
    let root = if a.abs() <= 1e-12 * b.abs() {
        left / b
    } else {
        let inside = b * b + 4.0 * a * left;
        // Of both roots the smaller positive one, written so that it does not cancel.
        2.0 * left / (b + inside.max(0.0).sqrt())
    };
    // A trend that falls may reach its height between two whole numbers, and not reach `left` there.
    let near = root.ceil();
    let found = [near - 1.0, near, near + 1.0].into_iter().find(|h| *h >= 1.0 && sum(*h) >= left);
    found.filter(|h| *h <= AHEAD_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(level: f64, trend: f64, left: f64) {
        let mut sum = 0.0;
        let exact = (1..5_000).map(f64::from).find(|i| {
            sum += level + i * trend;
            sum >= left
        });
        let exact = if left <= 0.0 { Some(0.0) } else { exact };
        assert_eq!(exhausted_in(level, trend, left), exact, "{level} + {trend} h, {left} left");
    }

    #[test]
    fn what_is_left_is_used_up_when_the_sum_of_forecasts_reaches_it() {
        check(10.0, 0.0, 100.0);
        check(10.0, 0.0, 101.0);
        check(10.0, 1.0, 100.0);
        check(1.0, 0.25, 333.0);
        check(10.0, -1.0, 45.0);
        check(10.0, -1.0, 44.9);
        check(-3.0, 1.0, 10.0);
        check(10.0, 5.0, 0.0);
        check(10.0, 5.0, -2.0);
    }

    #[test]
    fn what_is_never_used_up_has_no_number() {
        check(10.0, -1.0, 46.0);
        check(0.0, 0.0, 1.0);
        check(-1.0, 0.0, 1.0);
        assert_eq!(exhausted_in(1e-9, 0.0, 1e9), None, "not within a million windows");
    }
}
