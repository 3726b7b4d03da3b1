//! What people who look at a pipeline see.

use lictor_queries::{References, RuleFile, compile};
use lictor_schemas::otlp::encode::{RowDraft, encode_protobuf};
use serde_json::json;

use super::*;

/// Calls of a minute, as they come; of nobody but those who have called three times.
const ON_UPDATE: &str = "CREATE RULE called WITH (action = 'warn', reason_code = 'x_test') AS
    SELECT team, window_start, window_end, count(*) AS observed, 3 AS threshold, 'calls' AS unit
    FROM TUMBLE(spans, event_time, INTERVAL '1 minute') GROUP BY team, window_start, window_end
    HAVING count(*) >= 3 EMIT ON UPDATE;";

/// Calls of a minute against those of the minute before, where there is one and they have doubled.
const ON_CLOSE: &str = "CREATE RULE doubled WITH (action = 'warn', reason_code = 'x_test') AS
    SELECT team, window_start, window_end, calls AS observed, 2 * before AS threshold
    FROM (SELECT team, window_start, window_end, calls,
                 lag(calls) OVER (PARTITION BY team ORDER BY window_end) AS before
          FROM (SELECT team, window_start, window_end, count(*) AS calls
                FROM TUMBLE(spans, event_time, INTERVAL '1 minute') GROUP BY team, window_start, window_end) AS c) AS b
    WHERE before IS NOT NULL AND calls >= 2 * before EMIT ON CLOSE;";

/// Fails on a group that its own filter keeps from it.
const FAILING: &str = "CREATE RULE failing WITH (action = 'warn', reason_code = 'x_test') AS
    SELECT team, window_start, window_end, count(*) AS observed, 1 / (count(*) - 1) AS threshold
    FROM TUMBLE(spans, event_time, INTERVAL '1 minute') GROUP BY team, window_start, window_end
    HAVING count(*) > 1 EMIT ON UPDATE;";

fn start() -> EventTime {
    EventTime::from_rfc3339("2026-03-01T08:00:00Z").unwrap()
}

fn at(second: i64) -> EventTime {
    start().plus(second * 1_000_000_000)
}

/// Team, observed, threshold.
type Seen = (String, f64, Option<f64>);

struct Running {
    pipeline: Pipeline,
    offset: i64,
}

impl Running {
    fn of(rule: &str) -> Self {
        Self::within(rule, &PipelineSettings::default())
    }

    fn within(rule: &str, settings: &PipelineSettings) -> Self {
        let (rules, faults) = compile(&[RuleFile { file: "r.sql".into(), text: rule.into() }], &References::new());
        assert_eq!(faults, []);
        Self { pipeline: Pipeline::new(rules, Arc::new(PriceTable::empty()), settings), offset: 0 }
    }

    /// An epoch in which each of the teams calls once, at a second.
    fn call(&mut self, second: i64, teams: &str) -> Epoch {
        let now = at(second);
        for team in teams.chars() {
            let columns = [("team".to_owned(), json!(team.to_string()))].into();
            self.take(&[RowDraft { table: Table::Spans, event_time: now, columns }], now);
        }
        self.pipeline.end_epoch(now)
    }

    /// Takes a record of spans.
    fn take(&mut self, rows: &[RowDraft], now: EventTime) {
        let payload = encode_protobuf(Signal::Traces, rows).unwrap();
        self.offset += 1;
        let (topic, offset, timestamp_ms) = ("otlp_spans", self.offset, now.to_ms());
        let record = RecordRef {
            topic,
            partition: 0,
            offset,
            timestamp_ms,
            key: None,
            payload: Some(payload.as_slice()),
            ..RecordRef::default()
        };
        self.pipeline.absorb(record, now);
    }

    /// What is seen of a look: its second, and who.
    fn look(&mut self) -> Vec<(i64, Vec<Seen>)> {
        let seen = self.pipeline.observe();
        let teams = |observed: &Observed| {
            let of = |o: &lictor_queries::Observation| {
                (o.subject.0["team"].as_str().unwrap_or_default().to_owned(), o.observed, o.threshold)
            };
            observed.closest.iter().map(of).collect()
        };
        seen.iter().map(|(_, o)| ((o.at.0 - start().0) / 1_000_000_000, teams(o))).collect()
    }
}

fn seen(team: &str, observed: f64, threshold: impl Into<Option<f64>>) -> Seen {
    (team.to_owned(), observed, threshold.into())
}

