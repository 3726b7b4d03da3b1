//! Edges, one fact per test. Times are seconds of event time; `ttl` is 100 s.

use lictor_schemas::event::{Instruction, State};
use lictor_schemas::genops::{Action, PolicyResult, ReasonCode, Severity};
use lictor_schemas::rule::RuleVersion;
use serde_json::{Map, json};

use super::*;
use PolicyResult::{Allowed, Blocked, Warning};

pub(super) fn s(seconds: i64) -> EventTime {
    EventTime(seconds * 1_000_000_000)
}

pub(super) fn window(start: i64, end: i64) -> Window {
    Window { start: s(start), end: s(end) }
}

pub(super) fn rule() -> RuleHeader {
    RuleHeader {
        severity: Severity::Error,
        ttl_ns: s(100).0,
        file: "budget.sql".to_owned(),
        version: RuleVersion("v1".to_owned()),
        ..RuleHeader::new("budget", Action::Block, ReasonCode::parse("BUDGET_EXCEEDED").unwrap())
    }
}

pub(super) fn subject(team: &str) -> Subject {
    Subject(Map::from_iter([("team".to_owned(), json!(team))]))
}

pub(super) fn row(team: &str, result: PolicyResult, at: i64) -> Violation {
    Violation {
        subject: subject(team),
        result,
        reason_code: rule().reason_code,
        observed: Some(1.5),
        threshold: None,
        unit: None,
        message: None,
        valid_until: None,
        params: None,
        window: None,
        window_kind: None,
        sample_count: None,
        evidence: Map::new(),
        exemplars: Vec::new(),
        at: s(at),
    }
}

pub(super) fn in_window(team: &str, result: PolicyResult, at: i64, window: Window) -> Violation {
    Violation { window: Some(window), ..row(team, result, at) }
}

pub(super) fn cleared(subject: Subject, window: Window, at: EventTime) -> Cleared {
    Cleared { subject, window, at }
}

pub(super) fn decisions() -> Decisions {
    Decisions::new("test", SUBJECTS_MAX)
}

/// Events as `team state result revision @time ..valid_until`, in seconds.
pub(super) fn told(decisions: &[Decision]) -> Vec<String> {
    let tell = |decision: &Decision| {
        let data = &decision.event.data;
        let team = data.selector.matches["team"].as_str().unwrap();
        let (at, until) = (decision.event.time.0 / s(1).0, data.valid_until.0 / s(1).0);
        format!("{team} {} {} r{} @{at} ..{until}", data.state.as_str(), data.finding.result, data.revision)
    };
    decisions.iter().map(tell).collect()
}

pub(super) fn directive_ids(decisions: &[Decision]) -> Vec<String> {
    decisions.iter().map(|decision| decision.event.data.directive_id.clone()).collect()
}

#[test]
fn a_running_window_warns_then_blocks_then_resolves_at_its_end() {
    let (mut state, day) = (decisions(), window(0, 1000));
    let warned = state.change(&rule(), vec![], vec![in_window("a", Warning, 10, day)]);
    assert_eq!(told(&warned), ["a firing WARNING r1 @10 ..1000"]);
    assert_eq!(warned[0].event.data.action, Instruction::Warn, "a blocking rule only warns on WARNING");
    assert_eq!(warned[0].directive, DirectiveRecord::Put);

    let same = state.change(&rule(), vec![], vec![in_window("a", Warning, 20, day)]);
    assert_eq!(told(&same), [""; 0], "the same state is no news");

    let blocked = state.change(&rule(), vec![], vec![in_window("a", Blocked, 30, day)]);
    assert_eq!(told(&blocked), ["a updated BLOCKED r2 @30 ..1000"]);
    assert_eq!(blocked[0].event.data.action, Instruction::Block);

    let resolved = state.close_window(&rule(), day, s(1000));
    assert_eq!(told(&resolved), ["a resolved ALLOWED r3 @1000 ..1000"]);
    assert_eq!(resolved[0].directive, DirectiveRecord::Tombstone);
    assert_eq!(resolved[0].event.data.finding.observed, None, "an old measurement is not repeated");
    assert_eq!(directive_ids(&warned), directive_ids(&resolved));
    assert_eq!(state.firing("budget"), 0);
}

