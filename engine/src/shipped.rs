//! Rules that ship with lictor, inside the binary: those that the demo runs. `queries/rules` has more.

use std::fs;
use std::io;
use std::path::Path;

/// Names files of the shipped rules and takes their text in.
macro_rules! shipped {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../queries/rules/", $name)))),*]
    };
}

/// The demo's rule files and reference tables: name relative to the rules directory, text.
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

/// Writes the demo's rules below `dir`, which is made if it is absent; files of the same names are replaced.
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
    use tempfile::TempDir;

    use super::*;
    use crate::rules_dir;

    #[test]
    fn what_is_written_compiles_without_a_fault() {
        let dir = TempDir::new().unwrap();
        write_to(dir.path()).unwrap();
        write_to(dir.path()).unwrap();
        let loaded = rules_dir::load(dir.path(), None).unwrap();
        let faults: Vec<String> = loaded.diagnostics.iter().map(|d| d.summary()).collect();
        assert_eq!(faults, Vec::<String>::new());
        assert_eq!(loaded.rules.rules.len(), 6);
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_an_error() {
        let dir = TempDir::new().unwrap();
        let blocked = dir.path().join("file");
        fs::write(&blocked, "").unwrap();
        assert!(write_to(&blocked).is_err());
    }
}
