//! Reference tables: budgets, prices, allow-lists, as a rule file declares them.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::sql::sqlparser::ast::{ColumnDef, DataType as SqlType};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::diagnostic::{Diagnostic, TextSpan};
use crate::frame::{self, Parsed, ReferenceFormat, Statement, TableText};

/// A rule file, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleFile {
    /// Its path relative to the rules directory, with `/` between folders.
    pub file: String,
    /// Its text.
    pub text: String,
}

/// A reference table that some rule file declares.
#[derive(Clone, Debug, PartialEq)]
pub struct ReferenceDecl {
    /// The table's name in SQL.
    pub name: String,
    /// The rule file that declares it.
    pub file: String,
    /// The path as written: relative to that file. Of a Kafka table: the topic.
    pub location: String,
    /// How to read it.
    pub format: ReferenceFormat,
    /// The declared columns; none means: take the file's. A Kafka table always declares some.
    pub schema: Option<SchemaRef>,
    pub(crate) name_span: TextSpan,
    pub(crate) location_span: TextSpan,
}

/// The reference tables of a rules directory, so that the caller can load them before [`crate::compile`].
///
/// Faults are left to `compile`, which reports them all.
#[must_use]
pub fn references(files: &[RuleFile]) -> Vec<ReferenceDecl> {
    let tables = files.iter().flat_map(|f| {
        let (statements, _) = frame::parse(&f.file, &f.text);
        statements.into_iter().filter_map(|s| match s {
            Statement::Table(table) => declare(&f.file, &table).ok(),
            Statement::Rule(_) | Statement::View { .. } => None,
        })
    });
    tables.collect()
}

pub(crate) fn declare(file: &str, table: &TableText) -> Parsed<ReferenceDecl> {
    if table.format == ReferenceFormat::Kafka {
        check_topic(file, table)?;
    }
    Ok(ReferenceDecl {
        name: table.name.clone(),
        file: file.to_owned(),
        location: table.location.clone(),
        format: table.format,
        schema: if table.columns.is_empty() { None } else { Some(columns(file, table)?) },
        name_span: table.name_span.into(),
        location_span: table.location_span.into(),
    })
}

/// Kafka's own limit.
const TOPIC_NAME_BYTES_MAX: usize = 249;

/// A topic has no columns to take over, and a name that Kafka takes.
fn check_topic(file: &str, table: &TableText) -> Parsed<()> {
    let TableText { name, location, .. } = table;
    if table.columns.is_empty() {
        let message = format!("reference table `{name}` is a Kafka topic and declares no columns");
        let fault = Diagnostic::new(file, table.name_span, message)
            .note("a topic may be empty, and its records may differ: its columns are not guessed")
            .help(format!("write CREATE EXTERNAL TABLE {name} (column TYPE, …) STORED AS KAFKA LOCATION '{location}'"));
        return Err(Box::new(fault));
    }
    let is_taken = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let is_name = (1..=TOPIC_NAME_BYTES_MAX).contains(&location.len()) && location.bytes().all(is_taken);
    if is_name && !matches!(location.as_str(), "." | "..") {
        return Ok(());
    }
    let fault = Diagnostic::new(file, table.location_span, format!("`{location}` is no name of a Kafka topic"))
        .note(format!("topics are named by 1 to {TOPIC_NAME_BYTES_MAX} of a-z, A-Z, 0-9, `.`, `_` and `-`"));
    Err(Box::new(fault))
}

fn columns(file: &str, table: &TableText) -> Parsed<SchemaRef> {
    let dialect = GenericDialect {};
    let mut parser = Parser::new(&dialect).with_tokens_with_locations(as_names(&table.columns));
    let (columns, _) = parser
        .parse_columns()
        .map_err(|e| Diagnostic::from_parse_error(file, table.name_span.into(), &e.to_string()))?;
    let fields = columns.iter().map(|c| field(file, c)).collect::<Result<Vec<_>, _>>()?;
    Ok(Arc::new(Schema::new(fields)))
}

