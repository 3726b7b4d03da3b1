//! `seasonal_z`: deviations from what is usual at this hour of the week.
//!
//! What is usual is a slow exponentially weighted mean and, for each slot of the season, how far values of that slot
//! lie from it. Slots are those of UTC. The score is that of [`EwScore`] over what is left when both are taken away.

use super::arguments::{Parameter, Settings};
use super::ew::settled_for;
use super::moments::EwScore;
use super::readings::Field;
use super::saved::{Saved, Saving};
use super::{Detector, Row, Sequence, Value, no_check};

/// In the order of [`Season::ALL`].
const SEASONS: &[&str] = &["hour_of_week", "hour_of_day", "day_of_week"];

pub(super) const SEASONAL_Z: Detector = Detector {
    name: "seasonal_z",
    says: "deviations from what is usual at this hour of the week (UTC), within ±50",
    source: "EWMA with a seasonal profile",
    values: &[Value::Number, Value::Time],
    parameters: &[
        Parameter::word("season", SEASONS),
        Parameter::number("alpha", 0.002, 1e-6, 1.0),
        Parameter::number("gamma", 0.1, 1e-6, 1.0),
        Parameter::number("floor", 0.1, 0.0, 1.0),
    ],
    fields: &[Field::number("z"), Field::number("expected")],
    version: 1,
    check: no_check,
    start: |settings| Box::new(SeasonalZ::new(settings)),
    settled: |settings| settled_for(settings.number(1)),
};

#[derive(Clone, Copy, Debug)]
enum Season {
    HourOfWeek,
    HourOfDay,
    DayOfWeek,
}

impl Season {
    const ALL: [Self; 3] = [Self::HourOfWeek, Self::HourOfDay, Self::DayOfWeek];

    fn slots(self) -> usize {
        match self {
            Self::HourOfWeek => 168,
            Self::HourOfDay => 24,
            Self::DayOfWeek => 7,
        }
    }

    fn slot(self, time_ns: i64) -> usize {
        const HOUR_NS: i64 = 3_600_000_000_000;
        /// The epoch is a Thursday; weeks begin on Monday.
        const THURSDAY: i64 = 3;
        let hours = time_ns.div_euclid(HOUR_NS);
        let slot = match self {
            Self::HourOfWeek => (hours + 24 * THURSDAY).rem_euclid(168),
            Self::HourOfDay => hours.rem_euclid(24),
            Self::DayOfWeek => (hours.div_euclid(24) + THURSDAY).rem_euclid(7),
        };
        usize::try_from(slot).unwrap_or_default()
    }
}

/// How far values of a slot lie from the mean, and how many there were.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Slot {
    offset: f64,
    rows: u32,
}

#[derive(Debug)]
struct SeasonalZ {
    season: Season,
    alpha: f64,
    gamma: f64,
    floor: f64,
    rows: u32,
    mean: f64,
    slots: Vec<Slot>,
    rest: EwScore,
}

/// What is beyond this is not told apart.
const CLIP: f64 = 50.0;

impl SeasonalZ {
    fn new(settings: &Settings) -> Self {
        let season = Season::ALL[settings.word(0)];
        Self {
            season,
            alpha: settings.number(1),
            gamma: settings.number(2),
            floor: settings.number(3),
            rows: 0,
            mean: 0.0,
            slots: vec![Slot::default(); season.slots()],
            rest: EwScore::default(),
        }
    }
}

impl Sequence for SeasonalZ {
    fn step(&mut self, row: Row, reading: &mut [f64]) {
        let slot = &mut self.slots[self.season.slot(row.time_ns)];
        if self.rows == 0 {
            self.mean = row.x;
        }
        let expected = self.mean + slot.offset;
        let score = self.rest.step(row.x - expected, (self.alpha, self.floor, CLIP));
        self.rows = self.rows.saturating_add(1);
        slot.rows = slot.rows.saturating_add(1);
        let weight = self.alpha.max(1.0 / f64::from(self.rows));
        self.mean += weight * (row.x - slot.offset - self.mean);
        slot.offset += self.gamma.max(1.0 / f64::from(slot.rows)) * (row.x - self.mean - slot.offset);
        reading.copy_from_slice(&[score, expected]);
    }

    fn save(&self, to: &mut Saving) {
        to.u32(self.rows).f64(self.mean);
        self.rest.save(to);
        let seen: Vec<(u32, &Slot)> = (0..).zip(&self.slots).filter(|(_, slot)| slot.rows > 0).collect();
        to.list(seen.into_iter(), |to, (number, slot)| {
            to.u32(number).f64(slot.offset).u32(slot.rows);
        });
    }

    fn load(&mut self, from: &mut Saved<'_>) -> Option<()> {
        (self.rows, self.mean) = (from.u32()?, from.f64()?);
        self.rest = EwScore::load(from)?;
        self.slots.fill(Slot::default());
        let seen = from.list(|from| Some((from.u32()?, Slot { offset: from.f64()?, rows: from.u32()? })))?;
        for (number, slot) in seen {
            *self.slots.get_mut(usize::try_from(number).ok()?)? = slot;
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_hours_and_days_of_utc_from_monday_on() {
        const HOUR: i64 = 3_600_000_000_000;
        // 1970-01-05 was a Monday.
        let monday = 4 * 24 * HOUR;
        assert_eq!(Season::HourOfWeek.slot(monday), 0);
        assert_eq!(Season::HourOfWeek.slot(monday - 1), 167);
        assert_eq!(Season::HourOfDay.slot(monday + 5 * HOUR), 5);
        assert_eq!(Season::DayOfWeek.slot(monday + 30 * HOUR), 1);
        assert_eq!(Season::DayOfWeek.slot(-1), 2, "the day before the epoch was a Wednesday");
    }
}
