//! A picture of each sequence detector on a public series, for docs/detection.md.
//!
//! The series are those of github.com/numenta/NAB, of which `LICTOR_NAB` names a checkout; `LICTOR_PLOTS` names the
//! folder that the pictures are written to. What detectors say comes from SQL, as everywhere in this test: the rows of
//! the query are what is drawn.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};

use super::series::{Series, in_a_batch, to_rows_every};
use super::{Case, files};

/// A picture: which detector, of which series, and what is drawn of it.
#[derive(Default)]
struct Plot {
    /// The name of the function and of the file.
    name: &'static str,
    /// Relative to the benchmark's data.
    series: &'static str,
    /// Rows of the series that a window has; one if 0.
    rows_per_window: i64,
    /// An expression on `x`, the mean of the window, and `shape`, its histogram; `z` in what follows.
    before: &'static str,
    /// The detector; `s` in what follows.
    detector: &'static str,
    /// What is drawn of it, and from where on it is an alarm, if that is a number.
    value: &'static str,
    threshold: Option<f64>,
    alarm: &'static str,
    /// What the picture says it shows.
    caption: &'static str,
}

const MINUTE_NS: i64 = 60_000_000_000;

const K: &str = "OVER (PARTITION BY team ORDER BY window_end)";

const RDS: &str = "realAWSCloudwatch/rds_cpu_utilization_e47b3b.csv";
const TAXI: &str = "realKnownCause/nyc_taxi.csv";
const MACHINE: &str = "realKnownCause/machine_temperature_system_failure.csv";
const SPEED: &str = "realTraffic/speed_7578.csv";
const EC2: &str = "realAWSCloudwatch/ec2_cpu_utilization_53ea38.csv";
const REQUESTS: &str = "realAWSCloudwatch/elb_request_count_8c0756.csv";

fn on(name: &'static str, series: &'static str, detector: &'static str, caption: &'static str) -> Plot {
    Plot { name, series, detector, caption, before: "x", value: "s", alarm: "false", ..Plot::default() }
}

fn failures(name: &'static str, detector: &'static str, caption: &'static str) -> Plot {
    Plot {
        before: "x < 60",
        value: "CAST(s AS DOUBLE)",
        threshold: Some(2.0),
        alarm: "s = 2",
        ..on(name, SPEED, detector, caption)
    }
}

/// Those whose scores say how unusual a number is.
fn of_levels() -> Vec<Plot> {
    vec![
        Plot {
            threshold: Some(4.0),
            alarm: "cooldown(abs(s) >= 4, 12) {k}",
            ..on("ew_z", RDS, "ew_z(z, 0.01) {k}", "ew_z(x, 0.01); alarm from 4 on, then a pause of 12 rows")
        },
        Plot {
            threshold: Some(1.0954),
            alarm: "cooldown(s >= 1.0954, 100) {k}",
            ..on(
                "ew_level_diff",
                MACHINE,
                "ew_level_diff(z) {k}",
                "ew_level_diff(x); alarm from 1.0954 on, pause of 100",
            )
        },
        Plot {
            threshold: Some(3.0),
            alarm: "cooldown(abs(s) >= 3, 48) {k}",
            ..on(
                "seasonal_z",
                TAXI,
                "seasonal_z(z, window_start) {k}",
                "seasonal_z(x, window_start); alarm from ±3 on, pause of 48",
            )
        },
        Plot {
            threshold: Some(10.0),
            alarm: "cooldown(abs(s) >= 10, 12) {k}",
            ..on("robust_z", EC2, "robust_z(z, 200) {k}", "robust_z(x, 200); alarm from ±10 on, pause of 12")
        },
        Plot {
            alarm: "cooldown(x > 1.5 * s, 12) {k}",
            ..on(
                "running_quantile",
                REQUESTS,
                "running_quantile(z, 0.99) {k}",
                "running_quantile(x, 0.99); alarm at 1.5 times it, pause of 12",
            )
        },
        on("holt", TAXI, "holt(z, 0.3, 0.05, 2) {k}", "holt(x, 0.3, 0.05, 2): the forecast for an hour ahead"),
    ]
}

