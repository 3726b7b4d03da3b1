//! The text that Prometheus reads, as the metrics of OTLP.
//!
//! There is one table of metrics in code, and its text is what `/metrics` serves. Reading that text means that nothing
//! can be in one and not in the other. Names lose what OTLP says elsewhere, the unit and `_total`; whoever writes
//! them for Prometheus puts both back, so that dashboards and alerts hold for either way.

use std::collections::BTreeMap;

use lictor_schemas::otlp::export::{Metric, MetricKind, Point, PointValue};

/// Units by their OpenMetrics and their UCUM name.
const UNITS: [(&str, &str); 2] = [("seconds", "s"), ("bytes", "By")];

type Labels = Vec<(String, String)>;

/// The metrics of an OpenMetrics text of ours, in its order; those of which there is no series are left out.
#[must_use]
pub fn to_metrics(text: &str) -> Vec<Metric> {
    let mut families: Vec<Family<'_>> = Vec::new();
    for line in text.lines() {
        match line.strip_prefix("# ").map(|said| said.splitn(3, ' ').collect::<Vec<_>>()).as_deref() {
            Some(["HELP", name, help]) => families.push(Family { name, help, ..Family::default() }),
            Some(["TYPE", _, kind]) => families.last_mut().iter_mut().for_each(|family| family.kind = kind),
            Some(["UNIT", _, unit]) => families.last_mut().iter_mut().for_each(|family| family.unit = unit),
            Some(_) => {}
            None => families.last_mut().iter_mut().for_each(|family| family.read(line)),
        }
    }
    families.into_iter().filter_map(Family::into_metric).collect()
}

#[derive(Default)]
struct Family<'a> {
    name: &'a str,
    help: &'a str,
    kind: &'a str,
    unit: &'a str,
    series: Vec<(Labels, Series)>,
}

/// What the lines of one series say.
#[derive(Default)]
struct Series {
    number: f64,
    sum: f64,
    /// Upper bound to how many are not above, in growing order.
    buckets: Vec<(f64, u64)>,
}

impl Family<'_> {
    /// Reads a line such as `lictor_records_total{outcome="used"} 7`.
    fn read(&mut self, line: &str) {
        let Some((name, mut labels, value)) = parse_sample(line) else { return };
        let bound = labels.iter().position(|(name, _)| name == "le").map(|at| labels.remove(at).1);
        // The lines of a series follow each other.
        if self.series.last().is_none_or(|(of, _)| *of != labels) {
            self.series.push((labels, Series::default()));
        }
        let Some((_, series)) = self.series.last_mut() else { return };
        match (name.strip_prefix(self.name), bound) {
            (Some("_bucket"), Some(bound)) => {
                let bound = if bound == "+Inf" { Some(f64::INFINITY) } else { bound.parse().ok() };
                series.buckets.extend(bound.zip(value.parse().ok()));
            }
            (Some("_sum"), _) => series.sum = value.parse().unwrap_or_default(),
            (Some("" | "_total"), _) => series.number = value.parse().unwrap_or_default(),
            // How many there are the last bucket says, too.
            _ => {}
        }
    }

    fn into_metric(self) -> Option<Metric> {
        let kind = match self.kind {
            "counter" => MetricKind::Counter,
            "gauge" => MetricKind::Gauge,
            "histogram" => MetricKind::Histogram,
            _ => return None,
        };
        let to_value = |series: Series| match kind {
            MetricKind::Histogram => series.into_distribution(),
            MetricKind::Counter | MetricKind::Gauge => PointValue::Number(series.number),
        };
        let points: Vec<Point> =
            self.series.into_iter().map(|(labels, series)| Point { labels, value: to_value(series) }).collect();
        let (suffix, unit) = UNITS.into_iter().find(|(name, _)| *name == self.unit).unwrap_or_default();
        let name = self.name.strip_suffix(suffix).map_or(self.name, |name| name.trim_end_matches('_')).to_owned();
        let description = self.help.trim_end_matches('.').to_owned();
        (!points.is_empty()).then_some(Metric { name, description, unit: unit.to_owned(), kind, points })
    }
}

impl Series {
    /// Buckets that count what is between two bounds, of ones that count all below.
    fn into_distribution(self) -> PointValue {
        let mut below = 0;
        let above = |(_, count): &(f64, u64)| count.saturating_sub(std::mem::replace(&mut below, *count));
        let counts = self.buckets.iter().map(above).collect();
        let bounds = self.buckets.iter().map(|(bound, _)| *bound).filter(|bound| bound.is_finite()).collect();
        PointValue::Distribution { bounds, counts, sum: self.sum }
    }
}

