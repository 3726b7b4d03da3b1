//! How event time is cut into windows, and windows into panes.
//!
//! A *pane* is the largest span that every window either contains or does not touch: sums are kept per pane, and a
//! window is put together from the panes in it. Panes tile event time: each instant is in exactly one.

use std::fmt;
use std::ops::Range;

use chrono_tz::Tz;
use lictor_schemas::time::{EventTime, Window};
use lictor_schemas::violation::WindowKind;

use crate::calendar::{self, CalendarUnit};

/// A family of windows. Lengths are in nanoseconds; offsets count from 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WindowSpec {
    /// Windows of one length, each beginning a slide after the one before; tumbling if the slide is the length.
    Hop {
        /// The length of a window.
        size_ns: i64,
        /// From one window's start to the next.
        slide_ns: i64,
        /// How far the first window's start lies behind the epoch.
        offset_ns: i64,
    },
    /// Windows that begin together and end a step after each other, until the last has its full length; then anew.
    Cumulate {
        /// The length of the longest.
        size_ns: i64,
        /// From one window's end to the next; the size is a multiple of it.
        step_ns: i64,
        /// How far the first windows' start lies behind the epoch.
        offset_ns: i64,
    },
    /// Per group key: rows of which each comes less than a gap after the one before. A session begins with its first
    /// row and ends a gap after its last. Two rows within a span of one gap are always in the same session, so such
    /// spans are the panes; which of them belong together is known per group only.
    Session {
        /// How long nothing may come.
        gap_ns: i64,
    },
    /// Periods of civil time.
    Calendar {
        /// How long.
        unit: CalendarUnit,
        /// Whose clocks and calendars.
        zone: Tz,
    },
    /// Periods of civil time in the zone that each row names. Here they are those of all zones together: which of them
    /// a row is in only the row knows.
    ZonedCalendar {
        /// How long.
        unit: CalendarUnit,
    },
}

impl WindowSpec {
    /// Windows of one length, one after the other.
    #[must_use]
    pub fn tumbling(size_ns: i64, offset_ns: i64) -> Self {
        Self::Hop { size_ns, slide_ns: size_ns, offset_ns }
    }

    /// Whether each row says in whose zone its window is. Then windows are kept whole, since their panes would be those
    /// of all zones; a window's end does not follow from its start; and not all groups share a window.
    #[must_use]
    pub fn is_zoned(&self) -> bool {
        matches!(self, Self::ZonedCalendar { .. })
    }

    /// Whether no row is in two windows: then they are their own panes.
    #[must_use]
    pub fn is_disjoint(&self) -> bool {
        match self {
            Self::Hop { size_ns, slide_ns, .. } => size_ns == slide_ns,
            Self::Cumulate { size_ns, step_ns, .. } => size_ns == step_ns,
            Self::Session { .. } => false,
            Self::Calendar { .. } | Self::ZonedCalendar { .. } => true,
        }
    }

    /// How its windows lie in time, as events say it.
    #[must_use]
    pub fn kind(&self) -> WindowKind {
        match self {
            Self::Hop { .. } if self.is_disjoint() => WindowKind::Tumbling,
            Self::Hop { .. } => WindowKind::Hopping,
            Self::Cumulate { .. } => WindowKind::Cumulative,
            Self::Session { .. } => WindowKind::Session,
            Self::Calendar { .. } | Self::ZonedCalendar { .. } => WindowKind::Calendar,
        }
    }

    /// At most how long an instant has a window until none that it shares a row with goes on; none if there is always
    /// another. Where clocks are moved a period of civil time is longer, by a day at most.
    pub(crate) fn longest_alone_ns(&self) -> Option<i64> {
        const DAY_NS: i64 = 86_400_000_000_000;
        match *self {
            Self::Hop { size_ns, .. } => self.is_disjoint().then_some(size_ns),
            Self::Cumulate { size_ns, .. } => Some(size_ns),
            Self::Session { .. } => None,
            Self::Calendar { unit, .. } | Self::ZonedCalendar { unit } => Some(match unit {
                CalendarUnit::Hour => DAY_NS / 12,
                CalendarUnit::Day => 2 * DAY_NS,
                CalendarUnit::Week => 8 * DAY_NS,
                CalendarUnit::Month => 32 * DAY_NS,
                CalendarUnit::Quarter => 93 * DAY_NS,
                CalendarUnit::Year => 367 * DAY_NS,
            }),
        }
    }

