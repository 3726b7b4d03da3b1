//! What is wrong with a rule file, and where.
//!
//! Rule authors see every fault of every file at once, in the shape rustc taught them: the place, the source line
//! underlined, a note that says why and a help that says what to write instead.

use std::fmt::Write as _;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet, Title};
use datafusion::common::{DataFusionError, Span as PlanSpan};
use datafusion::sql::sqlparser::tokenizer::{Location, Span};

/// A place in a text: line and column, both counted from 1, the column in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line, from 1.
    pub line: u64,
    /// The column in characters, from 1.
    pub column: u64,
}

/// A half-open stretch of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextSpan {
    /// The first character.
    pub start: Position,
    /// Just behind the last character.
    pub end: Position,
}

impl TextSpan {
    /// The beginning of a file, for faults that have no place of their own.
    pub const START: Self = Self { start: Position { line: 1, column: 1 }, end: Position { line: 1, column: 2 } };
}

impl From<Span> for TextSpan {
    fn from(span: Span) -> Self {
        let at = |l: Location| Position { line: l.line.max(1), column: l.column.max(1) };
        Self { start: at(span.start), end: at(span.end) }
    }
}

impl From<PlanSpan> for TextSpan {
    fn from(span: PlanSpan) -> Self {
        let at = |l: datafusion::common::Location| Position { line: l.line, column: l.column };
        Self { start: at(span.start), end: at(span.end) }
    }
}

/// One fault of a rule file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The file, relative to the rules directory.
    pub file: String,
    /// Where in it.
    pub span: TextSpan,
    /// What is wrong: lower case, with the values.
    pub message: String,
    /// Why it is wrong.
    pub notes: Vec<String>,
    /// What to write instead.
    pub help: Option<String>,
}

impl Diagnostic {
    pub(crate) fn new(file: &str, span: impl Into<TextSpan>, message: impl Into<String>) -> Self {
        Self { file: file.to_owned(), span: span.into(), message: message.into(), notes: Vec::new(), help: None }
    }

    pub(crate) fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// `file:line:column: message`, one line.
    #[must_use]
    pub fn summary(&self) -> String {
        let Position { line, column } = self.span.start;
        format!("{}:{line}:{column}: {}", self.file, self.message)
    }

    /// The fault with its source line underlined. `source` is the file's text, `color` asks for terminal colours.
    #[must_use]
    pub fn render(&self, source: &str, color: bool) -> String {
        self.render_as(Level::ERROR.primary_title(&self.message), source, color)
    }

    /// As [`Diagnostic::render`], as a warning of the lint of that name.
    pub(crate) fn render_warning(&self, lint: &str, source: &str, color: bool) -> String {
        self.render_as(Level::WARNING.primary_title(&self.message).id(lint), source, color)
    }

    fn render_as(&self, title: Title<'_>, source: &str, color: bool) -> String {
        let range = byte_range(source, self.span);
        let snippet = Snippet::source(source).path(&self.file).annotation(AnnotationKind::Primary.span(range));
        let mut group = title.element(snippet);
        for note in &self.notes {
            group = group.element(Level::NOTE.message(note));
        }
        if let Some(help) = &self.help {
            group = group.element(Level::HELP.message(help));
        }
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let mut text = renderer.decor_style(DecorStyle::Ascii).render(&[group]).to_string();
        let _ = writeln!(text);
        text
    }

    /// Takes over what DataFusion found, with its own span and hints where it has them.
    pub(crate) fn from_plan_error(file: &str, fallback: TextSpan, error: &DataFusionError) -> Self {
        if let Some(found) = error.diagnostic() {
            let span = found.span.map_or(fallback, TextSpan::from);
            let mut diagnostic = Self::new(file, span, found.message.clone());
            diagnostic.notes.extend(found.notes.iter().map(|n| n.message.clone()));
            diagnostic.help = found.helps.first().map(|h| h.message.clone());
            return diagnostic;
        }
        match error.find_root() {
            DataFusionError::SQL(parse, _) => Self::from_parse_error(file, fallback, &parse.to_string()),
            root => Self::new(file, fallback, first_sentence(&root.strip_backtrace())),
        }
    }

    /// Takes over a parser's message, which ends in ` at Line: 3, Column: 14`.
    pub(crate) fn from_parse_error(file: &str, fallback: TextSpan, text: &str) -> Self {
        let text = text.trim_start_matches("sql parser error: ");
        let place = text.rsplit_once(" at Line: ").and_then(|(message, place)| {
            let (line, column) = place.split_once(", Column: ")?;
            let at = Position { line: line.parse().ok()?, column: column.trim().parse().ok()? };
            Some((message, TextSpan { start: at, end: Position { line: at.line, column: at.column + 1 } }))
        });
        match place {
            Some((message, span)) => Self::new(file, span, message),
            None => Self::new(file, fallback, text),
        }
    }
}

/// DataFusion's messages may carry a class prefix and a long tail; the first line without the prefix says it.
fn first_sentence(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let prefixes = ["Error during planning: ", "This feature is not implemented: ", "Schema error: "];
    let line = prefixes.iter().fold(line, |l, p| l.trim_start_matches(p));
    line.trim_end_matches('.').to_owned()
}

/// The bytes of `source` that `span` names, at least one where there is one, never beyond the end.
fn byte_range(source: &str, span: TextSpan) -> std::ops::Range<usize> {
    let start = byte_at(source, span.start);
    let end = byte_at(source, span.end).max(start);
    if end > start {
        return start..end;
    }
    let width = source[start..].chars().next().filter(|c| *c != '\n').map_or(0, char::len_utf8);
    start..start + width
}

fn byte_at(source: &str, at: Position) -> usize {
    let mut offset = 0;
    for (number, line) in (1..).zip(source.split_inclusive('\n')) {
        if number == at.line {
            let skip = usize::try_from(at.column - 1).unwrap_or(usize::MAX);
            let text = line.trim_end_matches('\n');
            return offset + text.char_indices().nth(skip).map_or(text.len(), |(i, _)| i);
        }
        offset += line.len();
    }
    source.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rendering_underlines_the_named_columns() {
        let source = "SELECT a\nFROM spänns\n";
        let at = |line, column| Position { line, column };
        let diagnostic = Diagnostic::new("x.sql", TextSpan { start: at(2, 6), end: at(2, 12) }, "no table `spänns`")
            .note("tables are spans, logs, metrics")
            .help("did you mean `spans`?");
        let text = diagnostic.render(source, false);
        assert!(text.contains("x.sql:2:6"), "{text}");
        assert!(text.contains("^^^^^^"), "{text}");
        assert!(text.contains("note: tables are"), "{text}");
        assert!(text.contains("help: did you mean"), "{text}");
    }

    #[test]
    fn a_place_beyond_the_text_is_its_end() {
        let far = Position { line: 9, column: 9 };
        assert_eq!(byte_range("ab", TextSpan { start: far, end: far }), 2..2);
    }

    #[test]
    fn parser_messages_give_up_their_place() {
        let d = Diagnostic::from_parse_error("f", TextSpan::START, "Expected: x, found: y at Line: 3, Column: 14");
        assert_eq!(d.summary(), "f:3:14: Expected: x, found: y");
    }
}
