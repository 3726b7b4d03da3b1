//! How often something is measured, and what the runs say together.

use std::env;
use std::fmt;

/// `LICTOR_RUNS`, 5 if it is not set.
pub(crate) fn runs() -> usize {
    env::var("LICTOR_RUNS").map_or(5, |text| text.parse().unwrap_or(5)).max(1)
}

/// The figures of some runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) greatest: f64,
}

impl Spread {
    /// Of one run at least.
    pub(crate) fn of(figures: impl IntoIterator<Item = f64>) -> Self {
        let mut figures: Vec<f64> = figures.into_iter().collect();
        figures.sort_by(f64::total_cmp);
        Self { median: figures[figures.len() / 2], least: figures[0], greatest: figures[figures.len() - 1] }
    }
}

/// `median (least–greatest)`, with as many decimals as the formatter asks for.
impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decimals = f.precision().unwrap_or(0);
        let Self { median, least, greatest } = self;
        write!(f, "{median:.decimals$} ({least:.decimals$}–{greatest:.decimals$})")
    }
}
