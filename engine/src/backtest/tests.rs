//! Backtests over tracks in memory.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::sync::atomic::AtomicBool;
use std::thread;

use lictor_connectors::{Recorded, TopicPartition};
use lictor_queries::{References, RuleFile, compile};
use lictor_schemas::otlp::encode::{RowDraft, encode_json, encode_protobuf};
use lictor_schemas::prices::PRICE_COLUMNS;
use lictor_schemas::tables::{Signal, Table};
use serde_json::{Value, json};

use super::*;
use crate::clock::{Clock as _, SystemClock};
use crate::pipeline::Pipeline;

const SECOND: i64 = 1_000_000_000;
const SPANS: &str = "otlp_spans";

/// Counts the calls of a team by the minute.
const COUNTED: &str = "CREATE RULE counted WITH (action = 'warn', reason_code = 'x_test') AS
    SELECT team, window_start, window_end, count(*) AS observed, 2 AS threshold
    FROM TUMBLE(spans, event_time, INTERVAL '1 minute') GROUP BY team, window_start, window_end
    HAVING count(*) >= 2;";

/// Finds minutes in which a team that had calls has none.
const SILENT: &str = "CREATE RULE silent WITH (action = 'notify', reason_code = 'x_silent') AS
    SELECT team, window_start, window_end, count(*) AS observed
    FROM TUMBLE(spans, event_time, INTERVAL '1 minute') GROUP BY team, window_start, window_end
    HAVING count(*) = 0 GAP FILL FOR INTERVAL '1 day';";

/// Blocks a team that has spent a dollar of its day, as soon as it has.
const SPENT: &str = "CREATE RULE spent WITH (action = 'block', reason_code = 'BUDGET_EXCEEDED') AS
    SELECT team, window_start, window_end, sum(cost_total) AS observed, 1.0 AS threshold, 'USD' AS unit
    FROM TUMBLE(spans, event_time, INTERVAL '1 day') GROUP BY team, window_start, window_end
    HAVING sum(cost_total) >= 1.0 EMIT ON UPDATE;";

fn start() -> EventTime {
    EventTime::from_rfc3339("2026-03-01T08:00:00Z").unwrap()
}

fn at(seconds: i64) -> EventTime {
    start().plus(seconds * SECOND)
}

fn rules(texts: &[&str]) -> (RuleSet, Arc<PriceTable>) {
    let (rules, faults) = compile(&[RuleFile { file: "r.sql".into(), text: texts.concat() }], &References::new());
    assert_eq!(faults, []);
    (rules, Arc::new(PriceTable::empty()))
}

fn span(seconds: i64, columns: &Value) -> RowDraft {
    let columns = columns.as_object().unwrap().clone().into_iter().collect();
    RowDraft { table: Table::Spans, event_time: at(seconds), columns }
}

/// A record of a topic's partition with a row of a team at so many seconds; the broker got it a second later.
fn record(partition: i32, offset: i64, seconds: i64, team: &str) -> Recorded {
    let payload = encode_protobuf(Signal::Traces, &[span(seconds, &json!({"team": team, "cost_total": 0.4}))]).unwrap();
    Recorded {
        partition: TopicPartition::new(SPANS, partition),
        offset,
        timestamp_ms: at(seconds + 1).to_ms(),
        key: None,
        payload: Some(payload),
    }
}

/// As a file has it: without a stamp.
fn unstamped(record: Recorded) -> Recorded {
    Recorded { timestamp_ms: 0, ..record }
}

/// Records in memory, after which there is nothing more, or something goes wrong.
struct Script {
    records: VecDeque<Recorded>,
    breaks_off: bool,
    /// Steps aside before some records, so that other threads come first now and then.
    random: fastrand::Rng,
}

impl Track for Script {
    fn read_next(&mut self) -> Result<Option<Recorded>, ConnectorError> {
        for _ in 0..self.random.usize(0..4) {
            thread::yield_now();
        }
        match self.records.pop_front() {
            None if self.breaks_off => {
                Err(ConnectorError::File { path: "a.json".into(), source: io::ErrorKind::UnexpectedEof.into() })
            }
            next => Ok(next),
        }
    }
}