    /// At most how long a window lasts; of sessions, how long nothing may come.
    pub(crate) fn span_ns_max(&self) -> i64 {
        match *self {
            Self::Hop { size_ns, .. } => size_ns,
            Self::Session { gap_ns } => gap_ns,
            Self::Cumulate { .. } | Self::Calendar { .. } | Self::ZonedCalendar { .. } => {
                self.longest_alone_ns().unwrap_or_default()
            }
        }
    }

    /// How long its longest window is, where clocks are not moved; none for sessions, which go on as long as rows come.
    #[must_use]
    pub fn length_ns_max(&self) -> Option<i64> {
        const HOUR_NS: i64 = 3_600_000_000_000;
        match *self {
            Self::Hop { size_ns, .. } | Self::Cumulate { size_ns, .. } => Some(size_ns),
            Self::Session { .. } => None,
            Self::Calendar { unit, .. } | Self::ZonedCalendar { unit } => Some(match unit {
                CalendarUnit::Hour => HOUR_NS,
                CalendarUnit::Day => 24 * HOUR_NS,
                CalendarUnit::Week => 7 * 24 * HOUR_NS,
                CalendarUnit::Month => 31 * 24 * HOUR_NS,
                CalendarUnit::Quarter => 92 * 24 * HOUR_NS,
                CalendarUnit::Year => 366 * 24 * HOUR_NS,
            }),
        }
    }

    /// From one window's end to the next one's, at most; none for sessions.
    #[must_use]
    pub fn step_ns_max(&self) -> Option<i64> {
        match *self {
            Self::Hop { slide_ns, .. } => Some(slide_ns),
            Self::Cumulate { step_ns, .. } => Some(step_ns),
            Self::Session { .. } | Self::Calendar { .. } | Self::ZonedCalendar { .. } => self.length_ns_max(),
        }
    }

    /// The pane that holds `at`.
    #[must_use]
    pub fn pane_at(&self, at: EventTime) -> Window {
        match *self {
            Self::Hop { size_ns, slide_ns, offset_ns } => fixed(at, gcd(size_ns, slide_ns), offset_ns),
            Self::Cumulate { step_ns, offset_ns, .. } => fixed(at, step_ns, offset_ns),
            Self::Session { gap_ns } => fixed(at, gap_ns, 0),
            Self::Calendar { unit, zone } => calendar::period_at(unit, zone, at),
            Self::ZonedCalendar { unit } => {
                let start = calendar::periods_at(unit, at).map(|(_, period)| period.start).max();
                let end = calendar::periods_at(unit, at).map(|(_, period)| period.end).min();
                Window { start: start.unwrap_or(at), end: end.unwrap_or(at) }
            }
        }
    }

    /// The panes that a window is made of, of a map of them.
    #[must_use]
    pub fn panes_in(&self, window: Window) -> Range<Window> {
        if self.is_zoned() {
            return window..Window { end: window.end.plus(1), ..window };
        }
        let from = |start| Window { start, end: EventTime::MIN };
        from(window.start)..from(window.end)
    }

    /// How many panes the longest window has.
    #[must_use]
    pub fn panes_max(&self) -> i64 {
        match *self {
            Self::Hop { size_ns, slide_ns, .. } => size_ns / gcd(size_ns, slide_ns),
            Self::Cumulate { size_ns, step_ns, .. } => size_ns / step_ns,
            Self::Session { .. } | Self::Calendar { .. } | Self::ZonedCalendar { .. } => 1,
        }
    }

    /// The block of panes that holds `at`: of windows with many panes, so many that a window has about as many blocks
    /// as a block has panes. None if windows have too few panes for that.
    #[must_use]
    pub fn block_at(&self, at: EventTime) -> Option<Window> {
        let (pane_ns, offset_ns) = match *self {
            Self::Hop { size_ns, slide_ns, offset_ns } => (gcd(size_ns, slide_ns), offset_ns),
            Self::Cumulate { step_ns, offset_ns, .. } => (step_ns, offset_ns),
            Self::Session { .. } | Self::Calendar { .. } | Self::ZonedCalendar { .. } => return None,
        };
        let panes = self.panes_max();
        (panes >= BLOCKED_PANES_MIN).then(|| fixed(at, pane_ns * panes.isqrt(), offset_ns))
    }

