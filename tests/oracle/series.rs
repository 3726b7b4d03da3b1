//! Sequence detectors over series that others have scored, through SQL: in a batch and streamed, the same numbers.
//!
//! The vectors (made by river, numpy and scipy) are not part of this repository: `LICTOR_VECTORS` names their folder,
//! else they are looked for beside the repository, and without them nothing is compared and the test says so. The
//! Numenta Anomaly Benchmark is a checkout of github.com/numenta/NAB that `LICTOR_NAB` names.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, BooleanArray, Float64Array, Int32Array, Int64Array, RecordBatch, StringViewArray,
    TimestampNanosecondArray,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type, Schema};
use lictor_queries::{RuleFile, oracle};
use lictor_schemas::tables::{Table, table_schema};
use serde_json::{Map, Value};

use super::{Case, SECOND_NS, START_NS, Stream, compiled, files, references, to_cells};

const MINUTE_NS: i64 = 60 * SECOND_NS;

/// The text of a file of vectors, if it is there.
fn vectors(name: &str) -> Option<String> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors");
    let folder = std::env::var_os("LICTOR_VECTORS").map_or_else(beside, PathBuf::from);
    let text = fs::read_to_string(folder.join(name));
    text.inspect_err(|error| eprintln!("skipped: {}: {error}", folder.join(name).display())).ok()
}

/// A series, a value per minute, and from which row on alerts count.
pub(super) struct Series {
    pub(super) name: String,
    pub(super) values: Vec<f64>,
    first: usize,
    /// Rows to be told of whatever they are.
    checked: Vec<usize>,
}

impl Series {
    pub(super) fn new(name: &str, values: Vec<f64>) -> Self {
        Self { name: name.to_owned(), values, first: 0, checked: Vec::new() }
    }

    /// The first rows are not scored: the benchmark gives detectors so long to learn.
    fn of_csv(name: &str, text: &str) -> Self {
        let value = |line: &str| line.split(',').nth(1).unwrap().trim().parse().unwrap();
        let values: Vec<f64> = text.lines().skip(1).map(value).collect();
        let first = (values.len() * 15 / 100).min(750);
        Self { first, ..Self::new(name, values) }
    }
}

/// Rows of `spans`: the value is the latency, the row's number the input tokens, the first row that counts the output
/// tokens; the leaves of usage are the rows to be told of.
fn to_rows(series: &[Series]) -> RecordBatch {
    to_rows_every(MINUTE_NS, series)
}

/// The same with another time from row to row.
pub(super) fn to_rows_every(step_ns: i64, series: &[Series]) -> RecordBatch {
    let longest = series.iter().map(|s| s.values.len()).max().unwrap_or_default();
    let mut of = Vec::new();
    for row in 0..longest {
        of.extend(series.iter().filter(|s| row < s.values.len()).map(|s| (s, row)));
    }
    let number = |n: usize| i64::try_from(n).unwrap();
    let text = |i: usize| format!("{i:032x}");
    let ids: Vec<String> = (1..=of.len()).map(text).collect();
    let whole = |of: Vec<i64>| -> ArrayRef { Arc::new(Int64Array::from(of)) };
    let columns: Vec<(&str, ArrayRef)> = vec![
        (
            "event_time",
            Arc::new(TimestampNanosecondArray::from_iter_values(
                of.iter().map(|(_, row)| START_NS + number(*row) * step_ns),
            )),
        ),
        ("trace_id", Arc::new(StringViewArray::from_iter_values(&ids))),
        ("span_id", Arc::new(StringViewArray::from_iter_values(ids.iter().map(|id| &id[16..])))),
        ("kafka_partition", Arc::new(Int32Array::from(vec![0; of.len()]))),
        ("kafka_offset", whole((0..of.len()).map(number).collect())),
        ("team", Arc::new(StringViewArray::from_iter_values(of.iter().map(|(s, _)| s.name.as_str())))),
        ("input_tokens", whole(of.iter().map(|(_, row)| number(*row)).collect())),
        ("output_tokens", whole(of.iter().map(|(s, _)| number(s.first)).collect())),
        ("latency_ms", Arc::new(Float64Array::from_iter_values(of.iter().map(|(s, row)| s.values[*row])))),
        ("usage_leaf", Arc::new(BooleanArray::from_iter(of.iter().map(|(s, row)| Some(s.checked.contains(row)))))),
    ];
    let all = table_schema(Table::Spans, &[]);
    let fields: Vec<_> = columns.iter().map(|(name, _)| all.field_with_name(name).unwrap().clone()).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns.into_iter().map(|c| c.1).collect()).unwrap()
}