#[test]
fn a_result_that_falls_is_an_update_too() {
    let (mut state, day) = (decisions(), window(0, 1000));
    state.change(&rule(), vec![], vec![in_window("a", Blocked, 10, day)]);
    let milder = state.change(&rule(), vec![], vec![in_window("a", Warning, 20, day)]);
    assert_eq!(told(&milder), ["a updated WARNING r2 @20 ..1000"]);
}

#[test]
fn the_watermark_alone_resolves_a_running_window() {
    let mut state = decisions();
    state.change(&rule(), vec![], vec![in_window("a", Warning, 10, window(0, 1000))]);
    assert_eq!(told(&state.advance(&rule(), s(999))), [""; 0]);
    assert_eq!(told(&state.advance(&rule(), s(1500))), ["a resolved ALLOWED r2 @1000 ..1000"]);
    assert_eq!(told(&state.close_window(&rule(), window(0, 1000), s(1000))), [""; 0], "it is already over");
}

#[test]
fn firing_again_in_the_same_window_is_another_directive() {
    let (mut state, day) = (decisions(), window(0, 1000));
    let mut ids = Vec::new();
    for at in [10, 20, 30] {
        ids.extend(directive_ids(&state.change(&rule(), vec![], vec![in_window("a", Warning, at, day)])));
        let resolved = state.change(&rule(), vec![cleared(subject("a"), day, s(at + 5))], vec![]);
        assert_eq!(told(&resolved), [format!("a resolved ALLOWED r2 @{} ..1000", at + 5)]);
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 3);
    state.advance(&rule(), s(1000));
    assert!(state.rules["budget"].ended.is_empty(), "what ended in a window is forgotten with it");
}

#[test]
fn firing_again_in_a_session_that_has_grown_is_another_directive() {
    let (mut state, mut ids) = (decisions(), Vec::new());
    let fired = state.change(&rule(), vec![], vec![in_window("a", Warning, 10, window(10, 70))]);
    ids.extend(directive_ids(&fired));
    let resolved = state.change(&rule(), vec![cleared(subject("a"), window(10, 70), s(50))], vec![]);
    assert_eq!(told(&resolved), ["a resolved ALLOWED r2 @50 ..70"]);
    state.prolong(&rule(), vec![(subject("a"), window(10, 110)), (subject("b"), window(10, 110))]);
    state.advance(&rule(), s(100));
    let again = state.change(&rule(), vec![], vec![in_window("a", Warning, 105, window(10, 165))]);
    assert_eq!(told(&again), ["a firing WARNING r1 @105 ..165"]);
    ids.extend(directive_ids(&again));
    assert_ne!(ids[0], ids[1]);
}

#[test]
fn a_session_that_swallows_another_goes_on_as_one_directive() {
    let mut state = decisions();
    let early = in_window("a", Warning, 10, window(10, 70));
    let later = in_window("a", Warning, 90, window(90, 150));
    state.change(&rule(), vec![], vec![early, later]);
    let cleared = [window(10, 70), window(90, 150)].map(|window| cleared(subject("a"), window, s(90))).to_vec();
    let merged = state.change(&rule(), cleared, vec![in_window("a", Blocked, 90, window(10, 150))]);
    assert_eq!(told(&merged), ["a updated BLOCKED r2 @90 ..150"]);
    assert_eq!(told(&state.advance(&rule(), s(150))), ["a resolved ALLOWED r3 @150 ..150"]);
}

#[test]
fn of_two_overlapping_windows_the_most_severe_then_the_latest_is_published() {
    let (mut state, early, late) = (decisions(), window(0, 100), window(50, 150));
    let first = state.change(&rule(), vec![], vec![in_window("a", Blocked, 60, early)]);
    assert_eq!(told(&first), ["a firing BLOCKED r1 @60 ..100"]);
    let milder = state.change(&rule(), vec![], vec![in_window("a", Warning, 70, late)]);
    assert_eq!(told(&milder), [""; 0], "the more severe window still holds");
    let after = state.close_window(&rule(), early, s(100));
    let expected = ["a updated BLOCKED r2 @80 ..150", "a updated WARNING r3 @100 ..150"];
    assert_eq!(told(&after), expected, "controllers do not let go in between");
    let window_start = after[1].event.data.finding.window.unwrap().start;
    assert_eq!(window_start, late.start);
    assert_eq!(told(&state.close_window(&rule(), late, s(150))), ["a resolved ALLOWED r4 @150 ..150"]);
}

