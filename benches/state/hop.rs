//! Windows of an hour, a new one every minute: each is put together from sixty panes.

use std::time::Duration;

use lictor_engine::pipeline::PipelineSettings;

use crate::engine::{Engine, Sums, print_filling, rule};
use crate::report::{Case, rss_bytes, spread_ms};
use crate::spans::{MANY_TOKENS, MINUTE_NS, Pass, Record, START, tokens_at};
use crate::spread::runs;

const PANES: usize = 60;

pub(crate) fn measure(keys: usize) {
    let case = Case { name: "hop", keys };
    let mut engine = Engine::new(&rule("HOP(spans, event_time, INTERVAL '1 minute', INTERVAL '60 minutes')"));
    let (mut usual, mut single, mut crossing) = (Record::usual(), Record::single(), Record::crossing());
    let passes = PANES + runs();
    let before = rss_bytes();
    let minute = |number: usize| START.plus(MINUTE_NS * i64::try_from(number).unwrap());
    // The span that lets the window before end, then one of each key. Key 0 crosses the line in the last window only.
    let mut pass = |engine: &mut Engine, number: usize| {
        let first = if number + 2 == passes { &mut crossing } else { &mut single };
        let closing = engine.cross(first, 0, minute(number));
        engine.absorb(&mut usual, Pass { keys, number, from: minute(number), length_ns: MINUTE_NS });
        closing
    };
    let growing: Duration = (0..PANES).map(|number| pass(&mut engine, number)).sum();
    let mut filling = engine.take();
    filling.judging = filling.judging.saturating_sub(growing);
    engine.check_groups((keys + 1) * PANES, keys * PANES);
    let (bytes, state_bytes) = (rss_bytes().saturating_sub(before), engine.state_bytes());
    let closings: Vec<Duration> = (PANES..passes).map(|number| pass(&mut engine, number)).collect();
    engine.check_groups((keys + 1) * passes, keys * PANES);
    let panes = i64::try_from(PANES).unwrap();
    let sum = ((2 * panes - 1) * tokens_at(0) + MANY_TOKENS) as f64;
    let end = minute(passes - 1);
    engine.check_sums(Sums { end, sum, count: 2 * panes, fewest: tokens_at(0), most: MANY_TOKENS });
    print_filling(&case, &format!("{PANES} panes are filled"), &filling);
    let closing_ms = spread_ms(closings.iter().copied());
    let each = closing_ms.median * 1e6 / (keys * PANES) as f64;
    let share = 100.0 * closing_ms.median / 60_000.0;
    let note = format!("{each:.0} ns per group and pane; {share:.1} % of the minute until the next, of one core");
    case.line("a window closes", &format!("{closing_ms:.0} ms"), &note);
    let growing_ms = growing.as_secs_f64() * 1e3;
    case.line(&format!("the first {} windows close", PANES - 1), &format!("{growing_ms:.0} ms"), "together");
    case.bytes_per_group("memory with all panes", bytes, keys * PANES);
    case.bytes_per_group("memory as the engine says (state_bytes)", state_bytes, keys * PANES);
    let groups_max = PipelineSettings::default().groups_max;
    if keys * PANES > groups_max {
        let reached = format!("in pane {}", groups_max / keys + 1);
        case.line("limits.groups_max by default", &reached, "it would quarantine the rule there");
    }
}