const OVER: &str = "OVER (PARTITION BY c.team ORDER BY c.window_end)";

const MINUTES: &str = "(SELECT team, window_start, window_end, max(input_tokens) AS i, max(output_tokens) AS first,
    max(latency_ms) AS x, bool_or(usage_leaf) AS checked
    FROM TUMBLE(spans, event_time, INTERVAL '1 minute') GROUP BY team, window_start, window_end)";

pub(super) fn in_a_batch(files: &[RuleFile], name: &str, rows: &RecordBatch) -> Vec<RecordBatch> {
    let telemetry = BTreeMap::from([(Table::Spans, rows.clone())]);
    oracle(files, &references(), name, &telemetry).unwrap_or_else(|error| panic!("{error}"))
}

/// What a call gives of each row of a series, field by field.
type Said = Vec<Map<String, Value>>;

/// What `call` gives of each of the series by name, the fields of it by name; both ways must agree to the last bit.
fn called(call: &str, fields: &[&str], series: &[Series]) -> BTreeMap<String, Said> {
    let of_field = |field: &&str| match *field {
        "" => ", s AS said".to_owned(),
        field => format!(", s['{field}'] AS {field}"),
    };
    let columns: String = fields.iter().map(of_field).collect();
    let query = format!(
        "SELECT d.team, d.window_start, d.window_end, d.i AS observed {columns} FROM (
         SELECT c.*, {call} AS s FROM {MINUTES} AS c) AS d"
    );
    let case = Case { name: "series", query: &query, tolerance: 0.0 };
    let files = files(&case, "CLOSE");
    let rows = to_rows(series);
    let two = || compiled(&files, &references()).unwrap_or_else(|fault| panic!("{fault}"));
    let mut streamed: BTreeMap<String, Said> = BTreeMap::new();
    for row in Stream::new([two(), two()]).run(std::slice::from_ref(&rows)).unwrap().into_values() {
        let team = row["subject"]["team"].as_str().unwrap().to_owned();
        streamed.entry(team).or_default().push(row["evidence"].as_object().unwrap().clone());
    }
    let mut batch: BTreeMap<String, Said> = BTreeMap::new();
    for row in in_a_batch(&files, "series", &rows).iter().flat_map(to_cells) {
        batch.entry(row["team"].as_str().unwrap().to_owned()).or_default().push(row);
    }
    for series in series {
        let (batch, streamed) = (batch.get_mut(&series.name).unwrap(), &streamed[&series.name]);
        batch.sort_by_key(|row| row["observed"].as_i64());
        assert_eq!((batch.len(), streamed.len()), (series.values.len(), series.values.len()), "{call}");
        for (row, (batch, stream)) in batch.iter().zip(streamed).enumerate() {
            for (field, value) in stream {
                assert_eq!(&batch[field], value, "{call}: {field} of row {row} of {}", series.name);
            }
        }
    }
    streamed
}