#[test]
fn a_violation_that_goes_on_in_the_next_overlapping_window_is_renewed_in_time() {
    let (mut state, early, late) = (decisions(), window(0, 100), window(50, 150));
    state.change(&rule(), vec![], vec![in_window("a", Warning, 60, early)]);
    let soon = state.change(&rule(), vec![], vec![in_window("a", Warning, 70, late)]);
    assert_eq!(told(&soon), [""; 0], "more than half of 60..100 is left");
    assert_eq!(told(&state.advance(&rule(), s(85))), ["a updated WARNING r2 @80 ..150"]);
    assert_eq!(told(&state.close_window(&rule(), early, s(100))), [""; 0]);
}

#[test]
fn a_closed_window_replaces_the_one_before() {
    let mut state = decisions();
    let first = vec![in_window("b", Warning, 60, window(0, 60)), in_window("a", Warning, 60, window(0, 60))];
    let told_first = told(&state.replace(&rule(), first, window(0, 60), s(120)));
    assert_eq!(told_first, ["a firing WARNING r1 @60 ..220", "b firing WARNING r1 @60 ..220"], "end + length + ttl");
    let second = vec![in_window("b", Warning, 120, window(60, 120)), in_window("c", Blocked, 120, window(60, 120))];
    let told_second = told(&state.replace(&rule(), second, window(60, 120), s(180)));
    assert_eq!(told_second, ["a resolved ALLOWED r2 @120 ..220", "c firing BLOCKED r1 @120 ..280"]);
    let third = vec![in_window("b", Warning, 180, window(120, 180))];
    let told_third = told(&state.replace(&rule(), third, window(120, 180), s(240)));
    assert_eq!(told_third, ["b updated WARNING r2 @140 ..280", "c resolved ALLOWED r2 @180 ..280"], "renewed at half");
}

#[test]
fn the_end_of_the_next_window_resolves_what_was_found_whether_it_had_rows_or_not() {
    let mut state = decisions();
    state.replace(&rule(), vec![in_window("a", Warning, 60, window(0, 60))], window(0, 60), s(120));
    assert_eq!(told(&state.advance(&rule(), s(119))), [""; 0]);
    let resolved = state.advance(&rule(), EventTime::MAX);
    assert_eq!(told(&resolved), ["a resolved ALLOWED r2 @120 ..220"]);
    assert_eq!(resolved[0].directive, DirectiveRecord::Tombstone);
}

#[test]
fn a_window_without_rows_between_two_that_violate_ends_the_first_directive() {
    let mut state = decisions();
    state.replace(&rule(), vec![in_window("a", Warning, 60, window(0, 60))], window(0, 60), s(120));
    let third = vec![in_window("a", Warning, 180, window(120, 180))];
    let told_third = told(&state.replace(&rule(), third, window(120, 180), s(240)));
    assert_eq!(told_third, ["a resolved ALLOWED r2 @120 ..220", "a firing WARNING r1 @180 ..340"]);
}

#[test]
fn a_closed_window_violation_expires_if_its_own_end_comes_first() {
    let mut state = decisions();
    let short = Violation { valid_until: Some(s(100)), ..in_window("a", Warning, 60, window(0, 60)) };
    state.replace(&rule(), vec![short], window(0, 60), s(120));
    assert_eq!(told(&state.advance(&rule(), EventTime::MAX)), ["a expired ALLOWED r2 @100 ..100"]);
}

#[test]
fn what_a_short_window_has_found_holds_until_the_longer_one_after_it_is_over() {
    let (mut state, february) = (decisions(), window(0, 280));
    let fired = state.replace(&rule(), vec![in_window("a", Warning, 270, february)], february, s(280 + 410));
    assert_eq!(told(&fired), ["a firing WARNING r1 @270 ..790"]);
    assert_eq!(told(&state.advance(&rule(), s(690))), ["a resolved ALLOWED r2 @690 ..790"]);
}

