//! `lictor schema`: the tables that rules read, and the functions that they have beside those of DataFusion.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, ValueEnum};
use lictor_engine::rule_test::EVENT_SCHEMA;
use lictor_engine::{config, rule_test};
use lictor_queries::{FunctionDoc, SequenceSignature, functions, sequence_functions};
use lictor_schemas::genops::closest;
use lictor_schemas::tables::{ColumnDoc, Table, describe};
use serde_json::{Value, json};

use super::terminal::{Paint, Painter};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Show this table only: spans, span_events, logs or metrics.
    table: Option<String>,
    /// Show the functions instead: all, or those with this in their name.
    #[arg(long, value_name = "NAME", num_args = 0..=1, default_missing_value = "", conflicts_with = "table")]
    functions: Option<String>,
    /// Write JSON: table name to list of columns, or a list of functions.
    #[arg(long)]
    json: bool,
    /// Print the JSON Schema of what is written or read, for editors and validators, instead of the tables.
    #[arg(long, value_enum, value_name = "OF", conflicts_with_all = ["table", "json", "functions"])]
    json_schema: Option<Schema>,
}

/// What has a JSON Schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Schema {
    /// `lictor.yaml`.
    Config,
    /// `*.test.yaml`.
    Test,
    /// Enforcement events.
    Event,
}

impl Schema {
    fn text(self) -> String {
        match self {
            Self::Config => laid_out(&config::json_schema(), 0) + "\n",
            Self::Test => laid_out(&rule_test::json_schema(), 0) + "\n",
            Self::Event => EVENT_SCHEMA.to_owned(),
        }
    }
}

/// How long a line of JSON becomes before it is broken up.
const JSON_COLUMNS_MAX: usize = 120;