/// How a function of the vectors is called, and which fields of it are looked at; none if it is not of this kind.
fn call_of(function: &str, params: &Value) -> Option<(String, &'static [&'static str])> {
    let p = |name: &str| match &params[name] {
        Value::String(text) => format!("'{text}'"),
        Value::Null => "NULL".to_owned(),
        other => other.to_string(),
    };
    let with = |name: &str, settings: &[&str]| {
        let settings: String = settings.iter().map(|setting| format!(", {}", p(setting))).collect();
        format!("{name}_state(c.x{settings}) {OVER}")
    };
    let drift: &[&str] = &["drift", "warning"];
    Some(match function {
        "adwin" => (
            with("adwin", &["delta", "clock", "max_buckets", "min_window_length", "grace_period"]),
            &["drift", "width", "mean", "variance"],
        ),
        "page_hinkley" => (
            with("page_hinkley", &["min_instances", "delta", "threshold", "alpha", "mode"]),
            &["drift", "sum_increase", "sum_decrease", "mean"],
        ),
        "kswin" => (with("kswin", &["alpha", "window_size", "stat_size"]), &["drift", "p_value"]),
        "ddm" => (with("ddm", &["warm_start", "warning_threshold", "drift_threshold"]), drift),
        "eddm" => (with("eddm", &["warm_start", "alpha", "beta"]), drift),
        "hddm_a" => (with("hddm_a", &["drift_confidence", "warning_confidence", "two_sided_test"]), drift),
        "hddm_w" => {
            (with("hddm_w", &["drift_confidence", "warning_confidence", "lambda_val", "two_sided_test"]), drift)
        }
        "cusum_tabular" => {
            let (target, sigma, k, h) = (p("target"), p("sigma"), p("k"), p("h"));
            (format!("cusum_state((c.x - {target}) / {sigma}, {k}, {h}) {OVER}"), &["alarm", "high", "low"])
        }
        "ewma_chart" => {
            let is_exact = params["exact_limits"].as_bool().unwrap_or_default();
            let [lambda, l, target, sigma] = ["lam", "L", "target", "sigma"].map(p);
            let call = format!("ewma_chart_state(c.x, {lambda}, {l}, {target}, {sigma}, {is_exact}) {OVER}");
            (call, &["alarm", "ewma", "lower", "upper"])
        }
        "ewma_ewvar" => {
            let alpha = p("fading_factor");
            let [mean, variance] = ["ew_mean", "ew_var"].map(|name| format!("{name}(c.x, {alpha}) {OVER}"));
            (format!("named_struct('ewmean', {mean}, 'ewvar', {variance})"), &["ewmean", "ewvar"])
        }
        "mad" => (format!("robust_z_state(c.x, 50) {OVER}"), &["z", "median", "mad"]),
        _ => return None,
    })
}

/// The rows at which a field is neither false nor 0.
fn rows_with(said: &[Map<String, Value>], field: &str) -> Vec<usize> {
    let is_set = |value: &Value| value.as_bool().unwrap_or_else(|| value.as_f64().is_some_and(|n| n != 0.0));
    (0..).zip(said).filter(|(_, row)| is_set(&row[field])).map(|(n, _)| n).collect()
}

fn is_close(found: f64, expected: f64, tolerance: f64) -> bool {
    (found - expected).abs() <= tolerance * expected.abs().max(1e-3)
}

struct Vector<'a> {
    name: String,
    expected: &'a Map<String, Value>,
    tolerance: f64,
}

