//! `hddm_w`: as `hddm_a`, of exponentially weighted means, by McDiarmid's bound (Frías-Blanco et al. 2014; river 0.26).
//!
//! Begins anew with the row after a drift.

use super::arguments::{Parameter, Settings};
use super::ddm::{DDM, Verdict};
use super::hddm_a::{DRIFT_CONFIDENCE, TWO_SIDED, WARNING_CONFIDENCE};
use super::moments::EwMean;
use super::saved::{Saved, Saving};
use super::{Detector, Row, Sequence};

pub(super) const HDDM_W: Detector = Detector {
    name: "hddm_w",
    source: "river HDDMW",
    parameters: &[DRIFT_CONFIDENCE, WARNING_CONFIDENCE, Parameter::number("lambda", 0.05, 1e-6, 1.0), TWO_SIDED],
    start: |settings| Box::new(HddmW::new(settings)),
    ..DDM
};

/// A weighted mean, and how independent its terms are.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Sample {
    mean: EwMean,
    bound: f64,
}

impl Sample {
    fn empty() -> Self {
        Self { mean: EwMean::default(), bound: 1.0 }
    }

    fn add(&mut self, x: f64, lambda: f64) {
        self.mean.add(x, lambda);
        self.bound = lambda * lambda + (1.0 - lambda).powi(2) * self.bound;
    }

    fn save(&self, to: &mut Saving) {
        self.mean.save(to);
        to.f64(self.bound);
    }

    fn load(from: &mut Saved<'_>) -> Option<Self> {
        Some(Self { mean: EwMean::load(from)?, bound: from.f64()? })
    }
}

/// Rows up to the best cut so far, and those behind it.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Cut {
    before: Sample,
    behind: Sample,
    at: f64,
}

impl Cut {
    fn save(&self, to: &mut Saving) {
        self.before.save(to);
        self.behind.save(to);
        to.f64(self.at);
    }

    fn load(from: &mut Saved<'_>) -> Option<Self> {
        Some(Self { before: Sample::load(from)?, behind: Sample::load(from)?, at: from.f64()? })
    }
}

#[derive(Debug)]
struct HddmW {
    drift_confidence: f64,
    warning_confidence: f64,
    lambda: f64,
    is_two_sided: bool,
    state: State,
}

#[derive(Clone, Copy, Debug)]
struct State {
    verdict: Verdict,
    all: Sample,
    up: Cut,
    down: Cut,
}

impl State {
    fn fresh() -> Self {
        let cut = |at| Cut { before: Sample::empty(), behind: Sample::empty(), at };
        let (up, down) = (cut(f64::INFINITY), cut(f64::NEG_INFINITY));
        Self { verdict: Verdict::default(), all: Sample::empty(), up, down }
    }
}

impl HddmW {
    fn new(settings: &Settings) -> Self {
        Self {
            drift_confidence: settings.number(0),
            warning_confidence: settings.number(1),
            lambda: settings.number(2),
            is_two_sided: settings.flag(3),
            state: State::fresh(),
        }
    }

    fn move_cuts(&mut self, x: f64) {
        let State { all, up, down, .. } = &mut self.state;
        let bound = mcdiarmid(all.bound, self.drift_confidence);
        let (high, low) = (all.mean.value() + bound, all.mean.value() - bound);
        let moved = |at| Cut { before: *all, behind: Sample::empty(), at };
        if high < up.at {
            *up = moved(high);
        } else {
            up.behind.add(x, self.lambda);
        }
        if low > down.at {
            *down = moved(low);
        } else {
            down.behind.add(x, self.lambda);
        }
    }
}

fn mcdiarmid(bound: f64, confidence: f64) -> f64 {
    (bound * (1.0 / confidence).ln() / 2.0).sqrt()
}

/// Whether `later` lies above `earlier` by more than chance.
fn is_above(later: &Sample, earlier: &Sample, confidence: f64) -> bool {
    let are_there = !later.mean.is_empty() && !earlier.mean.is_empty();
    are_there && later.mean.value() - earlier.mean.value() > mcdiarmid(later.bound + earlier.bound, confidence)
}

impl Sequence for HddmW {
    fn step(&mut self, row: Row, reading: &mut [f64]) {
        if self.state.verdict.drift {
            self.state = State::fresh();
        }
        self.state.all.add(row.x, self.lambda);
        self.move_cuts(row.x);
        let State { up, down, .. } = &self.state;
        let confidences = [self.drift_confidence, self.warning_confidence];
        let rises = confidences.map(|confidence| is_above(&up.behind, &up.before, confidence));
        let falls = confidences.map(|confidence| is_above(&down.before, &down.behind, confidence));
        let mut verdict = Verdict { drift: rises[0], warning: !rises[0] && rises[1] };
        if self.is_two_sided && falls[0] {
            verdict.drift = true;
        } else if self.is_two_sided && falls[1] {
            verdict.warning = true;
        }
        self.state.verdict = verdict;
        verdict.read_into(reading);
    }

    fn save(&self, to: &mut Saving) {
        self.state.verdict.save(to);
        self.state.all.save(to);
        self.state.up.save(to);
        self.state.down.save(to);
    }

    fn load(&mut self, from: &mut Saved<'_>) -> Option<()> {
        let (verdict, all) = (Verdict::load(from)?, Sample::load(from)?);
        self.state = State { verdict, all, up: Cut::load(from)?, down: Cut::load(from)? };
        Some(())
    }
}
