//! Real Kafka, the real binary: rules are edited while telemetry comes in, and every span counts once all the same;
//! what a rule has said ends with it.
//!
//! `LICTOR_RELOAD_SPANS_PER_S` (2,000) and `LICTOR_RELOAD_SECONDS` (12) say how much comes in for how long. Skips when
//! `KAFKA_BOOTSTRAP` is not set.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "support/cluster.rs"]
mod cluster;
#[path = "support/http.rs"]
mod http;
#[path = "support/instance.rs"]
mod instance;
#[path = "support/judged.rs"]
mod judged;
#[path = "support/published.rs"]
mod published;

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use cluster::{Cluster, PATIENCE};
use fastrand::Rng;
use http::{ask, free_port, metric};
use instance::Instance;
use judged::wait_until_judged;
use lictor_connectors::{KafkaSink, Outgoing, Sink};
use lictor_engine::clock::{Clock, SystemClock};
use lictor_schemas::event::{EnforcementEvent, State};
use lictor_schemas::otlp::encode::{RowDraft, encode_protobuf};
use lictor_schemas::rule::Mode;
use lictor_schemas::tables::{Signal, Table};
use lictor_schemas::time::EventTime;
use published::published;
use serde_json::json;
use tempfile::TempDir;

const PARTITIONS: i32 = 4;
const SHARDS: i32 = 4;
const TEAMS: u32 = 20;
const SPANS_PER_RECORD: u64 = 50;
const SLOT_NS: i64 = 2_000_000_000;
const TICK: Duration = Duration::from_millis(5);
/// Between two edits.
const PAUSE: Duration = Duration::from_millis(700);

/// Every team and slot of two seconds is a subject of its own, which fires once with all its spans.
fn counted(aggregates: &str, having: &str) -> String {
    format!(
        "CREATE RULE counted WITH (action = 'notify', reason_code = 'x_counted', ttl = '1 day') AS
         SELECT s.team, s.feature, window_start, window_end, {aggregates} AS observed
         FROM TUMBLE(spans, event_time, INTERVAL '2 seconds') AS s
         WHERE s.team IS NOT NULL GROUP BY s.team, s.feature, window_start, window_end {having};"
    )
}

/// Every span has one input token: all of these are the number of spans. Each is a sum of its own.
const AGGREGATES: [&str; 3] = ["count(*)", "sum(s.input_tokens)", "sum(2 * s.input_tokens) / 2"];

const EXTRA: &str = "CREATE EXTERNAL TABLE budgets (team VARCHAR, calls DOUBLE) STORED AS CSV LOCATION 'budgets.csv';
    CREATE RULE extra WITH (action = 'warn', reason_code = 'x_extra') AS
    SELECT c.team, c.window_start, c.window_end, c.n AS observed, b.calls AS threshold
    FROM (SELECT s.team, window_start, window_end, count(*) AS n
          FROM HOP(spans, event_time, INTERVAL '1 second', INTERVAL '5 seconds') AS s
          GROUP BY s.team, window_start, window_end) AS c
    JOIN budgets AS b ON b.team = c.team WHERE c.n > b.calls;";

fn number(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |text| text.parse().unwrap())
}

fn span(at: EventTime, team: &str, slot: i64) -> RowDraft {
    let columns = json!({"team": team, "feature": slot.to_string(), "input_tokens": 1});
    RowDraft {
        table: Table::Spans,
        event_time: at,
        columns: columns.as_object().unwrap().clone().into_iter().collect(),
    }
}

/// How many spans each team has in each slot.
type Counts = BTreeMap<(String, String), u64>;

