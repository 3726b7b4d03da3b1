//! The README names every function, in the words of the code.

use super::super::{FunctionDoc, functions};

fn all() -> Vec<FunctionDoc> {
    functions().into_iter().flat_map(|family| family.functions).collect()
}

/// A function's row in the README.
fn row(doc: &FunctionDoc) -> String {
    let text = |text: &str| text.replace('|', "\\|");
    format!("| `{}({})` | {} | {} |", doc.name, text(doc.arguments), text(doc.meaning), text(doc.source))
}

#[test]
fn readme_has_a_row_for_every_function() {
    let readme = include_str!("../../../../README.md");
    let mut missing = String::new();
    for family in functions() {
        let rows = family.functions.iter().map(row).filter(|row| !readme.lines().any(|line| line == row));
        let rows: Vec<String> = rows.collect();
        if !rows.is_empty() {
            missing += &format!("\n{}\n{}\n", family.title, rows.join("\n"));
        }
    }
    assert!(missing.is_empty(), "the README does not have:\n{missing}");
}

#[test]
fn no_two_functions_have_one_name_and_each_says_what_it_is() {
    let mut names: Vec<&str> = all().iter().map(|doc| doc.name).collect();
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count);
    assert!(all().iter().all(|doc| !doc.meaning.is_empty() && !doc.source.is_empty()));
}
