//! The functions as rules see them: through SQL.

mod defined;
mod documented;
mod merging;
mod numbers;
mod vectors;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::concat_batches;
use arrow::datatypes::Float64Type;
use arrow::record_batch::RecordBatch;
use datafusion::common::Result;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::Tokenizer;
use lictor_schemas::prices::PriceTable;

use crate::session::Session;
use crate::window::Planning;

/// Asks a session.
struct Sql(Session);

impl Sql {
    fn new() -> Self {
        Self::with_prices(include_str!("../../rules/llm_prices.csv"))
    }

    fn with_prices(csv: &str) -> Self {
        let prices = Arc::new(PriceTable::from_csv(csv).unwrap());
        Self(Session::try_new(Planning::Batch, &prices).unwrap())
    }

    fn rows(&self, query: &str) -> Result<RecordBatch> {
        let tokens = Tokenizer::new(&GenericDialect {}, query).tokenize_with_location().unwrap();
        let plan = self.0.plan(&tokens)?;
        let physical = self.0.physical(&plan)?;
        let batches = self.0.runner.collect(&physical)?;
        Ok(concat_batches(&physical.schema(), &batches).unwrap())
    }

    /// The first column of the result.
    fn column(&self, query: &str) -> ArrayRef {
        Arc::clone(self.rows(query).unwrap_or_else(|e| panic!("{query}: {e}")).column(0))
    }

    /// The value of an expression that is a number; none if it is null.
    #[track_caller]
    fn number(&self, expression: &str) -> Option<f64> {
        let column = self.column(&format!("SELECT {expression}"));
        let column = column.as_primitive::<Float64Type>();
        column.is_valid(0).then(|| column.value(0))
    }

    /// What is wrong with a query.
    fn fault(&self, query: &str) -> String {
        self.rows(query).err().map_or_else(String::new, |e| e.strip_backtrace())
    }
}

/// Relative to the greater of the two.
fn is_near(found: f64, expected: f64, tolerance: f64) -> bool {
    found == expected || (found - expected).abs() <= tolerance * found.abs().max(expected.abs())
}