impl Vector<'_> {
    /// Compares everything that is expected; what is not understood is a fault, too.
    fn compare(&self, said: &[Map<String, Value>]) {
        for (what, expected) in self.expected {
            let indices = || -> Vec<usize> { serde_json::from_value(expected.clone()).unwrap() };
            let last = |field: &str| said.last().unwrap()[field].as_f64().unwrap();
            match what.as_str() {
                "drift_indices" => assert_eq!(rows_with(said, "drift"), indices(), "{}", self.name),
                "warning_indices" => assert_eq!(rows_with(said, "warning"), indices(), "{}", self.name),
                "alarm_indices" => assert_eq!(rows_with(said, "alarm"), indices(), "{}", self.name),
                "first_alarm" => assert_eq!(rows_with(said, "alarm").first().copied(), as_index(expected)),
                "n_alarms" => assert_eq!(Some(rows_with(said, "alarm").len()), as_index(expected), "{}", self.name),
                "last" => self.number(what, last("ewma"), expected),
                "ucl" => self.number(what, last("upper"), expected),
                "lcl" => self.number(what, last("lower"), expected),
                "ewma" | "published_ewma" => {
                    for (row, expected) in said.iter().zip(expected.as_array().unwrap()) {
                        let (found, expected) = (row["ewma"].as_f64().unwrap(), expected.as_f64().unwrap());
                        let is_published = what == "published_ewma" && (found - expected).abs() < 0.0051;
                        assert!(is_published || is_close(found, expected, self.tolerance), "{} {what}", self.name);
                    }
                }
                "median" | "mad" => self.number(what, last(what), expected),
                "mad_normal" => self.number(what, last("mad") * 1.482_602_218_505_602, expected),
                // Of the last value of the whole stream, against these rows: no row of them has that score.
                "robust_z_of_last" => {}
                "checkpoints" => expected.as_array().unwrap().iter().for_each(|at| self.checkpoint(at, said)),
                other => panic!("{}: nobody knows what `{other}` is", self.name),
            }
        }
    }

    fn number(&self, what: &str, found: f64, expected: &Value) {
        let expected = expected.as_f64().unwrap();
        assert!(is_close(found, expected, self.tolerance), "{}: {what} is {found}, not {expected}", self.name);
    }

    fn checkpoint(&self, at: &Value, said: &[Map<String, Value>]) {
        let row = &said[as_index(&at["after"]).unwrap() - 1];
        let field = |name: &str| row[name].as_f64().unwrap();
        for (what, expected) in at.as_object().unwrap() {
            let found = match what.as_str() {
                "after" => continue,
                "estimation" => field("mean"),
                "variance" => field("variance") * field("width"),
                "s_hi" => field("high"),
                "s_lo" => field("low"),
                other => field(other),
            };
            self.number(&format!("{what} after {}", at["after"]), found, expected);
        }
    }
}

fn as_index(value: &Value) -> Option<usize> {
    value.as_u64().and_then(|n| usize::try_from(n).ok())
}

/// The series that a vector is of.
fn input_of(vector: &Value, streams: &Value) -> Series {
    let input = &vector["input"];
    let numbers = |value: &Value| -> Vec<f64> { serde_json::from_value(value.clone()).unwrap() };
    let Some(stream) = input["stream"].as_str() else { return Series::new("given", numbers(&input["x"])) };
    let whole = numbers(&streams[stream]);
    match input["slice"].as_array() {
        Some(slice) => {
            let [from, to] = [0, 1].map(|n| as_index(&slice[n]).unwrap());
            Series::new(stream, whole[from..to].to_vec())
        }
        None => Series::new(stream, whole),
    }
}

/// The fields of a call's result, and what they are expected to be over which series.
type OfCall<'a> = (&'a [&'a str], Vec<(Vector<'a>, Series)>);

#[test]
fn streams_are_judged_as_by_the_references() {
    let Some(text) = vectors("drift.json") else { return };
    let all: Value = serde_json::from_str(&text).unwrap();
    let mut of_call: BTreeMap<String, OfCall<'_>> = BTreeMap::new();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for vector in all["vectors"].as_array().unwrap() {
        let (function, params) = (vector["function"].as_str().unwrap(), &vector["params"]);
        let Some((call, fields)) = call_of(function, params) else { continue };
        let series = input_of(vector, &all["streams"]);
        let tolerance = vector["rel_tol"].as_f64().unwrap_or(1e-9);
        let expected = vector["expected"].as_object().unwrap();
        let vector = Vector { name: format!("{function} {params} of {}", series.name), expected, tolerance };
        of_call.entry(call).or_insert((fields, Vec::new())).1.push((vector, series));
        *counts.entry(function).or_default() += 1;
    }
    for (call, (fields, vectors)) in of_call {
        let (vectors, series): (Vec<_>, Vec<_>) = vectors.into_iter().unzip();
        let said = called(&call, fields, &series);
        vectors.iter().zip(&series).for_each(|(vector, series)| vector.compare(&said[&series.name]));
    }
    assert!(counts.len() >= 11, "{counts:?}");
    eprintln!("vectors of streams, in a batch and streamed: {counts:?}");
}

