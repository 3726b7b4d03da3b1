//! Civil time: the hours, days, weeks, months, quarters and years of a zone.
//!
//! A civil period is the set of instants at which the zone's clocks and calendars show it. So a day has 23 hours when
//! clocks go forward and 25 when they go back, it begins at one o'clock where midnight is skipped, and a day that a
//! zone leaves out (Samoa, 2011-12-30) has no instant at all. Periods of a unit follow each other without a gap. Weeks
//! begin on Monday (ISO 8601). The rules of the zones are those of the IANA database that `chrono-tz` brings.

use chrono::{
    DateTime, Datelike, Days, MappedLocalTime, Months, NaiveDate, NaiveDateTime, NaiveTime, Offset, TimeZone,
};
use chrono_tz::Tz;
use lictor_schemas::genops::closest;
use lictor_schemas::time::{EventTime, Window};

const HOUR_NS: i64 = 3_600_000_000_000;

/// A unit of civil time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CalendarUnit {
    /// From one full hour to the next.
    Hour,
    /// From midnight to midnight.
    Day,
    /// From Monday to Monday.
    Week,
    /// From the first to the first.
    Month,
    /// Three months, the first of a year beginning in January.
    Quarter,
    /// From January to January.
    Year,
}

impl CalendarUnit {
    /// All units, the shortest first.
    pub const ALL: [Self; 6] = [Self::Hour, Self::Day, Self::Week, Self::Month, Self::Quarter, Self::Year];

    /// Its name, as rules write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
            Self::Quarter => "quarter",
            Self::Year => "year",
        }
    }

    /// The unit of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|unit| unit.as_str().eq_ignore_ascii_case(name))
    }

    /// The first day of the period that holds `date`, and that of the next.
    fn days(self, date: NaiveDate) -> Option<(NaiveDate, NaiveDate)> {
        let first_of_month = |months_back: u32| date.with_day(1)?.checked_sub_months(Months::new(months_back));
        let (first, months) = match self {
            Self::Hour | Self::Day => return Some((date, date.succ_opt()?)),
            Self::Week => {
                let first = date.checked_sub_days(Days::new(date.weekday().num_days_from_monday().into()))?;
                return Some((first, first.checked_add_days(Days::new(7))?));
            }
            Self::Month => (first_of_month(0)?, 1),
            Self::Quarter => (first_of_month(date.month0() % 3)?, 3),
            Self::Year => (first_of_month(date.month0())?, 12),
        };
        Some((first, first.checked_add_months(Months::new(months))?))
    }
}

/// The zone of an IANA name, in any case.
///
/// # Errors
/// There is no such zone; the text names the nearest one.
pub(crate) fn zone(name: &str) -> Result<Tz, String> {
    let names = || chrono_tz::TZ_VARIANTS.iter().map(|zone| zone.name());
    if let Some(known) = names().find(|known| known.eq_ignore_ascii_case(name)) {
        return known.parse().map_err(|_| format!("'{name}' is no time zone"));
    }
    let near = closest(name, &names().collect::<Vec<_>>()).map(|near| format!(", did you mean '{near}'?"));
    Err(format!("'{name}' is no IANA time zone{}", near.unwrap_or_default()))
}

/// The period of `unit` in `zone` that holds `at`. At the ends of [`EventTime`]'s range periods may be cut off.
pub(crate) fn period_at(unit: CalendarUnit, zone: Tz, at: EventTime) -> Window {
    if unit == CalendarUnit::Hour {
        return hour_at(zone, at);
    }
    let date = local(zone, at).date();
    let begin = |date: NaiveDate| begin_of(zone, date.and_time(NaiveTime::MIN));
    match unit.days(date) {
        Some((first, next)) => Window { start: begin(first), end: begin(next) },
        None => Window { start: EventTime::MIN, end: EventTime::MAX },
    }
}

