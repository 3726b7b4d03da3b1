//! Group keys that have another value in nearly every row: the state grows with the rows, and a directive about such a
//! subject comes when the work is over.

use super::{Lint, Linted, Warning};
use crate::aggregation::GroupColumn;
use crate::lineage::telemetry_column;
use lictor_schemas::tables::{ATTR_PREFIX, RESOURCE_ATTR_PREFIX};

/// Columns that name one unit of work, or one instant.
const NAMES_OF_ONE: [&str; 9] = [
    "trace_id",
    "span_id",
    "parent_span_id",
    "response_id",
    "event_time",
    "start_time",
    "observed_time",
    "kafka_offset",
    "kafka_timestamp",
];

/// In a window shorter than this even a key of many values has few; the limit of groups counts all open windows.
const LONG_NS: i64 = 3_600_000_000_000;

pub(super) fn lint(rule: &Linted<'_>) -> Vec<Warning> {
    let Some(windowed) = rule.windowed else { return Vec::new() };
    let keys = windowed.groups.iter().filter_map(|group| match group {
        GroupColumn::Key(n) => telemetry_column(&windowed.aggregate.input, windowed.input_column_of_key(*n)?),
        GroupColumn::WindowStart | GroupColumn::WindowEnd => None,
    });
    let is_long = windowed.spec.length_ns_max().is_none_or(|length| length >= LONG_NS);
    let mut warnings = Vec::new();
    for key in keys {
        let attribute = [ATTR_PREFIX, RESOURCE_ATTR_PREFIX].iter().find_map(|prefix| key.strip_prefix(prefix));
        let warning = match attribute {
            Some(attribute) if is_long => {
                let message = format!("the rule groups by the attribute `{attribute}`, of which nothing is known");
                let fault = rule.at(rule.word_span(&[&key, "GROUP"]), message);
                fault.help("if it has few values, say so: -- lictor: allow(unbounded_subject) above the rule")
            }
            None if NAMES_OF_ONE.contains(&key.as_str()) => {
                let message = format!("the rule groups by `{key}`, which has another value in nearly every row");
                let fault = rule.at(rule.word_span(&[&key, "GROUP"]), message);
                fault.help("group by what a controller can act on: team, session_id, request_model, …")
            }
            _ => continue,
        };
        let note = format!("every value is a group for the length of the window ({})", windowed.spec);
        warnings.push(Lint::UnboundedSubject.warn(warning.note(note)));
    }
    warnings
}
