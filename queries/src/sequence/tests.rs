//! All detectors: states survive saving at any row, and numbers are those of the references.
//!
//! The numbers were made by river 0.26.1 and scipy 1.17 from the two series below.

use std::sync::Arc;

use super::arguments::Settings;
use super::keyed::{Call, Keyed};
use super::saved::{Saved, Saving};
use super::{DETECTORS, Detector, Row, Sequence};
use arrow::array::{ArrayRef, AsArray, Float64Array, RecordBatch, StringViewArray, TimestampNanosecondArray};
use datafusion::common::ScalarValue;

/// Noise from 0 to 10 with a mean of 5; from row 120 to 190 it is 4 higher.
fn numbers() -> Vec<f64> {
    let mut random = random(12_345);
    let mut number = || f64::from(random() % 1_000) / 100.0;
    (0..240).map(|row| f64::midpoint(number(), number()) + if (120..190).contains(&row) { 4.0 } else { 0.0 }).collect()
}

/// Of the first 300 rows a tenth failed, of the others 45 %.
fn failures() -> Vec<f64> {
    let mut random = random(777);
    (0..600).map(|row| f64::from(u8::from(random() % 100 < if row < 300 { 10 } else { 45 }))).collect()
}

fn random(mut seed: u64) -> impl FnMut() -> u32 {
    move || {
        seed = (seed * 1_103_515_245 + 12_345) % (1 << 31);
        u32::try_from(seed >> 16).unwrap()
    }
}

fn detector(name: &str) -> &'static Detector {
    DETECTORS.into_iter().find(|detector| detector.name == name).unwrap()
}

fn start(name: &str, said: &[ScalarValue]) -> Box<dyn Sequence> {
    let detector = detector(name);
    (detector.start)(&Settings::read(detector, said).unwrap())
}

/// Of the weight 0.1, after all numbers.
const EW_MEAN: f64 = 5.155_711_505_925_351;
const EW_VAR: f64 = 3.832_268_190_775_224;

/// Scores of rows: while it warms up, without the step, with it.
const LEVEL_DIFF: [(usize, f64); 6] = [
    (59, 0.0),
    (60, 0.074_294_935_527_100_55),
    (100, 0.120_307_676_579_318_39),
    (209, 0.044_453_279_760_671_094),
    (210, 0.200_336_728_754_209_33),
    (239, 0.270_253_074_038_721),
];

const DAY_NS: i64 = 86_400_000_000_000;

fn row(n: usize, x: f64) -> Row {
    let end_ns = i64::try_from(n).unwrap() * DAY_NS / 24;
    Row { x, y: 1_000.0 - x, time_ns: end_ns, end_ns }
}

/// What a detector makes of each row, all fields.
fn readings(detector: &Detector, sequence: &mut dyn Sequence, series: &[f64]) -> Vec<Vec<f64>> {
    let step = |(n, x): (usize, &f64)| {
        let mut reading = vec![f64::NAN; detector.fields.len()];
        sequence.step(row(n, *x), &mut reading);
        reading
    };
    series.iter().enumerate().map(step).collect()
}

/// The rows at which the first field is not 0.
#[track_caller]
fn check(name: &str, said: &[ScalarValue], series: &[f64], expected: &[usize]) {
    let all = readings(detector(name), start(name, said).as_mut(), series);
    let least = if detector(name).fields[0].name == "level" { 2.0 } else { 1.0 };
    let found: Vec<usize> = (0..).zip(&all).filter(|(_, reading)| reading[0].abs() >= least).map(|(n, _)| n).collect();
    assert_eq!(found, expected, "{name}");
}

#[track_caller]
fn check_last(name: &str, said: &[ScalarValue], series: &[f64], expected: &[f64]) {
    let last = readings(detector(name), start(name, said).as_mut(), series).pop().unwrap();
    let is_close = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-12 * b.abs().max(1.0);
    assert!(last.iter().zip(expected).all(is_close), "{name}: {last:?}, not {expected:?}");
}

fn f(number: f64) -> ScalarValue {
    ScalarValue::from(number)
}

fn n(whole: i64) -> ScalarValue {
    ScalarValue::from(whole)
}