fn tracks(all: &[Vec<Recorded>], seed: u64) -> Vec<Box<dyn Track>> {
    let track = |records: &Vec<Recorded>| {
        let records = records.iter().cloned().collect();
        Box::new(Script { records, breaks_off: false, random: fastrand::Rng::with_seed(seed) }) as Box<dyn Track>
    };
    all.iter().map(track).collect()
}

/// Keeps every event.
#[derive(Default)]
struct Events(Vec<EnforcementEvent>);

impl Witness for Events {
    fn see(&mut self, event: &EnforcementEvent) {
        self.0.push(event.clone());
    }
}

fn backtest(tracks: Vec<Box<dyn Track>>, sets: Vec<(RuleSet, Arc<PriceTable>)>) -> Backtest {
    let (range, settings) = (Range::default(), PipelineSettings::default());
    Backtest { tracks, range, sets, settings, leaves_open: false, decoders: 2 }
}

/// Runs it; the events of each set, and the outcome.
fn replayed(backtest: Backtest) -> (Vec<Vec<EnforcementEvent>>, Outcome) {
    let mut events: Vec<Events> = backtest.sets.iter().map(|_| Events::default()).collect();
    let witnesses = events.iter_mut().map(|events| events as &mut dyn Witness).collect();
    let outcome = run(backtest, &BTreeSet::new(), witnesses, &AtomicBool::new(false)).unwrap();
    (events.into_iter().map(|events| events.0).collect(), outcome)
}

/// `counted a firing 60`: rule, team, state, and how many seconds after the start.
fn lines(events: &[EnforcementEvent]) -> Vec<String> {
    let line = |event: &EnforcementEvent| {
        let (data, seconds) = (&event.data, (event.time.0 - start().0) / SECOND);
        let team = data.selector.matches["team"].as_str().unwrap_or_default();
        format!("{} {team} {} {seconds}", data.rule.name, data.state.as_str())
    };
    events.iter().map(line).collect()
}

#[test]
fn records_are_merged_by_when_they_came_and_stay_in_their_partitions_order() {
    // The first partition's second record has an earlier stamp than its first one: it comes with it.
    let a = vec![record(0, 0, 10, "a"), record(0, 1, 4, "a"), record(0, 2, 30, "a")];
    let b = vec![record(1, 0, 5, "b"), record(1, 1, 20, "b")];
    let signals = PipelineSettings::default().signals;
    let mut merge = merge::Merge::new(tracks(&[a, b], 1), signals, Range::default(), (12 * SECOND, 300 * SECOND));
    merge.begin().unwrap();
    let mut chunks = Vec::new();
    while let Some(chunk) = merge.next_chunk().unwrap() {
        let records = chunk.records.iter().map(|(_, r)| format!("{}@{}", r.partition.partition, r.offset));
        chunks.push(records.collect::<Vec<_>>().join(" "));
    }
    assert_eq!(chunks, ["1@0 0@0 0@1", "1@1 0@2"], "a chunk is no longer than twelve seconds");
    let reading = merge.into_reading();
    assert_eq!((reading.records, reading.came), (5, Some((at(6), at(31)))));
}

#[test]
fn threads_and_their_timing_make_no_difference() {
    let teams = ["a", "b", "c", "d", "e"];
    let partition = |p: i32| {
        let mut random = fastrand::Rng::with_seed(u64::from(p.unsigned_abs()));
        let row = |offset: i64| record(p, offset, offset * 2 + random.i64(0..3), teams[random.usize(0..5)]);
        (0..300).map(row).collect::<Vec<_>>()
    };
    let all: Vec<Vec<Recorded>> = (0..3).map(partition).collect();
    let run = |seed: u64, decoders: usize| {
        let sets = vec![rules(&[COUNTED, SPENT])];
        let (mut events, outcome) = replayed(Backtest { decoders, ..backtest(tracks(&all, seed), sets) });
        assert_eq!(outcome.reading.records, 900);
        events.remove(0).iter().flat_map(EnforcementEvent::to_json).collect::<Vec<u8>>()
    };
    let first = run(1, 1);
    assert!(first.len() > 5_000, "{}", first.len());
    for seed in 2..5 {
        assert_eq!(run(seed, usize::try_from(seed).unwrap()), first, "seed {seed}");
    }
}