/// The declared columns, each of which begins with a name: a column may be called `key`, and there are no constraints.
fn as_names(tokens: &[TokenWithSpan]) -> Vec<TokenWithSpan> {
    let (mut tokens, mut depth, mut begins) = (tokens.to_vec(), 0_usize, false);
    for token in &mut tokens {
        match &mut token.token {
            Token::Word(word) if begins => word.keyword = Keyword::NoKeyword,
            Token::LParen => depth += 1,
            Token::RParen => depth = depth.saturating_sub(1),
            _ => {}
        }
        begins = depth == 1 && matches!(token.token, Token::LParen | Token::Comma);
    }
    tokens
}

fn field(file: &str, column: &ColumnDef) -> Parsed<Field> {
    let data_type = match &column.data_type {
        SqlType::Varchar(_) | SqlType::Text | SqlType::String(_) | SqlType::Char(_) | SqlType::CharVarying(_) => {
            DataType::Utf8View
        }
        SqlType::Double(_)
        | SqlType::DoublePrecision
        | SqlType::Float(_)
        | SqlType::Real
        | SqlType::Float64
        | SqlType::Numeric(_)
        | SqlType::Decimal(_) => DataType::Float64,
        SqlType::Int(_) | SqlType::Integer(_) | SqlType::BigInt(_) | SqlType::SmallInt(_) | SqlType::Int64 => {
            DataType::Int64
        }
        SqlType::Boolean | SqlType::Bool => DataType::Boolean,
        SqlType::Timestamp(..) => DataType::Timestamp(TimeUnit::Nanosecond, None),
        SqlType::Date => DataType::Date32,
        other => {
            let message = format!("column `{}` has type {other}, which reference tables do not have", column.name);
            let fault = Diagnostic::new(file, column.name.span, message)
                .note("known types: VARCHAR, DOUBLE, BIGINT, BOOLEAN, TIMESTAMP, DATE");
            return Err(Box::new(fault));
        }
    };
    Ok(Field::new(column.name.value.to_lowercase(), data_type, true))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> RuleFile {
        RuleFile { file: "b.sql".into(), text: text.into() }
    }

    #[test]
    fn declared_columns_have_arrow_types() {
        let text = "CREATE EXTERNAL TABLE b (team VARCHAR, usd DOUBLE, n BIGINT) STORED AS CSV LOCATION 'x.csv';";
        let tables = references(&[file(text)]);
        let schema = tables[0].schema.clone().unwrap();
        let types: Vec<_> = schema.fields().iter().map(|f| f.data_type().clone()).collect();
        assert_eq!(types, [DataType::Utf8View, DataType::Float64, DataType::Int64]);
    }

    #[test]
    fn a_column_may_be_called_as_a_word_of_sql() {
        let text = "CREATE EXTERNAL TABLE b (key VARCHAR(8), usd NUMERIC(9, 2), index BIGINT, check DATE)
            STORED AS CSV LOCATION 'x.csv'";
        let schema = references(&[file(text)])[0].schema.clone().unwrap();
        let names: Vec<_> = schema.fields().iter().map(|f| f.name().as_str()).collect();
        assert_eq!(names, ["key", "usd", "index", "check"]);
    }

    #[test]
    fn a_topic_declares_its_columns_and_what_does_not_is_left_to_the_compiler() {
        let text = "CREATE EXTERNAL TABLE a (key VARCHAR) STORED AS KAFKA LOCATION 'acme.Teams-1_x';
            CREATE EXTERNAL TABLE b STORED AS KAFKA LOCATION 'teams';
            CREATE EXTERNAL TABLE c STORED AS parquet LOCATION 'teams.parquet';";
        let tables = references(&[file(text)]);
        let found: Vec<_> = tables.iter().map(|t| (t.name.as_str(), t.format, t.location.as_str())).collect();
        let expected =
            [("a", ReferenceFormat::Kafka, "acme.Teams-1_x"), ("c", ReferenceFormat::Parquet, "teams.parquet")];
        assert_eq!(found, expected);
    }

    #[test]
    fn an_unknown_type_points_at_its_column() {
        let text = "CREATE EXTERNAL TABLE b (team VARCHAR, x UUID) STORED AS CSV LOCATION 'x.csv'";
        let (statements, _) = frame::parse("b.sql", text);
        let Some(Statement::Table(table)) = statements.first() else { panic!("no table") };
        let fault = declare("b.sql", table).unwrap_err();
        assert_eq!(fault.summary(), "b.sql:1:40: column `x` has type UUID, which reference tables do not have");
    }
}
