//! `ew_mean`, `ew_var`, `ew_z`: exponentially weighted mean and variance, and the distance from them.
//!
//! Mean and variance are those of river 0.26 (`EWMean`, `EWVar`): the first value begins them, and the variance is the
//! weighted mean of squares less the squared mean, summed up in a way that does not cancel. `ew_z` is a row's distance
//! from the mean of the rows *before* it, see [`EwScore`].

use super::arguments::{Parameter, Settings};
use super::moments::EwScore;
use super::readings::Field;
use super::saved::{Saved, Saving};
use super::{Detector, Row, Sequence, Value, no_check};

const ALPHA: Parameter = Parameter::number("alpha", 0.05, 1e-6, 1.0);

/// What is beyond this is not told apart: a constant series that moves would be infinitely far off.
const CLIP: f64 = 50.0;

pub(super) const EW_MEAN: Detector = Detector {
    name: "ew_mean",
    says: "exponentially weighted mean, the row's own value included",
    source: "river EWMean",
    values: &[Value::Number],
    parameters: &[ALPHA],
    fields: &[Field::number("mean")],
    version: 1,
    check: no_check,
    start: |settings| Box::new(Ew::new(settings, false)),
    settled,
};

pub(super) const EW_VAR: Detector = Detector {
    name: "ew_var",
    says: "exponentially weighted variance, the row's own value included",
    source: "river EWVar",
    fields: &[Field::number("variance")],
    start: |settings| Box::new(Ew::new(settings, true)),
    ..EW_MEAN
};

pub(super) const EW_Z: Detector = Detector {
    name: "ew_z",
    says: "deviations from the exponentially weighted mean of the rows before, within ±50",
    source: "EWMA",
    parameters: &[ALPHA, Parameter::number("floor", 0.1, 0.0, 1.0)],
    fields: &[Field::number("z")],
    start: |settings| {
        let rule = (settings.number(0), settings.number(1), CLIP);
        Box::new(EwZ { rule, score: EwScore::default() })
    },
    ..EW_MEAN
};

/// A value weighs less than a twentieth of what it did after so many rows.
pub(super) fn settled_for(alpha: f64) -> usize {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small number, rounded up")]
    let rows = (3.0 / alpha).ceil() as usize;
    rows.min(10_000)
}

fn settled(settings: &Settings) -> usize {
    settled_for(settings.number(0))
}

#[derive(Debug)]
struct Ew {
    alpha: f64,
    gives_variance: bool,
    /// Mean and variance; none before the first row.
    state: Option<(f64, f64)>,
}

impl Ew {
    fn new(settings: &Settings, gives_variance: bool) -> Self {
        Self { alpha: settings.number(0), gives_variance, state: None }
    }
}

impl Sequence for Ew {
    fn step(&mut self, row: Row, reading: &mut [f64]) {
        let (mean, variance) = match self.state {
            None => (row.x, 0.0),
            Some((mean, variance)) => {
                let off = row.x - mean;
                let rest = 1.0 - self.alpha;
                (self.alpha * row.x + rest * mean, rest * (variance + self.alpha * off * off))
            }
        };
        self.state = Some((mean, variance));
        reading[0] = if self.gives_variance { variance } else { mean };
    }

    fn save(&self, to: &mut Saving) {
        let (mean, variance) = self.state.unwrap_or_default();
        to.flag(self.state.is_some()).f64(mean).f64(variance);
    }

    fn load(&mut self, from: &mut Saved<'_>) -> Option<()> {
        let (is_there, state) = (from.flag()?, (from.f64()?, from.f64()?));
        self.state = is_there.then_some(state);
        Some(())
    }
}

#[derive(Debug)]
struct EwZ {
    rule: (f64, f64, f64),
    score: EwScore,
}

impl Sequence for EwZ {
    fn step(&mut self, row: Row, reading: &mut [f64]) {
        reading[0] = self.score.step(row.x, self.rule);
    }

    fn save(&self, to: &mut Saving) {
        self.score.save(to);
    }

    fn load(&mut self, from: &mut Saved<'_>) -> Option<()> {
        self.score = EwScore::load(from)?;
        Some(())
    }
}