/// Writes telemetry at a steady rate until it is told to stop; what was written.
fn write(mut sink: KafkaSink, topic: &str, per_s: u64, stop: &AtomicBool) -> Counts {
    let (clock, mut random, mut counts) = (SystemClock::start(), Rng::with_seed(1), Counts::new());
    let mut publish = |spans: &[RowDraft]| {
        let payload = Some(encode_protobuf(Signal::Traces, spans).unwrap());
        sink.publish(&Outgoing { topic: topic.to_owned(), key: None, payload, headers: Vec::new() }).unwrap();
    };
    let mut records = 0;
    while !stop.load(Ordering::Relaxed) {
        while u128::from(records * SPANS_PER_RECORD) * 1_000 < clock.monotonic().as_millis() * u128::from(per_s) {
            let now = clock.now();
            let spans: Vec<RowDraft> = (0..SPANS_PER_RECORD)
                .map(|_| {
                    let (team, slot) = (format!("team-{}", random.u32(0..TEAMS)), now.0.div_euclid(SLOT_NS));
                    *counts.entry((team.clone(), slot.to_string())).or_default() += 1;
                    span(now, &team, slot)
                })
                .collect();
            publish(&spans);
            records += 1;
        }
        thread::park_timeout(TICK);
    }
    // All windows close: of every partition some record gets here.
    let later = clock.now().plus(60 * 1_000_000_000);
    (0..200).for_each(|_| publish(&[span(later, "afterwards", 0)]));
    sink.flush().unwrap();
    counts
}

#[test]
fn edits_of_the_rules_lose_and_repeat_nothing() {
    let Some(cluster) = Cluster::from_env("reload") else { return };
    let (per_s, seconds) = (number("LICTOR_RELOAD_SPANS_PER_S", 2_000), number("LICTOR_RELOAD_SECONDS", 12));
    cluster.make_topic("spans", PARTITIONS, false);
    cluster.make_topic("live.enforcement", 1, false);
    let rules = TempDir::new().unwrap();
    let file = |name: &str, text: &str| fs::write(rules.path().join(name), text).unwrap();
    file("counted.sql", &counted(AGGREGATES[0], ""));
    let port = free_port();
    let config = format!(
        "http: 127.0.0.1:{port}\nshards: {SHARDS}\nrules: {}\ntime: {{idle_after: 10m}}",
        rules.path().display()
    );
    let _instance = Instance::start(&cluster, "live", &config);
    let clock = SystemClock::start();
    while metric(port, "lictor_partitions", "judge") < f64::from(SHARDS) {
        assert!(clock.monotonic() < PATIENCE, "the instance does not serve");
        thread::park_timeout(TICK);
    }
    let stop = AtomicBool::new(false);
    let (counts, reloads) = thread::scope(|scope| {
        let sink = KafkaSink::try_new(&cluster.properties, "test-load").unwrap();
        let (topic, stop_writing) = (cluster.topic("spans"), &stop);
        let writing = scope.spawn(move || write(sink, &topic, per_s, stop_writing));
        let end = clock.monotonic() + Duration::from_secs(seconds);
        let mut reloads = 0;
        while clock.monotonic() < end {
            reloads += edit(reloads, port, &file, &rules);
            thread::park_timeout(PAUSE);
        }
        stop.store(true, Ordering::Relaxed);
        (writing.join().unwrap(), reloads)
    });
    let (application, input) = (cluster.topic("live"), cluster.topic("spans"));
    wait_until_judged(&cluster.properties, &application, (&input, PARTITIONS), SHARDS, PATIENCE);
    let judged_at = clock.monotonic();
    while metric(port, "lictor_rule_state", "state=\"warming\"") > 0.0 {
        assert!(clock.monotonic() < judged_at + PATIENCE, "a rule still waits for its history");
        thread::park_timeout(TICK);
    }
    let events = published(&cluster, "live.enforcement");
    let found = found(&events);
    let spans: u64 = counts.values().sum();
    eprintln!(
        "reload: {spans} spans at {per_s} per second, {reloads} edits, {} sums, {} events",
        counts.len(),
        events.len()
    );
    let wrong: Vec<_> = counts.iter().filter(|(key, count)| found.get(*key) != Some(*count)).take(5).collect();
    assert!(
        wrong.is_empty(),
        "wrong sums, such as {wrong:?}: {:?}",
        wrong.iter().map(|w| found.get(w.0)).collect::<Vec<_>>()
    );
    assert!(reloads >= 4, "{reloads} edits");
}

