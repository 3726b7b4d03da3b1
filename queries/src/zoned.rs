//! Calendar windows in the zone that each row names: what `AssignWindow` does with a second argument.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, StringViewArray, TimestampNanosecondArray, TimestampNanosecondBuilder};
use chrono_tz::Tz;
use datafusion::common::{Result, exec_err};
use lictor_schemas::time::{EventTime, Window};

use crate::calendar::{self, CalendarUnit};

/// The zones that a batch has named, each with the period that its last row was in: rows come roughly in order, and a
/// period holds many of them.
struct Zones<'a> {
    unit: CalendarUnit,
    known: HashMap<&'a str, (Tz, Window)>,
}

impl<'a> Zones<'a> {
    fn period(&mut self, name: &'a str, at: EventTime) -> Result<Window> {
        let Some((zone, period)) = self.known.get_mut(name) else {
            let zone = calendar::zone(name).or_else(|why| exec_err!("{why}"))?;
            let period = calendar::period_at(self.unit, zone, at);
            self.known.insert(name, (zone, period));
            return Ok(period);
        };
        if at < period.start || at >= period.end {
            *period = calendar::period_at(self.unit, *zone, at);
        }
        Ok(*period)
    }
}

/// A bound of the period of `unit` that each row is in by the clocks of its zone; none if it names no zone.
///
/// # Errors
/// A row names a zone that does not exist.
pub(crate) fn bounds(
    unit: CalendarUnit,
    times: &TimestampNanosecondArray,
    zones: &StringViewArray,
    bound: impl Fn(Window) -> EventTime,
) -> Result<ArrayRef> {
    let mut seen = Zones { unit, known: HashMap::new() };
    let mut bounds = TimestampNanosecondBuilder::with_capacity(times.len());
    for row in times.iter().zip(zones) {
        match row {
            (Some(at), Some(zone)) => bounds.append_value(bound(seen.period(zone, EventTime(at))?).0),
            _ => bounds.append_null(),
        }
    }
    Ok(Arc::new(bounds.finish()))
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use arrow::datatypes::TimestampNanosecondType;

    use super::*;

    fn starts(rows: &[(&str, Option<&str>)]) -> Result<Vec<Option<String>>> {
        let at = |row: &(&str, Option<&str>)| EventTime::from_rfc3339(row.0).unwrap().0;
        let times: TimestampNanosecondArray = rows.iter().map(|row| Some(at(row))).collect();
        let zones: StringViewArray = rows.iter().map(|row| row.1).collect();
        let starts = bounds(CalendarUnit::Day, &times, &zones, |period| period.start)?;
        let starts = starts.as_primitive::<TimestampNanosecondType>();
        Ok(starts.iter().map(|start| start.map(|at| EventTime(at).to_rfc3339())).collect())
    }

    #[test]
    fn each_row_is_in_a_day_of_its_own_zone() {
        let (noon, later) = ("2026-03-29T12:00:00Z", "2026-03-29T22:30:00Z");
        let rows =
            [(noon, Some("Europe/Rome")), (noon, Some("Asia/Tokyo")), (noon, None), (later, Some("Europe/Rome"))];
        let days = ["2026-03-28T23:00:00Z", "2026-03-28T15:00:00Z", "", "2026-03-29T22:00:00Z"];
        let days = days.map(|day| (!day.is_empty()).then(|| day.to_owned()));
        assert_eq!(starts(&rows).unwrap(), days);
    }

    #[test]
    fn a_zone_that_does_not_exist_is_named() {
        let error = starts(&[("2026-03-29T12:00:00Z", Some("Europe/Roma"))]).unwrap_err().strip_backtrace();
        assert!(error.contains("'Europe/Roma' is no IANA time zone, did you mean 'Europe/Rome'?"), "{error}");
    }
}
