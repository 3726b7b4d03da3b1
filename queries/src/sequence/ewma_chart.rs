//! `ewma_chart`: the EWMA control chart (NIST/SEMATECH e-Handbook 6.3.2.4).
//!
//! `ewma = lambda·x + (1 − lambda)·ewma`, beginning with the target; the limits are `target ± l·sigma·√(lambda / (2 −
//! lambda) · (1 − (1 − lambda)^2t))`, or without the last factor if they are not to be exact.

use super::arguments::{Parameter, Settings};
use super::readings::Field;
use super::saved::{Saved, Saving};
use super::{Detector, Row, Sequence, Value, no_check};

pub(super) const EWMA_CHART: Detector = Detector {
    name: "ewma_chart",
    says: "1 above, -1 below the control limits, else 0",
    source: "NIST e-Handbook 6.3.2.4",
    values: &[Value::Number],
    parameters: &[
        Parameter::number("lambda", 0.2, 1e-6, 1.0),
        Parameter::number("l", 3.0, 0.0, 100.0),
        Parameter::number("target", 0.0, -1e100, 1e100),
        Parameter::number("sigma", 1.0, 0.0, 1e100),
        Parameter::flag("exact", true),
    ],
    fields: &[Field::whole("alarm"), Field::number("ewma"), Field::number("lower"), Field::number("upper")],
    version: 1,
    check: no_check,
    start: |settings| Box::new(EwmaChart::new(settings)),
    settled: |settings| super::ew::settled_for(settings.number(0)),
};

#[derive(Debug)]
struct EwmaChart {
    lambda: f64,
    target: f64,
    /// How far the limits lie from the target in the end.
    width: f64,
    is_exact: bool,
    ewma: f64,
    /// `(1 − lambda)^2t`
    faded: f64,
}

impl EwmaChart {
    fn new(settings: &Settings) -> Self {
        let [lambda, l, target, sigma] = [0, 1, 2, 3].map(|n| settings.number(n));
        let width = l * sigma * (lambda / (2.0 - lambda)).sqrt();
        Self { lambda, target, width, is_exact: settings.flag(4), ewma: target, faded: 1.0 }
    }
}

impl Sequence for EwmaChart {
    fn step(&mut self, row: Row, reading: &mut [f64]) {
        let rest = 1.0 - self.lambda;
        self.ewma = self.lambda * row.x + rest * self.ewma;
        self.faded *= rest * rest;
        let width = if self.is_exact { self.width * (1.0 - self.faded).sqrt() } else { self.width };
        let (lower, upper) = (self.target - width, self.target + width);
        let alarm = f64::from(i8::from(self.ewma > upper) - i8::from(self.ewma < lower));
        reading.copy_from_slice(&[alarm, self.ewma, lower, upper]);
    }

    fn save(&self, to: &mut Saving) {
        to.f64(self.ewma).f64(self.faded);
    }

    fn load(&mut self, from: &mut Saved<'_>) -> Option<()> {
        (self.ewma, self.faded) = (from.f64()?, from.f64()?);
        Some(())
    }
}
