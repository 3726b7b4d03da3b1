//! Holds the repository to the shape that its architecture promises.
//!
//! The compiler and clippy check what a file says; this test checks what they cannot see: which crate may know which,
//! which crate may name which heavy dependency, who may read a clock, how long things get. It reads the sources as
//! text, with comments and literals blanked out, and reports everything it finds at once.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// Where our own Rust lives; everything else at the top level is configuration.
const SOURCE_DIRS: &[&str] = &["schemas", "connectors", "queries", "engine", "tests", "benches"];

/// Crate, and the crates of ours that it may name.
const EDGES: &[(&str, &[&str])] = &[
    ("schemas", &[]),
    ("connectors", &["lictor-schemas"]),
    ("queries", &["lictor-schemas"]),
    ("engine", &["lictor-schemas", "lictor-connectors", "lictor-queries"]),
];

/// Heavy dependency (the name, or its beginning if it ends in `*`), and the one crate that may name it.
const HOMES: &[(&str, &str)] = &[
    ("datafusion*", "queries"),
    ("rdkafka*", "connectors"),
    ("parquet*", "connectors"),
    ("opentelemetry*", "schemas"),
    ("prost*", "schemas"),
    ("axum*", "engine"),
    ("hyper*", "engine"),
    ("clap*", "engine"),
    ("openssl*", "engine"),
];

/// The crates that do no I/O and read no clock, and what they therefore do not name outside their tests.
const PURE_CRATES: &[&str] = &["schemas", "queries"];
const IMPURE_NAMES: &[&str] = &["fs", "net", "process", "env", "time::SystemTime", "time::Instant"];

/// The files that may read a clock; everywhere else time is an argument. An example is a program of somebody else's.
const CLOCK_FILES: &[&str] = &["engine/src/clock.rs", "connectors/examples/controller.rs"];
const CLOCK_READS: &[&str] = &["SystemTime::now", "Instant::now"];

/// What hides a finding instead of answering it; `#[expect(.., reason = "..")]` says why and disappears when it may.
const REFUSED_ATTRIBUTES: &[&str] = &["#[allow(", "#![allow(", "#[ignore"];

/// Names that say nothing about what is inside.
const EMPTY_NAMES: &[&str] = &[
    "util",
    "utils",
    "common",
    "helper",
    "helpers",
    "misc",
    "prelude",
    "manager",
    "processor",
    "handler",
    "service",
    "data",
    "info",
];

/// A file this long holds a second idea.
const FILE_LINES_MAX: usize = 600;
/// A function this long cannot be seen at once. Clippy counts lines of code; this counts what a reader scrolls.
const FUNCTION_LINES_MAX: usize = 70;
/// Characters; the same number stands in rustfmt.toml, which leaves comments and literals alone.
const LINE_COLUMNS_MAX: usize = 120;

/// One Rust file.
struct Source {
    /// Relative to the root, with `/`.
    name: String,
    text: String,
    /// `text` with the same lines and columns, without comments and without the contents of literals.
    code: String,
}

#[test]
fn crates_know_only_the_crates_below_them() {
    let mut findings = Vec::new();
    for (package, allowed) in EDGES {
        for dependency in dependencies_of(package).iter().filter(|d| d.starts_with("lictor-")) {
            if !allowed.contains(&dependency.as_str()) {
                findings.push(format!("{package}/Cargo.toml: {package} must not depend on {dependency}"));
            }
        }
    }
    report(&findings);
}

#[test]
fn heavy_dependencies_are_named_in_one_crate() {
    let mut findings = Vec::new();
    for (package, _) in EDGES {
        for dependency in dependencies_of(package) {
            let home = HOMES.iter().find(|(pattern, _)| matches_pattern(&dependency, pattern));
            if let Some((_, home)) = home.filter(|(_, home)| home != package) {
                findings.push(format!("{package}/Cargo.toml: only {home} may name {dependency}"));
            }
        }
    }
    report(&findings);
}

#[test]
fn every_dependency_says_why_it_is_there() {
    let manifest = read("Cargo.toml");
    let mut findings = Vec::new();
    let mut before = "";
    for line in section(&manifest, "[workspace.dependencies]") {
        let is_dependency = line.starts_with(|c: char| c.is_ascii_alphabetic()) && !line.starts_with("lictor-");
        if is_dependency && !before.starts_with("# ") {
            findings.push(format!("Cargo.toml: `{line}` has no comment above it that says why it is there"));
        }
        before = line;
    }
    for (package, _) in EDGES {
        let manifest = read(&format!("{package}/Cargo.toml"));
        for line in dependency_lines(&manifest).filter(|line| !line.contains("workspace")) {
            findings.push(format!("{package}/Cargo.toml: `{line}` does not come from [workspace.dependencies]"));
        }
    }
    report(&findings);
}