/// So many series are streamed, the shortest: a window of telemetry that ends costs more than a row of a batch.
const STREAMED: usize = 7;

/// Scores and alerts of all series; `filter` may leave rows out.
fn scored(threshold: f64, pause: u64, filter: &str) -> String {
    format!(
        "SELECT d.team, d.window_start, d.window_end, d.i AS observed, d.score, d.alert FROM (
         SELECT b.*, cooldown(b.score >= {threshold} AND b.i >= b.first, {pause})
                     OVER (PARTITION BY b.team ORDER BY b.window_end) AS alert
         FROM (SELECT c.*, ew_level_diff(c.x) OVER (PARTITION BY c.team ORDER BY c.window_end) AS score
               FROM {MINUTES} AS c) AS b) AS d {filter}"
    )
}

/// The scores and alerts of a series, row by row.
#[derive(Default)]
struct Scores {
    scores: Vec<f64>,
    alerts: Vec<usize>,
}

fn scores_in_a_batch(query: &str, rows: &RecordBatch) -> BTreeMap<String, Scores> {
    let files = files(&Case { name: "scored", query, tolerance: 0.0 }, "CLOSE");
    let mut found: BTreeMap<String, Vec<(i64, f64, bool)>> = BTreeMap::new();
    for batch in in_a_batch(&files, "scored", rows) {
        let column = |name: &str| batch.column_by_name(name).unwrap();
        let teams = cast(column("team"), &DataType::Utf8).unwrap();
        let (is, scores) =
            (column("observed").as_primitive::<Int64Type>(), column("score").as_primitive::<Float64Type>());
        let alerts = column("alert").as_boolean();
        for row in 0..batch.num_rows() {
            let team = teams.as_string::<i32>().value(row);
            let of_row = (is.value(row), scores.value(row), alerts.value(row));
            found.entry(team.to_owned()).or_default().push(of_row);
        }
    }
    let in_order = |mut rows: Vec<(i64, f64, bool)>| {
        rows.sort_by_key(|row| row.0);
        let alerts = (0..).zip(&rows).filter(|(_, row)| row.2).map(|(n, _)| n).collect();
        Scores { scores: rows.into_iter().map(|row| row.1).collect(), alerts }
    };
    found.into_iter().map(|(team, rows)| (team, in_order(rows))).collect()
}