/// One edit after the other: a threshold, a new rule with a reference table, another content of it, another sum, a
/// fault, a removal.
fn edit(number: u32, port: u16, file: &dyn Fn(&str, &str), rules: &TempDir) -> u32 {
    let aggregates = |round: u32| AGGREGATES[round as usize % AGGREGATES.len()];
    let (round, next) = (number / 6, number / 6 + 1);
    let (status, said) = match number % 6 {
        0 => {
            let having = format!("HAVING {} > {}", aggregates(round), -1 - i64::from(number));
            file("counted.sql", &counted(aggregates(round), &having));
            (200, "rule counted: compatible: its state is kept")
        }
        5 => {
            file("counted.sql", &counted(aggregates(next), ""));
            (200, "rule counted: warm: counts something else")
        }
        1 => {
            file("budgets.csv", "team,calls\nteam-1,3\n");
            file("extra.sql", EXTRA);
            (200, "rule extra: new\nreference table budgets: 1 rows")
        }
        2 => {
            file("budgets.csv", "team,calls\nteam-1,3\nteam-2,5\n");
            (200, "reference table budgets: 2 rows")
        }
        3 => {
            file("broken.sql", "CREATE RULE broken WITH (action = 'warn') AS SELECT tem FROM spans;");
            (422, "broken.sql:1:")
        }
        _ => {
            fs::remove_file(rules.path().join("broken.sql")).unwrap();
            fs::remove_file(rules.path().join("extra.sql")).unwrap();
            (200, "rule extra: removed")
        }
    };
    let answer = ask(port, "POST", "/-/reload").unwrap();
    if answer.contains("ask again") {
        // The edit before is still being taken over; the file is there for the next time.
        return 0;
    }
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains(said), "edit {number}: {answer}");
    1
}

/// A directive of a rule that is only to be looked at from now on must not be applied a moment longer.
#[test]
fn a_rule_that_goes_into_shadow_takes_its_directives_off_the_topic_that_is_applied() {
    let Some(cluster) = Cluster::from_env("reload-shadow") else { return };
    cluster.make_topic("spans", 1, false);
    let rules = TempDir::new().unwrap();
    let write = |mode: &str| {
        let text = format!(
            "CREATE RULE dear WITH (action = 'block', mode = '{mode}', reason_code = 'BUDGET_EXCEEDED') AS
             SELECT s.team, s.cost_total AS observed, 10 AS threshold,
                    CASE WHEN s.cost_total > 20 THEN 'BLOCKED' ELSE 'WARNING' END AS result
             FROM spans AS s WHERE s.cost_total > 10;"
        );
        fs::write(rules.path().join("dear.sql"), text).unwrap();
    };
    let now = SystemClock::start().now();
    let spend = |usd: f64| {
        let columns = [("team".to_owned(), json!("a")), ("cost_total".to_owned(), json!(usd))].into();
        let draft = RowDraft { table: Table::Spans, event_time: now, columns };
        cluster.produce("spans", vec![Some(encode_protobuf(Signal::Traces, &[draft]).unwrap())]).unwrap();
    };
    write("enforce");
    let port = free_port();
    let config = format!("http: 127.0.0.1:{port}\nrules: {}", rules.path().display());
    let _instance = Instance::start(&cluster, "judge", &config);
    spend(12.0);
    let applied = cluster.read("judge.directives", |read| !read.is_empty());
    write("shadow");
    let answer = ask(port, "POST", "/-/reload").unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let withdrawn = cluster.read("judge.directives", |read| read.len() >= 2);
    assert_eq!((&withdrawn[1].key, &withdrawn[1].payload), (&applied[0].key, &None));

    spend(30.0);
    let shadow = cluster.read("judge.shadow", |read| !read.is_empty());
    let event = EnforcementEvent::from_json(shadow[0].payload.as_ref().unwrap()).unwrap();
    assert_eq!((event.data.mode, event.data.revision), (Mode::Shadow, 1));
    assert_ne!(shadow[0].key, applied[0].key, "it is another directive");
    let events = published(&cluster, "judge.enforcement");
    let said: Vec<_> = events.iter().take(3).map(|event| (event.data.state, event.data.mode)).collect();
    let ended = (State::Superseded, Mode::Enforce);
    assert_eq!(said, [(State::Firing, Mode::Enforce), ended, (State::Firing, Mode::Shadow)]);
    // Each is a decision, and those that fire say how much of a budget is used.
    cluster.read("judge.otlp", |read| read.len() >= 5);
    assert_eq!(cluster.read("judge.directives", |read| read.len() >= 2).len(), 2);
}