#[test]
fn files_lines_and_functions_stay_short() {
    let mut findings = Vec::new();
    for Source { name, text, code } in sources() {
        let lines = text.lines().count();
        if lines > FILE_LINES_MAX {
            findings.push(format!("{name}: {lines} lines, {FILE_LINES_MAX} is the most: look for the second idea"));
        }
        for (index, line) in text.lines().enumerate() {
            let columns = line.chars().count();
            if columns > LINE_COLUMNS_MAX {
                findings.push(format!("{name}:{}: {columns} columns, {LINE_COLUMNS_MAX} is the most", index + 1));
            }
        }
        for (line, function, length) in functions(&code) {
            if length > FUNCTION_LINES_MAX {
                let most = FUNCTION_LINES_MAX;
                findings.push(format!("{name}:{line}: fn {function}: {length} lines, {most} is the most"));
            }
        }
    }
    report(&findings);
}

#[test]
fn names_say_what_is_inside() {
    let mut findings = Vec::new();
    for Source { name, .. } in sources() {
        let parts = name.trim_end_matches(".rs").split('/');
        for part in parts.filter(|part| EMPTY_NAMES.contains(part)) {
            findings.push(format!("{name}: `{part}` does not say what is inside"));
        }
    }
    report(&findings);
}

#[test]
fn only_the_clock_reads_the_clock() {
    let mut findings = Vec::new();
    for Source { name, code, .. } in sources() {
        if CLOCK_FILES.contains(&name.as_str()) {
            continue;
        }
        for (line, read) in occurrences(&code, CLOCK_READS) {
            findings.push(format!("{name}:{line}: {read}: time is an argument, see CLOCK_FILES in tests/tidy.rs"));
        }
    }
    report(&findings);
}

#[test]
fn pure_crates_do_no_io_and_read_no_clock() {
    let mut findings = Vec::new();
    for Source { name, code, .. } in sources() {
        let is_pure = PURE_CRATES.iter().any(|package| name.starts_with(&format!("{package}/src/")));
        if !is_pure || name.ends_with("/tests.rs") || name.contains("/tests/") {
            continue;
        }
        for (line, impure) in impure_names(product_code(&code)) {
            findings.push(format!("{name}:{line}: names std::{impure}, and its crate is pure"));
        }
    }
    report(&findings);
}

#[test]
fn findings_are_answered_and_not_hidden() {
    let mut findings = Vec::new();
    for Source { name, code, .. } in sources() {
        for (line, attribute) in occurrences(&code, REFUSED_ATTRIBUTES) {
            findings.push(format!("{name}:{line}: {attribute}…: write #[expect(.., reason = \"..\")], or fix it"));
        }
    }
    report(&findings);
}

#[track_caller]
fn report(findings: &[String]) {
    let text = findings.iter().fold(String::new(), |mut text, finding| {
        writeln!(text, "  {finding}").expect("writing to a string");
        text
    });
    assert!(findings.is_empty(), "{} findings:\n{text}", findings.len());
}

fn root() -> PathBuf {
    let engine = Path::new(env!("CARGO_MANIFEST_DIR"));
    engine.parent().expect("the engine lies in the workspace").to_path_buf()
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    for dir in SOURCE_DIRS {
        collect(&root().join(dir), dir, &mut found);
    }
    assert!(found.len() > 20, "only {} Rust files found: the walk is broken", found.len());
    found
}

fn collect(dir: &Path, name: &str, found: &mut Vec<Source>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries {
        let path = entry.expect("a readable directory").path();
        let own = path.file_name().and_then(|own| own.to_str()).expect("a file name in UTF-8");
        let name = format!("{name}/{own}");
        if path.is_dir() && own != "target" {
            collect(&path, &name, found);
        } else if own.ends_with(".rs") {
            let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
            let code = code_of(&text);
            found.push(Source { name, text, code });
        }
    }
}

/// The lines below a manifest's section header, up to the next one.
fn section<'a>(manifest: &'a str, header: &str) -> impl Iterator<Item = &'a str> {
    let below = manifest.lines().skip_while(move |line| line.trim() != header).skip(1);
    below.take_while(|line| !line.starts_with('['))
}

fn dependency_lines(manifest: &str) -> impl Iterator<Item = &str> {
    let headers = ["[dependencies]", "[dev-dependencies]", "[build-dependencies]"];
    let lines = headers.into_iter().flat_map(move |header| section(manifest, header));
    lines.filter(|line| line.starts_with(|c: char| c.is_ascii_alphabetic()))
}

fn dependencies_of(package: &str) -> Vec<String> {
    let manifest = read(&format!("{package}/Cargo.toml"));
    let end = |c: char| c == '.' || c == ' ' || c == '=';
    dependency_lines(&manifest).filter_map(|line| line.split(end).next()).map(str::to_string).collect()
}

fn matches_pattern(name: &str, pattern: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => name == pattern,
    }
}

/// The lines on which one of `words` stands.
fn occurrences<'a>(code: &'a str, words: &'a [&'a str]) -> impl Iterator<Item = (usize, &'a str)> {
    let numbered = code.lines().enumerate().map(|(index, line)| (index + 1, line));
    numbered.flat_map(|(number, line)| words.iter().filter(|w| line.contains(**w)).map(move |w| (number, *w)))
}

/// The code in front of the tests of the same file.
fn product_code(code: &str) -> &str {
    code.split("#[cfg(test)]").next().unwrap_or(code)
}

