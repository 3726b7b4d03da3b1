//! What is said of metrics elsewhere: in dashboards, alerts and the README.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use super::tests::names;
use crate::guard::GuardMetrics;

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// Every series of the engine and of the guard.
fn known() -> BTreeSet<String> {
    let of_guard = GuardMetrics::new().encode(Some(Duration::ZERO), true);
    let series = of_guard.lines().filter(|line| !line.starts_with('#'));
    let mut known: BTreeSet<String> = series.filter_map(|l| Some(l.split(['{', ' ']).next()?.to_owned())).collect();
    // Those of which there is a series only once a rule has stopped a call.
    known.extend(["lictor_guard_stopped_total", "lictor_guard_shadowed_total"].map(str::to_owned));
    known.extend(names());
    known
}

/// The metrics that lines of a text name.
fn asked<'a>(lines: impl Iterator<Item = &'a str>) -> BTreeSet<&'a str> {
    let words = lines.flat_map(|line| line.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')));
    words.filter(|word| word.starts_with("lictor_")).collect()
}

#[track_caller]
fn check_known(asked: &BTreeSet<&str>, at_least: usize) {
    let known = known();
    let unknown: Vec<_> = asked.iter().filter(|name| !known.contains(**name)).collect();
    assert_eq!(unknown, Vec::<&&str>::new());
    assert!(asked.len() >= at_least, "only {asked:?}");
}

#[test]
fn the_dashboard_asks_for_metrics_that_exist() {
    let dashboard = read("deploy/grafana/dashboards/lictor.json");
    check_known(&asked(dashboard.lines().filter(|line| line.contains("\"expr\""))), 20);
}

#[test]
fn alerts_ask_for_metrics_that_exist() {
    let alerts = read("deploy/alerts.yml");
    check_known(&asked(alerts.lines().filter(|line| line.trim_start().starts_with("expr:"))), 15);
}

/// The README's tables have every metric, by the name that Prometheus shows, and no other.
#[test]
fn the_readme_has_every_metric() {
    let readme = read("../README.md");
    let of_table = |head: &str, prefix: &str| -> BTreeSet<String> {
        let table = readme.split(head).nth(1).unwrap().split("\n\n").next().unwrap();
        let cells = table.lines().filter_map(|line| line.strip_prefix("| `")?.split(" |").next());
        let names = cells.flat_map(|cell| cell.split(", ").map(|name| name.trim_matches('`').to_owned()));
        names.map(|name| format!("{prefix}{name}")).collect()
    };
    let mut said = of_table("| metric (`lictor_…`) |", "lictor_");
    said.extend(of_table("| metric (`lictor_guard_…`) |", "lictor_guard_"));
    let of_histogram = |name: &String| {
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part));
        base.map_or_else(|| name.clone(), str::to_owned)
    };
    assert_eq!(said, known().iter().map(of_histogram).collect());
}