/// The periods of `unit` that hold `at`, one for each zone.
pub(crate) fn periods_at(unit: CalendarUnit, at: EventTime) -> impl Iterator<Item = (Tz, Window)> {
    chrono_tz::TZ_VARIANTS.iter().map(move |zone| (*zone, period_at(unit, *zone, at)))
}

/// An hour ends early, or begins late, where the clocks are moved within it.
fn hour_at(zone: Tz, at: EventTime) -> Window {
    let offset_ns = offset_ns(zone, at);
    let into = at.plus(offset_ns).0.rem_euclid(HOUR_NS);
    let (start, end) = (at.plus(-into), at.plus(HOUR_NS - into));
    let is_same = |at: EventTime| self::offset_ns(zone, at) == offset_ns;
    let start = if is_same(start) { start } else { first_after(start, at, is_same) };
    let end = if is_same(end.plus(-1)) { end } else { first_after(at, end, |at| !is_same(at)) };
    Window { start, end }
}

/// The first instant after `low`, and not after `high`, from which on `holds` is true.
fn first_after(low: EventTime, high: EventTime, holds: impl Fn(EventTime) -> bool) -> EventTime {
    let (mut low, mut high) = (low.0, high.0);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if holds(EventTime(middle)) { high = middle } else { low = middle }
    }
    EventTime(high)
}

fn utc(at: EventTime) -> NaiveDateTime {
    DateTime::from_timestamp_nanos(at.0).naive_utc()
}

fn offset_ns(zone: Tz, at: EventTime) -> i64 {
    i64::from(zone.offset_from_utc_datetime(&utc(at)).fix().local_minus_utc()) * 1_000_000_000
}

fn local(zone: Tz, at: EventTime) -> NaiveDateTime {
    zone.from_utc_datetime(&utc(at)).naive_local()
}

