//! Tests that rule authors write: rows at event times in, exactly the events expected out.
//!
//! A test file lies beside its rules (`team_daily_budget.test.yaml`) and runs through the real stages: rows are encoded
//! as OTLP, decoded, summed up, judged and decided by the code that runs in production, and after every step the state
//! is written to the log that `lictor run` keeps in Kafka. Only the clock is virtual, and there is no broker.

mod bench;
mod compare;
mod coverage;
mod json_schema;
mod junit;
mod run;
mod update;
mod yaml_tree;

use std::collections::BTreeMap;

use lictor_queries::{Position, TextSpan};
use lictor_schemas::time::EventTime;
use serde::{Deserialize, Deserializer, de};
use serde_json::{Map, Value};
use serde_saphyr::{DefaultMessageFormatter, MessageFormatter as _};

pub use coverage::{Coverage, RuleCoverage};
pub use json_schema::{EVENT_SCHEMA, json_schema};
pub use junit::junit;
pub use run::{Outcome, RuleTestError, Witnessed, run_directory, run_files, test_files};
pub(crate) use run::{UnderTestFiles, files_under_test};
pub use update::{Updated, update};

use crate::config::duration;

/// Column name to value.
pub type Row = Map<String, Value>;

/// A file of tests.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TestFile {
    /// The rule files under test, beside this file; of the folder's other files only views and tables count.
    pub rules: Vec<String>,
    /// Reference tables that replace the files' content.
    #[serde(default)]
    pub tables: BTreeMap<String, Vec<Row>>,
    /// The tests, each on a fresh pipeline.
    pub tests: Vec<TestCase>,
}

/// One test.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TestCase {
    /// What it shows.
    pub name: String,
    /// Columns that rows of a table have unless they say otherwise.
    #[serde(default)]
    pub defaults: BTreeMap<String, Row>,
    /// What happens, in order.
    pub steps: Vec<Step>,
}

/// One step: exactly one of `rows`, `advance`, `idle`, `tables`, `restart` and `expect`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Rows of this table arrive, all in one Kafka record.
    pub rows: Option<String>,
    /// Their event time, RFC 3339; a row's own `at` comes before it.
    pub at: Option<Instant>,
    /// The input partition they arrive on.
    #[serde(default)]
    pub partition: i32,
    /// The rows.
    #[serde(default)]
    pub values: Vec<Row>,
    /// So many of them come too late to count. A row that is late and not said to be is a fault of the test.
    #[serde(default)]
    pub late: u64,
    /// The watermark moves here, as if all partitions were idle.
    pub advance: Option<Instant>,
    /// The watermark moves on by so much, as if all partitions were idle.
    pub idle: Option<Length>,
    /// These reference tables change, as with a reload; the others stay as they are.
    pub tables: Option<BTreeMap<String, Vec<Row>>>,
    /// The process is killed, and another one begins with what it has committed.
    #[serde(default)]
    pub restart: bool,
    /// Exactly the events since the last `expect`, in any order; fields that are not named are not compared. `none` is
    /// as good as an empty list.
    #[serde(default, deserialize_with = "expectation")]
    pub expect: Option<Vec<Row>>,
}

/// An RFC 3339 instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Instant(pub EventTime);

impl TryFrom<String> for Instant {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        EventTime::from_rfc3339(&text).map(Self)
    }
}

/// A length of time in nanoseconds, written as in the configuration: `90s`, `10m`, `1h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Length(pub i64);

impl TryFrom<String> for Length {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        duration::parse_ns(&text).map(Self).map_err(|why| format!("`{text}` {why}"))
    }
}

/// The word that stands for an empty list of events.
const NONE: &str = "none";

/// A list of events, or the word that there is none.
fn expectation<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<Row>>, D::Error> {
    struct Visitor;

    impl<'de> de::Visitor<'de> for Visitor {
        type Value = Vec<Row>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "a list of events, or {NONE}")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Vec<Row>, E> {
            if text == NONE { Ok(Vec::new()) } else { Err(E::invalid_value(de::Unexpected::Str(text), &self)) }
        }

        fn visit_seq<A: de::SeqAccess<'de>>(self, mut events: A) -> Result<Vec<Row>, A::Error> {
            let mut rows = Vec::new();
            while let Some(row) = events.next_element()? {
                rows.push(row);
            }
            Ok(rows)
        }
    }

    deserializer.deserialize_any(Visitor).map(Some)
}

/// Reads a file of tests.
///
/// # Errors
/// It is not of the expected shape; the message has line and column.
pub fn parse(text: &str) -> Result<TestFile, String> {
    serde_saphyr::from_str(text).map_err(|e| e.to_string())
}

/// As [`parse`]; the place of what is wrong stands beside the message, which is one line.
pub(crate) fn parse_placed(text: &str) -> Result<TestFile, (String, TextSpan)> {
    serde_saphyr::from_str(text).map_err(|error| {
        let error = error.without_snippet();
        let span = error.location().map_or(TextSpan::START, |at| {
            let (line, column) = (at.line(), at.column());
            TextSpan { start: Position { line, column }, end: Position { line, column: column + 1 } }
        });
        (DefaultMessageFormatter.format_message(error).escape_debug().to_string(), span)
    })
}

#[cfg(test)]
mod tests;
