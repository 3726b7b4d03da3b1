//! Sessions that end when nothing comes for half an hour.

use std::time::Duration;

use lictor_schemas::time::EventTime;

use crate::engine::{Engine, Sums, Took, print_filling, rule};
use crate::report::{Case, ns_each, rss_bytes, spread_ms};
use crate::spans::{MANY_TOKENS, MINUTE_NS, Pass, Record, START, tokens_at};
use crate::spread::runs;

const GAP_MINUTES: i64 = 30;
/// Every session has a span every twenty minutes: they lie in three spans of a gap.
const PASSES: usize = 4;
const EVERY_MINUTES: i64 = 20;
const LENGTH_MINUTES: i64 = 5;

pub(crate) fn measure(keys: usize) {
    let case = Case { name: "session", keys };
    let mut engine = Engine::new(&rule(&format!("SESSION(spans, event_time, INTERVAL '{GAP_MINUTES} minutes')")));
    let (mut usual, mut crossing) = (Record::usual(), Record::crossing());
    let before = rss_bytes();
    let from = |number: usize| START.plus(MINUTE_NS * (1 + EVERY_MINUTES * i64::try_from(number).unwrap()));
    let pass = |number| Pass { keys, number, from: from(number), length_ns: LENGTH_MINUTES * MINUTE_NS };
    engine.absorb(&mut usual, pass(0));
    let opening = engine.take();
    engine.check_groups(keys, keys);
    let (open_bytes, state_bytes) = (rss_bytes().saturating_sub(before), engine.state_bytes());
    engine.absorb(&mut usual, pass(1));
    let going_on = engine.take();
    // Half an hour of sessions lies behind the watermark, and may end with every step of it.
    let mut steps = Vec::new();
    let mut passed = Took::default();
    for number in 2..PASSES {
        engine.absorb(&mut usual, pass(number));
        let took = engine.take();
        passed.rows += took.rows;
        passed.decoding += took.decoding;
        passed.judging += took.judging;
        steps.extend((0..runs()).map(|step| {
            let at = from(number).plus(LENGTH_MINUTES * MINUTE_NS + i64::try_from(step).unwrap());
            engine.cross(&mut crossing, 0, at)
        }));
        engine.take();
    }
    let most_bytes = engine.rss_bytes_max().saturating_sub(before);
    let last = from(PASSES - 1).plus(LENGTH_MINUTES * MINUTE_NS + i64::try_from(runs()).unwrap() - 1);
    let end = last.plus(GAP_MINUTES * MINUTE_NS);
    let closing = close(&mut engine, &mut crossing, steps.len(), end);
    // A span of a gap is kept until no session can go on from it.
    let ended_bytes = rss_bytes().saturating_sub(before);
    let evicting = engine.cross(&mut crossing, 1, end.plus(2 * GAP_MINUTES * MINUTE_NS));
    engine.check_groups(keys * PASSES + steps.len() + 2, 1);
    print_filling(&case, "sessions open", &opening);
    print_filling(&case, "sessions go on, in the same half hour", &going_on);
    print_filling(&case, "sessions go on, in the next ones", &passed);
    let step_ms = spread_ms(steps.iter().copied());
    let note = format!("{:.0} ns per open session, for one row", step_ms.median * 1e6 / keys as f64);
    case.line("a step of time", &format!("{step_ms:.2} ms"), &note);
    let each = ns_each(closing, keys);
    case.line("all sessions end", &format!("{:.0} ms", closing.as_secs_f64() * 1e3), &format!("{each:.0} ns each"));
    let note = "memory is kept until half an hour after their span of half an hour";
    case.line("ended sessions are evicted", &format!("{:.1} ms", evicting.as_secs_f64() * 1e3), note);
    case.bytes_per_group("memory of open sessions", open_bytes, keys);
    case.bytes_per_group("memory as the engine says (state_bytes)", state_bytes, keys);
    case.bytes_per_group("memory when all have ended", ended_bytes, keys);
    case.bytes_per_group("memory at most", most_bytes, keys);
}

/// Lets all sessions end at once, that of key 0 last.
fn close(engine: &mut Engine, crossing: &mut Record, crossed: usize, end: EventTime) -> Duration {
    let closing = engine.cross(crossing, 1, end);
    let (passes, more) = (i64::try_from(PASSES).unwrap(), i64::try_from(crossed).unwrap());
    let sum = (passes * tokens_at(0) + more * MANY_TOKENS) as f64;
    engine.check_sums(Sums { end, sum, count: passes + more, fewest: tokens_at(0), most: MANY_TOKENS });
    closing
}