/// The first instant at which the zone's clocks show `civil` or later.
fn begin_of(zone: Tz, civil: NaiveDateTime) -> EventTime {
    let instant = |naive: NaiveDateTime| {
        let ns = naive.and_utc().timestamp_nanos_opt();
        ns.map_or(if naive.year() < 1970 { EventTime::MIN } else { EventTime::MAX }, EventTime)
    };
    match zone.from_local_datetime(&civil) {
        MappedLocalTime::Single(at) => instant(at.naive_utc()),
        MappedLocalTime::Ambiguous(early, _) => instant(early.naive_utc()),
        // No zone is more than a day from UTC, and no clock is moved by more than a day.
        MappedLocalTime::None => {
            let about = instant(civil);
            first_after(about.plus(-48 * HOUR_NS), about.plus(48 * HOUR_NS), |at| local(zone, at) >= civil)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(unit: CalendarUnit, zone_name: &str, at: &str, start: &str, end: &str) {
        let at = EventTime::from_rfc3339(at).unwrap();
        let Window { start: s, end: e } = period_at(unit, zone(zone_name).unwrap(), at);
        assert_eq!((s.to_rfc3339().as_str(), e.to_rfc3339().as_str()), (start, end));
    }

    #[test]
    fn a_day_has_23_or_25_hours_when_clocks_are_moved() {
        let day = CalendarUnit::Day;
        check(day, "Europe/Rome", "2026-03-29T12:00:00Z", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z");
        check(day, "Europe/Rome", "2026-10-25T12:00:00Z", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z");
        check(day, "Asia/Tokyo", "2026-03-29T12:00:00Z", "2026-03-28T15:00:00Z", "2026-03-29T15:00:00Z");
    }

    #[test]
    fn a_day_begins_at_one_where_midnight_is_skipped_and_at_the_first_of_two_midnights() {
        let day = CalendarUnit::Day;
        check(day, "America/Sao_Paulo", "2018-11-04T12:00:00Z", "2018-11-04T03:00:00Z", "2018-11-05T02:00:00Z");
        check(day, "America/Havana", "2024-11-03T12:00:00Z", "2024-11-03T04:00:00Z", "2024-11-04T05:00:00Z");
    }

    #[test]
    fn a_day_that_was_left_out_has_no_instant() {
        let day = CalendarUnit::Day;
        check(day, "Pacific/Apia", "2011-12-30T09:59:59Z", "2011-12-29T10:00:00Z", "2011-12-30T10:00:00Z");
        check(day, "Pacific/Apia", "2011-12-30T10:00:00Z", "2011-12-30T10:00:00Z", "2011-12-31T10:00:00Z");
    }

    #[test]
    fn longer_units_begin_where_the_calendar_says() {
        let at = "2026-03-29T21:59:59Z";
        check(CalendarUnit::Week, "Europe/Rome", at, "2026-03-22T23:00:00Z", "2026-03-29T22:00:00Z");
        check(CalendarUnit::Month, "Europe/Rome", at, "2026-02-28T23:00:00Z", "2026-03-31T22:00:00Z");
        check(CalendarUnit::Quarter, "Europe/Rome", at, "2025-12-31T23:00:00Z", "2026-03-31T22:00:00Z");
        check(CalendarUnit::Year, "Asia/Tokyo", at, "2025-12-31T15:00:00Z", "2026-12-31T15:00:00Z");
        check(CalendarUnit::Month, "UTC", "2024-02-29T00:00:00Z", "2024-02-01T00:00:00Z", "2024-03-01T00:00:00Z");
    }

    #[test]
    fn hours_follow_the_zones_clock_also_when_it_is_moved_by_half_an_hour() {
        let hour = CalendarUnit::Hour;
        check(hour, "Asia/Kolkata", "2026-01-01T00:10:00Z", "2025-12-31T23:30:00Z", "2026-01-01T00:30:00Z");
        check(hour, "Europe/Rome", "2026-10-25T00:30:00Z", "2026-10-25T00:00:00Z", "2026-10-25T01:00:00Z");
        // At 15:00 UTC Lord Howe's clocks go back from 2:00 to 1:30: the second half of one o'clock is an hour's rest.
        check(hour, "Australia/Lord_Howe", "2026-04-04T14:59:00Z", "2026-04-04T14:00:00Z", "2026-04-04T15:00:00Z");
        check(hour, "Australia/Lord_Howe", "2026-04-04T15:10:00Z", "2026-04-04T15:00:00Z", "2026-04-04T15:30:00Z");
    }

    #[test]
    fn periods_follow_each_other_without_a_gap_in_every_zone() {
        let begin = EventTime::from_rfc3339("2010-06-01T00:00:00Z").unwrap();
        let end = EventTime::from_rfc3339("2012-06-01T00:00:00Z").unwrap();
        for zone in chrono_tz::TZ_VARIANTS {
            let mut period = period_at(CalendarUnit::Day, zone, begin);
            while period.end < end {
                let next = period_at(CalendarUnit::Day, zone, period.end);
                assert_eq!(next.start, period.end, "{zone}");
                assert_eq!(period_at(CalendarUnit::Day, zone, next.end.plus(-1)), next, "{zone}");
                period = next;
            }
        }
    }

    #[test]
    fn a_zone_that_does_not_exist_is_named_with_the_nearest() {
        assert_eq!(zone("europe/rome").map(|z| z.name()), Ok("Europe/Rome"));
        assert_eq!(zone("Europe/Roma").unwrap_err(), "'Europe/Roma' is no IANA time zone, did you mean 'Europe/Rome'?");
    }

    #[test]
    fn the_ends_of_time_are_in_some_period() {
        for at in [EventTime::MIN, EventTime::MAX] {
            for unit in CalendarUnit::ALL {
                let period = period_at(unit, zone("Asia/Tokyo").unwrap(), at);
                assert!(period.start <= at && at <= period.end, "{unit:?} {period:?}");
            }
        }
    }
}
