//! Colours, for whoever looks at a terminal.

use std::borrow::Cow;
use std::env;
use std::io::IsTerminal;

/// A way to stand out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Paint {
    Bold,
    Dim,
    Red,
    Yellow,
    Green,
}

/// Writes with or without colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Painter {
    pub(super) color: bool,
}

impl Painter {
    /// Colours if `stream` is a terminal, unless NO_COLOR asks for none.
    pub(super) fn for_stream(stream: &impl IsTerminal) -> Self {
        let is_refused = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { color: stream.is_terminal() && !is_refused }
    }

    /// `text` with the terminal's escape codes around it.
    pub(super) fn paint(self, paint: Paint, text: &str) -> String {
        if !self.color || text.is_empty() {
            return text.to_owned();
        }
        let code = match paint {
            Paint::Bold => "1",
            Paint::Dim => "2",
            Paint::Red => "1;31",
            Paint::Yellow => "33",
            Paint::Green => "32",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}

/// Text out of the telemetry as text: nothing in it is an order to the terminal.
pub(super) fn plain(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return text.into();
    }
    let shown = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(shown).collect()
}

/// Lines of columns, each as wide as its widest cell; the last one is not padded.
pub(super) fn columns<const N: usize>(rows: &[[String; N]]) -> Vec<String> {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_painted_without_colours() {
        assert_eq!(Painter { color: false }.paint(Paint::Red, "x"), "x");
        assert_eq!(Painter { color: true }.paint(Paint::Red, "x"), "\u{1b}[1;31mx\u{1b}[0m");
        assert_eq!(Painter { color: true }.paint(Paint::Red, ""), "");
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let row = |a: &str, b: &str| [a.to_owned(), b.to_owned()];
        assert_eq!(columns(&[row("a", "bcd"), row("ägä", "")]), ["a    bcd", "ägä"]);
    }
}