/// The sums that were published; none twice.
fn found(events: &[EnforcementEvent]) -> Counts {
    let ids: BTreeSet<&str> = events.iter().map(|event| event.id.as_str()).collect();
    assert_eq!(ids.len(), events.len(), "events came twice");
    let mut found = Counts::new();
    let firing = events.iter().filter(|e| e.data.rule.name == "counted" && e.data.state == State::Firing);
    for event in firing {
        let part = |column: &str| event.data.selector.matches[column].as_str().unwrap().to_owned();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
        let count = event.data.finding.observed.unwrap() as u64;
        let before = found.insert((part("team"), part("feature")), count);
        assert_eq!(before, None, "a sum was published twice: {event:?}");
    }
    found
}

/// A rule without a window, whose directives hold for a day, and one that says nothing.
fn dear(mode: &str) -> String {
    format!(
        "CREATE RULE dear WITH (action = 'block', reason_code = 'x_dear', ttl = '1 day', mode = '{mode}') AS
         SELECT team FROM spans WHERE feature = '7';"
    )
}

#[test]
fn a_directive_ends_with_its_mode_and_with_its_rule() {
    let Some(cluster) = Cluster::from_env("superseded") else { return };
    cluster.make_topic("spans", 1, false);
    cluster.make_topic("live.enforcement", 1, false);
    cluster.make_topic("live.directives", 1, true);
    let rules = TempDir::new().unwrap();
    let file = |name: &str, text: &str| fs::write(rules.path().join(name), text).unwrap();
    file("counted.sql", &counted(AGGREGATES[0], "HAVING count(*) > 1000000"));
    file("dear.sql", &dear("enforce"));
    let port = free_port();
    let config = format!("http: 127.0.0.1:{port}\nshards: 1\nrules: {}", rules.path().display());
    let _instance = Instance::start(&cluster, "live", &config);
    let clock = SystemClock::start();
    let until_said = |state: &str, mode: &str, act: &dyn Fn()| {
        let end = clock.monotonic() + PATIENCE;
        let labels = format!("rule=\"dear\",state=\"{state}\",mode=\"{mode}\"");
        while metric(port, "lictor_events_total", &labels) < 1.0 {
            assert!(clock.monotonic() < end, "no event of `dear` that is {state} in mode {mode}");
            act();
            thread::park_timeout(PAUSE);
        }
    };
    let call = |slot: i64| {
        let payload = encode_protobuf(Signal::Traces, &[span(clock.now(), "docs", slot)]).unwrap();
        cluster.produce("spans", vec![Some(payload)]).unwrap();
    };
    let reload = || {
        while !ask(port, "POST", "/-/reload").unwrap().starts_with("HTTP/1.1 200 ") {
            thread::park_timeout(TICK);
        }
    };
    until_said("firing", "enforce", &|| call(7));
    file("dear.sql", &dear("shadow"));
    reload();
    until_said("firing", "shadow", &|| call(0));
    fs::remove_file(rules.path().join("dear.sql")).unwrap();
    reload();
    until_said("superseded", "shadow", &|| ());
    let events = published(&cluster, "live.enforcement");
    let mut told: Vec<_> = events.iter().map(|e| (e.data.mode.as_str(), e.data.state, e.data.revision)).collect();
    told.retain(|(_, state, _)| *state != State::Updated);
    let (enforce, shadow) = ("enforce", "shadow");
    let (fired, over) = (State::Firing, State::Superseded);
    let expected = [(enforce, fired, 1), (enforce, over, 2), (shadow, fired, 1), (shadow, over, 2)];
    assert_eq!(told, expected);
    assert_ne!(events[0].data.directive_id, events[2].data.directive_id);
}
