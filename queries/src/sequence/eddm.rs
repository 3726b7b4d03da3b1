//! `eddm`: how many rows lie between two failures, against the most so far (Baena-García et al. 2006; river 0.26).
//!
//! Begins anew with the row after a drift. A warning stays until a failure takes it back.

use super::arguments::{Parameter, Settings};
use super::ddm::{DDM, Verdict};
use super::moments::Moments;
use super::saved::{Saved, Saving};
use super::{Detector, Row, Sequence};

pub(super) const EDDM: Detector = Detector {
    name: "eddm",
    says: "2 when failures follow one another faster, 1 as a warning, else 0; begins anew after a drift",
    source: "river EDDM",
    parameters: &[
        Parameter::whole("warm_start", 30, 0, 1_000_000),
        Parameter::number("alpha", 0.95, 0.0, 1.0),
        Parameter::number("beta", 0.9, 0.0, 1.0),
    ],
    check: |settings| {
        let (alpha, beta) = (settings.number(1), settings.number(2));
        if alpha >= beta { Ok(()) } else { Err(format!("alpha ({alpha}) must not be below beta ({beta})")) }
    },
    start: |settings| Box::new(Eddm::new(settings)),
    ..DDM
};

#[derive(Debug)]
struct Eddm {
    warm_start: u64,
    warning_below: f64,
    drift_below: f64,
    state: State,
}

#[derive(Clone, Copy, Debug)]
struct State {
    verdict: Verdict,
    rows: u64,
    failures: u64,
    last_failure: u64,
    /// Of the rows from one failure to the next.
    distances: Moments,
    /// The most that their mean and two deviations have been.
    most: f64,
}

impl State {
    fn fresh() -> Self {
        let (verdict, distances) = (Verdict::default(), Moments::default());
        Self { verdict, rows: 0, failures: 0, last_failure: 0, distances, most: -1.0 }
    }
}

impl Eddm {
    fn new(settings: &Settings) -> Self {
        let (warning_below, drift_below) = (settings.number(1), settings.number(2));
        Self { warm_start: u64::from(settings.whole(0)), warning_below, drift_below, state: State::fresh() }
    }

    #[expect(clippy::cast_precision_loss, reason = "nobody counts to 2^53 windows")]
    fn fail(&mut self) {
        let state = &mut self.state;
        state.failures += 1;
        state.distances.add((state.rows - state.last_failure) as f64);
        state.last_failure = state.rows;
        if state.rows <= self.warm_start {
            return;
        }
        let now = state.distances.mean.mean + 2.0 * state.distances.sample_variance().max(0.0).sqrt();
        if now > state.most {
            state.most = now;
        } else if state.failures > self.warm_start {
            let level = now / state.most;
            if level < self.drift_below {
                state.verdict.drift = true;
            } else {
                state.verdict.warning = level < self.warning_below;
            }
        }
    }
}

impl Sequence for Eddm {
    fn step(&mut self, row: Row, reading: &mut [f64]) {
        if self.state.verdict.drift {
            self.state = State::fresh();
        }
        self.state.rows += 1;
        if row.x >= 1.0 {
            self.fail();
        }
        self.state.verdict.read_into(reading);
    }

    fn save(&self, to: &mut Saving) {
        let State { verdict, rows, failures, last_failure, distances, most } = &self.state;
        verdict.save(to);
        to.u64(*rows).u64(*failures).u64(*last_failure);
        distances.save(to);
        to.f64(*most);
    }

    fn load(&mut self, from: &mut Saved<'_>) -> Option<()> {
        self.state = State {
            verdict: Verdict::load(from)?,
            rows: from.u64()?,
            failures: from.u64()?,
            last_failure: from.u64()?,
            distances: Moments::load(from)?,
            most: from.f64()?,
        };
        Some(())
    }
}
