//! The rules that ship with lictor, inside the binary: what the demo runs and what a new deployment starts from.

use std::fs;
use std::io;
use std::path::Path;

/// Names a file of the shipped rules and takes its text in.
macro_rules! shipped {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../queries/rules/", $name)))),*]
    };
}

/// The shipped rule files and reference tables: name relative to the rules directory, text.
pub const FILES: &[(&str, &str)] = shipped![
    "anomaly/cost_anomaly.sql",
    "anomaly/session_runaway.sql",
    "cost/budgets.csv",
    "cost/team_daily_budget.sql",
    "drift/model_mix.sql",
    "llm_prices.csv",
    "policy/allowed_models.csv",
    "policy/model_allow_list.sql",
    "sla/latency_p95.sql",
    "sla/sla.csv",
];

/// Writes the shipped rules below `dir`, which is made if it is absent; files of the same names are replaced.
///
/// # Errors
/// A folder cannot be made or a file not be written.
pub fn write_to(dir: &Path) -> io::Result<()> {
    for (name, text) in FILES {
        let path = dir.join(name);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(path, text)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use tempfile::TempDir;

    use super::*;
    use crate::rules_dir;

    fn names_below(folder: &Path, root: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                names_below(&path, root, found);
            } else if path.extension().is_some_and(|extension| extension == "sql" || extension == "csv") {
                found.push(path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/"));
            }
        }
    }

    #[test]
    fn every_rule_and_table_of_the_repository_is_shipped() {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../queries/rules");
        let mut found = Vec::new();
        names_below(&root, &root, &mut found);
        found.sort();
        assert_eq!(FILES.iter().map(|file| file.0).collect::<Vec<_>>(), found);
    }

    #[test]
    fn what_is_written_compiles_without_a_fault() {
        let dir = TempDir::new().unwrap();
        write_to(dir.path()).unwrap();
        write_to(dir.path()).unwrap();
        let loaded = rules_dir::load(dir.path(), None).unwrap();
        let faults: Vec<String> = loaded.diagnostics.iter().map(|d| d.summary()).collect();
        assert_eq!(faults, Vec::<String>::new());
        assert!(loaded.rules.rules.len() >= 6);
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_an_error() {
        let dir = TempDir::new().unwrap();
        let blocked = dir.path().join("file");
        fs::write(&blocked, "").unwrap();
        assert!(write_to(&blocked).is_err());
    }
}