#[test]
fn of_windows_that_subjects_do_not_share_one_takes_nothing_back_that_another_has_found() {
    let (mut state, tokyo, rome) = (decisions(), window(0, 240), window(80, 320));
    state.put(&rule(), vec![in_window("a", Warning, 200, tokyo)], tokyo, s(480));
    let fired = state.put(&rule(), vec![in_window("b", Warning, 300, rome)], rome, s(560));
    assert_eq!(told(&fired), ["b firing WARNING r1 @300 ..660"]);
    let again = state.put(&rule(), vec![in_window("a", Warning, 400, window(240, 480))], window(240, 480), s(720));
    assert_eq!(told(&again), ["a updated WARNING r2 @400 ..820"], "it goes on, and b is not asked");
    assert_eq!(told(&state.put(&rule(), vec![], window(320, 560), s(800))), [""; 0]);
    assert_eq!(told(&state.advance(&rule(), s(560))), ["b resolved ALLOWED r2 @560 ..660"]);
    assert_eq!(told(&state.advance(&rule(), s(720))), ["a resolved ALLOWED r3 @720 ..820"]);
}

#[test]
fn rows_hold_for_the_ttl_and_are_renewed_at_half_of_it() {
    let mut state = decisions();
    let rows = |times: &[i64]| times.iter().map(|at| row("a", Warning, *at)).collect::<Vec<_>>();
    assert_eq!(told(&state.rows(&rule(), rows(&[0, 10, 20]))), ["a firing WARNING r1 @0 ..100"]);
    assert_eq!(told(&state.rows(&rule(), rows(&[60]))), ["a updated WARNING r2 @50 ..120"]);
    assert_eq!(
        told(&state.advance(&rule(), s(1000))),
        ["a updated WARNING r3 @85 ..160", "a expired ALLOWED r4 @160 ..160"]
    );
    let again = state.rows(&rule(), rows(&[1000]));
    assert_eq!(told(&again), ["a firing WARNING r1 @1000 ..1100"]);
}

#[test]
fn what_is_over_before_it_is_found_is_no_violation() {
    let mut state = decisions();
    let past = || Violation { valid_until: Some(s(10)), ..row("a", Blocked, 10) };
    assert_eq!(told(&state.rows(&rule(), vec![past(), past()])), [""; 0]);
}

#[test]
fn windows_that_begin_together_have_directives_of_their_own() {
    let mut state = decisions();
    let mut ids = BTreeSet::new();
    for end in [100, 300, 500] {
        let (hit, calm) = (window(0, end), window(0, end + 100));
        let fired = state.replace(&rule(), vec![in_window("a", Blocked, end, hit)], hit, s(end + 100));
        assert_eq!(told(&fired), [format!("a firing BLOCKED r1 @{end} ..{}", end * 2 + 100)]);
        assert!(ids.insert(fired[0].event.data.directive_id.clone()) && ids.insert(fired[0].event.id.clone()));
        assert_eq!(state.replace(&rule(), vec![], calm, s(end + 200)).len(), 1);
    }
}

#[test]
fn a_milder_row_takes_over_when_the_severe_one_has_run_out() {
    let mut state = decisions();
    let rows = vec![row("a", Blocked, 0), row("a", Warning, 40)];
    assert_eq!(told(&state.rows(&rule(), rows)), ["a firing BLOCKED r1 @0 ..100"]);
    let later = told(&state.advance(&rule(), s(200)));
    let renewed = ["a updated BLOCKED r2 @50 ..140", "a updated WARNING r3 @100 ..140"];
    assert_eq!(later, [&renewed[..], &["a expired ALLOWED r4 @140 ..140"]].concat());
}

#[test]
fn how_far_time_comes_in_one_step_makes_no_difference_to_sessions() {
    // The second session's last row comes while the first one's violation holds, its end when that is over.
    let session = |start, last, end| in_window("a", Warning, last, window(start, end));
    let sessions = [session(0, 10, 60), session(130, 155, 205)];
    let expected = [
        "a firing WARNING r1 @10 ..160",
        "a expired ALLOWED r2 @160 ..160",
        "a firing WARNING r1 @155 ..305",
        "a expired ALLOWED r2 @305 ..305",
    ];
    let mut at_once = decisions();
    let mut events = at_once.sessions(&rule(), sessions.to_vec());
    events.extend(at_once.advance(&rule(), s(400)));
    assert_eq!(told(&events), expected);
    let mut step_by_step = decisions();
    let mut events = Vec::new();
    for (at, [from, to]) in [(60, [0, 1]), (170, [1, 1]), (205, [1, 2]), (400, [2, 2])] {
        events.extend(step_by_step.sessions(&rule(), sessions[from..to].to_vec()));
        events.extend(step_by_step.advance(&rule(), s(at)));
    }
    assert_eq!(told(&events), expected);
}

