//! Rules that ship with lictor, inside the binary: those that the demo runs, and those that judge conformance.
//! `queries/rules` has more.

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

/// The conformance rules and their reference tables: name relative to the rules directory, text.
pub const CONFORMANCE: &[(&str, &str)] = shipped![
    "conformance/awu.sql",
    "conformance/count.sql",
    "conformance/event_carriers.csv",
    "conformance/s11_version.sql",
    "conformance/s2_identity.sql",
    "conformance/s2_lifecycle.sql",
    "conformance/s3_accounting.sql",
    "conformance/s4_decision.sql",
    "conformance/s5_reason_code.sql",
    "conformance/s6_sla.sql",
    "conformance/s7_attributes.sql",
    "conformance/s7_events.sql",
    "conformance/s8_event_schemas.sql",
    "conformance/s9_values.sql",
];

/// Writes the demo's rules below `dir`, which is made if it is absent; files of the same names are replaced.
///
/// # Errors
/// A folder cannot be made or a file not be written.
pub fn write_to(dir: &Path) -> io::Result<()> {
    write(FILES, dir)
}

/// As [`write_to`], the conformance rules.
///
/// # Errors
/// As [`write_to`].
pub fn write_conformance_to(dir: &Path) -> io::Result<()> {
    write(CONFORMANCE, dir)
}

fn write(files: &[(&str, &str)], dir: &Path) -> io::Result<()> {
    for (name, text) in files {
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
    fn every_conformance_rule_is_inside_and_compiles() {
        let dir = TempDir::new().unwrap();
        write_conformance_to(dir.path()).unwrap();
        let loaded = rules_dir::load(dir.path(), None).unwrap();
        assert_eq!(loaded.diagnostics, []);
        let written = Path::new(env!("CARGO_MANIFEST_DIR")).join("../queries/rules/conformance");
        let names = |loaded: &rules_dir::LoadedRules| -> Vec<String> {
            loaded.rules.rules.iter().map(|rule| rule.header.name.clone()).collect()
        };
        assert_eq!(names(&loaded), names(&rules_dir::load(&written, None).unwrap()));
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_an_error() {
        let dir = TempDir::new().unwrap();
        let blocked = dir.path().join("file");
        fs::write(&blocked, "").unwrap();
        assert!(write_to(&blocked).is_err());
    }
}
