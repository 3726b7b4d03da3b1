//! `k_of_n`: whether a condition held in `k` of the last `n` rows, the row itself included.

use super::arguments::{Parameter, Settings};
use super::readings::Field;
use super::saved::{Saved, Saving};
use super::{Detector, Row, Sequence, Value};

pub(super) const K_OF_N: Detector = Detector {
    name: "k_of_n",
    says: "true where the condition held in k of the last n rows",
    source: "–",
    values: &[Value::Flag],
    parameters: &[Parameter::whole("k", 3, 1, 10_000), Parameter::whole("n", 5, 1, 10_000)],
    fields: &[Field::flag("holds"), Field::whole("held")],
    version: 1,
    check: |settings| {
        let (k, n) = (settings.whole(0), settings.whole(1));
        if k <= n { Ok(()) } else { Err(format!("k ({k}) must not be more than n ({n})")) }
    },
    start: |settings| Box::new(KOfN::new(settings)),
    settled: |settings| settings.whole(1) as usize,
};

#[derive(Debug)]
struct KOfN {
    k: u32,
    n: usize,
    /// Whether it held in each of the last rows, the oldest first.
    rows: Vec<bool>,
}

impl KOfN {
    fn new(settings: &Settings) -> Self {
        Self { k: settings.whole(0), n: settings.whole(1) as usize, rows: Vec::new() }
    }
}

impl Sequence for KOfN {
    fn step(&mut self, row: Row, reading: &mut [f64]) {
        if self.rows.len() == self.n {
            self.rows.remove(0);
        }
        self.rows.push(row.x != 0.0);
        let held = self.rows.iter().map(|held| u32::from(*held)).sum::<u32>();
        reading.copy_from_slice(&[f64::from(u8::from(held >= self.k)), f64::from(held)]);
    }

    fn save(&self, to: &mut Saving) {
        to.list(self.rows.iter(), |to, held| {
            to.flag(*held);
        });
    }

    fn load(&mut self, from: &mut Saved<'_>) -> Option<()> {
        self.rows = from.list(Saved::flag)?;
        (self.rows.len() <= self.n).then_some(())
    }
}