/// What of [`IMPURE_NAMES`] a file takes from `std`, by path (`std::fs`) or in a list (`use std::{fs, io}`).
fn impure_names(code: &str) -> Vec<(usize, &'static str)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("std::") {
        let line = code[..at].matches('\n').count() + 1;
        let rest = &code[at + "std::".len()..];
        let paths: Vec<&str> = match rest.strip_prefix('{') {
            Some(list) => list.split('}').next().unwrap_or(list).split(',').map(str::trim).collect(),
            None => vec![rest],
        };
        for name in IMPURE_NAMES {
            let is_named = |path: &&str| {
                let tail = path.strip_prefix(name);
                tail.is_some_and(|tail| !tail.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
            };
            found.extend(paths.iter().filter(|path| is_named(path)).map(|_| (line, *name)));
        }
    }
    found
}

/// Line, name and length of every function with a body.
fn functions(code: &str) -> Vec<(usize, &str, usize)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let is_word = !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let name = code[at + 3..].split(|c: char| !(c.is_alphanumeric() || c == '_')).next().unwrap_or_default();
        if is_word
            && !name.is_empty()
            && let Some(body) = body_of(&code[at..])
        {
            found.push((code[..at].matches('\n').count() + 1, name, body.matches('\n').count() + 1));
        }
    }
    found
}

/// From the beginning of a function to its closing brace; `None` for a signature without a body.
fn body_of(code: &str) -> Option<&str> {
    let (mut parentheses, mut braces) = (0_i32, 0_i32);
    for (at, c) in code.char_indices() {
        match c {
            '(' | '[' => parentheses += 1,
            ')' | ']' => parentheses -= 1,
            ';' if parentheses == 0 && braces == 0 => return None,
            '{' => braces += 1,
            '}' if braces == 1 => return Some(&code[..=at]),
            '}' => braces -= 1,
            _ => {}
        }
    }
    None
}

/// Blanks out comments and the contents of literals, line by line and column by column.
fn code_of(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let skipped = skipped_length(rest, code.chars().next_back());
        let (taken, left) = rest.split_at(if skipped > 0 { skipped } else { first.len_utf8() });
        match skipped {
            0 => code.push_str(taken),
            _ => code.extend(taken.chars().map(|c| if c == '\n' { '\n' } else { ' ' })),
        }
        rest = left;
    }
    code
}

/// How many bytes of a comment or literal stand at the beginning of `rest`; 0 if it begins with code.
fn skipped_length(rest: &str, before: Option<char>) -> usize {
    let is_in_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return rest.find("*/").map_or(rest.len(), |end| end + 2);
    }
    let prefix = ["br", "r", "b", "cr", "c"].into_iter().find(|p| !is_in_word && rest.starts_with(p)).unwrap_or("");
    let literal = &rest[prefix.len()..];
    if prefix.ends_with('r') {
        let hashes = literal.len() - literal.trim_start_matches('#').len();
        if literal[hashes..].starts_with('"') {
            let close = format!("\"{}", "#".repeat(hashes));
            let inside = &literal[hashes + 1..];
            let end = inside.find(&close).map_or(inside.len(), |end| end + close.len());
            return prefix.len() + hashes + 1 + end;
        }
    }
    match literal.chars().next() {
        Some('"') => prefix.len() + quoted_length(literal, '"'),
        Some('\'') if is_char_literal(literal) => prefix.len() + quoted_length(literal, '\''),
        _ => 0,
    }
}

/// Tells `'a'` from a lifetime.
fn is_char_literal(rest: &str) -> bool {
    let mut inside = rest.chars().skip(1);
    inside.next() == Some('\\') || inside.next() == Some('\'')
}

fn quoted_length(literal: &str, quote: char) -> usize {
    let mut is_escaped = false;
    for (at, c) in literal.char_indices().skip(1) {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            _ if c == quote => return at + quote.len_utf8(),
            _ => {}
        }
    }
    literal.len()
}

#[test]
fn the_reader_tells_code_from_comments_and_literals() {
    let text = "let a = \"fn x() {\"; // Instant::now\nlet b = 'x'; let c: &'a str = r#\"\"{\"#; /* { */ br\"\\\";";
    let expected = "let a =           ;                \nlet b =    ; let c: &'a str =        ;              ;";
    assert_eq!(code_of(text), expected);
    assert_eq!(code_of("'\\'' for r in f"), "     for r in f");
}

#[test]
fn the_reader_finds_functions_and_their_length() {
    let code = "trait T { fn none(&self) -> [u8; 2]; }\npub fn one() { }\nfn three(\n) -> u8 {\n if x { } }\n";
    assert_eq!(functions(code), [(2, "one", 1), (3, "three", 3)]);
}

#[test]
fn the_reader_finds_impure_names_in_paths_and_lists() {
    let code = "use std::fmt;\nuse std::{io, fs::File};\nlet t = std::time::SystemTime::UNIX_EPOCH;\nstd::fsx();";
    assert_eq!(impure_names(code), [(2, "fs"), (3, "time::SystemTime")]);
}