#[test]
fn who_does_not_violate_a_rule_is_seen_too() {
    let mut running = Running::of(ON_UPDATE);
    assert_eq!(running.look(), [], "nothing has come yet");
    running.call(1, "aab");
    assert_eq!(running.look(), [(1, vec![seen("a", 2.0, 3.0), seen("b", 1.0, 3.0)])]);
    let fired = running.call(5, "a").decisions;
    assert_eq!(running.look(), [(5, vec![seen("a", 3.0, 3.0), seen("b", 1.0, 3.0)])]);
    assert_eq!(
        (fired.len(), running.pipeline.standing(10).first.len(), running.pipeline.standing(0).first.len()),
        (1, 1, 0)
    );
    let counted = running.pipeline.standing(0).by_action;
    assert_eq!(counted.values().sum::<usize>(), 1, "what is not collected is counted: {counted:?}");
    let [standing] = running.pipeline.standing(10).first.try_into().unwrap();
    assert_eq!((standing.rule.as_str(), standing.directive_id), ("called", fired[0].event.data.directive_id.clone()));
    assert_eq!((standing.since, standing.finding.observed), (Some(at(5)), Some(3.0)));
}

#[test]
fn of_a_rule_that_speaks_on_close_the_window_is_seen_that_closes_after_a_look() {
    let mut running = Running::of(ON_CLOSE);
    running.call(1, "aabc");
    assert_eq!(running.look(), [], "a look asks for the next window");
    running.call(61, "aaab");
    assert_eq!(running.look(), []);
    running.call(71, "b");
    let first = vec![seen("a", 2.0, None), seen("b", 1.0, None), seen("c", 1.0, None)];
    assert_eq!(running.look(), [(60, first)], "nobody has a past yet, and the rule judges nobody");
    let decided = running.call(131, "a").decisions;
    assert_eq!(decided.iter().map(|d| d.event.data.finding.observed).collect::<Vec<_>>(), [Some(2.0)]);
    assert_eq!(running.look(), [(120, vec![seen("b", 2.0, 2.0), seen("a", 3.0, 4.0)])]);
    running.call(191, "a");
    assert_eq!(running.look().len(), 1);
}

#[test]
fn what_is_asked_for_is_a_look_too() {
    let rules: Vec<String> = (0..10).map(|n| ON_CLOSE.replace("RULE ", &format!("RULE n{n}_"))).collect();
    let mut running = Running::of(&rules.join("\n"));
    running.call(1, "ab");
    assert_eq!(running.look(), [], "the windows of eight rules are asked for");
    running.call(71, "a");
    assert_eq!(
        [running.look().len(), running.look().len(), running.look().len()],
        [6, 2, 0],
        "two more were asked for"
    );
}

#[test]
fn a_look_does_not_double_a_close_that_looks_back_at_many() {
    let teams: String = ('\u{4e00}'..).take(1_001).collect();
    let mut running = Running::of(ON_CLOSE);
    running.call(1, &teams);
    running.look();
    running.call(61, &teams);
    running.call(71, "a");
    assert_eq!(running.look().len(), 1, "1,001 groups that have no past");
    running.call(131, "a");
    assert_eq!(running.look().len(), 0, "1,001 groups and 1,001 rows of their past");
}

#[test]
fn a_look_that_fails_stops_no_rule() {
    let mut running = Running::of(FAILING);
    running.call(1, "a");
    assert_eq!(running.look(), [], "division by zero");
    assert_eq!(running.call(2, "a").decisions.len(), 1);
    assert_eq!(running.pipeline.status()[0].quarantined, None);
    let [scanning, judging] = running.pipeline.spent();
    assert!(scanning["failing"] > Duration::ZERO && judging["failing"] > Duration::ZERO);
}

