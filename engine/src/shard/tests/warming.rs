//! Rules that come, or count something else, while telemetry has been coming for a while.

use std::collections::BTreeSet;

use lictor_schemas::event::State;

use super::*;

const DAY_NS: i64 = 86_400_000_000_000;

fn bench(text: &str) -> Bench {
    Bench::with_reach(text, DAY_NS)
}

/// What another sum of the same rows makes of it.
fn most(having: &str) -> String {
    counted(having).replace("sum(input_tokens) AS tokens", "max(input_tokens) AS tokens")
}

impl Bench {
    /// History, as the stores that wait for it need it.
    fn history(&self) -> Vec<Shipment> {
        let plan = self.settings.backfill.as_ref().unwrap();
        let awaited: Vec<_> = self.shard.stage.awaited().collect();
        let stores: BTreeSet<StoreId> = awaited.iter().map(|(store, _)| *store).collect();
        let end = awaited[0].1.ends[&TopicPartition::new(SPANS, 0)];
        let mut stage = plan.stage(&stores).unwrap();
        for (offset, payload) in (0..end.0).zip(&self.records) {
            let (key, payload) = (None, Some(payload.as_slice()));
            stage.absorb(
                RecordRef { topic: SPANS, partition: 0, offset, timestamp_ms: 0, key, payload, ..RecordRef::default() },
                START,
            );
        }
        let shipments = stage.flush(START, false);
        shipments.into_iter().flat_map(|s| Router::new(1, plan.routes.clone()).split(s)).collect()
    }

    /// Reads history and hands it over.
    fn fill(&mut self) -> Vec<Decision> {
        let stores = self.shard.stage.awaited().map(|(store, _)| store).collect();
        let history = self.history();
        self.shard.fill(&stores, history, Some(START.plus(-DAY_NS)))
    }

    fn is_warming(&self) -> bool {
        self.shard.status()[0].is_warming
    }
}

#[test]
fn another_sum_counts_what_was_read_before_it_was_there() {
    let mut bench = bench(&counted(""));
    bench.read(START, &teams(&["a", "a", "b"]));
    assert_eq!(
        bench.read(START.plus(MINUTE_NS + 11_000_000_000), &teams(&["a", "c"])).len(),
        2,
        "the first minute is over"
    );
    bench.commit();
    bench.restart(&most(""));
    assert!(bench.is_warming() && bench.shard.stage.awaited().count() == 0, "nobody has said yet who feeds it");
    bench.read(START.plus(MINUTE_NS + 11_000_000_001), &teams(&["a", "c"]));
    assert_eq!(bench.shard.stage.awaited().count(), 1);
    let decisions = bench.read(START.plus(3 * MINUTE_NS), &teams(&["d"]));
    assert_eq!(decisions, [], "the second minute is over, and not known");
    let decisions = bench.fill();
    let said = |d: &Decision| (d.event.to_subject_text(), d.event.data.state, d.event.data.finding.observed);
    // Team a goes on as it did.
    let expected = [("team=b", State::Resolved, None), ("team=c", State::Firing, Some(2.0))];
    assert_eq!(decisions.iter().map(said).collect::<Vec<_>>(), expected.map(|(s, state, n)| (s.to_owned(), state, n)));
    assert!(!bench.is_warming() && bench.shard.is_dirty());
    let decisions = bench.read(START.plus(5 * MINUTE_NS), &teams(&["d"]));
    let fired: Vec<_> = decisions.iter().filter(|d| d.event.data.finding.observed.is_some()).cloned().collect();
    assert_eq!(observed(&fired), [("team=d".to_owned(), Some(1.0))], "it goes on");
}

