//! Calendar windows against another library with a time-zone database of its own.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int32Array, Int64Array, RecordBatch, StringViewArray, TimestampNanosecondArray};
use arrow::datatypes::{DataType, Field, Schema, TimestampNanosecondType};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan, ZonedDateTime};
use lictor_queries::{CalendarUnit, Feed, RuleFile, WindowSpec, compile, oracle};
use lictor_schemas::tables::{Table, table_schema};
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

const RULE: &str = "
CREATE EXTERNAL TABLE zones (team VARCHAR, zone VARCHAR) STORED AS CSV LOCATION 'zones.csv';
CREATE RULE zoned WITH (action = 'warn', reason_code = 'x_zoned') AS
SELECT s.team, s.trace_id, window_start, window_end, count(*) AS observed
FROM CALENDAR((SELECT s.*, z.zone FROM spans AS s JOIN zones AS z ON z.team = s.team), event_time, 'UNIT', zone) AS s
GROUP BY s.team, s.trace_id, window_start, window_end;
";

fn files(unit: CalendarUnit) -> Vec<RuleFile> {
    vec![RuleFile { file: "zoned.sql".to_owned(), text: RULE.replace("UNIT", unit.as_str()) }]
}

/// Teams are called as their zones.
fn zones(zones: &[&str]) -> RecordBatch {
    let names: ArrayRef = Arc::new(StringViewArray::from_iter_values(zones));
    let fields = ["team", "zone"].map(|name| Field::new(name, DataType::Utf8View, true));
    RecordBatch::try_new(Arc::new(Schema::new(fields.to_vec())), vec![Arc::clone(&names), names]).unwrap()
}

/// Rows of `spans` of these teams at these times; the trace id is the time.
fn spans(rows: &[(EventTime, &str)]) -> RecordBatch {
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("event_time", Arc::new(TimestampNanosecondArray::from_iter_values(rows.iter().map(|row| row.0.0)))),
        ("trace_id", Arc::new(StringViewArray::from_iter_values(rows.iter().map(|row| row.0.0.to_string())))),
        ("span_id", Arc::new(StringViewArray::from_iter_values(rows.iter().map(|_| "s")))),
        ("kafka_partition", Arc::new(Int32Array::from(vec![0; rows.len()]))),
        ("kafka_offset", Arc::new(Int64Array::from_iter_values((0..).take(rows.len())))),
        ("team", Arc::new(StringViewArray::from_iter_values(rows.iter().map(|row| row.1)))),
    ];
    let all = table_schema(Table::Spans, &[]);
    let fields: Vec<_> = columns.iter().map(|(name, _)| all.field_with_name(name).unwrap().clone()).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns.into_iter().map(|column| column.1).collect()).unwrap()
}

#[test]
fn a_row_is_in_the_period_of_the_zone_that_its_team_has() {
    let [from, until] = [FROM, UNTIL].map(|at| EventTime::from_rfc3339(at).unwrap());
    let references = BTreeMap::from([("zones".to_owned(), Ok(zones(&ZONES)))]);
    for unit in CalendarUnit::ALL.into_iter().filter(|unit| *unit != CalendarUnit::Hour) {
        let step = 35 * HOUR_NS + 1;
        let times = std::iter::successors(Some(from), |at| Some(at.plus(step)).filter(|at| *at < until));
        let rows: Vec<_> = times.flat_map(|at| ZONES.map(|zone| (at, zone))).collect();
        let telemetry = BTreeMap::from([(Table::Spans, spans(&rows))]);
        let mut found = 0;
        for batch in oracle(&files(unit), &references, "zoned", &telemetry).unwrap() {
            let text = |column: usize, row| batch.column(column).as_string_view().value(row);
            let time = |column: usize, row| {
                EventTime(batch.column(column).as_primitive::<TimestampNanosecondType>().value(row))
            };
            for row in 0..batch.num_rows() {
                let (zone, at) = (text(0, row), EventTime(text(1, row).parse().unwrap()));
                let window = Window { start: time(2, row), end: time(3, row) };
                assert_eq!(window, expected(unit, at, &TimeZone::get(zone).unwrap()), "{unit:?} in {zone} at {at}");
            }
            found += batch.num_rows();
        }
        assert_eq!(found, rows.len());
    }
}

#[test]
fn a_zone_that_does_not_exist_fails_the_rule_when_a_row_has_it() {
    let references = BTreeMap::from([("zones".to_owned(), Ok(zones(&["Europe/Rome", "Europe/Roma"])))]);
    let (mut rules, faults) = compile(&files(CalendarUnit::Day), &references);
    assert_eq!(faults, []);
    rules.fill_reference("zones", references["zones"].as_ref().unwrap()).unwrap();
    let Feed::Table { mut scan, .. } = rules.stores.remove(0).feed else { panic!("it reads one table") };
    let at = EventTime::from_rfc3339(FROM).unwrap();
    scan.absorb(&spans(&[(at, "Europe/Rome"), (at, "Africa/Lagos")])).unwrap();
    let error = scan.absorb(&spans(&[(at, "Europe/Roma")])).unwrap_err();
    assert!(error.message.contains("'Europe/Roma' is no IANA time zone, did you mean 'Europe/Rome'?"), "{error}");
}
