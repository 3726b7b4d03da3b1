//! Figures by the second, and what rules have cost lately.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use lictor_schemas::tables::Signal;
use lictor_schemas::time::EventTime;
use serde::Serialize;

use super::snapshot::Totals;
use crate::http::SignalTime;

/// Seconds that are kept: five minutes, as wide as the lines on the first page.
pub(super) const SECONDS_MAX: usize = 300;

/// Seconds over which the cost of a rule is averaged: shorter, and it jumps; longer, and an incident hides in it.
const COST_SECONDS: usize = 10;

/// How things stood at a second.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Second {
    /// Milliseconds since the Unix epoch.
    at: i64,
    /// All records read so far.
    records: u64,
    /// All events published so far.
    events: u64,
    /// Records that were not read yet, if that is known.
    lag: Option<i64>,
    /// How far event time is behind the clock, in milliseconds: of the signal that is furthest behind.
    delay_ms: Option<i64>,
}

impl Second {
    pub(super) fn new(now: EventTime, totals: &Totals, lag: Option<i64>, times: &BTreeMap<Signal, SignalTime>) -> Self {
        let begun = times.values().map(|time| time.watermark).filter(|watermark| *watermark > EventTime::MIN);
        let delay_ms = begun.min().map(|watermark| now.to_ms() - watermark.to_ms());
        Self { at: now.to_ms(), records: totals.records, events: totals.events, lag, delay_ms }
    }
}

#[derive(Default)]
pub(super) struct Rates {
    seconds: VecDeque<Second>,
    /// When, and how long each rule had taken by then.
    costs: VecDeque<(Duration, BTreeMap<String, Duration>)>,
}

impl Rates {
    pub(super) fn add(&mut self, second: Second, monotonic: Duration, spent: BTreeMap<String, Duration>) {
        if self.seconds.len() == SECONDS_MAX {
            self.seconds.pop_front();
        }
        self.seconds.push_back(second);
        if self.costs.len() > COST_SECONDS {
            self.costs.pop_front();
        }
        self.costs.push_back((monotonic, spent));
    }

    pub(super) fn seconds(&self) -> Arc<[Second]> {
        self.seconds.iter().copied().collect()
    }

    /// How long a rule has taken in all, and lately: as a share of one core. Shards that have left take theirs along.
    pub(super) fn cost_of(&self, rule: &str) -> (Duration, f64) {
        let spent = |(_, spent): &(Duration, BTreeMap<String, Duration>)| spent.get(rule).copied().unwrap_or_default();
        let (Some(first), Some(last)) = (self.costs.front(), self.costs.back()) else { return Default::default() };
        let passed = last.0.saturating_sub(first.0).as_secs_f64();
        let lately = spent(last).saturating_sub(spent(first)).as_secs_f64();
        (spent(last), if passed > 0.0 { lately / passed } else { 0.0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rules_cost_is_its_share_of_the_last_seconds() {
        let mut rates = Rates::default();
        assert_eq!(rates.cost_of("a"), (Duration::ZERO, 0.0));
        for second in 0..100_u32 {
            // 10 ms per second at first, and 200 ms later on.
            let ms = if second < 50 { second * 10 } else { 500 + (second - 50) * 200 };
            let spent = BTreeMap::from([("a".to_owned(), Duration::from_millis(ms.into()))]);
            rates.add(Second::default(), Duration::from_secs(second.into()), spent);
        }
        let (spent, share) = rates.cost_of("a");
        assert_eq!(spent, Duration::from_millis(500 + 49 * 200));
        assert!((share - 0.2).abs() < 1e-9, "{share}");
        assert_eq!(rates.cost_of("b").1, 0.0);
    }

    #[test]
    fn seconds_are_kept_for_five_minutes() {
        let mut rates = Rates::default();
        for second in 0..1_000 {
            rates.add(Second { at: second, ..Second::default() }, Duration::ZERO, BTreeMap::new());
        }
        let seconds = rates.seconds();
        assert_eq!((seconds.len(), seconds[0].at), (SECONDS_MAX, 700));
    }
}
