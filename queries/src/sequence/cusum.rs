//! `cusum`: the tabular CUSUM, for a value that is in units of its deviation.
//!
//! `high = max(0, high + z − k)`, `low = max(0, low − z − k)`; when one exceeds `h` it is an alarm and both begin anew.

use super::arguments::{Parameter, Settings};
use super::readings::Field;
use super::saved::{Saved, Saving};
use super::{Detector, Row, Sequence, Value, no_check};

pub(super) const CUSUM: Detector = Detector {
    name: "cusum",
    says: "1 when small excesses have added up, -1 when shortfalls have, else 0; give it a z-score",
    source: "Page 1954, tabular form",
    values: &[Value::Number],
    parameters: &[Parameter::number("k", 0.5, 0.0, 100.0), Parameter::number("h", 8.0, 0.0, 1e6)],
    fields: &[Field::whole("alarm"), Field::number("high"), Field::number("low")],
    version: 1,
    check: no_check,
    start: |settings| Box::new(Cusum::new(settings)),
    settled: |_| 1_000,
};

#[derive(Debug)]
struct Cusum {
    k: f64,
    h: f64,
    high: f64,
    low: f64,
}

impl Cusum {
    fn new(settings: &Settings) -> Self {
        Self { k: settings.number(0), h: settings.number(1), high: 0.0, low: 0.0 }
    }
}

impl Sequence for Cusum {
    fn step(&mut self, row: Row, reading: &mut [f64]) {
        self.high = (self.high + row.x - self.k).max(0.0);
        self.low = (self.low - row.x - self.k).max(0.0);
        let alarm = if self.high > self.h {
            1.0
        } else if self.low > self.h {
            -1.0
        } else {
            0.0
        };
        // What is said of the row are the sums that made the alarm.
        reading.copy_from_slice(&[alarm, self.high, self.low]);
        if alarm != 0.0 {
            (self.high, self.low) = (0.0, 0.0);
        }
    }

    fn save(&self, to: &mut Saving) {
        to.f64(self.high).f64(self.low);
    }

    fn load(&mut self, from: &mut Saved<'_>) -> Option<()> {
        (self.high, self.low) = (from.f64()?, from.f64()?);
        Some(())
    }
}