fn defaults(detector: &Detector) -> Settings {
    let said = if detector.name == "hysteresis" { vec![f(8.0), f(6.0)] } else { Vec::new() };
    Settings::read(detector, &said).unwrap()
}

#[test]
fn a_state_that_is_saved_and_loaded_at_every_row_goes_on_as_if_nothing_had_happened() {
    for detector in DETECTORS {
        let settings = defaults(detector);
        let series = if detector.values == [super::Value::Share] { failures() } else { numbers() };
        let whole = readings(detector, (detector.start)(&settings).as_mut(), &series);
        let mut state: Option<Vec<u8>> = None;
        for (n, (x, expected)) in series.iter().zip(&whole).enumerate() {
            let mut sequence = (detector.start)(&settings);
            if let Some(bytes) = &state {
                let mut saved = Saved::new(bytes, detector.version).unwrap();
                sequence.load(&mut saved).unwrap_or_else(|| panic!("{} at {n}", detector.name));
                assert!(saved.is_at_end(), "{} at {n}", detector.name);
            }
            let mut reading = vec![f64::NAN; detector.fields.len()];
            sequence.step(row(n, *x), &mut reading);
            let bits = |reading: &[f64]| reading.iter().map(|number| number.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&reading), bits(expected), "{} at {n}", detector.name);
            let mut saving = Saving::new(detector.version);
            sequence.save(&mut saving);
            state = Some(saving.into_bytes());
        }
    }
}

#[test]
fn bytes_that_are_no_state_are_refused() {
    for detector in DETECTORS {
        let mut saving = Saving::new(detector.version);
        let mut sequence = (detector.start)(&defaults(detector));
        sequence.step(row(0, 1.0), &mut vec![0.0; detector.fields.len()]);
        sequence.save(&mut saving);
        let bytes = saving.into_bytes();
        assert!(Saved::new(&bytes, detector.version + 1).is_none());
        let mut cut_off = Saved::new(&bytes[..bytes.len() - 1], detector.version).unwrap();
        assert!(sequence.load(&mut cut_off).is_none(), "{}", detector.name);
    }
}

#[test]
fn drifts_of_numbers_are_those_of_river() {
    let series = numbers();
    check("adwin", &[], &series, &[159]);
    check("adwin", &[f(0.05), n(1)], &series, &[128, 202]);
    check_last(
        "adwin",
        &[f(0.002), n(1)],
        &series,
        &[0.0, 30.0, 4.962_333_333_333_333_5, 116.611_086_666_666_67 / 30.0],
    );
    check("page_hinkley", &[], &series, &[127, 205]);
    let [up, down] = ["up", "down"].map(|mode| [n(30), f(0.1), n(20), f(0.9999), ScalarValue::from(mode)]);
    check("page_hinkley", &down, &series, &[208]);
    check("page_hinkley", &up, &series, &[77, 122]);
    let last = [0.0, 2.332_702_141_496_411, 2.672_141_739_433_925_4, 4.948_529_411_764_706];
    check_last("page_hinkley", &[], &series, &last);
    check("kswin", &[f(0.005), n(60), n(30)], &series, &[139, 208]);
}

#[test]
fn adwin_goes_on_with_one_bucket_of_a_size() {
    let steps = [(256, 0.0), (64, 100.0), (32, 0.0)];
    let series: Vec<f64> = steps.into_iter().flat_map(|(rows, x)| std::iter::repeat_n(x, rows)).collect();
    let one = [f(0.002), n(1), n(1), n(1), n(0)];
    let all = readings(detector("adwin"), start("adwin", &one).as_mut(), &series);
    assert!(all[256..].iter().any(|reading| reading[0] != 0.0));
    let mut random = random(99);
    for _ in 0..50 {
        let mut level = 0.0;
        let mut next = || {
            level = if random().is_multiple_of(40) { f64::from(random() % 1_000) } else { level };
            level + f64::from(random() % 10)
        };
        let series: Vec<f64> = (0..400).map(|_| next()).collect();
        let all = readings(detector("adwin"), start("adwin", &one).as_mut(), &series);
        assert!(all.iter().all(|reading| reading[1] >= 1.0 && reading[2].is_finite()));
    }
}