#[test]
fn the_events_are_those_of_the_pipeline_that_judges_live() {
    let records: Vec<Recorded> = (0..400).map(|i| record(0, i, 2 * i, if i % 3 == 0 { "a" } else { "b" })).collect();
    let (rules_of_pipeline, prices) = rules(&[COUNTED, SPENT]);
    let mut pipeline = Pipeline::new(rules_of_pipeline, prices, &PipelineSettings::default());
    let mut live = Vec::new();
    for record in &records {
        let now = EventTime::from_ms(record.timestamp_ms);
        pipeline.absorb(record.lend(), now);
        live.extend(pipeline.end_epoch(now).decisions.into_iter().map(|decision| decision.event));
    }
    let sets = vec![rules(&[COUNTED, SPENT])];
    let (events, _) = replayed(Backtest { leaves_open: true, ..backtest(tracks(&[records], 1), sets) });
    let text = |events: &[EnforcementEvent]| {
        let text = |event: &EnforcementEvent| String::from_utf8(event.to_json()).unwrap();
        let mut texts: Vec<String> = events.iter().map(text).collect();
        texts.sort();
        texts
    };
    assert!(live.len() >= 10, "{}", live.len());
    assert_eq!(text(&events[0]), text(&live));
}

#[test]
fn the_last_windows_end_and_what_comes_after_the_telemetry_is_left_out() {
    let records = vec![record(0, 0, 0, "a"), record(0, 1, 70, "a"), record(0, 2, 75, "a")];
    let run = |leaves_open| {
        let sets = vec![rules(&[COUNTED, SILENT, SPENT])];
        replayed(Backtest { leaves_open, ..backtest(tracks(std::slice::from_ref(&records), 1), sets) })
    };
    let (events, outcome) = run(false);
    // A day's window has begun, so time goes on to midnight: nobody knows what the minutes until then had.
    assert_eq!(lines(&events[0]), ["spent a firing 75", "counted a firing 75"]);
    assert!(outcome.accounts[0].events_after > 0);
    assert_eq!(outcome.accounts[0].newest, Some(at(75)));
    let (events, outcome) = run(true);
    assert_eq!(lines(&events[0]), ["spent a firing 75"]);
    assert_eq!(outcome.accounts[0].events_after, 0);
}

#[test]
fn silence_in_the_telemetry_passes_minute_by_minute() {
    // Between the two records lie more windows than are filled in one step of time.
    let hours = 30;
    let records = vec![record(0, 0, 0, "a"), record(0, 1, hours * 3_600, "a")];
    let (events, _) = replayed(backtest(tracks(&[records], 1), vec![rules(&[SILENT])]));
    let found = lines(&events[0]);
    assert_eq!(found.first().map(String::as_str), Some("silent a firing 120"));
    assert_eq!(found.last().map(String::as_str), Some("silent a resolved 86520"), "a day later nobody expects it");
}

#[test]
fn files_come_when_their_rows_happened_and_hold_nobody_back_before() {
    let file = |partition: i32, from: i64| {
        let row = |i: i64| unstamped(record(partition, i, from + 10 * i, "a"));
        (0..30).map(row).collect::<Vec<_>>()
    };
    let files = [file(0, 3_600), file(1, 0), file(2, 300)];
    let (events, outcome) = replayed(backtest(tracks(&files, 1), vec![rules(&[COUNTED])]));
    let fired = events[0].iter().filter(|event| !event.data.state.is_ended()).count();
    assert!(fired > 0);
    assert_eq!(outcome.accounts[0].counts.rows_used[&Table::Spans], 90, "{:?}", outcome.accounts[0].counts);
    assert_eq!(outcome.accounts[0].rules[0].dropped, 0);
}

