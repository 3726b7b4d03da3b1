//! The shipped rules, with reference tables that fit the company: what an operator would write into them.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::Receiver;
use std::{env, fs};

use arrow::array::RecordBatch;
use lictor_connectors::{TableFormat, write_table};
use lictor_engine::backtest::{self, Range, Rows};
use lictor_engine::pipeline::PipelineSettings;
use lictor_engine::rules_dir::{self, LoadedRules};
use lictor_queries::ReferenceDecl;
use lictor_schemas::time::EventTime;

use super::DAY_NS;
use super::incidents::Calendar;
use super::keys::{Key, MODELS};
use super::topics::{self, Topics};
use super::traffic::Traffic;

/// A day's budget as a multiple of what was spent on the day that is planned by.
const DAILY: f64 = 2.0;
/// A month's budget as a multiple of thirty such days.
const MONTHLY: f64 = 1.3;
/// A promise of latency as a multiple of the 95th percentile of that day.
const PROMISE: f64 = 1.5;

/// Compiles the shipped rules but those of conformance, for a company that has looked at one of its days first.
pub(crate) fn rules(company: u64, start: EventTime, settings: &PipelineSettings) -> LoadedRules {
    let dir = tempfile::tempdir().unwrap();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../queries/rules");
    let folders = env::var("LICTOR_RULES").unwrap_or_else(|_| "anomaly,cost,drift,policy,sla".to_owned());
    for folder in folders.split(',') {
        copy(&shipped.join(folder), &dir.path().join(folder));
    }
    fs::copy(shipped.join(rules_dir::PRICES_FILE), dir.path().join(rules_dir::PRICES_FILE)).unwrap();
    let traffic = look_back(company, start, (dir.path(), settings));
    for (name, table) in tables(&traffic) {
        let path = dir.path().join(name);
        if path.exists() {
            fs::write(path, table).unwrap();
        }
    }
    let loaded = rules_dir::load(dir.path(), None).unwrap();
    let faults: Vec<String> = loaded.diagnostics.iter().map(|d| d.summary()).collect();
    assert!(faults.is_empty(), "{faults:?}");
    loaded
}

/// The day before `start`, with other chances. What `lictor baseline` makes of it is written where drift is measured
/// against it.
fn look_back(company: u64, start: EventTime, (dir, settings): (&Path, &PipelineSettings)) -> Traffic {
    let mut traffic = Traffic::new((company, company + 1_000_000), start.plus(-DAY_NS), Calendar::quiet());
    traffic.latencies_ms = Some(vec![Vec::new(); traffic.keys.len()]);
    let topics = Topics::new(format!("seed {company}, the day before"), traffic, start);
    let (file, written) = (dir.join("drift/reference_drift.sql"), dir.join("drift/usual_shapes.csv"));
    let mut tracks = topics::tracks(&topics);
    if file.exists() {
        let prices = dir.join(rules_dir::PRICES_FILE);
        let no_topic = &mut |_: &ReferenceDecl| Err("there is no broker".to_owned());
        let loaded = rules_dir::load_baseline(&file, Some(&prices), (None, &written), no_topic).unwrap();
        let (baseline, prices) = (loaded.planned.unwrap(), loaded.prices);
        let (table, wanted) = (baseline.table(), baseline.wanted());
        let rows = Rows { tracks, range: Range::default(), table, wanted, prices, settings };
        let sum_up = |batches: Receiver<RecordBatch>| baseline.run(batches.into_iter());
        let (summed, ..) = backtest::rows(rows, sum_up, &AtomicBool::new(false)).unwrap();
        write_table(&written, TableFormat::Csv, &summed.unwrap()).unwrap();
    } else {
        while tracks[0].read_next().unwrap().is_some() {}
        drop(tracks);
    }
    Arc::into_inner(topics).unwrap().into_inner().unwrap().traffic
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// The reference tables by their files, as that day suggests them.
fn tables(traffic: &Traffic) -> Vec<(&'static str, String)> {
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
