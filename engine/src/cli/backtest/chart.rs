//! One chart per rule as SVG: what was measured against what it is compared with, and who was in violation when.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use lictor_engine::backtest::{Episode, RuleDigest};
use lictor_schemas::event::{EnforcementEvent, State};
use lictor_schemas::genops::PolicyResult;
use lictor_schemas::time::EventTime;

use super::html::escaped;
use super::report::episode_text;

/// Subjects of a rule whose measures are kept; at about 20 kB each these are 4 MB per rule.
const SUBJECTS_KEPT_MAX: usize = 200;
/// Points of a subject; with twice as many every other one is let go, and of two the higher stays.
const POINTS_MAX: usize = 400;
/// Subjects that are drawn: more colours cannot be told apart.
pub(super) const SUBJECTS_DRAWN_MAX: usize = 6;

const WIDTH: f64 = 900.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 15.0;
const PLOT_HEIGHT: f64 = 180.0;
const LANE_HEIGHT: f64 = 18.0;
const TOP: f64 = 10.0;
const AXIS_HEIGHT: f64 = 22.0;

/// What one subject of a rule measured, in the order of time.
#[derive(Clone, Debug, Default)]
struct Line {
    points: Vec<Point>,
    /// The farthest that it came.
    weight: f64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Point {
    at: EventTime,
    observed: f64,
    threshold: Option<f64>,
    /// Nothing was measured any more behind it.
    is_last: bool,
}

impl Point {
    fn weight(&self) -> f64 {
        self.threshold.filter(|threshold| *threshold != 0.0).map_or(self.observed, |t| self.observed / t)
    }
}

/// What the subjects of one rule measured.
#[derive(Clone, Debug, Default)]
pub(super) struct Measures {
    lines: BTreeMap<String, Line>,
    unit: Option<String>,
}

impl Measures {
    pub(super) fn add(&mut self, event: &EnforcementEvent) {
        let finding = &event.data.finding;
        let subject = event.to_subject_text();
        let is_known = self.lines.contains_key(&subject);
        if !is_known && self.lines.len() >= SUBJECTS_KEPT_MAX {
            return;
        }
        let line = self.lines.entry(subject).or_default();
        if let Some(observed) = finding.observed {
            self.unit = self.unit.take().or_else(|| finding.unit.clone());
            line.add(Point { at: event.time, observed, threshold: finding.threshold, is_last: false });
        } else if event.data.state.is_ended()
            && let Some(last) = line.points.last_mut()
        {
            last.is_last = true;
        }
    }
}

impl Line {
    fn add(&mut self, point: Point) {
        self.weight = self.weight.max(point.weight());
        self.points.push(point);
        if self.points.len() >= 2 * POINTS_MAX {
            let pairs = self.points.chunks(2);
            let higher = |pair: &[Point]| {
                let highest = pair.iter().max_by(|a, b| a.weight().total_cmp(&b.weight())).copied();
                highest.map(|point| Point { is_last: pair.iter().any(|point| point.is_last), ..point })
            };
            self.points = pairs.filter_map(higher).collect();
        }
    }
}

/// How event time lies on the width of the picture.
struct Scale {
    from: EventTime,
    to: EventTime,
}

impl Scale {
    #[expect(clippy::cast_precision_loss, reason = "a picture")]
    fn x(&self, at: EventTime) -> f64 {
        let whole = (self.to.0.saturating_sub(self.from.0)).max(1) as f64;
        let share = (at.0.saturating_sub(self.from.0)) as f64 / whole;
        LEFT + share.clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT)
    }
}

/// The chart of a rule over some event time; none if it has said nothing.
pub(super) fn svg(
    rule: &RuleDigest,
    measures: Option<&Measures>,
    (from, to): (EventTime, EventTime),
) -> Option<String> {
    let scale = Scale { from, to };
    let subjects = drawn(rule, measures);
    if subjects.is_empty() {
        return None;
    }
    let plot = measures.and_then(|measures| Plot::of(measures, &subjects));
    let plot_height = if plot.is_some() { PLOT_HEIGHT } else { 0.0 };
    #[expect(clippy::cast_precision_loss, reason = "at most a few lanes")]
    let lanes_height = subjects.len() as f64 * LANE_HEIGHT;
    let height = TOP + plot_height + AXIS_HEIGHT + lanes_height + 8.0;
    let mut svg =
        format!("<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{}\">\n", escaped(&rule.header.name));
    if let (Some(plot), Some(measures)) = (&plot, measures) {
        plot.draw(&mut svg, measures, &subjects, &scale);
    }
    draw_time(&mut svg, &scale, TOP + plot_height, lanes_height);
    for (number, subject) in subjects.iter().enumerate() {
        #[expect(clippy::cast_precision_loss, reason = "at most a few lanes")]
        let y = TOP + plot_height + AXIS_HEIGHT + number as f64 * LANE_HEIGHT;
        let episodes = rule.episodes.iter().filter(|episode| episode.subject == *subject);
        draw_lane(&mut svg, (number, subject), episodes, &scale, y);
    }
    svg.push_str("</svg>\n");
    Some(svg)
}

