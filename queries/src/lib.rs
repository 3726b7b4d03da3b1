//! What a rule means over batches.
//!
//! A rules directory is text; this crate turns it into a [`RuleSet`] or into diagnostics that name file, line and
//! column, all of them at once. A compiled rule is a chain of pure functions over Arrow batches: [`Scan`] runs where
//! telemetry is read, [`Aggregation`] merges and finishes what scans have summed up, [`Finish`] turns finished groups
//! into violations. *When* they run is the engine's business.
//!
//! This is the only crate that names DataFusion. It does no I/O and reads no clock: reference tables arrive as batches,
//! and a rule that asks for the time of day is refused.

mod aggregation;
mod attributes;
mod baseline;
mod batch;
mod calendar;
mod carry;
mod compact;
mod compile;
mod diagnostic;
mod distinct;
mod distribution;
mod exemplar;
mod explain;
mod finish;
mod flink;
mod frame;
mod functions;
mod gap_fill;
mod ignored;
mod join;
mod key_table;
mod lineage;
mod lint;
mod measures;
mod metric;
mod nearest;
mod observe;
mod options;
mod oracle;
mod partial;
mod reference;
mod rising;
mod row_wise;
mod rows;
mod rule_plan;
mod scan;
mod sequence;
mod session;
mod shape;
mod slot;
mod stage;
mod unshared;
mod usage_leaves;
mod verdict_words;
mod window;
mod window_spec;
mod zoned;

pub use aggregation::{Aggregation, KeyIndex, Merger};
pub use baseline::Baseline;
pub use batch::{BatchQuery, BatchTables};
pub use calendar::CalendarUnit;
pub use compile::{
    CompiledRule, CompiledStore, Feed, JoinedRule, JoinedThen, References, RuleKind, RuleSet, RuleSource, WindowedRule,
    compile, compile_some,
};
pub use diagnostic::{Diagnostic, Position, TextSpan};
pub use explain::{Explanation, JoinExplanation, SourceExplanation, WindowedExplanation};
pub use finish::{Finish, History, HistorySpec, LookBack};
pub use frame::{Emission, ReferenceFormat};
pub use functions::{FunctionDoc, FunctionFamily, functions};
pub use gap_fill::{GapFill, IsOurs};
pub use join::{JoinKind, JoinSide, Leaves, StreamJoin, TimeBounds, multiplicities};
pub use key_table::{KeyTable, Stored};
pub use lint::{Lint, Warning};
pub use observe::Observation;
pub use oracle::oracle;
pub use partial::{TURN, update_schema};
pub use reference::{ReferenceDecl, RuleFile, references};
pub use row_wise::RowWise;
pub use rows::{GroupRef, Judged};
pub use scan::{Scan, ScanPlan, TurnFailure};
pub use sequence::{SequenceSignature, sequence_functions};
pub use stage::Filtered;
pub use verdict_words::Words;
pub use window_spec::WindowSpec;

/// An evaluation that went wrong at run time (overflow, a failing cast, a bug in a function): the rule is at fault or
/// the data is, never the engine; the caller quarantines the rule.
#[derive(Debug, thiserror::Error)]
#[error("rule `{rule}` failed: {message}")]
pub struct EvaluationError {
    /// The rule that failed.
    pub rule: String,
    /// What DataFusion or Arrow said.
    pub message: String,
}