/// Those that say that something has changed.
fn of_changes() -> Vec<Plot> {
    vec![
        Plot {
            before: "ew_z(x, 0.01) {k}",
            value: "greatest(s['high'], s['low'])",
            threshold: Some(8.0),
            alarm: "s['alarm'] <> 0",
            ..on("cusum", RDS, "cusum_state(z, 0.5, 8) {k}", "cusum(ew_z(x, 0.01), 0.5, 8): the greater of both sums")
        },
        Plot {
            before: "ew_z(x, 0.01) {k}",
            value: "s['ewma']",
            threshold: Some(1.0),
            alarm: "cooldown(s['alarm'] <> 0, 12) {k}",
            ..on("ewma_chart", RDS, "ewma_chart_state(z, 0.2, 3) {k}", "ewma_chart(ew_z(x, 0.01), 0.2, 3), pause of 12")
        },
        Plot {
            before: "ew_z(x, 0.01) {k}",
            value: "s['mean']",
            alarm: "s['drift']",
            ..on(
                "page_hinkley",
                RDS,
                "page_hinkley_state(z, 30, 0.25, 15) {k}",
                "page_hinkley(ew_z(x, 0.01), 30, 0.25, 15): the mean since the last drift",
            )
        },
        Plot {
            value: "s['mean']",
            alarm: "s['drift']",
            ..on("adwin", RDS, "adwin_state(z) {k}", "adwin(x): the mean of the window that it keeps")
        },
        Plot {
            value: "s['p_value']",
            alarm: "s['drift']",
            ..on("kswin", RDS, "kswin_state(z, 0.0001, 200, 60) {k}", "kswin(x, 0.0001, 200, 60): the p-value")
        },
        failures("ddm", "ddm(z) {k}", "ddm(x < 60): 1 is a warning, 2 a drift"),
        failures("eddm", "eddm(z) {k}", "eddm(x < 60): 1 is a warning, 2 a drift"),
        failures("hddm_a", "hddm_a(z) {k}", "hddm_a(x < 60): 1 is a warning, 2 a drift"),
        failures("hddm_w", "hddm_w(z) {k}", "hddm_w(x < 60): 1 is a warning, 2 a drift"),
        Plot {
            rows_per_window: 48,
            before: "hist_merge(shape) OVER (PARTITION BY team ORDER BY window_end
                                               ROWS BETWEEN 7 PRECEDING AND 1 PRECEDING)",
            value: "ks_stat(z, shape)",
            threshold: Some(0.3),
            alarm: "ks_stat(z, shape) >= 0.3",
            ..on("ks_stat", TAXI, "0.0", "ks_stat(the seven days before, the day); alarm from 0.3 on")
        },
    ]
}

/// What is drawn of a window.
struct Drawn {
    row: f64,
    x: f64,
    value: Option<f64>,
    is_alarm: bool,
}

impl Plot {
    fn minutes_per_row(&self) -> i64 {
        if self.series == TAXI { 30 } else { 5 }
    }

    fn query(&self) -> String {
        let minutes = self.rows_per_window.max(1) * self.minutes_per_row();
        let Self { before, detector, value, alarm, .. } = self;
        let text = format!(
            "SELECT team, window_start, window_end, row AS observed, x,
                    CAST({value} AS DOUBLE) AS value, {alarm} AS alarm
             FROM (SELECT b.*, {detector} AS s FROM (SELECT a.*, {before} AS z FROM (
                 SELECT team, window_start, window_end, max(input_tokens) AS row, avg(latency_ms) AS x,
                        hist_log(latency_ms, 8) AS shape
                 FROM TUMBLE(spans, event_time, INTERVAL '{minutes} minutes')
                 GROUP BY team, window_start, window_end) AS a) AS b) AS c"
        );
        text.replace("{k}", K)
    }