    /// The windows that hold the instant `at`, in the order of their ends. Of sessions the pane is all that is known.
    #[must_use]
    pub fn windows_at(&self, at: EventTime) -> Vec<Window> {
        match *self {
            Self::Hop { size_ns, slide_ns, offset_ns } => {
                let last = fixed(at, slide_ns, offset_ns).start;
                let count = (size_ns - at.0.saturating_sub(last.0) + slide_ns - 1).div_euclid(slide_ns).max(0);
                let nth_before = |n: i64| last.plus(-n.saturating_mul(slide_ns));
                (0..count).rev().map(nth_before).map(|start| Window { start, end: start.plus(size_ns) }).collect()
            }
            Self::Cumulate { size_ns, step_ns, offset_ns } => {
                let start = fixed(at, size_ns, offset_ns).start;
                let first = fixed(at, step_ns, offset_ns).end;
                let ends = (0..).map(|n: i64| first.plus(n.saturating_mul(step_ns)));
                ends.take_while(|end| *end <= start.plus(size_ns)).map(|end| Window { start, end }).collect()
            }
            Self::Session { .. } | Self::Calendar { .. } => vec![self.pane_at(at)],
            Self::ZonedCalendar { unit } => {
                let mut windows: Vec<Window> = calendar::periods_at(unit, at).map(|(_, period)| period).collect();
                windows.sort_by_key(|window| (window.end, window.start));
                windows.dedup();
                windows
            }
        }
    }

    /// The windows that hold the pane kept at `span`, in the order of their ends.
    #[must_use]
    pub fn windows_of(&self, span: Window) -> Vec<Window> {
        if self.is_zoned() { vec![span] } else { self.windows_at(span.start) }
    }

    /// The end of the last window that holds the pane kept at `span`, or of the longest that a session of rows in it
    /// could have.
    #[must_use]
    pub fn last_end_of(&self, span: Window) -> EventTime {
        match *self {
            Self::Hop { size_ns, slide_ns, offset_ns } => fixed(span.start, slide_ns, offset_ns).start.plus(size_ns),
            Self::Cumulate { size_ns, offset_ns, .. } => fixed(span.start, size_ns, offset_ns).end,
            Self::Session { gap_ns } => span.end.plus(gap_ns),
            Self::Calendar { .. } | Self::ZonedCalendar { .. } => span.end,
        }
    }

    /// The end of the window after `window`. If zones share the window and not the next one, the latest end.
    #[must_use]
    pub fn end_after(&self, window: Window) -> EventTime {
        let Self::ZonedCalendar { unit } = *self else { return self.first_ending_after(window.end).end };
        let of_window = calendar::periods_at(unit, window.start).filter(|(_, period)| *period == window);
        let next = of_window.map(|(zone, _)| calendar::period_at(unit, zone, window.end).end);
        // Another version of the zones has made the window: the next is about as long.
        next.max().unwrap_or_else(|| window.end.plus(window.end.0.saturating_sub(window.start.0)))
    }

    /// The window with the earliest end after `at`; sessions end when their rows say.
    #[must_use]
    pub fn first_ending_after(&self, at: EventTime) -> Window {
        match *self {
            Self::Hop { size_ns, slide_ns, offset_ns } => {
                let start = fixed(at.plus(-size_ns), slide_ns, offset_ns).end;
                Window { start, end: start.plus(size_ns) }
            }
            Self::Cumulate { size_ns, step_ns, offset_ns } => {
                let end = fixed(at, step_ns, offset_ns).end;
                Window { start: fixed(at, size_ns, offset_ns).start, end }
            }
            Self::Session { .. } | Self::Calendar { .. } => self.pane_at(at),
            Self::ZonedCalendar { .. } => self.windows_at(at).first().copied().unwrap_or(Window { start: at, end: at }),
        }
    }
}

/// Windows of fewer panes are put together from those: blocks would take room and save little.
const BLOCKED_PANES_MIN: i64 = 12;

fn gcd(mut a: i64, mut b: i64) -> i64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// Of the spans of one length that begin at `offset` and follow each other, the one that holds `at`.
fn fixed(at: EventTime, length_ns: i64, offset_ns: i64) -> Window {
    let start = at.plus(-at.0.saturating_sub(offset_ns).rem_euclid(length_ns));
    Window { start, end: start.plus(length_ns) }
}

