//! Calendar windows against another library with a time-zone database of its own.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan, ZonedDateTime};
use lictor_queries::{CalendarUnit, WindowSpec};
use lictor_schemas::time::{EventTime, Window};

/// Zones whose clocks are moved at other hours, by other amounts, at midnight, over a whole day, or never.
const ZONES: [&str; 10] = [
    "Europe/Rome",
    "America/New_York",
    "Australia/Lord_Howe",
    "America/Sao_Paulo",
    "America/Havana",
    "Africa/Cairo",
    "Asia/Beirut",
    "Pacific/Apia",
    "Asia/Kathmandu",
    "UTC",
];
const FROM: &str = "2009-12-30T00:00:00Z";
/// What governments decide about the years after, the two databases may have heard of at different times.
const UNTIL: &str = "2025-01-03T00:00:00Z";
const HOUR_NS: i64 = 3_600_000_000_000;

fn instant(zoned: &ZonedDateTime) -> EventTime {
    EventTime(i64::try_from(zoned.timestamp().as_nanosecond()).unwrap())
}

/// The first instant of a civil date.
fn begin(date: Date, zone: &TimeZone) -> EventTime {
    instant(&date.to_zoned_datetime(zone.clone()).unwrap().start_of_day().unwrap())
}

fn expected(unit: CalendarUnit, at: EventTime, zone: &TimeZone) -> Window {
    let date = Timestamp::from_nanosecond(at.0.into()).unwrap().to_zoned_datetime(zone.clone()).date();
    let (first, next) = match unit {
        CalendarUnit::Hour => unreachable!("hours are compared by themselves"),
        CalendarUnit::Day => (date, date.saturating_add(1.day())),
        CalendarUnit::Week => {
            let monday = date.saturating_sub(i64::from(date.weekday().to_monday_zero_offset()).days());
            (monday, monday.saturating_add(1.week()))
        }
        CalendarUnit::Month => (date.first_of_month(), date.first_of_month().saturating_add(1.month())),
        CalendarUnit::Quarter => {
            let first = Date::new(date.year(), (date.month() - 1) / 3 * 3 + 1, 1).unwrap();
            (first, first.saturating_add(3.months()))
        }
        CalendarUnit::Year => (date.first_of_year(), date.first_of_year().saturating_add(1.year())),
    };
    Window { start: begin(first, zone), end: begin(next, zone) }
}

#[test]
fn periods_are_those_of_another_library() {
    let [from, until] = [FROM, UNTIL].map(|at| EventTime::from_rfc3339(at).unwrap());
    let mut compared = 0;
    for name in ZONES {
        let zone = TimeZone::get(name).unwrap();
        for unit in CalendarUnit::ALL.into_iter().filter(|unit| *unit != CalendarUnit::Hour) {
            let spec = WindowSpec::Calendar { unit, zone: name.parse().unwrap() };
            // Seven hours meet every hour of the day within a week, and the seconds around each midnight.
            let mut at = from;
            while at < until {
                let expected = expected(unit, at, &zone);
                for at in [at, expected.start, expected.end.plus(-1)] {
                    assert_eq!(spec.pane_at(at), expected, "{unit:?} in {name} at {at}");
                }
                compared += 1;
                at = at.plus(7 * HOUR_NS);
            }
        }
    }
    assert!(compared > 900_000, "{compared}");
}

#[test]
fn an_hour_is_where_the_other_library_sees_one_hour() {
    let [from, until] = ["2023-12-31T00:00:00Z", UNTIL].map(|at| EventTime::from_rfc3339(at).unwrap());
    for name in ZONES {
        let zone = TimeZone::get(name).unwrap();
        let spec = WindowSpec::Calendar { unit: CalendarUnit::Hour, zone: name.parse().unwrap() };
        let seen = |at: EventTime| {
            let zoned = Timestamp::from_nanosecond(at.0.into()).unwrap().to_zoned_datetime(zone.clone());
            (zoned.date(), zoned.hour(), zoned.offset())
        };
        let mut at = from;
        while at < until {
            let hour = spec.pane_at(at);
            assert!(hour.start <= at && at < hour.end, "{name} at {at}: {hour:?}");
            assert_eq!(seen(hour.start), seen(at), "{name} at {at}");
            assert_eq!(seen(hour.end.plus(-1)), seen(at), "{name} at {at}");
            assert_ne!(seen(hour.end), seen(at), "{name} at {at}");
            assert_ne!(seen(hour.start.plus(-1)), seen(at), "{name} at {at}");
            at = at.plus(HOUR_NS / 4);
        }
    }
}