/// The subjects that came farthest; of a rule that measures nothing those with the most episodes.
fn drawn(rule: &RuleDigest, measures: Option<&Measures>) -> Vec<String> {
    let mut weights: BTreeMap<&str, (f64, usize)> = BTreeMap::new();
    for (subject, line) in measures.iter().flat_map(|measures| &measures.lines) {
        weights.entry(subject).or_default().0 = line.weight;
    }
    for episode in &rule.episodes {
        weights.entry(&episode.subject).or_default().1 += 1;
    }
    let mut subjects: Vec<_> = weights.into_iter().collect();
    subjects.sort_by(|(_, a), (_, b)| b.0.total_cmp(&a.0).then(b.1.cmp(&a.1)));
    subjects.into_iter().take(SUBJECTS_DRAWN_MAX).map(|(subject, _)| subject.to_owned()).collect()
}

/// What is drawn upwards.
struct Plot {
    /// Whether it is the share of each one's threshold: of several thresholds one line could not be drawn.
    is_share: bool,
    threshold: Option<f64>,
    top: f64,
    unit: String,
}

impl Plot {
    fn of(measures: &Measures, subjects: &[String]) -> Option<Self> {
        let points = || subjects.iter().filter_map(|s| measures.lines.get(s)).flat_map(|line| &line.points);
        let mut thresholds: Vec<f64> = points().filter_map(|point| point.threshold).collect();
        thresholds.sort_by(f64::total_cmp);
        thresholds.dedup();
        let is_share = thresholds.len() > 1 && thresholds.iter().all(|threshold| *threshold > 0.0);
        let threshold = if is_share { Some(100.0) } else { thresholds.first().copied() };
        let unit = if is_share { "% of the threshold".to_owned() } else { measures.unit.clone().unwrap_or_default() };
        let mut plot = Self { is_share, threshold, top: 0.0, unit };
        let highest = points().map(|point| plot.value(point)).chain(threshold).max_by(f64::total_cmp)?;
        points().next()?;
        plot.top = if highest > 0.0 { highest * 1.1 } else { 1.0 };
        Some(plot)
    }

    fn value(&self, point: &Point) -> f64 {
        if self.is_share { point.threshold.map_or(0.0, |t| 100.0 * point.observed / t) } else { point.observed }
    }

    fn y(&self, value: f64) -> f64 {
        TOP + PLOT_HEIGHT * (1.0 - (value / self.top).clamp(0.0, 1.0))
    }

    fn draw(&self, svg: &mut String, measures: &Measures, subjects: &[String], scale: &Scale) {
        for share in [0.0, 0.5, 1.0] {
            let (value, right) = (self.top * share, WIDTH - RIGHT);
            let y = self.y(value);
            let _ = writeln!(
                svg,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <text class=\"tick\" text-anchor=\"end\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                LEFT - 6.0,
                y + 4.0,
                short(value)
            );
        }
        let _ = writeln!(
            svg,
            "<text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            LEFT + 4.0,
            TOP + 10.0,
            escaped(&self.unit)
        );
        if let Some(threshold) = self.threshold {
            let (y, right) = (self.y(threshold), WIDTH - RIGHT);
            let _ = writeln!(
                svg,
                "<line class=\"threshold\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\">\
                 <title>threshold: {}</title></line>",
                short(threshold)
            );
        }
        for (number, subject) in subjects.iter().enumerate() {
            if let Some(line) = measures.lines.get(subject) {
                self.draw_line(svg, (number, subject), line, scale);
            }
        }
    }

