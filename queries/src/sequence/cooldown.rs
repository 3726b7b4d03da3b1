//! `cooldown`: an alert, then silence for a while.
//!
//! True where the condition holds and was not let through within the last `silence`: so many rows of this key, or so
//! long by the ends of windows. Of the same scores it makes twice as good alerts as none.

use super::arguments::{Parameter, Settings, Span};
use super::readings::Field;
use super::saved::{Saved, Saving};
use super::{Detector, Row, Sequence, Value, no_check};

pub(super) const COOLDOWN: Detector = Detector {
    name: "cooldown",
    says: "true where the condition holds, then false for so many rows (or so long)",
    source: "–",
    values: &[Value::Flag],
    parameters: &[Parameter::span("silence", 12, 1_000_000)],
    fields: &[Field::flag("fires")],
    version: 1,
    check: no_check,
    start: |settings: &Settings| Box::new(Cooldown { silence: settings.span(0), rows: 0, fired: None }),
    settled: |settings| match settings.span(0) {
        Span::Rows(rows) => (rows as usize).min(10_000),
        // How many rows that is depends on the windows.
        Span::Time(_) => 100,
    },
};

#[derive(Debug)]
struct Cooldown {
    silence: Span,
    rows: i64,
    /// The row that was let through last, and the end of its window.
    fired: Option<(i64, i64)>,
}

impl Sequence for Cooldown {
    fn step(&mut self, row: Row, reading: &mut [f64]) {
        self.rows += 1;
        let is_silent = self.fired.is_some_and(|(at, end_ns)| match self.silence {
            Span::Rows(rows) => self.rows - at <= i64::from(rows),
            Span::Time(ns) => row.end_ns.saturating_sub(end_ns) <= ns,
        });
        let fires = row.x != 0.0 && !is_silent;
        if fires {
            self.fired = Some((self.rows, row.end_ns));
        }
        reading[0] = f64::from(u8::from(fires));
    }

    fn save(&self, to: &mut Saving) {
        let (at, end_ns) = self.fired.unwrap_or_default();
        to.i64(self.rows).flag(self.fired.is_some()).i64(at).i64(end_ns);
    }

    fn load(&mut self, from: &mut Saved<'_>) -> Option<()> {
        self.rows = from.i64()?;
        let (is_there, fired) = (from.flag()?, (from.i64()?, from.i64()?));
        self.fired = is_there.then_some(fired);
        Some(())
    }
}