/// The name, the labels and the value of a line.
fn parse_sample(line: &str) -> Option<(&str, Labels, &str)> {
    let name_end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at(name_end);
    let mut labels = BTreeMap::new();
    let Some(mut rest) = rest.strip_prefix('{') else { return Some((name, Labels::new(), rest.trim())) };
    while !rest.starts_with('}') {
        let (label, behind) = rest.split_once("=\"")?;
        let (value, length) = unescape(behind);
        labels.insert(label.trim_start_matches(',').to_owned(), value);
        rest = behind.get(length + 1..)?;
    }
    Some((name, labels.into_iter().collect(), rest[1..].trim()))
}

/// A label's value up to the quote that ends it, and how long that is in the text.
fn unescape(text: &str) -> (String, usize) {
    let (mut value, mut chars) = (String::new(), text.char_indices());
    while let Some((at, next)) = chars.next() {
        match next {
            '"' => return (value, at),
            '\\' => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, escaped)) => value.push(escaped),
                None => {}
            },
            _ => value.push(next),
        }
    }
    (value, text.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use crate::tasks::Stage;
    use std::time::Duration;

    fn named<'a>(metrics: &'a [Metric], name: &str) -> &'a Metric {
        metrics.iter().find(|metric| metric.name == name).unwrap_or_else(|| panic!("no {name} in {metrics:#?}"))
    }

    #[test]
    fn labels_are_read_as_they_were_before_they_were_escaped() {
        let text = "# HELP a What.\n# TYPE a gauge\na{rule=\"x\\\"y\\\\z\\n,}=\",b=\"\"} -1.5\n# EOF\n";
        let metrics = to_metrics(text);
        assert_eq!(metrics[0].description, "What");
        let [b, rule] = &metrics[0].points[0].labels[..] else { panic!("{metrics:?}") };
        assert_eq!((b.1.as_str(), rule.1.as_str()), ("", "x\"y\\z\n,}="));
        assert_eq!(metrics[0].points[0].value, PointValue::Number(-1.5));
    }

    #[test]
    fn what_is_no_metric_of_ours_is_passed_over() {
        assert_eq!(to_metrics(""), []);
        assert_eq!(to_metrics("a 1\nno line\n# HELP\n# EOF"), []);
        assert_eq!(to_metrics("# HELP a b\n# TYPE a info\na_info{v=\"1\"} 1\n"), []);
        assert_eq!(to_metrics("# HELP a b\n# TYPE a counter\na_total{v=\"1 1\n"), []);
    }

    #[test]
    fn counters_gauges_and_histograms_keep_their_numbers_and_their_unit() {
        let metrics = Metrics::new();
        metrics.observe_commit(Stage::Scan, Duration::from_millis(3));
        metrics.observe_commit(Stage::Scan, Duration::from_secs(100));
        metrics.observe_partitions(Stage::Judge, 4);
        metrics.observe_abort(Stage::Judge, "fenced");
        let metrics = to_metrics(&metrics.encode());
        let commits = named(&metrics, "lictor_commit_duration");
        assert_eq!((commits.unit.as_str(), commits.kind), ("s", MetricKind::Histogram));
        let of_scan = commits.points.iter().find(|point| point.labels[0].1 == "scan").unwrap();
        let PointValue::Distribution { bounds, counts, sum } = &of_scan.value else { panic!("{of_scan:?}") };
        assert_eq!((bounds.len() + 1, counts.len(), *sum), (counts.len(), 15, 100.003));
        assert_eq!((counts[2], counts[14], counts.iter().sum::<u64>()), (1, 1, 2));
        let partitions = named(&metrics, "lictor_partitions");
        assert!(partitions.points.iter().any(|point| point.value == PointValue::Number(4.0)));
        let aborts = named(&metrics, "lictor_aborts");
        assert_eq!(aborts.kind, MetricKind::Counter);
        assert_eq!(aborts.points.iter().filter(|point| point.value == PointValue::Number(1.0)).count(), 1);
        assert_eq!(named(&metrics, "lictor_restored").unit, "By");
    }

    /// A family of the text is a metric, and a series a point: nothing is left out.
    #[test]
    fn every_series_of_the_text_arrives() {
        let text = Metrics::new().encode();
        let is_series = |line: &&str| !line.starts_with('#') && !line.contains("_bucket{") && !line.contains("_sum");
        let points: usize = to_metrics(&text).iter().map(|metric| metric.points.len()).sum();
        assert_eq!(points, text.lines().filter(is_series).count());
    }
}