    fn drawn(&self, series: Series) -> Vec<Drawn> {
        let query = self.query();
        let files = files(&Case { name: "plot", query: &query, tolerance: 0.0 }, "CLOSE");
        let mut drawn = Vec::new();
        for batch in in_a_batch(&files, "plot", &to_rows_every(self.minutes_per_row() * MINUTE_NS, &[series])) {
            let numbers = |name: &str| cast(batch.column_by_name(name).unwrap(), &DataType::Float64).unwrap();
            let [rows, xs, values] = ["observed", "x", "value"].map(numbers);
            let [rows, xs, values] = [&rows, &xs, &values].map(|column| column.as_primitive::<Float64Type>());
            let alarms = batch.column_by_name("alarm").unwrap().as_boolean();
            drawn.extend((0..batch.num_rows()).map(|n| Drawn {
                row: rows.value(n),
                x: xs.value(n),
                value: values.is_valid(n).then(|| values.value(n)),
                is_alarm: alarms.is_valid(n) && alarms.value(n),
            }));
        }
        drawn.sort_by(|a, b| a.row.total_cmp(&b.row));
        drawn
    }
}

const WIDTH: f64 = 760.0;
const LEFT: f64 = 58.0;
const PANELS: [(f64, f64); 2] = [(34.0, 160.0), (184.0, 280.0)];
const HEIGHT: f64 = 300.0;

/// A part of the picture: from which to which pixel, and from which to which number.
struct Panel {
    pixels: (f64, f64),
    numbers: (f64, f64),
    rows: f64,
}

impl Panel {
    fn new(pixels: (f64, f64), rows: f64, numbers: impl Iterator<Item = f64>) -> Self {
        let (least, most) = numbers.fold((f64::MAX, f64::MIN), |(a, b), n| (a.min(n), b.max(n)));
        let numbers = if most > least { (least, most) } else { (least - 1.0, least + 1.0) };
        Self { pixels, numbers, rows }
    }

    fn across(&self, row: f64) -> f64 {
        LEFT + (WIDTH - LEFT - 12.0) * row / self.rows
    }

    fn down(&self, number: f64) -> f64 {
        let ((top, bottom), (least, most)) = (self.pixels, self.numbers);
        bottom - (bottom - top) * (number - least) / (most - least)
    }

    /// A line through points, of which each pixel's column keeps the lowest and the highest.
    fn line(&self, points: impl Iterator<Item = (f64, f64)>, colour: &str) -> String {
        let mut columns: Vec<(f64, f64, f64)> = Vec::new();
        for (row, number) in points {
            let (x, y) = (self.across(row).round(), self.down(number));
            match columns.last_mut().filter(|column| column.0 == x) {
                Some(column) => (column.1, column.2) = (column.1.min(y), column.2.max(y)),
                None => columns.push((x, y, y)),
            }
        }
        let mut path = String::new();
        for (n, (x, high, low)) in columns.iter().enumerate() {
            let letter = if n == 0 { "M" } else { "L" };
            let _ = write!(path, "{letter}{x:.0} {high:.1}");
            if low - high >= 0.1 {
                let _ = write!(path, "V{low:.1}");
            }
        }
        format!("<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.2\"/>\n")
    }

    /// The frame with the least and the greatest number at its side.
    fn frame(&self) -> String {
        let ((top, bottom), (least, most)) = (self.pixels, self.numbers);
        let (right, beside) = (WIDTH - 12.0, LEFT - 6.0);
        format!(
            "<path d=\"M{LEFT} {top}V{bottom}H{right}\" fill=\"none\" stroke=\"{GREY}\"/>\n\
             <text x=\"{beside}\" y=\"{}\" text-anchor=\"end\">{}</text>\n\
             <text x=\"{beside}\" y=\"{bottom}\" text-anchor=\"end\">{}</text>\n",
            top + 10.0,
            short(most),
            short(least),
        )
    }
}

/// Colours of middle lightness, that are seen on white and on black.
const GREY: &str = "#848d97";
const BLUE: &str = "#3d84d6";
const ORANGE: &str = "#d07d1e";
const RED: &str = "#e0484d";

