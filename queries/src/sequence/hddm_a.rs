//! `hddm_a`: the mean of all rows against that up to the best cut so far, by Hoeffding's bound (Frías-Blanco et al.
//! 2014; river 0.26).
//!
//! Of the detectors of failures it has the fewest false alarms. Begins anew with the row after a drift.

use super::arguments::{Parameter, Settings};
use super::ddm::{DDM, Verdict};
use super::moments::Mean;
use super::saved::{Saved, Saving};
use super::{Detector, Row, Sequence};

pub(super) const DRIFT_CONFIDENCE: Parameter = Parameter::number("drift_confidence", 0.001, 1e-12, 1.0);
pub(super) const WARNING_CONFIDENCE: Parameter = Parameter::number("warning_confidence", 0.005, 1e-12, 1.0);
pub(super) const TWO_SIDED: Parameter = Parameter::flag("two_sided_test", false);

pub(super) const HDDM_A: Detector = Detector {
    name: "hddm_a",
    source: "river HDDMA",
    parameters: &[DRIFT_CONFIDENCE, WARNING_CONFIDENCE, TWO_SIDED],
    start: |settings| Box::new(HddmA::new(settings)),
    ..DDM
};

#[derive(Debug)]
struct HddmA {
    drift_confidence: f64,
    warning_confidence: f64,
    is_two_sided: bool,
    state: State,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    verdict: Verdict,
    all: Mean,
    /// Up to the cut from which an increase is measured.
    low: Mean,
    /// Up to the cut from which a decrease is measured.
    high: Mean,
}

impl HddmA {
    fn new(settings: &Settings) -> Self {
        Self {
            drift_confidence: settings.number(0),
            warning_confidence: settings.number(1),
            is_two_sided: settings.flag(2),
            state: State::default(),
        }
    }

    /// How far the mean of so many rows may be from the truth.
    fn bound(&self, rows: &Mean) -> f64 {
        (1.0 / (2.0 * rows.count()) * (1.0 / self.drift_confidence).ln()).sqrt()
    }

    fn move_cuts(&mut self) {
        let all = self.state.all;
        let of_all = self.bound(&all);
        if self.state.low.n == 0 || self.state.low.mean + self.bound(&self.state.low) >= all.mean + of_all {
            self.state.low = all;
        }
        if self.state.high.n == 0 || self.state.high.mean - self.bound(&self.state.high) <= all.mean - of_all {
            self.state.high = all;
        }
    }

    /// Whether the mean of all rows is so far from that up to `cut`, upwards or downwards.
    fn has_moved(&self, cut: &Mean, by: f64, confidence: f64) -> bool {
        let all = &self.state.all;
        if cut.n == all.n {
            return false;
        }
        let m = (all.count() - cut.count()) / cut.count() * (1.0 / all.count());
        by >= (m / 2.0 * (2.0 / confidence).ln()).sqrt()
    }
}

impl Sequence for HddmA {
    fn step(&mut self, row: Row, reading: &mut [f64]) {
        if self.state.verdict.drift {
            self.state = State::default();
        }
        self.state.all.add(row.x);
        self.move_cuts();
        let State { all, low, high, .. } = self.state;
        let [up, down] = [(low, all.mean - low.mean), (high, high.mean - all.mean)].map(|(cut, by)| {
            [self.drift_confidence, self.warning_confidence].map(|confidence| self.has_moved(&cut, by, confidence))
        });
        let mut verdict = Verdict { drift: up[0], warning: !up[0] && up[1] };
        if self.is_two_sided && down[0] {
            verdict.drift = true;
        } else if self.is_two_sided && down[1] {
            verdict.warning = true;
        }
        self.state.verdict = verdict;
        verdict.read_into(reading);
    }

    fn save(&self, to: &mut Saving) {
        self.state.verdict.save(to);
        [&self.state.all, &self.state.low, &self.state.high].into_iter().for_each(|mean| mean.save(to));
    }

    fn load(&mut self, from: &mut Saved<'_>) -> Option<()> {
        let verdict = Verdict::load(from)?;
        let (all, low, high) = (Mean::load(from)?, Mean::load(from)?, Mean::load(from)?);
        self.state = State { verdict, all, low, high };
        Some(())
    }
}