#[test]
fn level_and_step_are_scored_as_in_the_reference() {
    let Some(text) = vectors("ew_level_diff.json") else { return };
    let all: Value = serde_json::from_str(&text).unwrap();
    let params = &all["params"];
    let (threshold, pause) = (params["T"].as_f64().unwrap(), params["cool"].as_u64().unwrap());
    let mut series = Vec::new();
    for (name, expected) in all["files"].as_object().unwrap() {
        let Some(text) = vectors(&format!("nab/{name}")) else { continue };
        let checked = expected["score_at"].as_object().unwrap().keys().map(|row| row.parse().unwrap()).collect();
        series.push(Series { checked, ..Series::of_csv(name, &text) });
        assert_eq!(as_index(&expected["start"]), series.last().map(|s| s.first), "{name}");
    }
    let rows = to_rows(&series);
    let batch = scores_in_a_batch(&scored(threshold, pause, ""), &rows);
    for name in series.iter().map(|s| &s.name) {
        let (expected, Scores { scores, alerts }) = (&all["files"][name], &batch[name]);
        assert_eq!(*alerts, serde_json::from_value::<Vec<usize>>(expected["alerts"].clone()).unwrap(), "{name}");
        for (row, score) in expected["score_at"].as_object().unwrap() {
            let found = scores[row.parse::<usize>().unwrap()];
            assert!((found - score.as_f64().unwrap()).abs() <= 1.1e-9, "{name}, row {row}: {found}, not {score}");
        }
        let most = scores.iter().copied().fold(0.0, f64::max);
        assert!((most - expected["max_score"].as_f64().unwrap()).abs() <= 1.1e-9, "{name}: {most}");
    }
    series.sort_by_key(|s| s.values.len());
    series.truncate(STREAMED);
    let few = batch.iter().filter(|(name, _)| series.iter().any(|s| s.name == **name)).collect();
    streamed_scores(&scored(threshold, pause, "WHERE d.alert OR d.checked"), &to_rows(&series), &few);
    let (alerts, count) = (batch.values().map(|s| s.alerts.len()).sum::<usize>(), rows.num_rows());
    let (all, streamed) = (batch.len(), series.len());
    eprintln!("ew_level_diff: {all} series, {count} rows, {alerts} alerts in a batch; {streamed} of them streamed");
}

/// Streamed, what comes through has the scores that it has in a batch, and all alerts come through.
fn streamed_scores(query: &str, rows: &RecordBatch, batch: &BTreeMap<&String, &Scores>) {
    let files = files(&Case { name: "scored", query, tolerance: 0.0 }, "CLOSE");
    let two = || compiled(&files, &references()).unwrap_or_else(|fault| panic!("{fault}"));
    let found = Stream::new([two(), two()]).run(std::slice::from_ref(rows)).unwrap();
    let mut alerts: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for row in found.into_values() {
        let (team, evidence) = (row["subject"]["team"].as_str().unwrap(), &row["evidence"]);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a row's number")]
        let at = row["observed"].as_f64().unwrap() as usize;
        assert_eq!(evidence["score"].as_f64(), Some(batch[&team.to_owned()].scores[at]), "{team}, row {at}");
        if evidence["alert"] == true {
            alerts.entry(team.to_owned()).or_default().push(at);
        }
    }
    for (team, expected) in batch {
        assert_eq!(alerts.remove(*team).unwrap_or_default(), expected.alerts, "{team}");
    }
}

pub(super) mod nab {
    //! The benchmark's own score, as `nab/sweeper.py` has it.

    use super::*;

    /// What a hit, a miss and a false alert weigh.
    struct Profile {
        name: &'static str,
        miss: f64,
        false_alert: f64,
    }

    const PROFILES: [Profile; 3] = [
        Profile { name: "standard", miss: 1.0, false_alert: 0.11 },
        Profile { name: "reward_low_FP_rate", miss: 1.0, false_alert: 0.22 },
        Profile { name: "reward_low_FN_rate", miss: 2.0, false_alert: 0.11 },
    ];

    /// A file of the benchmark: its lines, and between which rows anomalies lie.
    pub(crate) struct Labelled {
        pub(crate) series: Series,
        lines: Vec<String>,
        pub(crate) windows: Vec<(usize, usize)>,
    }

    pub(crate) fn read(folder: &Path) -> Vec<Labelled> {
        let labels = fs::read_to_string(folder.join("labels/combined_windows.json")).unwrap();
        let labels: BTreeMap<String, Vec<[String; 2]>> = serde_json::from_str(&labels).unwrap();
        let labelled = |(name, windows): (String, Vec<[String; 2]>)| {
            let text = fs::read_to_string(folder.join("data").join(&name)).ok()?;
            let lines: Vec<String> = text.lines().skip(1).map(str::to_owned).collect();
            let at = |bound: &String| {
                let instant = bound.split('.').next().unwrap();
                lines.iter().position(|line| line.starts_with(instant)).unwrap()
            };
            let windows = windows.iter().map(|[from, to]| (at(from), at(to))).collect();
            Some(Labelled { series: Series::of_csv(&name, &text), lines, windows })
        };
        labels.into_iter().filter_map(labelled).collect()
    }