fn short(number: f64) -> String {
    match number.abs() {
        0.0..10.0 => format!("{number:.2}"),
        10.0..1e4 => format!("{number:.0}"),
        _ => format!("{:.0}k", number / 1e3),
    }
}

/// The picture: the series with what people have labelled, alarms below, and what the detector says.
fn to_svg(plot: &Plot, drawn: &[Drawn], labelled: &[(usize, usize)]) -> String {
    let last = drawn.last().map_or(1.0, |d| d.row);
    let values = || drawn.iter().filter_map(|d| d.value);
    let [above, below] = PANELS;
    let series = Panel::new(above, last, drawn.iter().map(|d| d.x));
    let score = Panel::new(
        below,
        last,
        values().chain(plot.threshold).chain([0.0].into_iter().filter(|_| plot.threshold.is_some())),
    );
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"11\" fill=\"{GREY}\">\n<title>{}: {}</title>\n\
         <text x=\"{LEFT}\" y=\"14\" font-size=\"13\">{}</text>\n\
         <text x=\"{LEFT}\" y=\"28\">NAB {}</text>\n",
        plot.name,
        escaped(plot.caption),
        escaped(plot.caption),
        plot.series,
    );
    #[expect(clippy::cast_precision_loss, reason = "rows of a file")]
    for (from, to) in labelled.iter().map(|(a, b)| (series.across(*a as f64), series.across(*b as f64))) {
        let height = above.1 - above.0;
        let _ = writeln!(
            svg,
            "<rect x=\"{from:.0}\" y=\"{}\" width=\"{:.0}\" height=\"{height}\" fill=\"{RED}\" fill-opacity=\"0.16\"/>",
            above.0,
            to - from
        );
    }
    svg += &series.line(drawn.iter().map(|d| (d.row, d.x)), BLUE);
    svg += &score.line(drawn.iter().filter_map(|d| Some((d.row, d.value?))), ORANGE);
    if let Some(threshold) = plot.threshold {
        let y = score.down(threshold);
        let _ =
            writeln!(svg, "<path d=\"M{LEFT} {y:.1}H{}\" stroke=\"{GREY}\" stroke-dasharray=\"4 3\"/>", WIDTH - 12.0);
    }
    for alarm in drawn.iter().filter(|d| d.is_alarm) {
        let _ = writeln!(
            svg,
            "<path d=\"M{:.0} {}v16\" stroke=\"{RED}\" stroke-width=\"2\"/>",
            series.across(alarm.row),
            above.1 + 4.0
        );
    }
    svg += &series.frame();
    svg += &score.frame();
    svg + "</svg>\n"
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// A picture that is larger than this is no picture for a page.
const BYTES_MAX: usize = 60_000;

#[test]
fn detectors_are_drawn_on_public_series() {
    let (Some(nab), Some(folder)) = (env::var_os("LICTOR_NAB"), env::var_os("LICTOR_PLOTS")) else {
        return eprintln!("skipped: LICTOR_NAB names no checkout of the benchmark, or LICTOR_PLOTS no folder");
    };
    // Tests run in the folder of the crate.
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(PathBuf::from(folder));
    fs::create_dir_all(&folder).unwrap();
    let labelled = super::series::nab::read(Path::new(&nab));
    for plot in of_levels().into_iter().chain(of_changes()) {
        let file = labelled.iter().find(|file| file.series.name == plot.series).unwrap();
        let drawn = plot.drawn(Series::new(plot.name, file.series.values.clone()));
        assert!(drawn.iter().any(|d| d.value.is_some()), "{} says nothing", plot.name);
        let svg = to_svg(&plot, &drawn, &file.windows);
        assert!(svg.len() < BYTES_MAX, "{}: {} bytes", plot.name, svg.len());
        let alarms = drawn.iter().filter(|d| d.is_alarm).count();
        eprintln!("{}: {} windows, {alarms} alarms, {} bytes", plot.name, drawn.len(), svg.len());
        fs::write(folder.join(format!("{}.svg", plot.name)), svg).unwrap();
    }
}