/// Drifts, and how many warnings there are.
#[track_caller]
fn check_failures(name: &str, said: &[ScalarValue], series: &[f64], drifts: &[usize], warnings: usize) {
    check(name, said, series, drifts);
    let all = readings(detector(name), start(name, said).as_mut(), series);
    assert_eq!(all.iter().filter(|reading| reading[2] != 0.0).count(), warnings, "warnings of {name}");
}

#[test]
fn drifts_of_failures_are_those_of_river() {
    let series = failures();
    let falling = [&series[300..], &series[..300]].concat();
    let two_sided = ScalarValue::from(true);
    check_failures("ddm", &[], &series, &[340], 24);
    check_failures("eddm", &[], &series, &[322, 390, 445, 511, 568], 14);
    check_failures("hddm_a", &[], &series, &[341], 2);
    check_failures("hddm_w", &[], &series, &[340], 3);
    check_failures("hddm_a", &[f(0.001), f(0.005), two_sided.clone()], &falling, &[356], 6);
    check_failures("hddm_w", &[f(0.001), f(0.005), f(0.05), two_sided], &falling, &[348], 13);
}

#[test]
fn means_and_scores_are_those_of_the_references() {
    let series = numbers();
    check_last("ew_mean", &[f(0.1)], &series, &[EW_MEAN]);
    check_last("ew_var", &[f(0.1)], &series, &[EW_VAR]);
    for (row, score) in LEVEL_DIFF {
        let all = readings(detector("ew_level_diff"), start("ew_level_diff", &[]).as_mut(), &series[..=row]);
        assert!((all[row][0] - score).abs() < 1e-12, "row {row}: {} and not {score}", all[row][0]);
    }
    check_last("robust_z", &[], &series[..50], &[-0.574_259_629_974_636, 4.632_5, 1.430_000_000_000_000_4]);
}

#[test]
fn a_chart_a_sum_and_a_trend_by_hand() {
    let chart = [f(0.5), f(2.0), f(10.0), f(1.0)];
    // sigma · l · √(1/3 · (1 − 1/4^t)): 1, then √1.25.
    check_last("ewma_chart", &chart, &[12.0], &[0.0, 11.0, 9.0, 11.0]);
    let width = 1.25_f64.sqrt();
    check_last("ewma_chart", &chart, &[12.0, 12.0], &[1.0, 11.5, 10.0 - width, 10.0 + width]);
    check("cusum", &[f(0.5), f(2.0)], &[1.0, 1.0, 1.6, 0.0, -3.0, -0.5, 0.0], &[2, 4]);
    check_last("cusum", &[f(0.5), f(2.0)], &[1.0, 1.0, 0.75], &[0.0, 1.25, 0.0]);
    check_last("holt", &[f(0.5), f(0.5), n(3)], &[10.0, 12.0, 18.0], &[25.0, 16.0, 3.0]);
    check_last("holt_exhaustion", &[], &[10.0, 10.0], &[99.0, 10.0, 0.0]);
}

#[test]
fn conditions_are_held_back_counted_and_kept() {
    let holds = [1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 0.0, 1.0];
    check("cooldown", &[n(2)], &holds, &[0, 3, 7]);
    let hours = ScalarValue::new_interval_mdn(0, 0, 2 * DAY_NS / 24);
    check("cooldown", &[hours], &holds, &[0, 3, 7]);
    check("cooldown", &[n(0)], &holds, &[0, 1, 3, 4, 5, 7]);
    check("k_of_n", &[n(2), n(3)], &holds, &[1, 2, 3, 4, 5, 6, 7]);
    check("k_of_n", &[n(3), n(3)], &holds, &[5]);
    check("hysteresis", &[n(8), n(6)], &[7.0, 8.0, 7.0, 6.0, 5.9, 7.0, 9.0], &[1, 2, 3, 6]);
}

#[test]
fn quantiles_are_of_the_rows_before() {
    let all = readings(detector("running_quantile"), start("running_quantile", &[f(0.5)]).as_mut(), &[1.0, 100.0, 3.0]);
    assert!(all[0][0].is_nan());
    assert!((all[1][0] - 1.0).abs() < 0.01 && (all[2][0] - 1.0).abs() < 0.01);
}

