//! The events of Nexmark as spans: an auction house with many bids, some auctions, and a new person now and then.
//!
//! What is drawn is what the generators of Apache Beam and of nexmark/nexmark draw with their settings: of fifty events
//! one is a person, three are auctions, 46 bids; half of the bids go to the hot auction, three of four come from the
//! hot bidder, three of four auctions from the hot seller, and each hundred of them has a new hot one; others are drawn
//! among the newest, and some are named shortly before they come. Ten events are a millisecond. The seed is fixed.

use std::collections::BTreeMap;

use fastrand::Rng;
use lictor_schemas::otlp::encode::{RowDraft, encode_protobuf};
use lictor_schemas::tables::{ATTR_PREFIX, Signal, Table};
use lictor_schemas::time::EventTime;
use serde_json::{Value, json};

/// Spans of a record: what a collector sends at once, and not so few that the record's own costs count.
const SPANS_PER_RECORD: u64 = 128;
/// 2026-03-01T09:00:00Z, where windows of any length begin.
const START_MS: i64 = 1_772_355_600_000;
const EVENTS_PER_MS: u64 = 10;

/// Of this many events in a row the first is a person, the next are auctions, the rest bids.
const ROUND: u64 = 50;
const AUCTIONS_PER_ROUND: u64 = 3;
/// Ids of both begin here.
const FIRST_ID: u64 = 1_000;
/// Each so many persons or auctions have a hot one.
const HOT_EVERY: u64 = 100;
/// How many auctions are open, and how many persons take part.
const OPEN_AUCTIONS: u64 = 100;
const ACTIVE_PERSONS: u64 = 1_000;
/// How many that have not come yet may be named.
const LEAD: u64 = 10;

/// OTLP messages with so many events, in the order of time.
pub(crate) fn records(count: u64) -> Vec<Vec<u8>> {
    let random = &mut Rng::with_seed(1);
    let starts = (0..count).step_by(usize::try_from(SPANS_PER_RECORD).unwrap_or(1));
    let record = |start: u64| {
        let drafts: Vec<RowDraft> = (start..count.min(start + SPANS_PER_RECORD)).map(|n| event(n, random)).collect();
        encode_protobuf(Signal::Traces, &drafts).unwrap_or_else(|e| panic!("{e}"))
    };
    starts.map(record).collect()
}

/// The event number `n`.
fn event(n: u64, random: &mut Rng) -> RowDraft {
    let at = EventTime::from_ms(START_MS + i64::try_from(n / EVENTS_PER_MS).unwrap_or_default());
    let (name, attributes) = match n % ROUND {
        0 => ("person", person(n, random)),
        1..=AUCTIONS_PER_ROUND => ("auction", auction(n, random)),
        _ => ("bid", bid(n, random)),
    };
    let own = [
        ("name", json!(name)),
        ("trace_id", json!(format!("{:032x}", n + 1))),
        ("span_id", json!(format!("{:016x}", n + 1))),
    ];
    let own = own.map(|(column, value)| (column.to_owned(), value));
    let attributes = attributes.into_iter().map(|(name, value)| (format!("{ATTR_PREFIX}nexmark.{name}"), value));
    RowDraft { table: Table::Spans, event_time: at, columns: own.into_iter().chain(attributes).collect() }
}

type Attributes = BTreeMap<&'static str, Value>;

