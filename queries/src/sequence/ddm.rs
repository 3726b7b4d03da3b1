//! `ddm`: the rate of failures against its lowest so far (Gama et al. 2004; river 0.26).
//!
//! Begins anew with the row after a drift.

use super::arguments::{Parameter, Settings};
use super::moments::Mean;
use super::readings::Field;
use super::saved::{Saved, Saving};
use super::{Detector, Row, Sequence, Value, no_check};

/// What the detectors of failures know after a row; the level is 2 for a drift, else 1 for a warning, else 0.
pub(super) const LEVELS: &[Field] = &[Field::whole("level"), Field::flag("drift"), Field::flag("warning")];

pub(super) const DDM: Detector = Detector {
    name: "ddm",
    says: "2 when failures have become more frequent, 1 as a warning, else 0; begins anew after a drift",
    source: "river DDM",
    values: &[Value::Share],
    parameters: &[
        Parameter::whole("warm_start", 30, 0, 1_000_000),
        Parameter::number("warning_threshold", 2.0, 0.0, 100.0),
        Parameter::number("drift_threshold", 3.0, 0.0, 100.0),
    ],
    fields: LEVELS,
    version: 1,
    check: no_check,
    start: |settings| Box::new(Ddm::new(settings)),
    settled: |_| 1_000,
};

/// Whether there is a drift, or a warning of one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) drift: bool,
    pub(super) warning: bool,
}

impl Verdict {
    pub(super) fn read_into(self, reading: &mut [f64]) {
        let level = if self.drift { 2.0 } else { f64::from(u8::from(self.warning)) };
        let [drift, warning] = [self.drift, self.warning].map(|is| f64::from(u8::from(is)));
        reading.copy_from_slice(&[level, drift, warning]);
    }

    pub(super) fn save(self, to: &mut Saving) {
        to.flag(self.drift).flag(self.warning);
    }

    pub(super) fn load(from: &mut Saved<'_>) -> Option<Self> {
        Some(Self { drift: from.flag()?, warning: from.flag()? })
    }
}

#[derive(Debug)]
struct Ddm {
    warm_start: u64,
    warning_at: f64,
    drift_at: f64,
    state: State,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    verdict: Verdict,
    rate: Mean,
    /// Rate and deviation where their sum was lowest.
    lowest: Option<(f64, f64)>,
}

impl Ddm {
    fn new(settings: &Settings) -> Self {
        let (warning_at, drift_at) = (settings.number(1), settings.number(2));
        Self { warm_start: u64::from(settings.whole(0)), warning_at, drift_at, state: State::default() }
    }
}

impl Sequence for Ddm {
    fn step(&mut self, row: Row, reading: &mut [f64]) {
        if self.state.verdict.drift {
            self.state = State::default();
        }
        let State { verdict, rate, lowest } = &mut self.state;
        rate.add(row.x);
        let deviation = (rate.mean * (1.0 - rate.mean) / rate.count()).max(0.0).sqrt();
        let now = rate.mean + deviation;
        if rate.n > self.warm_start {
            let (low, spread) = match *lowest {
                Some((low, spread)) if now > low + spread => (low, spread),
                _ => *lowest.insert((rate.mean, deviation)),
            };
            verdict.drift = now > low + self.drift_at * spread;
            verdict.warning = !verdict.drift && now > low + self.warning_at * spread;
        }
        verdict.read_into(reading);
    }

    fn save(&self, to: &mut Saving) {
        let State { verdict, rate, lowest } = &self.state;
        let (low, spread) = lowest.unwrap_or_default();
        verdict.save(to);
        rate.save(to);
        to.flag(lowest.is_some()).f64(low).f64(spread);
    }

    fn load(&mut self, from: &mut Saved<'_>) -> Option<()> {
        let (verdict, rate) = (Verdict::load(from)?, Mean::load(from)?);
        let (is_there, lowest) = (from.flag()?, (from.f64()?, from.f64()?));
        self.state = State { verdict, rate, lowest: is_there.then_some(lowest) };
        Some(())
    }
}
