//! `running_quantile`: what a share of the rows before did not exceed, to one percent.

use super::arguments::Parameter;
use super::log_histogram::LogHistogram;
use super::readings::Field;
use super::saved::{Saved, Saving};
use super::{Detector, Row, Sequence, Value, no_check};

pub(super) const RUNNING_QUANTILE: Detector = Detector {
    name: "running_quantile",
    says: "what a share of q of all rows before did not exceed, to 1 %; null for the first row",
    source: "logarithmic histogram",
    values: &[Value::Number],
    parameters: &[Parameter::number("q", 0.99, 0.0, 1.0)],
    fields: &[Field::number("quantile")],
    version: 1,
    check: no_check,
    start: |settings| Box::new(RunningQuantile { q: settings.number(0), before: LogHistogram::default() }),
    settled: |_| 1_000,
};

#[derive(Debug)]
struct RunningQuantile {
    q: f64,
    before: LogHistogram,
}

impl Sequence for RunningQuantile {
    fn step(&mut self, row: Row, reading: &mut [f64]) {
        reading[0] = self.before.quantile(self.q).unwrap_or(f64::NAN);
        self.before.add(row.x);
    }

    fn save(&self, to: &mut Saving) {
        self.before.save(to);
    }

    fn load(&mut self, from: &mut Saved<'_>) -> Option<()> {
        self.before = LogHistogram::load(from)?;
        Some(())
    }
}
