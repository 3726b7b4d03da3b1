//! A window of an hour, and as many keys in it as are asked for.

use std::time::Duration;

use lictor_schemas::time::EventTime;

use crate::engine::{Engine, Sums, Took, print_filling, rule};
use crate::report::{Case, rss_bytes, spread_ms};
use crate::spans::{MANY_TOKENS, MINUTE_NS, Pass, Record, START, tokens_at};
use crate::spread::runs;

/// Every key has so many spans: groups are made once, then merged with what comes.
const PASSES: usize = 4;
const HOUR: EventTime = EventTime(START.0 + 60 * MINUTE_NS);
/// From so many keys on one run takes longer than half a minute, and has to do.
const KEYS_ONCE: usize = 10_000_000;

/// What one run has come to.
struct Run {
    first: Took,
    others: Took,
    closing: Duration,
    /// Of the groups, after their first rows.
    fresh_bytes: usize,
    /// After their last rows, with rows that were replaced and are not thrown away yet.
    full_bytes: usize,
    /// At most, at the end of an epoch.
    most_bytes: usize,
    state_bytes: usize,
    /// Without groups, after the window.
    left_bytes: usize,
}

pub(crate) fn measure(keys: usize) {
    let case = Case { name: "tumble", keys };
    let runs: Vec<Run> = (0..if keys < KEYS_ONCE { runs() } else { 1 }).map(|_| run(keys)).collect();
    let middle = |of: fn(&Run) -> Took| {
        let mut all: Vec<Took> = runs.iter().map(of).collect();
        all.sort_by(|a, b| a.rows_per_s().total_cmp(&b.rows_per_s()));
        all[all.len() / 2]
    };
    print_filling(&case, "the first row of each", &middle(|run| run.first));
    print_filling(&case, &format!("{} more rows of each", PASSES - 1), &middle(|run| run.others));
    let closing_ms = spread_ms(runs.iter().map(|run| run.closing));
    let note = format!("{:.0} ns/group", closing_ms.median * 1e6 / keys as f64);
    case.line("the window closes, everything is evicted", &format!("{closing_ms:.0} ms"), &note);
    let Run { fresh_bytes, full_bytes, most_bytes, state_bytes, left_bytes, .. } = &runs[0];
    case.bytes_per_group("memory after the first rows", *fresh_bytes, keys);
    case.bytes_per_group("memory after all rows", *full_bytes, keys);
    case.bytes_per_group("memory at most", *most_bytes, keys);
    case.bytes_per_group("memory as the engine says (state_bytes)", *state_bytes, keys);
    let share = 100.0 * *left_bytes as f64 / *full_bytes as f64;
    let note = format!("{share:.0} % of what the groups took, 2 s after they were evicted");
    case.line("memory afterwards", &format!("{} MB", left_bytes / 1_000_000), &note);
}

fn run(keys: usize) -> Run {
    let mut engine = Engine::new(&rule("TUMBLE(spans, event_time, INTERVAL '1 hour')"));
    let (mut usual, mut crossing) = (Record::usual(), Record::crossing());
    let before = rss_bytes();
    let used = || rss_bytes().saturating_sub(before);
    let pass = |number: usize| {
        let from = START.plus(10 * MINUTE_NS * i64::try_from(number).unwrap());
        Pass { keys, number, from, length_ns: 10 * MINUTE_NS }
    };
    engine.absorb(&mut usual, pass(0));
    let (first, fresh_bytes) = (engine.take(), used());
    (1..PASSES).for_each(|number| engine.absorb(&mut usual, pass(number)));
    let (others, full_bytes) = (engine.take(), used());
    let state_bytes = engine.state_bytes();
    engine.cross(&mut crossing, 0, HOUR.plus(-1));
    engine.check_groups(keys * PASSES + 1, keys);
    let closing = engine.cross(&mut crossing, 1, HOUR);
    engine.check_groups(keys * PASSES + 2, 1);
    let passes = i64::try_from(PASSES).unwrap();
    let sum = (passes * tokens_at(0) + MANY_TOKENS) as f64;
    engine.check_sums(Sums { end: HOUR, sum, count: passes + 1, fewest: tokens_at(0), most: MANY_TOKENS });
    let most_bytes = engine.rss_bytes_max().saturating_sub(before);
    let left_bytes = engine.rest(&mut crossing, HOUR).saturating_sub(before);
    Run { first, others, closing, fresh_bytes, full_bytes, most_bytes, state_bytes, left_bytes }
}
