//! Lines of figures.

use std::env;
use std::fs;
use std::time::Duration;

use crate::spread::Spread;

/// What a group of a pane may take, in bytes, with a sum, a count, a minimum and a maximum.
pub(crate) const GROUP_BYTES_GOAL: f64 = 150.0;

/// A case, for whose figures lines are printed.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) keys: usize,
}

impl Case {
    /// One figure.
    pub(crate) fn line(&self, what: &str, figure: &str, note: &str) {
        println!("{:9} {:>8} keys  {what:42} {figure:>28}  {note}", self.name, self.keys);
    }

    /// Memory of groups, beside what it may be.
    pub(crate) fn bytes_per_group(&self, what: &str, bytes: usize, groups: usize) {
        let each = bytes as f64 / groups as f64;
        let of_goal = each / GROUP_BYTES_GOAL;
        self.line(what, &format!("{each:.0} B/group"), &format!("{of_goal:.2} of the goal, {} MB", bytes / 1_000_000));
    }
}

/// A number from the environment.
pub(crate) fn setting(name: &str, default: usize) -> usize {
    env::var(name).map_or(default, |text| text.parse().unwrap())
}

pub(crate) fn spread_ms(values: impl IntoIterator<Item = Duration>) -> Spread {
    Spread::of(values.into_iter().map(|took| took.as_secs_f64() * 1e3))
}

/// Nanoseconds for each of so many.
pub(crate) fn ns_each(took: Duration, count: usize) -> f64 {
    took.as_secs_f64() * 1e9 / count as f64
}

/// Memory of this process that is in use, in bytes.
pub(crate) fn rss_bytes() -> usize {
    const PAGE_BYTES: usize = 4_096;
    let text = fs::read_to_string("/proc/self/statm").unwrap();
    text.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * PAGE_BYTES
}
