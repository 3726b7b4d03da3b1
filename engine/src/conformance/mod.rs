//! Whether runtimes keep to the GenOps Governance Specification: the rules of `queries/rules/conformance`, added up.
//!
//! The rules find violations, one unit of AI work (AWU) at a time. What makes a report of that is here, and no clause
//! of the specification is: which clause a rule judges, for which requirement of §9.1, and how much there was for it to
//! judge is said in the rule's own comment (see [`Clause`]), and the numbers come from rules, too, that count.
//!
//! ```text
//! recorded telemetry ──► backtest ──► events of rules that find ──┐
//!                                 └─► events of rules that count ─┴─► Census ──► RuntimeReport, one per runtime
//! ```
//!
//! A *runtime* is a service and the instrumentation (scope) with which it makes its telemetry: a service may well
//! govern through one and not through another.
//!
//! Invariant: what could not be seen has not passed. A clause to which nothing applied, or whose evidence may have been
//! sampled away, is *not assessable*, and never failed.

mod carriers;
mod census;
mod clause;
mod level;
mod verdict;

pub use carriers::{EVENT_CARRIERS, with_log_services};
pub use census::{Census, EXEMPLARS_MAX, Found, RUNTIMES_MAX, Runtime, Tally};
pub use clause::{Clause, Counted, JudgedBy, Unreadable, clauses};
pub use level::{Level, REQUIREMENTS, Standing};
pub use verdict::{ClauseReport, Evidence, RuntimeReport, Unknown, Verdict, report};

#[cfg(test)]
mod generator;
#[cfg(test)]
mod tests;