    #[expect(clippy::cast_precision_loss, reason = "rows of a file")]
    fn share(rows: usize, of: usize) -> f64 {
        rows as f64 / of as f64
    }

    /// How good a detection is that lies so far behind the right edge of a window, in lengths of the window.
    fn worth(position: f64) -> f64 {
        if position > 3.0 { -1.0 } else { 2.0 / (1.0 + (5.0 * position).exp()) - 1.0 }
    }

    /// What a file's alerts are worth, and what they would be if there were none.
    fn of_file(Labelled { series, windows, .. }: &Labelled, alerts: &[usize], profile: &Profile) -> (f64, f64) {
        let scored = windows.iter().filter(|(_, last)| *last >= series.first);
        let (mut sum, mut none) = (0.0, 0.0);
        for (first, last) in scored {
            let hit = alerts.iter().find(|alert| (*first..=*last).contains(alert));
            let of_hit = |alert: &usize| worth(-share(last - alert + 1, last - first + 1)) / worth(-1.0);
            sum += hit.map_or(-profile.miss, of_hit);
            none -= profile.miss;
        }
        for alert in alerts.iter().filter(|alert| !windows.iter().any(|(a, b)| (*a..=*b).contains(*alert))) {
            let before = windows.iter().rev().find(|(_, last)| last < alert);
            sum += profile.false_alert * before.map_or(-1.0, |(a, b)| worth(share(alert - b, b - a)));
        }
        (sum, none)
    }

    fn write(folder: &Path, file: &Labelled, alerts: &[usize]) {
        let (kind, name) = file.series.name.split_once('/').unwrap();
        fs::create_dir_all(folder.join(kind)).unwrap();
        let mut csv = "timestamp,value,anomaly_score,label\n".to_owned();
        for (row, line) in file.lines.iter().enumerate() {
            let label = u8::from(file.windows.iter().any(|(a, b)| (*a..=*b).contains(&row)));
            let score = u8::from(alerts.contains(&row));
            csv.push_str(&format!("{line},{score},{label}\n"));
        }
        fs::write(folder.join(kind).join(format!("lictor_{name}")), csv).unwrap();
    }

    #[test]
    fn the_numenta_benchmark_is_scored_as_published() {
        let Some(folder) = std::env::var_os("LICTOR_NAB").map(PathBuf::from) else {
            return eprintln!("skipped: LICTOR_NAB names no checkout of github.com/numenta/NAB");
        };
        let mut files = read(&folder);
        let series: Vec<Series> =
            files.iter_mut().map(|file| std::mem::replace(&mut file.series, Series::new("", Vec::new()))).collect();
        let found = scores_in_a_batch(&scored(1.0954, 100, ""), &to_rows(&series));
        files.iter_mut().zip(series).for_each(|(file, series)| file.series = series);
        let results = Path::new(env!("CARGO_TARGET_TMPDIR")).join("nab/lictor");
        for file in &files {
            write(&results, file, &found[&file.series.name].alerts);
        }
        let mut scores = Vec::new();
        for profile in &PROFILES {
            let of = |file: &Labelled| of_file(file, &found[&file.series.name].alerts, profile);
            let (sum, none) = files.iter().map(of).fold((0.0, 0.0), |all, file| (all.0 + file.0, all.1 + file.1));
            let windows = -none / profile.miss;
            scores.push(100.0 * (sum - none) / (windows - none));
            eprintln!("NAB, {} files: {} {:.2}", files.len(), profile.name, scores[scores.len() - 1]);
        }
        eprintln!("as CSV: {}", results.display());
        if files.len() == 58 {
            assert!(scores[0] >= 60.0 && scores[1] >= 50.0, "{scores:?}");
        }
    }
}