#[test]
fn how_rows_are_batched_makes_no_difference() {
    let rows: Vec<_> = [0, 30, 45, 160, 150, 420, 431]
        .iter()
        .map(|at| row(if at % 2 == 0 { "a" } else { "b" }, if at % 3 == 0 { Blocked } else { Warning }, *at))
        .collect();
    let mut whole = decisions();
    let mut expected = whole.rows(&rule(), rows.clone());
    expected.extend(whole.advance(&rule(), EventTime::MAX));
    let mut single = decisions();
    let mut events = Vec::new();
    let mut high = 0;
    for row in rows {
        high = high.max(row.at.0);
        events.extend(single.rows(&rule(), vec![row]));
        events.extend(single.advance(&rule(), EventTime(high - s(10).0)));
    }
    events.extend(single.advance(&rule(), EventTime::MAX));
    let order = |decision: &Decision| (decision.event.time, decision.event.id.clone());
    expected.sort_by_key(order);
    events.sort_by_key(order);
    assert_eq!(told(&events), told(&expected));
    assert_eq!(events, expected);
}

#[test]
fn a_row_may_set_its_own_end() {
    let (mut state, day) = (decisions(), window(0, 1000));
    let short = Violation { valid_until: Some(s(50)), ..in_window("a", Warning, 10, day) };
    let fired = state.change(&rule(), vec![], vec![short.clone()]);
    assert_eq!(told(&fired), ["a firing WARNING r1 @10 ..50"]);
    assert_eq!(told(&state.advance(&rule(), s(60))), ["a expired ALLOWED r2 @50 ..50"]);
    let again = state.change(&rule(), vec![], vec![Violation { valid_until: Some(s(110)), at: s(70), ..short }]);
    assert_eq!(told(&again), ["a firing WARNING r1 @70 ..110"]);
    assert_ne!(directive_ids(&fired), directive_ids(&again), "the window is the same, the directive is not");
}

#[test]
fn a_row_that_says_allowed_is_no_violation() {
    let (mut state, day) = (decisions(), window(0, 1000));
    assert_eq!(told(&state.change(&rule(), vec![], vec![in_window("a", Allowed, 10, day)])), [""; 0]);
    state.change(&rule(), vec![], vec![in_window("a", Warning, 20, day)]);
    let cleared = state.change(&rule(), vec![], vec![in_window("a", Allowed, 30, day)]);
    assert_eq!(told(&cleared), ["a resolved ALLOWED r2 @30 ..1000"]);
}

#[test]
fn of_two_rows_about_one_subject_the_more_severe_counts() {
    let mut state = decisions();
    let both =
        |first, second| vec![in_window("a", first, 60, window(0, 60)), in_window("a", second, 60, window(0, 60))];
    let fired = state.replace(&rule(), both(Warning, Blocked), window(0, 60), s(120));
    assert_eq!(told(&fired), ["a firing BLOCKED r1 @60 ..220"]);
    assert_eq!(told(&state.replace(&rule(), both(Blocked, Warning), window(0, 60), s(120))), [""; 0]);
}

#[test]
fn beyond_the_limit_subjects_are_counted_and_reported_once() {
    let mut state = Decisions::new("test", 2);
    let rows = |teams: &[&str], at| teams.iter().map(|team| row(team, Warning, at)).collect::<Vec<_>>();
    assert_eq!(state.rows(&rule(), rows(&["a", "b", "c", "d", "a"], 0)).len(), 2);
    assert_eq!(state.refused("budget"), 2);
    assert_eq!(state.take_limit_reports(), [LimitReport { rule: "budget".to_owned(), subjects_max: 2 }]);
    state.rows(&rule(), rows(&["c"], 1));
    assert_eq!(state.take_limit_reports(), [], "the limit has not been left since");
    state.advance(&rule(), s(200));
    assert_eq!(told(&state.rows(&rule(), rows(&["c"], 300))), ["c firing WARNING r1 @300 ..400"]);
    state.rows(&rule(), rows(&["d", "e"], 301));
    assert_eq!(state.take_limit_reports().len(), 1, "reached anew, reported anew");
}

#[test]
fn rules_do_not_see_each_other() {
    let mut state = decisions();
    let other = RuleHeader { name: "other".to_owned(), ..rule() };
    let a = state.rows(&rule(), vec![row("a", Warning, 0)]);
    let b = state.rows(&other, vec![row("a", Warning, 0)]);
    assert_ne!(directive_ids(&a), directive_ids(&b));
    state.advance(&other, EventTime::MAX);
    assert_eq!((state.firing("budget"), state.firing("other")), (1, 0));
}

