//! The shipped rules, with reference tables that fit the company: what an operator would write into them.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use lictor_engine::rules_dir::{self, LoadedRules};
use lictor_schemas::time::EventTime;

use super::incidents::Calendar;
use super::keys::{Key, MODELS};
use super::traffic::{CHUNK_NS, Traffic};

const DAY_NS: i64 = 86_400_000_000_000;

/// A day's budget as a multiple of what was spent on the day that is planned by.
const DAILY: f64 = 2.0;
/// A month's budget as a multiple of thirty such days.
const MONTHLY: f64 = 1.3;
/// A promise of latency as a multiple of the 95th percentile of that day.
const PROMISE: f64 = 1.5;

/// Compiles the shipped rules but those of conformance, for a company that has looked at one of its days first.
pub(crate) fn rules(company: u64, start: EventTime) -> LoadedRules {
    let dir = tempfile::tempdir().unwrap();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../queries/rules");
    for entry in ["anomaly", "cost", "drift", "policy", "sla"] {
        copy(&shipped.join(entry), &dir.path().join(entry));
    }
    fs::copy(shipped.join(rules_dir::PRICES_FILE), dir.path().join(rules_dir::PRICES_FILE)).unwrap();
    for (name, table) in tables(company, start) {
        fs::write(dir.path().join(name), table).unwrap();
    }
    let loaded = rules_dir::load(dir.path(), None).unwrap();
    let faults: Vec<String> = loaded.diagnostics.iter().map(|d| d.summary()).collect();
    assert!(faults.is_empty(), "{faults:?}");
    loaded
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// The reference tables by their files.
fn tables(company: u64, start: EventTime) -> Vec<(&'static str, String)> {
    // The day before, with other chances.
    let mut traffic = Traffic::new((company, company + 1_000_000), start.plus(-DAY_NS), Calendar::quiet());
    traffic.latencies_ms = Some(vec![Vec::new(); traffic.keys.len()]);
    for _ in 0..DAY_NS / CHUNK_NS {
        traffic.next_chunk();
    }
    let by_key = |header: &str, row: &dyn Fn(&Key) -> String| {
        traffic.keys.iter().fold(format!("{header}\n"), |mut table, key| {
            let _ = writeln!(table, "{}", row(key));
            table
        })
    };
    let spent = |key: &Key| traffic.spent_usd[key.number];
    let latencies = traffic.latencies_ms.as_deref().unwrap();
    let models = MODELS.iter().fold("provider,model\n".to_owned(), |mut table, model| {
        let _ = writeln!(table, "{},{}", model.provider, model.request);
        table
    });
    vec![
        ("cost/budgets.csv", by_key("team,daily_usd", &|k| format!("{},{:.2}", k.name("team"), DAILY * spent(k)))),
        (
            "cost/monthly_budgets.csv",
            by_key("team,monthly_usd", &|k| format!("{},{:.2}", k.name("team"), 30.0 * MONTHLY * spent(k))),
        ),
        (
            "sla/sla.csv",
            by_key("project,tier,p95_ms", &|k| {
                format!("{},standard,{:.0}", k.name("project"), PROMISE * p95(&latencies[k.number]))
            }),
        ),
        ("policy/allowed_models.csv", models),
        ("policy/allowed_regions.csv", "team,region\n*,eu-west-1\n".to_owned()),
    ]
}

fn p95(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() * 95 / 100]
}