    fn draw_line(&self, svg: &mut String, (number, subject): (usize, &str), line: &Line, scale: &Scale) {
        for piece in line.points.split_inclusive(|point| point.is_last) {
            let points = piece.iter().map(|p| format!("{:.1},{:.1}", scale.x(p.at), self.y(self.value(p))));
            let points = points.collect::<Vec<_>>().join(" ");
            let _ = writeln!(svg, "<polyline class=\"line s{number}\" points=\"{points}\"/>");
        }
        for point in &line.points {
            let compared = point.threshold.map(|t| format!(" / {}", short(t))).unwrap_or_default();
            let _ = writeln!(
                svg,
                "<circle class=\"dot s{number}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\">\
                 <title>{} {}: {}{compared}</title></circle>",
                scale.x(point.at),
                self.y(self.value(point)),
                point.at,
                escaped(subject),
                short(point.observed),
            );
        }
    }
}

fn draw_time(svg: &mut String, scale: &Scale, y: f64, lanes_height: f64) {
    const TICKS: i64 = 4;
    let step = scale.to.0.saturating_sub(scale.from.0) / TICKS;
    for tick in 0..=TICKS {
        // Whole seconds, as short as an instant can be.
        let at = EventTime((scale.from.0 + tick * step).div_euclid(1_000_000_000) * 1_000_000_000);
        let x = scale.x(scale.from.plus(tick * step));
        let anchor = if tick == 0 {
            "start"
        } else if tick == TICKS {
            "end"
        } else {
            "middle"
        };
        let (bottom, text) = (y + AXIS_HEIGHT + lanes_height, at.to_rfc3339());
        let _ = writeln!(
            svg,
            "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{bottom:.1}\"/>\
             <text class=\"tick\" text-anchor=\"{anchor}\" x=\"{x:.1}\" y=\"{:.1}\">{}</text>",
            y + 14.0,
            text.trim_end_matches(":00Z").trim_end_matches('Z').replace('T', " "),
        );
    }
}

/// When a subject was in violation.
fn draw_lane<'a>(
    svg: &mut String,
    (number, subject): (usize, &str),
    episodes: impl Iterator<Item = &'a Episode>,
    scale: &Scale,
    y: f64,
) {
    let middle = y + LANE_HEIGHT / 2.0;
    let _ = writeln!(
        svg,
        "<circle class=\"dot s{number}\" cx=\"{:.1}\" cy=\"{middle:.1}\" r=\"4\"/>\
         <line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{middle:.1}\" y2=\"{middle:.1}\"/>",
        LEFT - 14.0,
        WIDTH - RIGHT
    );
    for episode in episodes {
        let until = episode.ended.map_or(scale.to, |(_, at)| at);
        let (x, width) = (scale.x(episode.started), (scale.x(until) - scale.x(episode.started)).max(2.0));
        let class = match episode.strongest {
            PolicyResult::Blocked => "blocked",
            PolicyResult::RateLimited => "limited",
            PolicyResult::Warning | PolicyResult::Allowed => "warned",
        };
        let is_open = if matches!(episode.ended, Some((State::Expired, _)) | None) { " open" } else { "" };
        let _ = writeln!(
            svg,
            "<rect class=\"{class}{is_open}\" x=\"{x:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"10\" rx=\"2\">\
             <title>{}</title></rect>",
            y + 4.0,
            escaped(&episode_text(episode))
        );
    }
    let name = subject.chars().take(60).collect::<String>();
    let _ = writeln!(
        svg,
        "<text class=\"lane\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
        LEFT + 4.0,
        middle + 4.0,
        escaped(&name)
    );
}

/// A number that fits beside an axis.
fn short(value: f64) -> String {
    let (value, unit) = match value.abs() {
        size if size >= 1e9 => (value / 1e9, "G"),
        size if size >= 1e6 => (value / 1e6, "M"),
        size if size >= 1e4 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let text = if value.abs() >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") };
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_beside_an_axis_are_short() {
        let shorts = [0.0, 0.666, 12.5, 140.13, 14_731.0, 2.5e6, 3e9].map(short);
        assert_eq!(shorts, ["0", "0.67", "12.5", "140", "14.73k", "2.5M", "3G"]);
    }

    #[test]
    fn of_many_points_the_peaks_stay() {
        let mut line = Line::default();
        for i in 0..100_000 {
            let observed = if i == 54_321 { 9.0 } else { 1.0 };
            line.add(Point { at: EventTime(i), observed, threshold: Some(3.0), is_last: i == 70_000 });
        }
        assert!(line.points.len() <= 2 * POINTS_MAX, "{}", line.points.len());
        assert!(line.points.iter().any(|point| point.observed == 9.0));
        assert_eq!(line.points.iter().filter(|point| point.is_last).count(), 1);
        assert_eq!(line.weight, 3.0);
        assert!(line.points.is_sorted_by_key(|point| point.at));
    }
}
