//! Tests that rule authors write: rows at event times in, exactly the events expected out.
//!
//! A test file lies beside its rules (`team_daily_budget.test.yaml`) and runs through the real pipeline: rows are
//! encoded as OTLP, decoded, summed up, judged and decided by the code that runs in production, with a virtual clock
//! and no broker.

mod compare;
mod run;

use std::collections::BTreeMap;

use lictor_schemas::time::EventTime;
use serde::Deserialize;
use serde_json::{Map, Value};

pub use run::{Outcome, RuleTestError, run_directory};

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

/// One step: exactly one of `rows`, `advance` and `expect`.
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
    /// The watermark moves here, as if all partitions were idle.
    pub advance: Option<Instant>,
    /// Exactly the events since the last `expect`, in any order; fields that are not named are not compared.
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
