//! `hysteresis`: on at a high threshold, off only below a lower one.

use super::arguments::{Parameter, Settings};
use super::readings::Field;
use super::saved::{Saved, Saving};
use super::{Detector, Row, Sequence, Value};

pub(super) const HYSTERESIS: Detector = Detector {
    name: "hysteresis",
    says: "true from hi on, until it falls below lo",
    source: "–",
    values: &[Value::Number],
    parameters: &[Parameter::required("hi", -1e100, 1e100), Parameter::required("lo", -1e100, 1e100)],
    fields: &[Field::flag("on")],
    version: 1,
    check: |settings| {
        let (hi, lo) = (settings.number(0), settings.number(1));
        if hi >= lo { Ok(()) } else { Err(format!("hi ({hi}) must not be below lo ({lo})")) }
    },
    start: |settings| Box::new(Hysteresis::new(settings)),
    settled: |_| 1_000,
};

#[derive(Debug)]
struct Hysteresis {
    hi: f64,
    lo: f64,
    is_on: bool,
}

impl Hysteresis {
    fn new(settings: &Settings) -> Self {
        Self { hi: settings.number(0), lo: settings.number(1), is_on: false }
    }
}

impl Sequence for Hysteresis {
    fn step(&mut self, row: Row, reading: &mut [f64]) {
        self.is_on = row.x >= self.hi || (self.is_on && row.x >= self.lo);
        reading[0] = f64::from(u8::from(self.is_on));
    }

    fn save(&self, to: &mut Saving) {
        to.flag(self.is_on);
    }

    fn load(&mut self, from: &mut Saved<'_>) -> Option<()> {
        self.is_on = from.flag()?;
        Some(())
    }
}
