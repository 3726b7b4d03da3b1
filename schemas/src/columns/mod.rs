//! The canonical AI columns: what every instrumentation says in its own words, under one name.
//!
//! GenOps, OpenTelemetry GenAI (old and new names), OpenInference, OpenLLMetry, the Vercel AI SDK, LiteLLM, Langfuse
//! and others name the same facts differently and write numbers as strings. A column is a precedence list of source
//! attributes; [`COLUMNS`] holds all lists, as data, so that they can be printed, tested and extended.
//!
//! Invariant: a source name is tried on the record, then on the resource, then on the scope, before the next name is
//! tried; a value that cannot be read as the column's type, or says nothing, counts as absent.

mod catalogue;
mod request;
pub(crate) mod vocabulary;

use serde::{Deserialize, Serialize};

pub use catalogue::COLUMNS;
pub use request::{RequestColumns, RequestReader, selector_text};

use crate::tables::Table;

/// An in-house attribute that a column is read from before all others (`columns:` in the configuration).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtraSource {
    /// A canonical column, see [`is_mappable`].
    pub column: String,
    /// The name of the attribute.
    pub attribute: String,
}

/// What a column holds and how the text of a value is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Text as it is, even empty; structured values as JSON.
    Raw,
    /// Text; the empty string counts as absent.
    Text,
    /// Trimmed text that groups rows; placeholders such as `unknown` count as absent.
    Label,
    /// A [`Kind::Label`] in lower case.
    Lower,
    /// A [`Kind::Label`] mapped to the provider names of OpenTelemetry.
    Provider,
    /// A [`Kind::Label`] in lower case without a leading `ai.`.
    OperationType,
    /// A [`Kind::Label`]; of an MCP tool `mcp__server__tool` only the tool.
    ToolName,
    /// ALLOWED, BLOCKED, WARNING or RATE_LIMITED where the value can be understood, else the value in upper case.
    PolicyResult,
    /// Several values, joined by commas.
    List,
    /// An identifier of 8 or 16 bytes, as lower-case hex.
    Id,
    /// A 32-bit integer.
    Small,
    /// A 64-bit integer; also read from strings.
    Integer,
    /// A finite 64-bit float; also read from strings.
    Number,
    /// A boolean; also read from `true`, `True`, `false`, `False`.
    Flag,
    /// Nanoseconds since the Unix epoch, UTC; read from Unix milliseconds.
    Instant,
}

/// How the value of a source becomes a value of the column.
#[derive(Clone, Copy, Debug)]
pub enum Reading {
    /// As it is.
    Plain,
    /// A number times this.
    Scaled(f64),
    /// A number at this key of a JSON object.
    JsonField(&'static str),
    /// What this function makes of a string: a word of ours, or a part of it.
    Mapped(fn(&str) -> Option<&str>),
    /// A number, if it is an HTTP status of 400 or more.
    HttpError,
    /// The string `ERROR` if the value is false.
    FalseIsError,
    /// An RFC 3339 instant, perhaps in quotes.
    Rfc3339,
    /// As it is, if the span is an agent's.
    OfAgent,
}

/// An attribute that a column can be read from.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    /// The name of the attribute.
    pub attribute: &'static str,
    /// How its value is read.
    pub reading: Reading,
    /// The unit that the source defines by itself (`USD`, `tokens`); empty if it does not.
    pub unit: &'static str,
    /// Whether only the resource is looked at.
    pub resource_only: bool,
}

/// Whether a column says who and what, or how much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Who, where, with what: an event of a span inherits it from the span.
    Identity,
    /// A measured or decided fact: it belongs to the item that bears it and is never inherited, or sums would count
    /// it twice.
    Fact,
}

/// What is computed after the sources have been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Derivation {
    /// Nothing: the value of the first source that has one.
    None,
    /// The agent's name; of OpenLLMetry's entity name only if the entity is an agent.
    AgentName,
    /// Else the span's name.
    OperationName,
    /// The log record's own field first, then the sources, then a body that looks like a name.
    EventName,
    /// Made cache-inclusive: if more tokens were cached than input, the cached ones are added.
    InputTokens,
    /// Input plus output, else the sources.
    TotalTokens,
    /// Whether the row may be summed.
    UsageLeaf,
    /// Else input plus output cost, else the price table.
    CostTotal,
    /// Else the currency that the cost's source defines.
    CostCurrency,
    /// `reported` or `priced`.
    CostSource,
    /// The span's duration first, then the sources.
    LatencyMs,
    /// A point in time among the sources counts from the span's start.
    TtftMs,
    /// The sources can only turn the span's status into ERROR.
    StatusCode,
    /// Else allocated minus consumed.
    BudgetRemaining,
    /// Consumed by allocated, else the sources.
    BudgetUtilization,
    /// Else the unit that the amount's source defines.
    AccountingUnit,
    /// Else actual minus reserved.
    AccountingDelta,
    /// Else the event time, where there is a policy result.
    PolicyTime,
}

/// A canonical column.
#[derive(Clone, Copy, Debug)]
pub struct ColumnSpec {
    /// The name in SQL.
    pub name: &'static str,
    /// Type and treatment.
    pub kind: Kind,
    /// The unit of its values; empty if it has none.
    pub unit: &'static str,
    /// What it says.
    pub doc: &'static str,
    /// Where it is read from, first match wins.
    pub sources: &'static [Source],
    /// Whether it is inherited.
    pub role: Role,
    /// The tables that have it; a column without tables is only read for others.
    pub tables: &'static [Table],
    /// What is computed after reading.
    pub derivation: Derivation,
    /// All columns that the computation reads besides itself.
    pub needs: &'static [&'static str],
}

/// The canonical columns of `table`, in order.
pub fn of(table: Table) -> impl Iterator<Item = &'static ColumnSpec> {
    COLUMNS.iter().filter(move |column| column.tables.contains(&table))
}

/// The canonical column of that name, hidden ones included.
pub(crate) fn find(name: &str) -> Option<&'static ColumnSpec> {
    COLUMNS.iter().find(|column| column.name == name)
}

/// Whether an [`ExtraSource`] can name `column`.
#[must_use]
pub fn is_mappable(column: &str) -> bool {
    find(column).is_some_and(|spec| !spec.tables.is_empty() && spec.derivation != Derivation::UsageLeaf)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_needed_column_exists() {
        for column in COLUMNS {
            for name in column.needs {
                assert!(find(name).is_some(), "{} needs {name}", column.name);
            }
        }
    }

    #[test]
    fn no_list_names_a_source_twice() {
        for column in COLUMNS {
            let mut seen = BTreeSet::new();
            for source in column.sources {
                let field = if let Reading::JsonField(field) = source.reading { field } else { "" };
                assert!(seen.insert((source.attribute, field)), "{}: {}", column.name, source.attribute);
            }
        }
    }

    #[test]
    fn only_computed_columns_have_no_sources() {
        for column in COLUMNS.iter().filter(|c| c.sources.is_empty()) {
            assert!(
                matches!(column.derivation, Derivation::UsageLeaf | Derivation::CostSource),
                "{} has nothing to read",
                column.name
            );
        }
    }

    #[test]
    fn hidden_and_computed_columns_cannot_be_mapped() {
        assert!(is_mappable("team"));
        assert!(!is_mappable("usage_leaf"));
        assert!(!is_mappable("traceloop_span_kind"));
        assert!(!is_mappable("teams"));
    }
}
