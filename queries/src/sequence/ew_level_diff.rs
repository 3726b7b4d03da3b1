//! `ew_level_diff`: how unusual a row's level and its step from the row before are, in one score.
//!
//! Level: the short exponentially weighted mean, as deviations from a very long one, divided by `level_div`. Step: the
//! difference to the row before, as deviations from the mean step, divided by what only one in 200 of this key's own
//! steps has exceeded so far (and `add`), so that a series that always jumps is not remarkable for it. The score is
//! the root of the mean of both squares, each at most `cap`; from about 1.1 on it is an alert. It stays 0 for `warm`
//! rows, and without the step for another `calibrated` rows.
//!
//! With its defaults and a pause of 100 rows after an alert it has 61.5 of 100 points on the Numenta Anomaly Benchmark.

use super::arguments::{Parameter, Settings};
use super::ew::settled_for;
use super::log_histogram::LogHistogram;
use super::moments::EwScore;
use super::readings::Field;
use super::saved::{Saved, Saving};
use super::{Detector, Row, Sequence, Value, no_check};

pub(super) const EW_LEVEL_DIFF: Detector = Detector {
    name: "ew_level_diff",
    says: "how unusual level and step are; an alert from about 1.1 on, 0 while it warms up",
    source: "tuned on NAB",
    values: &[Value::Number],
    parameters: &[
        Parameter::number("a_short", 0.08, 1e-6, 1.0),
        Parameter::number("a_level", 0.0005, 1e-6, 1.0),
        Parameter::number("a_diff", 0.001, 1e-6, 1.0),
        Parameter::number("floor", 0.1, 0.0, 1.0),
        Parameter::number("level_div", 3.0, 1e-3, 1e3),
        Parameter::number("q", 0.995, 0.5, 1.0),
        Parameter::number("add", 0.3, 1e-3, 1e3),
        Parameter::number("clip", 50.0, 1.0, 1e6),
        Parameter::number("cap", 3.0, 0.1, 1e3),
        Parameter::whole("warm", 60, 0, 10_000),
        Parameter::whole("calibrated", 150, 1, 10_000),
    ],
    fields: &[Field::number("score"), Field::number("level"), Field::number("step")],
    version: 1,
    check: no_check,
    start: |settings| Box::new(LevelDiff::new(settings)),
    settled: |settings| settled_for(settings.number(1).min(settings.number(2))),
};

#[derive(Debug)]
struct Rule {
    short: f64,
    level: (f64, f64, f64),
    step: (f64, f64, f64),
    level_div: f64,
    q: f64,
    add: f64,
    cap: f64,
    warm: u32,
    calibrated: u32,
}

#[derive(Debug)]
struct LevelDiff {
    rule: Rule,
    rows: u32,
    before: f64,
    short: f64,
    level: EwScore,
    step: EwScore,
    /// How many deviations steps had.
    steps: LogHistogram,
}

impl LevelDiff {
    fn new(settings: &Settings) -> Self {
        let number = |n| settings.number(n);
        let (floor, clip) = (number(3), number(7));
        let rule = Rule {
            short: number(0),
            level: (number(1), floor, clip),
            step: (number(2), floor, clip),
            level_div: number(4),
            q: number(5),
            add: number(6),
            cap: number(8),
            warm: settings.whole(9),
            calibrated: settings.whole(10),
        };
        let (level, step) = (EwScore::default(), EwScore::default());
        Self { rule, rows: 0, before: 0.0, short: 0.0, level, step, steps: LogHistogram::default() }
    }
}

impl Sequence for LevelDiff {
    fn step(&mut self, row: Row, reading: &mut [f64]) {
        let rule = &self.rule;
        let weight = rule.short.max(1.0 / (f64::from(self.rows) + 1.0));
        let is_first = self.rows == 0;
        self.short = if is_first { row.x } else { self.short + weight * (row.x - self.short) };
        let step = if is_first { 0.0 } else { row.x - self.before };
        self.before = row.x;
        let level = self.level.step(self.short, rule.level).abs() / rule.level_div;
        let off = self.step.step(step, rule.step).abs();
        let is_warm = self.rows >= rule.warm;
        self.rows = self.rows.saturating_add(1);
        let is_calibrated = self.steps.total() >= u64::from(rule.calibrated);
        let usual = self.steps.quantile(rule.q).filter(|_| is_calibrated);
        let step = usual.map_or(0.0, |usual| off / (usual + rule.add));
        if !is_warm {
            reading.fill(0.0);
            return;
        }
        self.steps.add(off);
        let squares = level.min(rule.cap).powi(2) + step.min(rule.cap).powi(2);
        reading.copy_from_slice(&[(squares / 2.0).sqrt(), level, step]);
    }

    fn save(&self, to: &mut Saving) {
        to.u32(self.rows).f64(self.before).f64(self.short);
        self.level.save(to);
        self.step.save(to);
        self.steps.save(to);
    }

    fn load(&mut self, from: &mut Saved<'_>) -> Option<()> {
        (self.rows, self.before, self.short) = (from.u32()?, from.f64()?, from.f64()?);
        (self.level, self.step) = (EwScore::load(from)?, EwScore::load(from)?);
        self.steps = LogHistogram::load(from)?;
        Some(())
    }
}
