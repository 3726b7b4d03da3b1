//! Durations as text: a whole number and a unit.

const MS: i64 = 1_000_000;
const SECOND: i64 = 1_000 * MS;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// The longest first, so that formatting finds the largest unit that divides.
const UNITS: [(&str, i64); 5] = [("d", DAY), ("h", HOUR), ("m", MINUTE), ("s", SECOND), ("ms", MS)];

/// Reads `250ms`, `10s`, `5m`, `1h` or `2d` as nanoseconds.
///
/// # Errors
/// There is no number, no unit, another unit, or more than 292 years.
pub fn parse_ns(text: &str) -> Result<i64, String> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let ns_per_unit = UNITS.iter().find(|(name, _)| *name == unit.trim_start()).map(|(_, ns)| *ns);
    let ns = number.parse::<i64>().ok().zip(ns_per_unit).map(|(n, per_unit)| n.checked_mul(per_unit));
    match ns {
        Some(Some(ns)) => Ok(ns),
        Some(None) => Err("is longer than time itself goes here: 292 years".to_owned()),
        None => Err("is not a duration: write a whole number and ms, s, m, h or d, such as 10s".to_owned()),
    }
}

/// Nanoseconds in the largest unit that holds them whole: `90s`, `1d`. What is no whole millisecond is written in `ns`.
#[must_use]
pub fn format_ns(ns: i64) -> String {
    match UNITS.iter().find(|(_, per_unit)| ns != 0 && ns % per_unit == 0) {
        Some((unit, per_unit)) => format!("{}{unit}", ns / per_unit),
        None if ns == 0 => "0s".to_owned(),
        None => format!("{ns}ns"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_is_read_and_written() {
        for text in ["25ms", "10s", "5m", "3h", "1d"] {
            assert_eq!(format_ns(parse_ns(text).unwrap()), text);
        }
        assert_eq!(parse_ns("10 s"), Ok(10 * SECOND));
        assert_eq!(format_ns(parse_ns("0ms").unwrap()), "0s");
        assert_eq!(format_ns(parse_ns("120s").unwrap()), "2m");
        assert_eq!(format_ns(1), "1ns");
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in ["", "10", "s", "-1s", "1.5s", "10sec", "1w"] {
            assert!(parse_ns(text).unwrap_err().starts_with("is not a duration"), "{text}");
        }
        assert!(parse_ns("999999999d").unwrap_err().contains("292 years"));
    }
}