/// JSON whose small values stand on one line each, so that people can read it and diffs are short.
fn laid_out(value: &Value, indent: usize) -> String {
    let line = value.to_string();
    let inner = " ".repeat(indent + 2);
    let (open, parts, close) = match value {
        Value::Object(fields) => {
            let field = |(name, value): (&String, &Value)| {
                let name = Value::from(name.as_str()).to_string();
                format!("{inner}{name}: {}", laid_out(value, indent + 2))
            };
            ('{', fields.iter().map(field).collect::<Vec<_>>(), '}')
        }
        Value::Array(items) => {
            ('[', items.iter().map(|item| format!("{inner}{}", laid_out(item, indent + 2))).collect(), ']')
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => return line,
    };
    if indent > 0 && indent + line.len() <= JSON_COLUMNS_MAX {
        return line;
    }
    format!("{open}\n{}\n{}{close}", parts.join(",\n"), " ".repeat(indent))
}

/// What `attr()` reaches, and how a configuration can feed columns.
const ATTRIBUTES: &str = "\
Every other attribute: attr('name') is the attribute of the record, else of its resource, else of its scope;
resource_attr('name') is the resource's only. Both are text: CAST(attr('acme.score') AS DOUBLE) makes them numbers.

Where a column lists attributes (<-), the first one that says something counts; each is looked for on the record, then
on its resource, then on its scope. `columns:` in lictor.yaml puts attributes of your own before them.
";

/// Prints one table or all, or the functions.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    if let Some(schema) = arguments.json_schema {
        io::stdout().lock().write_all(schema.text().as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(part) = &arguments.functions {
        return write_functions(part, arguments.json);
    }
    let tables = chosen(arguments.table.as_deref())?;
    let mut stdout = io::stdout().lock();
    if arguments.json {
        let documented =
            tables.iter().map(|table| Ok((table.name().to_owned(), serde_json::to_value(describe(*table))?)));
        let documented: serde_json::Map<_, _> = documented.collect::<serde_json::Result<_>>()?;
        writeln!(stdout, "{}", serde_json::to_string_pretty(&documented)?)?;
    } else {
        let painter = Painter::for_stream(&io::stdout());
        for table in tables {
            write_table(&mut stdout, table, painter)?;
        }
        write!(stdout, "{ATTRIBUTES}")?;
    }
    stdout.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn write_functions(part: &str, is_json: bool) -> anyhow::Result<ExitCode> {
    let found = named(part);
    if found.is_empty() {
        let known = families();
        let names: Vec<&str> = known.iter().flat_map(|family| &family.docs).map(|doc| doc.name.as_str()).collect();
        let hint = closest(part, &names).map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
        bail!("no function has `{part}` in its name{hint}");
    }
    let mut stdout = io::stdout().lock();
    if is_json {
        let docs = found.iter().flat_map(|family| &family.docs).map(
            |doc| json!({"name": doc.name, "arguments": doc.arguments, "meaning": doc.meaning, "source": doc.source}),
        );
        writeln!(stdout, "{}", serde_json::to_string_pretty(&docs.collect::<Vec<_>>())?)?;
    } else {
        let painter = Painter::for_stream(&io::stdout());
        found.iter().try_for_each(|family| write_family(&mut stdout, family, painter))?;
    }
    stdout.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// What is shown of a function.
struct Doc {
    name: String,
    arguments: String,
    meaning: String,
    source: &'static str,
}

/// Functions that belong together.
struct Family {
    title: &'static str,
    docs: Vec<Doc>,
}

/// All functions: those of a row or a group, and those that remember the windows before.
fn families() -> Vec<Family> {
    let doc = |doc: &FunctionDoc| Doc {
        name: doc.name.to_owned(),
        arguments: doc.arguments.to_owned(),
        meaning: doc.meaning.to_owned(),
        source: doc.source,
    };
    let of_rows = functions().into_iter();
    let mut families: Vec<Family> = of_rows
        .map(|family| Family { title: family.title, docs: family.functions.iter().map(doc).collect() })
        .collect();
    let detector = |of: SequenceSignature| {
        let (name, arguments) = of.call.split_once('(').unwrap_or((&of.call, ""));
        let state = if of.state.is_empty() { String::new() } else { format!("; {name}_state gives {}", of.state) };
        Doc {
            name: name.to_owned(),
            arguments: arguments.trim_end_matches(')').to_owned(),
            meaning: format!("{}{state}", of.says),
            source: of.source,
        }
    };
    families.push(Family {
        title: "Detectors, over successive windows: … OVER (PARTITION BY key ORDER BY window_end)",
        docs: sequence_functions().into_iter().map(detector).collect(),
    });
    families
}

/// The functions with `part` in their names, by family.
fn named(part: &str) -> Vec<Family> {
    let mut families = families();
    families.iter_mut().for_each(|family| family.docs.retain(|doc| doc.name.contains(part)));
    families.retain(|family| !family.docs.is_empty());
    families
}

/// How many characters of a meaning stand on one line.
const MEANING_CHARS_MAX: usize = 100;

fn write_family(to: &mut impl Write, family: &Family, painter: Painter) -> io::Result<()> {
    writeln!(to, "{}\n", painter.paint(Paint::Bold, family.title))?;
    for doc in &family.docs {
        writeln!(to, "  {}({})", painter.paint(Paint::Bold, &doc.name), doc.arguments)?;
        let mut line = String::new();
        for word in doc.meaning.split(' ') {
            if line.len() + word.len() >= MEANING_CHARS_MAX {
                writeln!(to, "      {}", std::mem::take(&mut line))?;
            }
            let space = if line.is_empty() { "" } else { " " };
            line = format!("{line}{space}{word}");
        }
        writeln!(to, "      {line}")?;
        writeln!(to, "      {}", painter.paint(Paint::Dim, &format!("<- {}", doc.source)))?;
    }
    writeln!(to)
}

fn chosen(name: Option<&str>) -> anyhow::Result<Vec<Table>> {
    let Some(name) = name else { return Ok(Table::ALL.to_vec()) };
    match Table::from_name(name) {
        Some(table) => Ok(vec![table]),
        None => {
            let names = Table::ALL.map(Table::name);
            let hint = closest(name, &names).map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
            bail!("there is no table `{name}`, only {}{hint}", names.join(", "))
        }
    }
}

fn write_table(to: &mut impl Write, table: Table, painter: Painter) -> io::Result<()> {
    let columns = describe(table);
    let width = columns.iter().map(|column| column.name.len()).max().unwrap_or(0);
    writeln!(to, "{}  ({})\n", painter.paint(Paint::Bold, table.name()), table.signal().as_str())?;
    for column in columns {
        let name = painter.paint(Paint::Bold, &format!("{:width$}", column.name));
        writeln!(to, "  {name}  {:9}  {}", type_name(&column), meaning(&column))?;
        for line in folded(&column.sources) {
            writeln!(to, "  {:width$}  {:9}  {}", "", "", painter.paint(Paint::Dim, &line))?;
        }
    }
    writeln!(to)
}

/// The type as rules write it in casts.
fn type_name(column: &ColumnDoc) -> &'static str {
    let arrow = column.data_type.to_string();
    match arrow.as_str() {
        "Utf8View" => "VARCHAR",
        "Int32" => "INT",
        "Int64" => "BIGINT",
        "Float64" => "DOUBLE",
        "Boolean" => "BOOLEAN",
        _ => "TIMESTAMP",
    }
}

fn meaning(column: &ColumnDoc) -> String {
    if column.unit.is_empty() { column.doc.to_owned() } else { format!("{} [{}]", column.doc, column.unit) }
}

/// How many characters of attributes stand on one line.
const SOURCES_CHARS_MAX: usize = 100;

/// The precedence list, on as many lines as it needs.
fn folded(sources: &[&str]) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for source in sources {
        match lines.last_mut() {
            Some(line) if line.len() + source.len() < SOURCES_CHARS_MAX => {
                line.push_str(", ");
                line.push_str(source);
            }
            Some(line) => {
                line.push(',');
                lines.push(format!("   {source}"));
            }
            None => lines.push(format!("<- {source}")),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The schemas that are committed for editors are what the command prints.
    #[test]
    fn the_committed_schemas_are_those_that_are_printed() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../schemas");
        let committed = [
            (Schema::Config, "config", "config.v1.schema.json"),
            (Schema::Test, "test", "rule-test.v1.schema.json"),
            (Schema::Event, "event", "enforcement-event.v1.schema.json"),
        ];
        for (schema, of, file) in committed {
            let read = |text: &str| serde_json::from_str::<Value>(text).unwrap();
            let text = std::fs::read_to_string(folder.join(file)).unwrap_or_else(|_| "null".to_owned());
            let is_same = read(&schema.text()) == read(&text);
            assert!(is_same, "write it anew: lictor schema --json-schema {of} > schemas/{file}");
        }
    }

    #[test]
    fn small_values_of_json_stand_on_one_line() {
        let value = serde_json::json!({"a": {"b": [1, 2]}, "c": ["x".repeat(60), "y".repeat(60)]});
        let (x, y) = ("x".repeat(60), "y".repeat(60));
        let expected = format!("{{\n  \"a\": {{\"b\":[1,2]}},\n  \"c\": [\n    \"{x}\",\n    \"{y}\"\n  ]\n}}");
        assert_eq!(laid_out(&value, 0), expected);
    }

    #[test]
    fn every_column_of_every_table_is_shown_with_type_and_sources() {
        for table in Table::ALL {
            let mut text = Vec::new();
            write_table(&mut text, table, Painter { color: false }).unwrap();
            let text = String::from_utf8(text).unwrap();
            for column in describe(table) {
                let shown = text.lines().find(|line| line.split_whitespace().next() == Some(column.name));
                assert!(shown.is_some_and(|line| line.contains(type_name(&column))), "{} in\n{text}", column.name);
                assert!(column.sources.iter().all(|source| text.contains(source)), "{}", column.name);
            }
        }
    }

    #[test]
    fn only_timestamps_are_called_timestamps() {
        for column in Table::ALL.into_iter().flat_map(describe) {
            let is_instant = column.data_type.to_string().starts_with("Timestamp");
            assert_eq!(type_name(&column) == "TIMESTAMP", is_instant, "{}", column.name);
        }
    }

    #[test]
    fn long_precedence_lists_are_folded_in_order() {
        let name = "x".repeat(60);
        assert_eq!(folded(&[]), Vec::<String>::new());
        assert_eq!(folded(&["a", "b"]), ["<- a, b"]);
        assert_eq!(folded(&["a", &name, &name]), [format!("<- a, {name},"), format!("   {name}")]);
    }

    #[test]
    fn an_unknown_table_is_refused_with_the_nearest() {
        let message = chosen(Some("span")).unwrap_err().to_string();
        assert!(message.ends_with("did you mean `spans`?"), "{message}");
        assert_eq!(chosen(Some("logs")).unwrap(), [Table::Logs]);
        assert_eq!(chosen(None).unwrap(), Table::ALL);
    }

    #[test]
    fn every_function_is_shown_with_its_arguments_and_meaning() {
        let mut text = Vec::new();
        for family in named("") {
            write_family(&mut text, &family, Painter { color: false }).unwrap();
        }
        let text = String::from_utf8(text).unwrap();
        assert!(text.lines().all(|line| line.len() <= 250), "{text}");
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        for sequence in sequence_functions() {
            assert!(text.contains(&format!("  {}\n", sequence.call)), "{}", sequence.call);
            assert!(words.contains(sequence.says) && words.contains(&sequence.state), "{}", sequence.call);
        }
        for doc in functions().iter().flat_map(|family| &family.functions) {
            assert!(text.contains(&format!("  {}({})\n", doc.name, doc.arguments)), "{}", doc.name);
            assert!(words.contains(doc.meaning), "{}", doc.meaning);
        }
    }

    #[test]
    fn functions_are_found_by_a_part_of_their_name() {
        let found = named("psi");
        let names: Vec<&str> = found.iter().flat_map(|family| &family.docs).map(|doc| doc.name.as_str()).collect();
        assert_eq!(names, ["psi", "psi_eps", "psi_critical"]);
        assert_eq!(named("page_hinkley")[0].docs.len(), 1);
        let message = write_functions("psj", false).unwrap_err().to_string();
        assert!(message.ends_with("did you mean `psi`?"), "{message}");
    }
}
