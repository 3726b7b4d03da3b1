//! What the company's telemetry is like, seen through the real decoder.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Float64Type, TimestampNanosecondType};
use lictor_schemas::otlp::{Decoder, RecordMeta, Wanted};
use lictor_schemas::prices::PriceTable;
use lictor_schemas::tables::Table;

use super::*;

const HOUR_S: i64 = 3_600;

fn start() -> EventTime {
    EventTime::from_rfc3339("2026-03-01T08:00:00Z").unwrap()
}

fn after(seconds: i64) -> EventTime {
    start().plus(seconds * NANOS_PER_S)
}

/// A span as the tests look at it.
struct Seen {
    event_time: EventTime,
    team: String,
    session: String,
    request_model: String,
    response_model: String,
    cost: f64,
    is_leaf: bool,
    latency_ms: f64,
    message: usize,
}

/// The spans of the first `seconds`, decoded, and how many messages were refused.
fn spans(seed: u64, seconds: i64) -> (Vec<Seen>, usize) {
    const COLUMNS: [&str; 7] =
        ["team", "session_id", "request_model", "response_model", "cost_total", "usage_leaf", "latency_ms"];
    let columns: BTreeSet<String> = COLUMNS.iter().map(|name| (*name).to_owned()).collect();
    let wanted = Wanted(BTreeMap::from([(Table::Spans, columns)]));
    let mut decoder = Decoder::new(&wanted, &[], Arc::new(PriceTable::default()));
    let (mut seen, mut refused) = (Vec::new(), 0);
    let messages = Company::new(seed, start()).next_batch(after(seconds));
    for (index, (signal, _, payload)) in messages.iter().enumerate() {
        let meta = RecordMeta { topic: "t", partition: 0, offset: 0, timestamp_ms: 0 };
        match decoder.absorb(*signal, payload, meta) {
            Ok(absorbed) => assert_eq!(absorbed.rejected, None),
            Err(_) => refused += 1,
        }
        for (_, batch) in decoder.take() {
            seen.extend((0..batch.num_rows()).map(|row| to_seen(&batch, row, index)));
        }
    }
    (seen, refused)
}

fn to_seen(batch: &RecordBatch, row: usize, message: usize) -> Seen {
    let text = |name: &str| {
        let column = batch.column_by_name(name).unwrap().as_string_view();
        if column.is_null(row) { String::new() } else { column.value(row).to_owned() }
    };
    let number = |name: &str| {
        let column = batch.column_by_name(name).unwrap().as_primitive::<Float64Type>();
        if column.is_null(row) { 0.0 } else { column.value(row) }
    };
    let times = batch.column_by_name("event_time").unwrap().as_primitive::<TimestampNanosecondType>();
    Seen {
        event_time: EventTime(times.value(row)),
        team: text("team"),
        session: text("session_id"),
        request_model: text("request_model"),
        response_model: text("response_model"),
        cost: number("cost_total"),
        is_leaf: batch.column_by_name("usage_leaf").unwrap().as_boolean().value(row),
        latency_ms: number("latency_ms"),
        message,
    }
}

/// The first hour of one company, written and decoded once.
fn hour() -> &'static (Vec<Seen>, usize) {
    static HOUR: OnceLock<(Vec<Seen>, usize)> = OnceLock::new();
    HOUR.get_or_init(|| spans(1, HOUR_S))
}

/// Leaves between two minutes of the first hour.
fn leaves(spans: &[Seen], from_minute: i64, until_minute: i64) -> impl Iterator<Item = &Seen> {
    let range = after(from_minute * 60)..after(until_minute * 60);
    spans.iter().filter(move |span| span.is_leaf && range.contains(&span.event_time))
}

#[test]
fn the_seed_and_the_start_determine_every_byte() {
    let whole = Company::new(7, start()).next_batch(after(120));
    let mut company = Company::new(7, start());
    let pieces: Vec<_> = (1..=240).flat_map(|half| company.next_batch(start().plus(half * NANOS_PER_S / 2))).collect();
    assert_eq!(whole, pieces);
    assert_ne!(whole, Company::new(8, start()).next_batch(after(120)));
}

#[test]
fn every_message_but_one_is_telemetry_and_only_planned_spans_are_late() {
    let (spans, refused) = hour();
    assert_eq!(*refused, 1);
    let (mut high, mut late) = (EventTime::MIN, BTreeSet::new());
    for span in spans {
        if span.event_time < high.plus(-10 * NANOS_PER_S) {
            late.insert(span.message);
        }
        high = high.max(span.event_time);
    }
    assert_eq!(i64::try_from(late.len()).unwrap(), HOUR_S / LATE_EVERY_S);
}