#[test]
fn it_goes_on_waiting_after_a_restart_and_after_what_was_undone() {
    let mut bench = bench(&counted(""));
    bench.read(START, &teams(&["a"]));
    bench.commit();
    bench.restart(&most(""));
    bench.read(START.plus(1), &teams(&["a"]));
    bench.commit();
    bench.restart(&most("HAVING count(*) > 1"));
    bench.read(START.plus(2), &teams(&["a", "b"]));
    assert!(bench.is_warming());
    bench.commit();
    assert_eq!(bench.fill(), []);
    bench.shard.undo().unwrap();
    assert!(bench.is_warming(), "it was not committed");
    bench.fill();
    bench.commit();
    bench.restart(&most("HAVING count(*) > 1"));
    assert!(!bench.is_warming());
    let decisions = bench.read(START.plus(2 * MINUTE_NS), &teams(&["c"]));
    assert_eq!(observed(&decisions), [("team=a".to_owned(), Some(3.0))]);
}

#[test]
fn windows_that_nobody_has_judged_while_rules_were_waiting_are_judged_in_the_end() {
    let mut bench = bench(&counted(""));
    bench.read(START, &teams(&["a"]));
    bench.commit();
    bench.restart(&most(""));
    assert_eq!(bench.read(START.plus(2 * MINUTE_NS), &teams(&["b"])), []);
    bench.commit();
    bench.restart(&counted("").replace("sum(input_tokens)", "min(input_tokens)"));
    assert_eq!(bench.read(START.plus(2 * MINUTE_NS + 1), &teams(&["b"])), []);
    assert_eq!(observed(&bench.fill()), [("team=a".to_owned(), Some(1.0))]);
}

/// A rule beside `counted` that has the same sums.
fn same_sums(text: &str) -> String {
    text.replace("RULE counted", "RULE other")
}

fn said_of(decisions: &[Decision]) -> Vec<(String, String, Option<f64>)> {
    let fires = |d: &&Decision| d.event.data.finding.observed.is_some();
    let said =
        |d: &Decision| (d.event.data.rule.name.clone(), d.event.to_subject_text(), d.event.data.finding.observed);
    let mut said: Vec<_> = decisions.iter().filter(fires).map(said).collect();
    said.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
    said
}

fn found(rule: &str, team: &str, observed: f64) -> (String, String, Option<f64>) {
    (rule.to_owned(), format!("team={team}"), Some(observed))
}

#[test]
fn who_comes_back_to_sums_that_others_keep_misses_no_window() {
    let both = |first: &str| format!("{first}{}", same_sums(&counted("")));
    let mut bench = bench(&both(&counted("")));
    bench.read(START, &teams(&["a"]));
    bench.commit();
    bench.restart(&both(&most("")));
    let decisions = bench.read(START.plus(2 * MINUTE_NS), &teams(&["b"]));
    assert_eq!(said_of(&decisions), [found("other", "a", 1.0)], "the other one does not wait");
    bench.commit();
    bench.restart(&both(&counted("")));
    assert!(bench.is_warming(), "the store has let go of a minute that one of its rules has not judged");
    assert_eq!(bench.read(START.plus(2 * MINUTE_NS + 1), &teams(&["b"])), []);
    assert_eq!(said_of(&bench.fill()), [found("counted", "a", 1.0)], "and the other one has");
    let decisions = bench.read(START.plus(4 * MINUTE_NS), &teams(&["c"]));
    assert_eq!(said_of(&decisions), [found("counted", "b", 2.0), found("other", "b", 2.0)]);
}

#[test]
fn who_comes_back_before_a_window_has_ended_need_not_wait() {
    let both = |first: &str| format!("{first}{}", same_sums(&counted("")));
    let mut bench = bench(&both(&counted("")));
    bench.read(START, &teams(&["a"]));
    bench.commit();
    bench.restart(&both(&most("")));
    bench.read(START.plus(1), &teams(&["a"]));
    bench.commit();
    bench.restart(&both(&counted("")));
    assert!(!bench.is_warming());
    let decisions = bench.read(START.plus(2 * MINUTE_NS), &teams(&["b"]));
    assert_eq!(said_of(&decisions), [found("counted", "a", 2.0), found("other", "a", 2.0)]);
}

