//! Sequence detectors that cannot run as they are called, and README's table of those that can.

use std::fs;
use std::path::Path;

use lictor_queries::sequence_functions;

use crate::{compiled, file, over, refused, rule};

const BY_TEAM: &str = "PARTITION BY c.team ORDER BY c.window_end";
const EW_MEAN: &str = "write ew_mean(number, alpha = 0.05) OVER (PARTITION BY key ORDER BY window_end)";

/// All that is refused of them.
pub(crate) fn misused() {
    values_and_settings();
    what_it_goes_over();
    keys();
}

fn called(call: &str) -> String {
    over(&format!("/*here*/{call}"), "")
}

fn values_and_settings() {
    let query = called(&format!("ew_mean(c.team) OVER ({BY_TEAM})"));
    refused(&query, "ew_mean", "ew_mean needs a number, and `c.team` is Utf8View", EW_MEAN);
    let query = called(&format!("ew_mean(c.n > 1) OVER ({BY_TEAM})"));
    refused(&query, "ew_mean", "ew_mean needs a number, and `c.n > Int64(1)` is Boolean", EW_MEAN);
    let help = "write cooldown(condition, silence = 12) OVER (PARTITION BY key ORDER BY window_end)";
    let query = called(&format!("cooldown(c.n, 3) OVER ({BY_TEAM})"));
    refused(&query, "cooldown", "cooldown needs a condition, and `c.n` is Int64", help);
    let query = called(&format!("ew_mean(c.n, c.n) OVER ({BY_TEAM})"));
    refused(&query, "ew_mean", "ew_mean is set by literals, and `c.n` is none", EW_MEAN);
    let query = called(&format!("ew_mean(c.n, 1 + 1) OVER ({BY_TEAM})"));
    let message = "ew_mean is set by literals, and `Int64(1) + Int64(1)` is none";
    refused(&query, "ew_mean", message, EW_MEAN);
    let query = called(&format!("ew_mean(c.n, 7) OVER ({BY_TEAM})"));
    refused(&query, "ew_mean", "ew_mean: alpha must be a number from 0.000001 to 1, not 7", EW_MEAN);
    let query = called(&format!("ew_mean(c.n, 0.1, 0.1) OVER ({BY_TEAM})"));
    refused(&query, "ew_mean", "ew_mean: 2 settings, at most 1 are known", EW_MEAN);
    let help = "write hysteresis(number, hi, lo) OVER (PARTITION BY key ORDER BY window_end)";
    let query = called(&format!("hysteresis(c.n, 5) OVER ({BY_TEAM})"));
    refused(&query, "hysteresis", "hysteresis: lo has no default", help);
    let query = called(&format!("ew_mean() OVER ({BY_TEAM})"));
    refused(&query, "ew_mean", "ew_mean takes 1 values, not 0", EW_MEAN);
}

fn what_it_goes_over() {
    let frame = "ROWS BETWEEN 12 PRECEDING AND 1 PRECEDING";
    let query = called(&format!("ew_mean(c.n) OVER ({BY_TEAM} {frame})"));
    let message = "ew_mean looks back to the first window of a key in bounded state, so it has no frame";
    refused(&query, "ew_mean", message, "leave ROWS … out");
    let message = "ew_mean follows the windows of a key in time";
    for order in
        ["", "ORDER BY c.window_end DESC", "ORDER BY c.n", "ORDER BY c.window_start", "ORDER BY c.window_end, c.n"]
    {
        refused(&called(&format!("ew_mean(c.n) OVER (PARTITION BY c.team {order})")), "ew_mean", message, EW_MEAN);
    }
    let session = called(&format!("ew_mean(c.n) OVER ({BY_TEAM})")).replace("TUMBLE", "SESSION");
    let help = "use TUMBLE or HOP, whose windows follow one another";
    refused(&session, "ew_mean", "ew_mean does not go with SESSION", help);
}