#[test]
fn a_dozen_teams_call_models_in_production_quantities() {
    let (spans, _) = hour();
    let teams: BTreeSet<_> = spans.iter().map(|span| span.team.as_str()).collect();
    assert_eq!(teams.len(), 12, "{teams:?}");
    assert!((20_000..60_000).contains(&spans.len()), "{} spans", spans.len());
    assert!(spans.iter().any(|span| !span.is_leaf && span.cost > 0.0), "agents repeat what their calls cost");
    assert_eq!(WORKLOADS.iter().map(|workload| workload.weight).sum::<usize>(), workloads::WEIGHTS);
}

#[test]
fn the_runaway_spends_its_teams_day_in_one_session_and_nobody_else_does() {
    let (spans, _) = hour();
    let budgets = include_str!("../../../queries/rules/cost/budgets.csv");
    for line in budgets.lines().skip(1) {
        let (team, budget) = line.split_once(',').unwrap();
        let cost: f64 = leaves(spans, 0, 60).filter(|span| span.team == team).map(|span| span.cost).sum();
        let budget: f64 = budget.parse().unwrap();
        assert_eq!(cost > budget, team == "research", "{team} has spent {cost:.2} of {budget}");
        assert!(team == "research" || cost < 0.5 * budget, "{team} has spent {cost:.2} of {budget}");
    }
    let calls = leaves(spans, 30, 35).filter(|span| span.session == "lab-loop-7f3a").count();
    assert!(calls > 140, "{calls} calls in five minutes");
    let mut others: BTreeMap<&str, usize> = BTreeMap::new();
    for span in leaves(spans, 30, 35).filter(|span| span.session != "lab-loop-7f3a") {
        *others.entry(&span.session).or_default() += 1;
    }
    assert!(others.values().all(|calls| *calls < 40), "no healthy session looks like a runaway");
}

#[test]
fn models_are_denied_and_swapped_only_while_they_are() {
    let (spans, _) = hour();
    let denied: Vec<_> = leaves(spans, 0, 60).filter(|span| span.request_model == "deepseek-reasoner").collect();
    assert!(denied.len() > 3, "{} denied calls", denied.len());
    assert!(denied.iter().all(|s| s.team == "marketing" && s.event_time >= after(480) && s.event_time < after(840)));
    let swapped = |from, until| {
        let asked: Vec<_> = leaves(spans, from, until).filter(|span| span.request_model == "gpt-4o").collect();
        let answered = asked.iter().filter(|span| span.response_model.contains("mini")).count();
        f64::from(u32::try_from(answered).unwrap()) / f64::from(u32::try_from(asked.len()).unwrap())
    };
    assert!(swapped(0, 32) == 0.0 && swapped(44, 60) == 0.0);
    assert!((0.55..0.75).contains(&swapped(35, 40)), "{}", swapped(35, 40));
}

#[test]
fn the_slow_model_and_the_cost_jump_stand_out_and_pass() {
    let (spans, _) = hour();
    let p95 = |from, until| {
        let mut ms: Vec<_> =
            leaves(spans, from, until).filter(|span| span.team == "checkout").map(|s| s.latency_ms).collect();
        ms.sort_by(f64::total_cmp);
        ms[ms.len() * 95 / 100]
    };
    let [before, slow, slower, after] = [p95(10, 15), p95(15, 20), p95(20, 25), p95(25, 30)];
    assert!(before < 5000.0 && after < 5000.0, "{before} {after}");
    assert!((5000.0..10_000.0).contains(&slow) && slower > 10_000.0, "{slow} {slower}");
    let cost = |from, until| leaves(spans, from, until).filter(|s| s.team == "fraud").map(|s| s.cost).sum::<f64>();
    assert!(cost(45, 50) > 5.0 * cost(40, 45) && cost(45, 50) > 1.0, "{} {}", cost(40, 45), cost(45, 50));
    assert!(cost(50, 55) < 2.0 * cost(40, 45));
}

#[test]
fn incidents_are_told_in_order_and_within_the_first_hour() {
    let incidents = Company::new(1, start()).incidents();
    assert!(incidents.is_sorted_by_key(|incident| incident.at));
    assert!(incidents.iter().all(|i| start() < i.at && i.at < i.until && i.until < after(HOUR_S)));
    assert_eq!(incidents.len(), 5);
}

#[test]
fn all_signals_are_there() {
    let messages = Company::new(1, start()).next_batch(after(120));
    for signal in Signal::ALL {
        assert!(messages.iter().any(|(found, _, _)| *found == signal), "{}", signal.as_str());
    }
}