/// What a store does at once for a whole epoch is what it does record by record.
#[test]
fn updates_of_an_epoch_say_what_they_say_one_by_one() {
    const RULES: &str = "
        CREATE RULE spent WITH (action = 'block', reason_code = 'BUDGET_EXCEEDED') AS
        SELECT team, window_start, window_end, sum(cost_total) AS observed
        FROM TUMBLE(spans, event_time, INTERVAL '1 hour')
        WHERE team IS NOT NULL GROUP BY team, window_start, window_end HAVING sum(cost_total) >= 20 EMIT ON UPDATE;
        CREATE RULE called WITH (action = 'warn', reason_code = 'x_a', for = '10 seconds') AS
        SELECT team, window_start, window_end, count(*) AS observed
        FROM TUMBLE(spans, event_time, INTERVAL '1 minute')
        GROUP BY team, window_start, window_end HAVING count(*) > 9 OR max(cost_total) > 4.9 EMIT ON UPDATE;
        CREATE RULE dear WITH (action = 'warn', reason_code = 'x_b') AS
        SELECT team, window_start, window_end, avg(cost_total) AS observed
        FROM TUMBLE(spans, event_time, INTERVAL '1 minute')
        GROUP BY team, window_start, window_end HAVING avg(cost_total) > 2.6 EMIT ON UPDATE;
        CREATE RULE sliding WITH (action = 'throttle', reason_code = 'x_d') AS
        SELECT team, window_start, window_end, sum(cost_total) AS observed
        FROM HOP(spans, event_time, INTERVAL '10 seconds', INTERVAL '1 minute')
        GROUP BY team, window_start, window_end HAVING sum(cost_total) > 30 EMIT ON UPDATE;
        CREATE RULE minutes WITH (action = 'warn', reason_code = 'x_c') AS
        SELECT team, window_start, window_end, sum(cost_total) AS observed
        FROM TUMBLE(spans, event_time, INTERVAL '1 minute')
        GROUP BY team, window_start, window_end HAVING sum(cost_total) > 15;";
    let said = |seed: u64, per_epoch: usize| {
        let (mut running, mut rng) = (Running::of(RULES), fastrand::Rng::with_seed(seed));
        let mut said = Vec::new();
        for record in 1..=120 {
            let rows = (0..rng.usize(1..4)).map(|_| {
                // Now and then something is given back.
                let cost = if rng.u8(0..12) == 0 { -rng.i32(0..3_000) } else { rng.i32(0..5_000) };
                let cost = f64::from(cost) / 1024.0;
                let cost = if rng.u8(0..20) == 0 { json!(null) } else { json!(cost) };
                let team = ["a", "b", "c", "d"][rng.usize(0..4)];
                let columns = [("team".to_owned(), json!(team)), ("cost_total".to_owned(), cost)].into();
                RowDraft { table: Table::Spans, event_time: at(record + rng.i64(0..3)), columns }
            });
            running.take(&rows.collect::<Vec<_>>(), at(record));
            if record % i64::try_from(per_epoch).unwrap() == 0 {
                said.extend(running.pipeline.end_epoch(at(record)).decisions);
            }
        }
        said.iter().map(|decision| format!("{:?}", decision.event)).collect::<Vec<_>>()
    };
    let mut events = 0;
    for seed in 0..4 {
        let one_by_one = said(seed, 1);
        events += one_by_one.len();
        for per_epoch in [8, 120] {
            assert_same(&said(seed, per_epoch), &one_by_one);
        }
    }
    assert!(events > 50, "{events} events");
}

fn assert_same(found: &[String], wanted: &[String]) {
    let differs = found.iter().zip(wanted).find(|(found, wanted)| found != wanted);
    assert!(differs.is_none() && found.len() == wanted.len(), "{differs:#?}, {} of {}", found.len(), wanted.len());
}

/// What a rule says of rows, a record each: with an epoch for each record, and with one for all.
fn both_ways(rule: &str, rows: &[serde_json::Value]) -> [Vec<String>; 2] {
    both_ways_within(rule, &PipelineSettings::default(), rows)
}

fn both_ways_within(rule: &str, settings: &PipelineSettings, rows: &[serde_json::Value]) -> [Vec<String>; 2] {
    [1, rows.len()].map(|per_epoch| {
        let (mut running, mut said) = (Running::within(rule, settings), Vec::new());
        for (n, row) in rows.iter().enumerate() {
            let columns = row.as_object().unwrap().clone().into_iter().collect();
            running.take(&[RowDraft { table: Table::Spans, event_time: at(1), columns }], at(1));
            if (n + 1) % per_epoch == 0 {
                said.extend(running.pipeline.end_epoch(at(1)).decisions);
            }
        }
        said.iter().map(|decision| format!("{:?}", decision.event)).collect()
    })
}

/// A word that means no violation is a condition, too. The first record is shipped by itself, so it is a bystander's.
#[test]
fn a_result_that_falls_back_to_allowed_is_judged_record_by_record() {
    let [one_by_one, at_once] = both_ways(
        "CREATE RULE dear WITH (action = 'warn', reason_code = 'x_a') AS
         SELECT team, window_start, window_end, avg(cost_total) AS observed,
                CASE WHEN avg(cost_total) > 2.6 THEN 'WARNING' ELSE 'ALLOWED' END AS result
         FROM TUMBLE(spans, event_time, INTERVAL '1 hour') GROUP BY team, window_start, window_end EMIT ON UPDATE;",
        &[
            json!({"team": "z", "cost_total": 1.0}),
            json!({"team": "a", "cost_total": 4.0}),
            json!({"team": "a", "cost_total": 0.5}),
        ],
    );
    assert_eq!(one_by_one.len(), 2, "firing, resolved");
    assert_same(&at_once, &one_by_one);
}

