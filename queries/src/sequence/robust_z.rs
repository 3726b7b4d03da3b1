//! `robust_z`: deviations from the median, measured by the median deviation, of the last rows.
//!
//! `(x − median) / (1.4826 · MAD)` over the last `rows` rows, the row itself included; 1.4826 makes it the standard
//! deviation of a normal distribution (`scipy.stats.median_abs_deviation(scale="normal")`).

use super::arguments::Parameter;
use super::readings::Field;
use super::saved::{Saved, Saving};
use super::{Detector, Row, Sequence, Value, no_check};

pub(super) const ROBUST_Z: Detector = Detector {
    name: "robust_z",
    says: "deviations from the median of the last rows by their MAD, within ±50",
    source: "scipy median_abs_deviation",
    values: &[Value::Number],
    parameters: &[Parameter::whole("rows", 50, 1, 10_000)],
    fields: &[Field::number("z"), Field::number("median"), Field::number("mad")],
    version: 1,
    check: no_check,
    start: |settings| Box::new(RobustZ { size: settings.whole(0) as usize, rows: Vec::new() }),
    settled: |settings| settings.whole(0) as usize,
};

/// What is beyond this is not told apart.
const CLIP: f64 = 50.0;

/// 1 / Φ⁻¹(3/4): by how much the standard deviation of a normal distribution exceeds its MAD.
const NORMAL: f64 = 1.482_602_218_505_602;

#[derive(Debug)]
struct RobustZ {
    size: usize,
    /// The oldest first.
    rows: Vec<f64>,
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}

impl Sequence for RobustZ {
    fn step(&mut self, row: Row, reading: &mut [f64]) {
        if self.rows.len() == self.size {
            self.rows.remove(0);
        }
        self.rows.push(row.x);
        let middle = median(self.rows.clone());
        let mad = median(self.rows.iter().map(|x| (x - middle).abs()).collect());
        let off = row.x - middle;
        let z = if off == 0.0 { 0.0 } else { (off / (NORMAL * mad)).clamp(-CLIP, CLIP) };
        reading.copy_from_slice(&[z, middle, mad]);
    }

    fn save(&self, to: &mut Saving) {
        to.list(self.rows.iter(), |to, x| {
            to.f64(*x);
        });
    }

    fn load(&mut self, from: &mut Saved<'_>) -> Option<()> {
        self.rows = from.list(Saved::f64)?;
        (self.rows.len() <= self.size).then_some(())
    }
}