#[test]
fn an_hour_that_is_always_high_is_not_remarkable_and_a_high_hour_is() {
    let usual = |hour: usize| if hour % 24 == 9 { 50.0 } else { 10.0 + f64::from(u8::from(hour.is_multiple_of(2))) };
    let mut series: Vec<f64> = (0..24 * 28).map(usual).collect();
    series.push(50.0);
    let all =
        readings(detector("seasonal_z"), start("seasonal_z", &[ScalarValue::from("hour_of_day")]).as_mut(), &series);
    assert!(all[24 * 27 + 9][0].abs() < 1.0, "nine o'clock: {:?}", all[24 * 27 + 9]);
    assert!(all[24 * 28][0] > 5.0, "midnight: {:?}", all[24 * 28]);
}

#[test]
fn settings_are_checked_and_have_defaults() {
    #[track_caller]
    fn check(name: &str, said: &[ScalarValue], expected: &str) {
        assert_eq!(Settings::read(detector(name), said).unwrap_err(), expected);
    }
    check("ew_mean", &[f(2.0)], "alpha must be a number from 0.000001 to 1, not 2");
    check("ew_mean", &[ScalarValue::from("much")], "alpha must be a number from 0.000001 to 1, not much");
    check("ew_mean", &[f(0.1), f(0.1)], "2 settings, at most 1 are known");
    check("adwin", &[f(0.1), f(1.5)], "clock must be a whole number from 1 to 1000000, not 1.5");
    check(
        "page_hinkley",
        &[n(1), n(1), n(1), n(1), ScalarValue::from("left")],
        "mode must be 'both' or 'up' or 'down', not left",
    );
    check("hddm_a", &[f(0.1), f(0.1), n(1)], "two_sided_test must be true or false, not 1");
    check("hysteresis", &[n(1)], "lo has no default");
    check("hysteresis", &[n(1), n(2)], "hi (1) must not be below lo (2)");
    check("k_of_n", &[n(4), n(3)], "k (4) must not be more than n (3)");
    check("kswin", &[f(0.1), n(10), n(6)], "window_size (10) must be twice stat_size (6)");
    check("eddm", &[n(30), f(0.8), f(0.9)], "alpha (0.8) must not be below beta (0.9)");
    let null = ScalarValue::Null;
    assert_eq!(Settings::read(detector("cooldown"), &[null]), Settings::read(detector("cooldown"), &[]));
    let month = ScalarValue::new_interval_mdn(1, 0, 0);
    assert!(Settings::read(detector("cooldown"), &[month]).is_err(), "months differ in length");
}

fn ew_means() -> Keyed {
    let detector = detector("ew_mean");
    let call = Call { detector, settings: defaults(detector), is_whole: false, values: vec![2] };
    Keyed { partition: vec![0], end: 1, calls: vec![call], keep_ns: i64::MAX }
}

/// Rows of one key, whose windows end then.
fn of_one_key(ends: Vec<i64>) -> RecordBatch {
    let rows = ends.len();
    let key: ArrayRef = Arc::new(StringViewArray::from(vec!["a key of more than twelve bytes"; rows]));
    let end: ArrayRef = Arc::new(TimestampNanosecondArray::from(ends));
    let x: ArrayRef = Arc::new(Float64Array::from(vec![1.0; rows]));
    RecordBatch::try_from_iter([("key", key), ("window_end", end), ("x", x)]).unwrap()
}

#[test]
fn a_state_does_not_keep_the_buffers_of_windows_gone_by() {
    let (keyed, mut state) = (ew_means(), None);
    for window in 0..1_000 {
        keyed.fold(&of_one_key(vec![window]), &mut state).unwrap();
    }
    let state = state.unwrap();
    assert_eq!(state.num_rows(), 1);
    assert_eq!(state.column(0).as_string_view().data_buffers().len(), 1);
}

#[test]
fn two_rows_of_a_key_in_one_window_are_refused() {
    let (keyed, mut state) = (ew_means(), None);
    keyed.fold(&of_one_key(vec![1, 2]), &mut state).unwrap();
    let message = keyed.fold(&of_one_key(vec![3, 3]), &mut state).unwrap_err().strip_backtrace();
    assert!(message.contains("ew_mean: a key has two rows in the window that ends at 3 ns"), "{message}");
}