#[test]
fn rules_that_begin_to_wait_for_one_store_at_two_times_judge_each_window_once() {
    let least = |text: &str| text.replace("sum(input_tokens) AS tokens", "min(input_tokens) AS tokens");
    let both = |first: &str, other: &str| format!("{first}{}", same_sums(other));
    let mut bench = bench(&both(&counted(""), &counted("")));
    bench.read(START, &teams(&["a"]));
    bench.commit();
    bench.restart(&both(&most(""), &counted("")));
    let decisions = bench.read(START.plus(2 * MINUTE_NS), &teams(&["b"]));
    assert_eq!(said_of(&decisions), [found("other", "a", 1.0)]);
    bench.commit();
    bench.restart(&both(&least(&counted("")), &least(&counted(""))));
    assert_eq!(bench.read(START.plus(2 * MINUTE_NS + 1), &teams(&["b"])), []);
    bench.commit();
    bench.restart(&both(&least(&counted("")), &least(&counted(""))));
    assert_eq!(bench.read(START.plus(4 * MINUTE_NS), &teams(&["c"])), []);
    let expected = [found("counted", "a", 1.0), found("counted", "b", 2.0), found("other", "b", 2.0)];
    assert_eq!(said_of(&bench.fill()), expected);
}

#[test]
fn who_looks_back_further_and_comes_to_a_store_that_waits_has_its_history() {
    let looks_back = "CREATE RULE other WITH (action = 'notify', reason_code = 'x_test') AS
        SELECT team, window_start, window_end, n AS observed, tokens,
               lag(n, 2) OVER (PARTITION BY team ORDER BY window_end) AS before
        FROM (SELECT team, window_start, window_end, count(*) AS n, max(input_tokens) AS tokens
              FROM TUMBLE(spans, event_time, INTERVAL '1 minute') GROUP BY team, window_start, window_end);";
    let mut bench = bench(&counted(""));
    for minute in 0..4 {
        bench.read(START.plus(minute * MINUTE_NS), &teams(&["a"]));
    }
    bench.read(START.plus(3 * MINUTE_NS + 11_000_000_000), &teams(&["a"]));
    bench.commit();
    bench.restart(&most(""));
    bench.read(START.plus(3 * MINUTE_NS + 11_000_000_001), &teams(&["a"]));
    bench.commit();
    bench.restart(&format!("{}{looks_back}", most("")));
    bench.read(START.plus(3 * MINUTE_NS + 11_000_000_002), &teams(&["a"]));
    assert_eq!(bench.fill(), []);
    let decisions = bench.read(START.plus(5 * MINUTE_NS), &teams(&["b"]));
    let of_other =
        decisions.iter().find(|d| d.event.data.rule.name == "other" && d.event.data.finding.observed.is_some());
    assert_eq!(of_other.map(|d| d.event.data.finding.evidence["before"].clone()), Some(json!(1)));
}

#[test]
fn earlier_windows_are_looked_back_at_and_not_judged_again() {
    let before = |over: &str| {
        format!(
            "CREATE RULE counted WITH (action = 'notify', reason_code = 'x_test') AS
             SELECT team, window_start, window_end, n AS observed,
                    lag(n) OVER (PARTITION BY team ORDER BY window_end) AS before
             FROM (SELECT team, window_start, window_end, {over} AS n
                   FROM TUMBLE(spans, event_time, INTERVAL '1 minute') GROUP BY team, window_start, window_end);"
        )
    };
    let mut bench = bench(&before("count(*)"));
    for minute in 0..3 {
        bench.read(START.plus(minute * MINUTE_NS), &teams(&["a", "a"]));
    }
    bench.read(START.plus(2 * MINUTE_NS + 11_000_000_000), &teams(&["a"]));
    bench.commit();
    bench.restart(&before("sum(input_tokens)"));
    bench.read(START.plus(2 * MINUTE_NS + 11_000_000_001), &teams(&["a"]));
    assert_eq!(bench.fill(), [], "the first two minutes were judged");
    let decisions = bench.read(START.plus(4 * MINUTE_NS), &teams(&["b"]));
    let evidence = |d: &Decision| d.event.data.finding.evidence["before"].clone();
    let firing: Vec<_> = decisions.iter().filter(|d| d.event.data.finding.observed == Some(4.0)).collect();
    assert_eq!(firing.iter().map(|d| evidence(d)).collect::<Vec<_>>(), [json!(2)]);
}