fn keys() {
    let query = called("ew_mean(c.n) OVER (PARTITION BY c.team, c.window_start ORDER BY c.window_end)");
    let message = "ew_mean compares windows of a key, and PARTITION BY parts them";
    refused(&query, "ew_mean", message, "leave window_start and window_end out of PARTITION BY");
    let query = called("ew_mean(c.n) OVER (PARTITION BY upper(c.team) ORDER BY c.window_end)");
    let message = "PARTITION BY names columns, and `upper(c.team)` is none";
    refused(&query, "ew_mean", message, "give the expression a name in a subquery");
    let help = "partition by every key of the GROUP BY";
    let query = called("ew_mean(c.n) OVER (ORDER BY c.window_end)");
    let message = "PARTITION BY leaves out `spans.team`: rows of several keys would have no order";
    refused(&query, "ew_mean", message, help);
    let inner = "SELECT team, region, window_start, window_end, count(*) AS n
        FROM TUMBLE(spans, event_time, INTERVAL '1 minute') GROUP BY team, region, window_start, window_end";
    let query = format!(
        "SELECT c.team, c.region, c.window_start, c.window_end, /*here*/ew_mean(c.n) OVER ({BY_TEAM}) AS observed
         FROM ({inner}) AS c"
    );
    let message = "PARTITION BY leaves out `spans.region`: rows of several keys would have no order";
    refused(&query, "ew_mean", message, help);
}

#[test]
fn a_detector_without_over_is_told_what_it_lacks() {
    let (set, faults) = lictor_queries::compile(
        &[file("r.sql", &rule("SELECT team, ew_level_diff(cost_total) AS observed FROM spans"))],
        &crate::loaded(),
    );
    assert!(set.rules.is_empty());
    let help = faults[0].help.as_deref().unwrap_or_default();
    assert!(help.starts_with("ew_level_diff looks back: write ew_level_diff(…) OVER (PARTITION BY key"), "{help}");
}

#[test]
fn what_is_remembered_has_another_meaning_when_a_setting_or_the_value_changes() {
    let id = |query: &str| {
        let mut set = compiled(&[file("r.sql", &rule(query))]);
        match set.rules.remove(0).kind {
            lictor_queries::RuleKind::Windowed(windowed) => windowed.finish.history_id(),
            other => panic!("{other:?}"),
        }
    };
    let of = |call: &str, end: &str| id(&over(&format!("{call} OVER ({BY_TEAM})"), end));
    let plain = of("ew_mean(c.n)", "");
    assert_eq!(plain, of("ew_mean(c.n, 0.05)", ""), "the default is the same as saying it");
    assert_eq!(
        plain,
        id(&format!(
            "SELECT * FROM ({}) AS d WHERE d.observed > 3",
            over(&format!("ew_mean(c.n) OVER ({BY_TEAM})"), "")
        ))
    );
    for other in [of("ew_mean(c.n, 0.1)", ""), of("ew_mean(2 * c.n)", ""), of("ew_var(c.n)", ""), of("lag(c.n)", "")] {
        assert_ne!(plain, other);
    }
}

#[test]
fn a_rule_is_warmed_until_its_detectors_have_settled() {
    let rows = |call: &str| {
        let mut set = compiled(&[file("r.sql", &rule(&over(&format!("{call} OVER ({BY_TEAM})"), "")))]);
        match set.rules.remove(0).kind {
            lictor_queries::RuleKind::Windowed(windowed) => windowed.finish.rows_back(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(rows("ew_mean(c.n, 0.1)"), 30);
    assert_eq!(rows("ew_level_diff(c.n)"), 6_000);
    assert_eq!(rows("cooldown(c.n > 3, 25)"), 25);
    assert_eq!(rows("robust_z(c.n)"), 50);
}

#[test]
fn readmes_example_is_a_rule() {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")).unwrap();
    let (_, section) = readme.split_once("\n**Sequence detectors**").unwrap();
    let (_, example) = section.split_once("```sql\n").unwrap();
    let (example, _) = example.split_once("\n```").unwrap();
    assert_eq!(compiled(&[file("r.sql", &rule(example))]).rules.len(), 1);
}

#[test]
fn readme_names_every_detector_as_it_is_called() {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = fs::read_to_string(readme).unwrap();
    for function in sequence_functions() {
        let row = format!("| `{}` | {}", function.call, function.says);
        assert!(readme.contains(&row), "README has no row {row}");
        assert!(function.state.is_empty() || readme.contains(&format!("`{}`", function.state)), "{}", function.state);
    }
}