/// A length of time in the largest unit that it is a multiple of, such as `90s` or `1d`.
struct Length(i64);

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(i64, &str); 6] = [
            (86_400_000_000_000, "d"),
            (3_600_000_000_000, "h"),
            (60_000_000_000, "m"),
            (1_000_000_000, "s"),
            (1_000_000, "ms"),
            (1_000, "us"),
        ];
        let unit = UNITS.into_iter().find(|(ns, _)| self.0 % ns == 0);
        let (ns, unit) = unit.unwrap_or((1, "ns"));
        write!(f, "{}{unit}", self.0 / ns)
    }
}

impl fmt::Display for WindowSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let offset = match *self {
            Self::Hop { size_ns, slide_ns, offset_ns } => {
                write!(f, "{}", Length(size_ns))?;
                if !self.is_disjoint() {
                    write!(f, " every {}", Length(slide_ns))?;
                }
                offset_ns
            }
            Self::Cumulate { size_ns, step_ns, offset_ns } => {
                write!(f, "{} up to {}", Length(step_ns), Length(size_ns))?;
                offset_ns
            }
            Self::Session { gap_ns } => return write!(f, "session, {} apart", Length(gap_ns)),
            Self::Calendar { unit, zone } => return write!(f, "{} in {}", unit.as_str(), zone.name()),
            Self::ZonedCalendar { unit } => return write!(f, "{} in the zone that each row names", unit.as_str()),
        };
        if offset == 0 { Ok(()) } else { write!(f, " from {}", Length(offset)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hop(size_ns: i64, slide_ns: i64, offset_ns: i64) -> WindowSpec {
        WindowSpec::Hop { size_ns, slide_ns, offset_ns }
    }

    fn at(spec: WindowSpec, at: i64) -> Vec<(i64, i64)> {
        spec.windows_at(EventTime(at)).iter().map(|w| (w.start.0, w.end.0)).collect()
    }

    #[test]
    fn a_row_belongs_to_one_tumbling_window_also_before_the_epoch() {
        assert_eq!(at(hop(10, 10, 0), 19), [(10, 20)]);
        assert_eq!(at(hop(10, 10, 0), -1), [(-10, 0)]);
        assert_eq!(at(hop(10, 10, 3), 12), [(3, 13)]);
    }

    #[test]
    fn a_row_belongs_to_every_hopping_window_that_holds_it() {
        assert_eq!(at(hop(10, 5, 0), 12), [(5, 15), (10, 20)]);
        assert_eq!(at(hop(10, 4, 0), 12), [(4, 14), (8, 18), (12, 22)]);
        assert_eq!(at(hop(10, 4, 0), 15), [(8, 18), (12, 22)]);
    }

    #[test]
    fn cumulating_windows_begin_together_and_grow() {
        let spec = WindowSpec::Cumulate { size_ns: 30, step_ns: 10, offset_ns: 5 };
        assert_eq!(at(spec, 5), [(5, 15), (5, 25), (5, 35)]);
        assert_eq!(at(spec, 24), [(5, 25), (5, 35)]);
        assert_eq!(at(spec, 34), [(5, 35)]);
        assert_eq!(at(spec, 35), [(35, 45), (35, 55), (35, 65)]);
    }

    /// Whatever the family: panes tile time, windows are made of whole panes, and ends come one after the other.
    #[test]
    fn panes_tile_time_and_windows_are_whole_panes() {
        let calendar = WindowSpec::Calendar { unit: CalendarUnit::Day, zone: chrono_tz::Europe::Rome };
        let hour = 3_600_000_000_000;
        let specs = [
            (hop(10, 4, 1), 1),
            (hop(10, 10, 0), 1),
            (WindowSpec::Cumulate { size_ns: 12, step_ns: 3, offset_ns: 2 }, 1),
            (calendar, hour),
        ];
        for (spec, scale) in specs {
            let mut windows = Vec::new();
            for instant in (-40..60).map(|n| EventTime(n * scale)) {
                let pane = spec.pane_at(instant);
                assert!(pane.start <= instant && instant < pane.end);
                assert_eq!(spec.pane_at(pane.start), pane, "{spec}");
                assert_eq!(spec.pane_at(pane.end).start, pane.end, "{spec}");
                let holding = spec.windows_at(instant);
                assert_eq!(holding, spec.windows_at(pane.start), "{spec}");
                assert!(holding.iter().all(|w| w.start <= pane.start && pane.end <= w.end), "{spec}");
                assert_eq!(holding.last().map(|w| w.end), Some(spec.last_end_of(pane)), "{spec}");
                assert!(holding.iter().all(|w| spec.panes_in(*w).contains(&pane)), "{spec}");
                windows.extend(holding);
            }
            windows.sort_by_key(|w| (w.end, w.start));
            windows.dedup();
            assert!(windows.windows(2).all(|two| two[0].end < two[1].end), "{spec}");
            for two in windows.windows(2) {
                assert_eq!(spec.first_ending_after(two[0].end), two[1], "{spec}");
                assert_eq!(spec.first_ending_after(two[1].end.plus(-1)), two[1], "{spec}");
            }
        }
    }

    #[test]
    fn windows_of_all_zones_are_whole_panes_and_kept_apart() {
        let spec = WindowSpec::ZonedCalendar { unit: CalendarUnit::Day };
        let at = |text: &str| EventTime::from_rfc3339(text).unwrap();
        let quarter = 15 * 60 * 1_000_000_000;
        for start in ["2026-03-29T00:00:00Z", "2011-12-30T09:00:00Z"] {
            for instant in (0..100).map(|n| at(start).plus(n * quarter + 1)) {
                let pane = spec.pane_at(instant);
                assert!(pane.start <= instant && instant < pane.end);
                assert_eq!((pane.start.0 % quarter, pane.end.0 % quarter), (0, 0), "the zones of today");
                assert_eq!(spec.pane_at(pane.end).start, pane.end);
                let holding = spec.windows_at(instant);
                assert!(holding.iter().all(|w| w.start <= pane.start && pane.end <= w.end));
                assert_eq!(spec.first_ending_after(instant).end, holding[0].end);
                for two in holding.windows(2) {
                    assert!(!spec.panes_in(two[0]).contains(&two[1]) && spec.panes_in(two[0]).contains(&two[0]));
                }
            }
        }
        let liberia = spec.pane_at(at("1960-01-01T00:44:00Z"));
        assert_eq!(liberia.end, at("1960-01-01T00:44:30Z"), "offsets were not always whole minutes");
    }

    #[test]
    fn the_window_after_one_of_some_zone_is_the_next_of_that_zone() {
        let spec = WindowSpec::ZonedCalendar { unit: CalendarUnit::Day };
        let at = |text: &str| EventTime::from_rfc3339(text).unwrap();
        let day_before_summer = Window { start: at("2026-03-27T23:00:00Z"), end: at("2026-03-28T23:00:00Z") };
        assert_eq!(spec.end_after(day_before_summer), at("2026-03-29T23:00:00Z"), "Lagos has no summer time");
        let in_rome = WindowSpec::Calendar { unit: CalendarUnit::Day, zone: chrono_tz::Europe::Rome };
        assert_eq!(in_rome.end_after(day_before_summer), at("2026-03-29T22:00:00Z"));
        let of_no_zone = Window { start: at("2026-03-27T23:07:00Z"), end: at("2026-03-27T23:17:00Z") };
        assert_eq!(spec.end_after(of_no_zone), at("2026-03-27T23:27:00Z"));
    }

    #[test]
    fn a_spec_reads_as_people_say_it() {
        let minute = 60_000_000_000;
        assert_eq!(hop(60 * minute, 10 * minute, 0).to_string(), "1h every 10m");
        assert_eq!(WindowSpec::tumbling(90 * minute, 5 * minute).to_string(), "90m from 5m");
        let cumulate = WindowSpec::Cumulate { size_ns: 1_440 * minute, step_ns: minute, offset_ns: 0 };
        assert_eq!(cumulate.to_string(), "1m up to 1d");
        let calendar = WindowSpec::Calendar { unit: CalendarUnit::Week, zone: chrono_tz::Asia::Tokyo };
        assert_eq!(calendar.to_string(), "week in Asia/Tokyo");
        let zoned = WindowSpec::ZonedCalendar { unit: CalendarUnit::Day };
        assert_eq!(zoned.to_string(), "day in the zone that each row names");
    }
}