fn person(n: u64, random: &mut Rng) -> Attributes {
    let first = ["Peter", "Paul", "Luke", "John", "Saul", "Vicky", "Kate", "Julie", "Sarah", "Deiter", "Walter"];
    let last = ["Shultz", "Abrams", "Spencer", "White", "Bartels", "Walton", "Smith", "Jones", "Noris"];
    let cities = ["Phoenix", "Los Angeles", "Boise", "Portland", "Bend", "Redmond", "Seattle", "Kent", "Cheyenne"];
    let states = ["AZ", "CA", "ID", "OR", "WA", "WY"];
    let card: Vec<String> = (0..4).map(|_| format!("{:04}", random.u32(0..10_000))).collect();
    [
        ("id", json!(FIRST_ID + newest_person(n))),
        ("full_name", json!(format!("{} {}", pick(random, &first), pick(random, &last)))),
        ("email", json!(format!("{}@{}.com", text(random, 7), text(random, 5)))),
        ("credit_card", json!(card.join(" "))),
        ("city", json!(pick(random, &cities))),
        ("state", json!(pick(random, &states))),
        ("extra", json!(padding(random, 200 - 70))),
    ]
    .into()
}

fn auction(n: u64, random: &mut Rng) -> Attributes {
    let is_hot = random.u32(0..4) > 0;
    let seller = if is_hot { newest_person(n) / HOT_EVERY * HOT_EVERY } else { any_person(n, random) };
    let (initial_bid, above) = (price(random), price(random));
    [
        ("id", json!(FIRST_ID + newest_auction(n))),
        ("item_name", json!(text(random, 20))),
        ("description", json!(text(random, 100))),
        ("initial_bid", json!(initial_bid)),
        ("reserve", json!(initial_bid + above)),
        ("expires", json!(n / EVENTS_PER_MS + random.u64(1..400))),
        ("seller", json!(FIRST_ID + seller)),
        ("category", json!(random.u32(10..15))),
        ("extra", json!(padding(random, 500 - 110))),
    ]
    .into()
}

fn bid(n: u64, random: &mut Rng) -> Attributes {
    let auction = if random.bool() { newest_auction(n) / HOT_EVERY * HOT_EVERY } else { any_auction(n, random) };
    // The second of a hundred, so that the hot bidder is not the hot seller.
    let is_hot = random.u32(0..4) > 0;
    let bidder = if is_hot { newest_person(n) / HOT_EVERY * HOT_EVERY + 1 } else { any_person(n, random) };
    [
        ("auction", json!(FIRST_ID + auction)),
        ("bidder", json!(FIRST_ID + bidder)),
        ("price", json!(price(random))),
        ("extra", json!(padding(random, 100 - 32))),
    ]
    .into()
}

/// The person that came last when event `n` comes, or comes with it.
fn newest_person(n: u64) -> u64 {
    n / ROUND
}

/// The auction that was opened last when event `n` comes, or is opened by it.
fn newest_auction(n: u64) -> u64 {
    (n / ROUND * AUCTIONS_PER_ROUND + (n % ROUND).min(AUCTIONS_PER_ROUND)).saturating_sub(1)
}

fn any_person(n: u64, random: &mut Rng) -> u64 {
    let count = newest_person(n) + 1;
    let active = count.min(ACTIVE_PERSONS);
    count - active + random.u64(0..active + LEAD)
}

fn any_auction(n: u64, random: &mut Rng) -> u64 {
    let newest = newest_auction(n);
    random.u64(newest.saturating_sub(OPEN_AUCTIONS)..=newest + LEAD)
}

/// From 100 to 100 million cents, each power of ten as often.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is 100 to 100,000,000")]
fn price(random: &mut Rng) -> u64 {
    (10_f64.powf(random.f64() * 6.0) * 100.0).round() as u64
}

fn pick<'a>(random: &mut Rng, from: &[&'a str]) -> &'a str {
    from[random.usize(0..from.len())]
}

/// Letters, three at least and less than `most`.
fn text(random: &mut Rng, most: usize) -> String {
    let length = random.usize(3..most);
    (0..length).map(|_| random.lowercase()).collect()
}

/// Letters that make an event as large as Nexmark wants it: `mean` of them, a fifth more or less.
fn padding(random: &mut Rng, mean: usize) -> String {
    let length = random.usize(mean - mean / 5..mean + mean / 5);
    (0..length).map(|_| random.lowercase()).collect()
}
