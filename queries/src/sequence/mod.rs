//! Sequence detectors: functions of everything that came before, window by window and key by key, in bounded state.
//!
//! `ew_level_diff(cost) OVER (PARTITION BY team ORDER BY window_end)` looks like a window function and is planned as
//! one, but is never run as one in a stream: the calls are cut out of the plan ([`cut`]) and an operator of ours folds
//! the rows of each window into a state per key ([`keyed`]) that is remembered with what `OVER` looks back at. In a
//! batch (the oracle) DataFusion runs the same state machine over each partition from its start ([`function`]). So
//! both give the same numbers, and a detector is one file with one [`Sequence`] in it.
//!
//! Numeric contract, of all of them: `f64`; what is null, not finite, or beyond 1e100 is ignored (the state stays as it
//! is, the result is null); deviations have floors; nothing depends on how rows are cut into batches.

mod adwin;
mod arguments;
mod cooldown;
mod cusum;
mod cut;
mod ddm;
mod eddm;
mod ew;
mod ew_level_diff;
mod ewma_chart;
mod function;
mod hddm_a;
mod hddm_w;
mod holt;
mod hysteresis;
mod k_of_n;
mod keyed;
mod kswin;
mod log_histogram;
mod moments;
mod page_hinkley;
mod readings;
mod robust_z;
mod running_quantile;
mod saved;
mod seasonal_z;
#[cfg(test)]
mod tests;

use std::fmt;

use arguments::{Parameter, Settings};
pub(crate) use cut::{Detecting, cut, has_detectors, help_for, is_detector, keep_ns, refuse_misuse};
pub(crate) use function::{register, with_times};
use readings::Field;
use saved::{Saved, Saving};

/// What a detector is given of a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Row {
    /// The first value; a flag is 1 or 0.
    pub x: f64,
    /// The second value, if the function has one.
    pub y: f64,
    /// The second value of a function whose second value is a time, in nanoseconds since the epoch.
    pub time_ns: i64,
    /// When the row's window ends, in nanoseconds since the epoch.
    pub end_ns: i64,
}

/// What is remembered of one key, and what the next row makes of it.
pub(crate) trait Sequence: fmt::Debug + Send {
    /// Takes the next row; says what it makes of it in `reading`, a number per field, `NaN` (as found) for null.
    fn step(&mut self, row: Row, reading: &mut [f64]);

    /// Writes the state: the same state always as the same bytes.
    fn save(&self, to: &mut Saving);

    /// Reads what [`Sequence::save`] wrote of a detector with the same settings; none if it is something else.
    fn load(&mut self, from: &mut Saved<'_>) -> Option<()>;
}

/// What a value of a detector must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// A number.
    Number,
    /// A number from 0 to 1, or a truth value: 1 is an error, a failure.
    Share,
    /// A truth value.
    Flag,
    /// An instant.
    Time,
}

/// A sequence function: what it is called with, what it gives, how it begins.
#[derive(Debug)]
pub(crate) struct Detector {
    pub name: &'static str,
    /// What it gives, in a few words.
    pub says: &'static str,
    /// Where the method comes from.
    pub source: &'static str,
    pub values: &'static [Value],
    pub parameters: &'static [Parameter],
    /// What it knows after a row. The first is what the function of this name gives; if there are more, the function
    /// with `_state` behind its name gives them all.
    pub fields: &'static [Field],
    /// Raised when a saved state means something else than before.
    pub version: u8,
    /// Whether the settings go together; if not, why.
    pub check: fn(&Settings) -> Result<(), String>,
    pub start: fn(&Settings) -> Box<dyn Sequence>,
    /// After how many rows what came before them hardly matters: so far a new rule is warmed.
    pub settled: fn(&Settings) -> usize,
}

/// All of them, in the order in which they are explained.
pub(crate) const DETECTORS: [&Detector; 21] = [
    &ew::EW_MEAN,
    &ew::EW_VAR,
    &ew::EW_Z,
    &ew_level_diff::EW_LEVEL_DIFF,
    &seasonal_z::SEASONAL_Z,
    &robust_z::ROBUST_Z,
    &running_quantile::RUNNING_QUANTILE,
    &holt::HOLT,
    &holt::HOLT_EXHAUSTION,
    &cusum::CUSUM,
    &ewma_chart::EWMA_CHART,
    &page_hinkley::PAGE_HINKLEY,
    &adwin::ADWIN,
    &kswin::KSWIN,
    &ddm::DDM,
    &eddm::EDDM,
    &hddm_a::HDDM_A,
    &hddm_w::HDDM_W,
    &cooldown::COOLDOWN,
    &k_of_n::K_OF_N,
    &hysteresis::HYSTERESIS,
];

/// Values beyond this are ignored: their squares would leave the range of numbers.
const LARGEST: f64 = 1e100;

impl Detector {
    /// Whether a value can be taken: what is null is `NaN` here.
    fn takes(&self, row: &Row) -> bool {
        let is_good = |(value, number): (&Value, f64)| match value {
            Value::Number | Value::Flag => number.abs() <= LARGEST,
            Value::Share => (0.0..=1.0).contains(&number),
            Value::Time => true,
        };
        self.values.iter().zip([row.x, row.y]).all(is_good)
    }
}

fn no_check(_: &Settings) -> Result<(), String> {
    Ok(())
}

/// A sequence function, as documentation tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SequenceSignature {
    /// How it is called, settings with their defaults: `ew_mean(number, alpha = 0.05)`.
    pub call: String,
    /// What it gives.
    pub says: &'static str,
    /// What the function with `_state` behind its name gives; empty if there is none.
    pub state: String,
    /// Where the method comes from.
    pub source: &'static str,
}

/// All sequence functions.
#[must_use]
pub fn sequence_functions() -> Vec<SequenceSignature> {
    DETECTORS.into_iter().map(Detector::signature).collect()
}

impl Detector {
    fn signature(&self) -> SequenceSignature {
        let value = |value: &Value| match value {
            Value::Number => "number",
            Value::Share => "failed",
            Value::Flag => "condition",
            Value::Time => "time",
        };
        let values = self.values.iter().map(|v| value(v).to_owned());
        let arguments: Vec<String> = values.chain(self.parameters.iter().map(Parameter::says)).collect();
        let fields: Vec<&str> = self.fields.iter().map(|field| field.name).collect();
        SequenceSignature {
            call: format!("{}({})", self.name, arguments.join(", ")),
            says: self.says,
            state: if fields.len() > 1 { fields.join(", ") } else { String::new() },
            source: self.source,
        }
    }
}