/// A stream of calls drawn from `seed`, applied one after the other; `pause` may replace the state between two calls.
fn replay(seed: u64, mut pause: impl FnMut(Decisions) -> Decisions) -> Vec<Decision> {
    let rule = || RuleHeader {
        for_ns: [0, s(25).0][usize::from(seed % 2 == 1)],
        keep_firing_for_ns: [0, s(40).0][usize::from(seed / 2 % 2 == 1)],
        repeat_interval_ns: [None, Some(s(30).0)][usize::from(seed / 4 % 2 == 1)],
        ..rule()
    };
    let mut random = fastrand::Rng::with_seed(seed);
    let mut state = Decisions::new("test", 3);
    let mut events = Vec::new();
    for step in 0..200_i64 {
        let (at, start) = (step * 7, step * 7 / 100 * 100);
        let team = ["a", "b", "c", "d"][random.usize(0..4)];
        let result = [Warning, Blocked][random.usize(0..2)];
        let running = window(start, start + 100);
        events.extend(match random.u32(0..5) {
            0 => state.change(&rule(), vec![cleared(subject(team), running, s(at))], vec![]),
            1 | 2 => state.change(&rule(), vec![], vec![in_window(team, result, at, running)]),
            3 => state.close_window(&rule(), window(start - 100, start), s(start)),
            _ => state.advance(&rule(), s(at - 20)),
        });
        state = pause(state);
    }
    events
}

#[test]
fn a_replay_gives_identical_events_and_no_id_twice() {
    for seed in 0..20 {
        let events = replay(seed, |state| state);
        assert_eq!(events, replay(seed, |state| state), "seed {seed}");
        let ids: BTreeSet<_> = events.iter().map(|decision| &decision.event.id).collect();
        assert_eq!(ids.len(), events.len(), "seed {seed}: no id comes twice");
    }
}

#[test]
fn every_directive_is_a_whole_life() {
    for seed in 0..20 {
        let mut last: BTreeMap<String, (u32, State)> = BTreeMap::new();
        for decision in replay(seed, |state| state) {
            let data = decision.event.data;
            let before = last.insert(data.directive_id, (data.revision, data.state));
            match data.state {
                State::Firing => assert_eq!((before, data.revision), (None, 1), "seed {seed}"),
                _ => assert!(
                    before.is_some_and(|(revision, state)| revision + 1 == data.revision && !state.is_ended()),
                    "seed {seed}: {before:?} then {} {}",
                    data.state.as_str(),
                    data.revision
                ),
            }
        }
    }
}

/// What a log that has taken every touched subject would restore.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Log(BTreeMap<(String, String), String>);

impl Log {
    pub(super) fn write(&mut self, state: &Decisions) {
        for (rule, key, subject) in state.touched() {
            let key = (rule.to_owned(), key.to_owned());
            match subject {
                Some(subject) => self.0.insert(key, serde_json::to_string(&subject).unwrap()),
                None => self.0.remove(&key),
            };
        }
    }

    pub(super) fn read(&self) -> Decisions {
        let mut restored = Decisions::new("test", 3);
        for ((rule, key), text) in &self.0 {
            restored.restore(rule, key, serde_json::from_str(text).unwrap());
        }
        restored
    }
}

#[test]
fn a_state_restored_from_its_log_goes_on_the_same() {
    for seed in 0..20 {
        let mut log = Log::default();
        let through_log = |mut state: Decisions| {
            log.write(&state);
            state.commit();
            log.read()
        };
        assert_eq!(replay(seed, |state| state), replay(seed, through_log), "seed {seed}");
    }
}

#[test]
fn what_was_undone_has_never_been() {
    for seed in 0..20 {
        let mut undone = 0;
        let through_a_mistake = |mut state: Decisions| {
            state.commit();
            state.change(&rule(), vec![], vec![in_window("b", Blocked, 5, window(0, 100))]);
            state.rows(&rule(), vec![row("z", Warning, 1_000_000)]);
            state.advance(&rule(), s(500_000));
            state.undo();
            undone += 1;
            state
        };
        assert_eq!(replay(seed, |state| state), replay(seed, through_a_mistake), "seed {seed}");
        assert!(undone > 0);
    }
}