#[test]
fn what_a_running_window_says_no_more_is_taken_back() {
    let (few, most) = (running("busy", 9).replace("<= 9", ">= 2"), "max(input_tokens)");
    let mut bench = bench(&few);
    assert_eq!(bench.read(START, &teams(&["a", "a", "b", "b"])).len(), 2);
    bench.commit();
    bench.restart(&few.replace("HAVING sum(input_tokens)", &format!("HAVING {most} + count(*) % 2")));
    assert_eq!(bench.read(START.plus(1), &teams(&["a"])), [], "nothing is known of it");
    let decisions = bench.fill();
    let said: Vec<_> = decisions.iter().map(|d| (d.event.to_subject_text(), d.event.data.state)).collect();
    assert_eq!(said, [("team=b".to_owned(), State::Resolved)]);
}

#[test]
fn sums_of_who_has_other_stores_do_not_count() {
    let mut bench = bench(&counted(""));
    bench.read(START, &teams(&["a"]));
    bench.commit();
    let (mut other, _) = instance(&counted(""), (DAY_NS, Mode::Enforce));
    bench.restart(&most(""));
    std::mem::swap(&mut bench.scan, &mut other);
    bench.reassign();
    bench.read(START.plus(1), &teams(&["a"]));
    assert_eq!(bench.shard.stage.awaited().count(), 0, "who scans has not gone over to the rules");
    bench.commit();
    bench.scan = other;
    bench.reassign();
    bench.read(START.plus(2), &teams(&["a"]));
    bench.fill();
    let decisions = bench.read(START.plus(2 * MINUTE_NS), &teams(&["c"]));
    assert_eq!(observed(&decisions), [("team=a".to_owned(), Some(3.0))]);
}

#[test]
fn a_running_window_that_ends_while_a_rule_waits_has_its_directive() {
    let busy = running("busy", 9).replace("<= 9", ">= 2");
    let mut bench = bench(&busy);
    bench.read(START, &teams(&["a"]));
    bench.commit();
    bench.restart(&busy.replace("HAVING sum(input_tokens)", "HAVING count(*)"));
    bench.read(START.plus(1), &teams(&["a"]));
    assert_eq!(bench.read(START.plus(2 * MINUTE_NS), &teams(&["a", "a"])), []);
    let said = |d: &Decision| (d.event.data.state, (d.event.data.finding.window.unwrap().end.0 - START.0) / MINUTE_NS);
    let expected = [(State::Firing, 1), (State::Resolved, 1), (State::Firing, 3)];
    assert_eq!(bench.fill().iter().map(said).collect::<Vec<_>>(), expected);
}

#[test]
fn late_rows_in_history_are_no_reason_to_ship_sums_early() {
    let mut bench = bench(&counted(""));
    bench.read(START, &teams(&["late"]));
    bench.read(START.plus(MINUTE_NS), &teams(&["a"]));
    bench.commit();
    bench.restart(&most(""));
    bench.read(START.plus(MINUTE_NS), &teams(&["a"]));
    let plan = bench.settings.backfill.as_ref().unwrap();
    let mut stage = plan.stage(&BTreeSet::from([StoreId(0)])).unwrap();
    let absorb = |stage: &mut ScanStage, record: usize| {
        let (offset, key, payload) = (0, None, Some(bench.records[record].as_slice()));
        stage.absorb(
            RecordRef { topic: SPANS, partition: 0, offset, timestamp_ms: 0, key, payload, ..RecordRef::default() },
            START,
        );
    };
    absorb(&mut stage, 1);
    assert!(!stage.flush(START, true).is_empty(), "time begins");
    absorb(&mut stage, 0);
    absorb(&mut stage, 2);
    assert!(stage.flush(START, true).is_empty());
    assert_eq!(stage.take_aside().1.len(), 1, "one row was late");
    assert_eq!(stage.flush(START, false)[0].partials.len(), 1);
}
