//! What follows the values of a detector: literals, checked once, with defaults.

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;

use super::Detector;

/// A setting of a detector, and what may stand there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parameter {
    pub name: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Number {
        default: Option<f64>,
        min: f64,
        max: f64,
    },
    Whole {
        default: u32,
        min: u32,
        max: u32,
    },
    Flag {
        default: bool,
    },
    /// The first is the default.
    Word(&'static [&'static str]),
    Span {
        default: u32,
        max: u32,
    },
}

/// So many rows, or so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Span {
    Rows(u32),
    /// In nanoseconds.
    Time(i64),
}

impl Parameter {
    pub(super) const fn number(name: &'static str, default: f64, min: f64, max: f64) -> Self {
        Self { name, kind: Kind::Number { default: Some(default), min, max } }
    }

    /// A number that has no default.
    pub(super) const fn required(name: &'static str, min: f64, max: f64) -> Self {
        Self { name, kind: Kind::Number { default: None, min, max } }
    }

    pub(super) const fn whole(name: &'static str, default: u32, min: u32, max: u32) -> Self {
        Self { name, kind: Kind::Whole { default, min, max } }
    }

    pub(super) const fn flag(name: &'static str, default: bool) -> Self {
        Self { name, kind: Kind::Flag { default } }
    }

    pub(super) const fn word(name: &'static str, words: &'static [&'static str]) -> Self {
        Self { name, kind: Kind::Word(words) }
    }

    /// So many rows, or an interval.
    pub(super) const fn span(name: &'static str, default: u32, max: u32) -> Self {
        Self { name, kind: Kind::Span { default, max } }
    }

    /// The parameter as documentation writes it: with its default.
    pub(super) fn says(&self) -> String {
        let default = match self.kind {
            Kind::Number { default: None, .. } => return self.name.to_owned(),
            Kind::Number { default: Some(number), .. } => number.to_string(),
            Kind::Whole { default, .. } | Kind::Span { default, .. } => default.to_string(),
            Kind::Flag { default } => default.to_string(),
            Kind::Word(words) => format!("'{}'", words.first().copied().unwrap_or_default()),
        };
        format!("{} = {default}", self.name)
    }

    fn read(&self, said: Option<&ScalarValue>) -> Result<Setting, String> {
        let said = said.filter(|value| !value.is_null());
        match (self.kind, said) {
            (Kind::Number { default: Some(number), .. }, None) => Ok(Setting::Number(number)),
            (Kind::Number { default: None, .. }, None) => Err(format!("{} has no default", self.name)),
            (Kind::Whole { default, .. }, None) => Ok(Setting::Whole(default)),
            (Kind::Span { default, .. }, None) => Ok(Setting::Span(Span::Rows(default))),
            (Kind::Flag { default }, None) => Ok(Setting::Flag(default)),
            (Kind::Word(_), None) => Ok(Setting::Word(0)),
            (Kind::Number { min, max, .. }, Some(value)) => {
                let number = number_of(value).filter(|number| (min..=max).contains(number));
                number.map(Setting::Number).ok_or_else(|| self.off(value, &format!("a number from {min} to {max}")))
            }
            (Kind::Whole { min, max, .. }, Some(value)) => {
                let whole = whole_of(value).filter(|whole| (min..=max).contains(whole));
                let wanted = || self.off(value, &format!("a whole number from {min} to {max}"));
                whole.map(Setting::Whole).ok_or_else(wanted)
            }
            (Kind::Flag { .. }, Some(ScalarValue::Boolean(Some(flag)))) => Ok(Setting::Flag(*flag)),
            (Kind::Flag { .. }, Some(value)) => Err(self.off(value, "true or false")),
            (Kind::Word(words), Some(value)) => {
                let text = value.try_as_str().flatten();
                let word = text.and_then(|text| words.iter().position(|word| *word == text));
                word.map(Setting::Word).ok_or_else(|| self.off(value, &format!("'{}'", words.join("' or '"))))
            }
            (Kind::Span { max, .. }, Some(value)) => {
                let rows = whole_of(value).filter(|rows| *rows <= max).map(Span::Rows);
                let span = rows.or_else(|| interval_ns(value).map(Span::Time));
                let wanted = || self.off(value, &format!("a number of rows up to {max}, or INTERVAL '1 hour'"));
                span.map(Setting::Span).ok_or_else(wanted)
            }
        }
    }

    fn off(&self, value: &ScalarValue, wanted: &str) -> String {
        format!("{} must be {wanted}, not {value}", self.name)
    }
}

/// What a parameter has been set to.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Setting {
    Number(f64),
    Whole(u32),
    Flag(bool),
    /// Which of the words.
    Word(usize),
    Span(Span),
}

/// What a call has set, parameter by parameter.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Settings(Vec<Setting>);

impl Settings {
    /// Reads the literals behind the values; those that are missing or `NULL` have their defaults.
    pub(super) fn read(detector: &Detector, said: &[ScalarValue]) -> Result<Self, String> {
        let parameters = detector.parameters;
        if said.len() > parameters.len() {
            return Err(format!("{} settings, at most {} are known", said.len(), parameters.len()));
        }
        let all = parameters.iter().enumerate().map(|(n, parameter)| parameter.read(said.get(n)));
        let settings = Self(all.collect::<Result<_, _>>()?);
        (detector.check)(&settings)?;
        Ok(settings)
    }

    pub(super) fn number(&self, n: usize) -> f64 {
        match self.0.get(n) {
            Some(Setting::Number(number)) => *number,
            other => unreachable!("setting {n} is a number and not {other:?}"),
        }
    }

    pub(super) fn whole(&self, n: usize) -> u32 {
        match self.0.get(n) {
            Some(Setting::Whole(whole)) => *whole,
            other => unreachable!("setting {n} is a whole number and not {other:?}"),
        }
    }

    pub(super) fn flag(&self, n: usize) -> bool {
        match self.0.get(n) {
            Some(Setting::Flag(flag)) => *flag,
            other => unreachable!("setting {n} is a flag and not {other:?}"),
        }
    }

    pub(super) fn word(&self, n: usize) -> usize {
        match self.0.get(n) {
            Some(Setting::Word(word)) => *word,
            other => unreachable!("setting {n} is a word and not {other:?}"),
        }
    }

    pub(super) fn span(&self, n: usize) -> Span {
        match self.0.get(n) {
            Some(Setting::Span(span)) => *span,
            other => unreachable!("setting {n} is a span and not {other:?}"),
        }
    }
}

fn number_of(value: &ScalarValue) -> Option<f64> {
    if !value.data_type().is_numeric() {
        return None;
    }
    match value.cast_to(&DataType::Float64) {
        Ok(ScalarValue::Float64(number)) => number,
        _ => None,
    }
}

fn whole_of(value: &ScalarValue) -> Option<u32> {
    if !value.data_type().is_integer() {
        return None;
    }
    match value.cast_to(&DataType::UInt32) {
        Ok(ScalarValue::UInt32(whole)) => whole,
        _ => None,
    }
}

/// A length of time up to days: months have none.
fn interval_ns(value: &ScalarValue) -> Option<i64> {
    const DAY_NS: i64 = 86_400_000_000_000;
    let ScalarValue::IntervalMonthDayNano(Some(length)) = value else { return None };
    let ns = i64::from(length.days).checked_mul(DAY_NS)?.checked_add(length.nanoseconds)?;
    (length.months == 0 && ns >= 0).then_some(ns)
}
