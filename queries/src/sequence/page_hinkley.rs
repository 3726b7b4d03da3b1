//! `page_hinkley`: sums of deviations from the mean that leave their lowest or highest point (river 0.26).
//!
//! The threshold is in units of the value: give it a z-score. Begins anew with the row after a drift.

use super::arguments::{Parameter, Settings};
use super::moments::Mean;
use super::readings::Field;
use super::saved::{Saved, Saving};
use super::{Detector, Row, Sequence, Value, no_check};

const MODES: &[&str] = &["both", "up", "down"];

pub(super) const PAGE_HINKLEY: Detector = Detector {
    name: "page_hinkley",
    says: "true when the mean has moved; begins anew after that",
    source: "river PageHinkley",
    values: &[Value::Number],
    parameters: &[
        Parameter::whole("min_instances", 30, 0, 1_000_000),
        Parameter::number("delta", 0.005, -1e100, 1e100),
        Parameter::number("threshold", 50.0, 0.0, 1e100),
        Parameter::number("alpha", 0.9999, 0.0, 1.0),
        Parameter::word("mode", MODES),
    ],
    fields: &[
        Field::flag("drift"),
        Field::number("sum_increase"),
        Field::number("sum_decrease"),
        Field::number("mean"),
    ],
    version: 1,
    check: no_check,
    start: |settings| Box::new(PageHinkley::new(settings)),
    settled: |_| 1_000,
};

#[derive(Debug)]
struct PageHinkley {
    min_instances: u64,
    delta: f64,
    threshold: f64,
    alpha: f64,
    is_watched: [bool; 2],
    state: State,
}

#[derive(Clone, Copy, Debug)]
struct State {
    has_drifted: bool,
    mean: Mean,
    increase: f64,
    decrease: f64,
    lowest: f64,
    highest: f64,
}

/// As river has it: no sum has a minimum yet, and the maximum begins at -1.
const FRESH: State = State {
    has_drifted: false,
    mean: Mean { n: 0, mean: 0.0 },
    increase: 0.0,
    decrease: 0.0,
    lowest: f64::INFINITY,
    highest: -1.0,
};

impl PageHinkley {
    fn new(settings: &Settings) -> Self {
        let mode = MODES[settings.word(4)];
        Self {
            min_instances: u64::from(settings.whole(0)),
            delta: settings.number(1),
            threshold: settings.number(2),
            alpha: settings.number(3),
            is_watched: [mode != "down", mode != "up"],
            state: FRESH,
        }
    }
}

impl Sequence for PageHinkley {
    fn step(&mut self, row: Row, reading: &mut [f64]) {
        if self.state.has_drifted {
            self.state = FRESH;
        }
        let state = &mut self.state;
        state.mean.add(row.x);
        let off = row.x - state.mean.mean;
        state.increase = self.alpha * state.increase + off - self.delta;
        state.decrease = self.alpha * state.decrease + off + self.delta;
        state.lowest = state.lowest.min(state.increase);
        state.highest = state.highest.max(state.decrease);
        let [up, down] = [state.increase - state.lowest, state.highest - state.decrease].map(|s| s > self.threshold);
        let is_over = (up && self.is_watched[0]) || (down && self.is_watched[1]);
        state.has_drifted = is_over && state.mean.n >= self.min_instances;
        let drift = f64::from(u8::from(state.has_drifted));
        reading.copy_from_slice(&[drift, state.increase, state.decrease, state.mean.mean]);
    }

    fn save(&self, to: &mut Saving) {
        let State { has_drifted, mean, increase, decrease, lowest, highest } = &self.state;
        to.flag(*has_drifted);
        mean.save(to);
        to.f64(*increase).f64(*decrease).f64(*lowest).f64(*highest);
    }

    fn load(&mut self, from: &mut Saved<'_>) -> Option<()> {
        self.state = State {
            has_drifted: from.flag()?,
            mean: Mean::load(from)?,
            increase: from.f64()?,
            decrease: from.f64()?,
            lowest: from.f64()?,
            highest: from.f64()?,
        };
        Some(())
    }
}