#[test]
fn a_range_says_what_is_read_and_what_counts() {
    let records: Vec<Recorded> = (0..100).map(|i| record(0, i, 6 * i, "a")).collect();
    let run = |range| {
        replayed(Backtest { range, ..backtest(tracks(std::slice::from_ref(&records), 1), vec![rules(&[COUNTED])]) })
    };
    let (from, to) = (Some(at(121)), Some(at(301)));
    let (events, outcome) = run(Range { read_from: from, from, to });
    let found = lines(&events[0]);
    assert_eq!((found.first().unwrap().as_str(), found.len()), ("counted a firing 174", 1), "{found:?}");
    assert_eq!((outcome.reading.records, outcome.reading.outside), (30, 70), "each is out of range by itself");
    let (events, outcome) = run(Range { read_from: Some(at(61)), from, to });
    assert_eq!(lines(&events[0]), ["counted a updated 297"], "it fired before what counts, and was renewed");
    assert_eq!((outcome.reading.records, outcome.accounts[0].events_before), (40, 1));
    let (events, outcome) = run(Range { read_from: Some(at(9_000)), from: Some(at(9_000)), to: None });
    assert_eq!((events[0].len(), outcome.reading.records, outcome.accounts[0].newest), (0, 0, None));
}

#[test]
fn what_is_no_telemetry_is_counted_and_named() {
    let garbage = |offset| Recorded { payload: Some(b"\xff\xfe".to_vec()), ..record(0, offset, 5, "a") };
    let mut records = vec![record(0, 0, 0, "a"), garbage(1)];
    records.extend((2..60).map(garbage));
    records.push(Recorded { payload: None, ..record(0, 60, 5, "a") });
    let (_, outcome) = replayed(backtest(tracks(&[records], 1), vec![rules(&[COUNTED])]));
    let account = &outcome.accounts[0];
    assert_eq!((account.counts.records, account.counts.records_dead), (61, 60));
    assert_eq!(account.counts.dead_letters, [("empty", 1), ("malformed_protobuf", 59)].into());
    assert_eq!(account.dead.len(), DEAD_KEPT_MAX);
    assert_eq!((account.dead[0].offset, account.dead[0].reason), (1, "malformed_protobuf"));
}

#[test]
fn what_says_no_time_comes_with_what_does_and_is_in_every_range() {
    let garbage = |offset| Recorded { payload: Some(b"\xff".to_vec()), ..unstamped(record(0, offset, 0, "a")) };
    let file: Vec<_> = (0..5).map(garbage).chain((5..20).map(|i| unstamped(record(0, i, 600 + i, "a")))).collect();
    for from in [None, Some(at(0)), Some(at(610))] {
        let range = Range { read_from: from, from, to: None };
        let tracks = tracks(std::slice::from_ref(&file), 1);
        let (_, outcome) = replayed(Backtest { range, ..backtest(tracks, vec![rules(&[COUNTED])]) });
        let first = if from == Some(at(610)) { at(610) } else { at(605) };
        assert_eq!(outcome.reading.came, Some((first, at(619))));
        assert_eq!(outcome.accounts[0].counts.records_dead, 5);
    }
    let only = tracks(&[(0..5).map(garbage).collect()], 1);
    let (_, outcome) = replayed(backtest(only, vec![rules(&[COUNTED])]));
    assert_eq!((outcome.reading.records, outcome.reading.came), (5, None));
}