#[test]
fn groups_that_share_a_subject_are_not_taken_for_each_other() {
    let row = |team: &str, unit: &str, usd: f64| json!({"team": team, "cost_currency": unit, "cost_total": usd});
    let [one_by_one, at_once] = both_ways(
        "CREATE RULE spent WITH (action = 'block', reason_code = 'BUDGET_EXCEEDED') AS
         SELECT team, cost_currency AS unit, window_start, window_end, sum(cost_total) AS observed
         FROM TUMBLE(spans, event_time, INTERVAL '1 hour') WHERE team IS NOT NULL
         GROUP BY team, cost_currency, window_start, window_end HAVING sum(cost_total) >= 20 EMIT ON UPDATE;",
        &[row("z", "USD", 1.0), row("a", "EUR", 18.0), row("a", "USD", 15.0), row("a", "USD", 6.0)],
    );
    assert_eq!(one_by_one.len(), 1, "21 USD");
    assert_same(&at_once, &one_by_one);
}

#[test]
fn what_was_judged_before_there_were_too_many_groups_is_said() {
    let row = |team: &str, usd: f64| json!({"team": team, "cost_total": usd});
    let [one_by_one, at_once] = both_ways_within(
        "CREATE RULE spent WITH (action = 'block', reason_code = 'BUDGET_EXCEEDED') AS
         SELECT team, window_start, window_end, sum(cost_total) AS observed
         FROM TUMBLE(spans, event_time, INTERVAL '1 hour') WHERE team IS NOT NULL
         GROUP BY team, window_start, window_end HAVING sum(cost_total) >= 20 EMIT ON UPDATE;",
        &PipelineSettings { groups_max: 3, ..PipelineSettings::default() },
        &[row("z", 1.0), row("a", 21.0), row("b", 1.0), row("c", 1.0), row("b", 30.0)],
    );
    assert_eq!(one_by_one.len(), 1, "a; with c there are too many, and nothing is said of b");
    assert_same(&at_once, &one_by_one);
}

#[test]
fn what_records_said_before_one_that_fails_is_said() {
    let row = |team: &str, tokens: i64| json!({"team": team, "input_tokens": tokens});
    let [one_by_one, at_once] = both_ways(
        "CREATE RULE parts WITH (action = 'warn', reason_code = 'x_a') AS
         SELECT team, window_start, window_end, sum(100 / input_tokens) AS observed
         FROM TUMBLE(spans, event_time, INTERVAL '1 hour') WHERE team IS NOT NULL
         GROUP BY team, window_start, window_end HAVING sum(100 / input_tokens) >= 20 EMIT ON UPDATE;
         CREATE RULE called WITH (action = 'warn', reason_code = 'x_b') AS
         SELECT team, window_start, window_end, count(*) AS observed
         FROM TUMBLE(spans, event_time, INTERVAL '1 hour') WHERE team IS NOT NULL
         GROUP BY team, window_start, window_end HAVING count(*) >= 2 EMIT ON UPDATE;",
        &[row("z", 100), row("a", 5), row("b", 100), row("b", 0), row("b", 1), row("a", 100)],
    );
    assert_eq!(one_by_one.len(), 3, "parts of a, before there is a 0; calls of b and a");
    assert_same(&at_once, &one_by_one);
}

/// A budget that is blown anew while a slower partition holds the window before open is the same directive.
#[test]
fn a_directive_goes_on_into_a_window_that_overlaps_in_time_with_the_one_before() {
    let mut running = Running::of(
        "CREATE RULE spent WITH (action = 'block', reason_code = 'BUDGET_EXCEEDED') AS
         SELECT team, window_start, window_end, count(*) AS observed FROM TUMBLE(spans, event_time, INTERVAL '1 minute')
         GROUP BY team, window_start, window_end HAVING count(*) >= 2 EMIT ON UPDATE;",
    );
    let mut say = |partition: i32, seconds: &[i64]| {
        let row = |second: &i64| {
            let columns = [("team".to_owned(), json!("a"))].into();
            RowDraft { table: Table::Spans, event_time: at(*second), columns }
        };
        let payload = encode_protobuf(Signal::Traces, &seconds.iter().map(row).collect::<Vec<_>>()).unwrap();
        running.offset += 1;
        let (offset, payload) = (running.offset, Some(payload.as_slice()));
        running
            .pipeline
            .absorb(RecordRef { topic: "otlp_spans", partition, offset, payload, ..RecordRef::default() }, at(0));
        let decisions = running.pipeline.end_epoch(at(0)).decisions;
        decisions.iter().map(|decision| format!("{:?}", decision.event.data.state)).collect::<Vec<_>>()
    };
    assert_eq!(say(1, &[5]), [""; 0], "a partition that stays behind");
    assert_eq!(say(0, &[10, 20]), ["Firing"]);
    let next_minute = say(0, &[70, 80]);
    assert!(!next_minute.contains(&"Firing".to_owned()), "{next_minute:?}");
}
