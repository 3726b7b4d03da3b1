//! "Did you mean": the nearest name where the planner does not know one.

use lictor_schemas::columns::COLUMNS;
use lictor_schemas::genops::{closest, edit_distance};

use crate::diagnostic::Diagnostic;

/// The functions of `FROM`: those that cut time into windows, and the one that picks spans.
const IN_FROM: [&str; 6] = ["TUMBLE", "HOP", "CUMULATE", "SESSION", "CALENDAR", "USAGE_LEAVES"];

/// What a query can name.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// Telemetry first, then reference tables.
    pub(crate) tables: Vec<String>,
    pub(crate) functions: Vec<String>,
    /// Of all tables.
    pub(crate) columns: Vec<String>,
}

impl Known {
    /// A planner's fault with the nearest name as its help, if it is about a name that is not known.
    pub(crate) fn explain(&self, fault: Diagnostic) -> Diagnostic {
        if fault.help.is_some() {
            return fault;
        }
        let named = |prefix: &str, suffix: &str| {
            let (name, rest) = fault.message.strip_prefix(prefix)?.split_once('\'')?;
            rest.starts_with(suffix).then(|| name.to_owned())
        };
        if let Some(name) = named("table '", " not found") {
            return self.table(fault, &name);
        }
        if let Some(name) = named("table function '", " not found") {
            let message = format!("there is no function `{name}` in FROM");
            let fault = Diagnostic { message, ..fault };
            return match closest(&name.to_uppercase(), &IN_FROM) {
                Some(near) => fault.help(format!("did you mean `{near}`?")),
                None => fault.note(format!("there are {}", IN_FROM.join(", "))),
            };
        }
        if let Some(name) = named("Invalid function '", "") {
            return self.function(fault, &name);
        }
        match named("column '", " not found") {
            Some(name) => self.column(fault, &name),
            None => fault,
        }
    }

    fn table(&self, fault: Diagnostic, unknown: &str) -> Diagnostic {
        let name = unknown.rsplit('.').next().unwrap_or(unknown);
        let fault = Diagnostic { message: format!("there is no table `{name}`"), ..fault };
        let known: Vec<&str> = self.tables.iter().map(String::as_str).collect();
        match closest(name, &known) {
            Some(near) => fault.help(format!("did you mean `{near}`?")),
            None => fault.note(format!("tables: {}", known.join(", "))),
        }
    }

    fn function(&self, fault: Diagnostic, name: &str) -> Diagnostic {
        if ["attr", "resource_attr"].contains(&name) {
            let message = format!("{name} takes the name of an attribute as a text");
            return Diagnostic { message, notes: Vec::new(), ..fault }.help(format!("write {name}('acme.risk')"));
        }
        let fault = Diagnostic { message: format!("there is no function `{name}`"), notes: Vec::new(), ..fault };
        let near = nearest(&name.to_lowercase(), &self.functions);
        if near.is_empty() {
            return fault;
        }
        let near: Vec<String> = near.into_iter().map(|near| format!("`{near}`")).collect();
        fault.help(format!("did you mean {}?", near.join(" or ")))
    }

    /// Of the columns that the planner calls possible the nearest; else what it is called where it is an attribute's
    /// name; else the nearest of any table.
    fn column(&self, fault: Diagnostic, name: &str) -> Diagnostic {
        let possible: Vec<&str> = fault.notes.iter().filter_map(|note| note.strip_prefix("possible column ")).collect();
        let bare = |column: &str| column.rsplit('.').next().unwrap_or(column).to_owned();
        let bare_names: Vec<String> = possible.iter().map(|column| bare(column)).collect();
        let bare_names: Vec<&str> = bare_names.iter().map(String::as_str).collect();
        if let Some(near) = closest(name, &bare_names) {
            let near = possible.into_iter().find(|column| bare(column) == near).unwrap_or(near).to_owned();
            return fault.help(format!("did you mean `{near}`?"));
        }
        let of_attribute = COLUMNS.iter().find(|column| column.sources.iter().any(|source| source.attribute == name));
        if let Some(column) = of_attribute {
            return fault.help(format!("the attribute `{name}` is in the column `{}`", column.name));
        }
        let near = nearest(name, &self.columns);
        match near.as_slice() {
            [] if name.contains('.') => fault.help(format!("an attribute is reached with attr('{name}')")),
            [] => fault,
            [near, ..] => fault.help(format!("did you mean `{near}`?")),
        }
    }
}

/// More than these are a list, and no help.
const NEAREST_MAX: usize = 3;

/// The names that are equally near, if any is near enough.
fn nearest<'a>(name: &str, known: &'a [String]) -> Vec<&'a str> {
    let names: Vec<&str> = known.iter().map(String::as_str).collect();
    let Some(distance) = closest(name, &names).map(|near| edit_distance(name, near)) else { return Vec::new() };
    // A name of which half is another is no slip of the pen.
    if distance * 3 > name.len() {
        return Vec::new();
    }
    let mut near: Vec<&str> = names.into_iter().filter(|known| edit_distance(name, known) == distance).collect();
    near.sort_unstable_by_key(|near| (std::cmp::Reverse(near.len()), *near));
    near.dedup();
    near.truncate(NEAREST_MAX);
    near
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equally_near_names_are_all_said_and_far_ones_are_not() {
        let known = ["count", "cot", "corr", "resource_attr"].map(str::to_owned);
        assert_eq!(nearest("cont", &known), ["count", "cot"]);
        assert_eq!(nearest("resorce_attr", &known), ["resource_attr"]);
        assert_eq!(nearest("xyz", &known), Vec::<&str>::new());
    }
}