#[test]
fn a_stamp_of_the_future_puts_off_nothing_behind_it() {
    let fine = |partition: i32| (0..100).map(move |i| record(partition, i, 6 * i, "a")).collect::<Vec<_>>();
    let mut odd = fine(0);
    for index in [0, 40, 41, 42] {
        odd[index].timestamp_ms = at(90 * 86_400).to_ms();
    }
    let run = |first: &[Recorded], to| {
        let range = Range { to, ..Range::default() };
        let tracks = tracks(&[first.to_vec(), fine(1)], 1);
        replayed(Backtest { range, leaves_open: true, ..backtest(tracks, vec![rules(&[COUNTED])]) })
    };
    let (expected, _) = run(&fine(0), None);
    let (events, outcome) = run(&odd, None);
    assert_eq!(lines(&events[0]), lines(&expected[0]));
    assert_eq!((outcome.reading.ahead, outcome.reading.came), (4, Some((at(1), at(595)))));
    assert_eq!(outcome.accounts[0].counts.rows_used[&Table::Spans], 200, "{:?}", outcome.accounts[0].counts);
    let (_, outcome) = run(&odd, Some(at(301)));
    assert_eq!((outcome.reading.records, outcome.reading.outside), (96, 104));
    assert_eq!(outcome.reading.ahead, 0);
}

#[test]
fn a_clock_that_counts_seconds_for_milliseconds_does_not_cost_fifty_years_of_steps() {
    let mut records: Vec<_> = (0..10).map(|i| record(0, i, 6 * i, "a")).collect();
    let (expected, _) = replayed(backtest(tracks(std::slice::from_ref(&records), 1), vec![rules(&[COUNTED, SILENT])]));
    let odd = Recorded { payload: None, timestamp_ms: at(0).to_ms() / 1_000, ..record(0, 0, 0, "a") };
    records.insert(0, odd);
    // Millions of steps would take a minute.
    let clock = SystemClock::start();
    let (events, _) = replayed(backtest(tracks(&[records], 1), vec![rules(&[COUNTED, SILENT])]));
    assert_eq!(lines(&events[0]), lines(&expected[0]));
    assert!(clock.monotonic().as_secs() < 15, "{:?}", clock.monotonic());
}

#[test]
fn telemetry_that_breaks_off_is_no_outcome() {
    let records = (0..2_000).map(|i| record(0, i, i, "a")).collect();
    let script = Script { records, breaks_off: true, random: fastrand::Rng::with_seed(1) };
    let mut events = Events::default();
    let backtest = backtest(vec![Box::new(script)], vec![rules(&[COUNTED])]);
    let failure = run(backtest, &BTreeSet::new(), vec![&mut events], &AtomicBool::new(false)).unwrap_err();
    assert!(failure.to_string().starts_with("a.json: "), "{failure}");
}

#[test]
fn who_is_stopped_says_so() {
    let records = vec![record(0, 0, 0, "a")];
    let backtest = backtest(tracks(&[records], 1), vec![rules(&[COUNTED])]);
    let outcome = run(backtest, &BTreeSet::new(), vec![&mut Events::default()], &AtomicBool::new(true)).unwrap();
    assert!(outcome.reading.is_stopped);
}

#[test]
fn both_rule_sets_see_the_same_telemetry_each_at_its_own_prices() {
    let header = PRICE_COLUMNS.join(",");
    let priced = |usd: u32| {
        let prices = PriceTable::from_csv(&format!("{header}\nopenai,m,2025-01-01,{usd},0,,,https://a\n")).unwrap();
        (rules(&[SPENT]).0, Arc::new(prices))
    };
    let columns = json!({"team": "a", "provider": "openai", "request_model": "m", "input_tokens": 100_000});
    let payload = encode_json(Signal::Traces, &[span(0, &columns)]).unwrap();
    let records = vec![Recorded { payload: Some(payload), ..record(0, 0, 0, "a") }];
    let sets = vec![priced(20), priced(2), (rules(&[COUNTED]).0, Arc::clone(&priced(2).1))];
    let (events, outcome) = replayed(backtest(tracks(&[records], 1), sets));
    let count: Vec<usize> = events.iter().map(Vec::len).collect();
    assert_eq!(count, [1, 0, 0], "0.1 Mtok are 2 dollars at the one's prices, and 20 cents at the other's");
    assert_eq!(outcome.accounts.len(), 3);
}
