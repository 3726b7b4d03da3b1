//! What was remembered meets another rule than the one that made it: of an older version of lictor, in another mode,
//! with another text, or none any more. Times are seconds of event time; `ttl` is 100 s.

use lictor_schemas::event::Instruction;
use lictor_schemas::genops::{Action, PolicyResult::Blocked, PolicyResult::Warning};
use lictor_schemas::rule::{Mode, RuleVersion};

use super::tests::{Log, cleared, decisions, directive_ids, in_window, row, rule, s, subject, told, window};
use super::*;

/// What the first version has written.
const OLD_STATE: &str = r#"{"active":{"subject":{"team":"a"},"started":{"at":0,"until":1000000000000,"nth":0},
    "holds":[{"slot":{"Running":{"start":"1970-01-01T00:00:00Z","end":"1970-01-01T00:16:40Z"}},
        "finding":{"result":"WARNING","reason_code":"BUDGET_EXCEEDED","observed":1.5,
            "window":{"start":"1970-01-01T00:00:00Z","end":"1970-01-01T00:16:40Z"},"exemplars":[],"evidence":{}},
        "at":10000000000,"valid_until":1000000000000,"lapses_at":1000000000000}],
    "published":{"directive_id":"0123456789abcdef0123456789abcdef","revision":3,"result":"WARNING",
        "window":{"start":"1970-01-01T00:00:00Z","end":"1970-01-01T00:16:40Z"},
        "at":10000000000,"valid_until":1000000000000}}}"#;

#[test]
fn a_log_that_knew_no_holds_goes_on() {
    let mut state = decisions();
    let restore = |state: &mut Decisions| {
        state.restore("budget", r#"{"team":"a"}"#, serde_json::from_str(OLD_STATE).unwrap());
    };
    restore(&mut state);
    assert_eq!(told(&state.advance(&rule(), s(20))), [""; 0]);
    assert_eq!((state.firing("budget"), state.pending("budget")), (1, 0));
    let events = state.change(&rule(), vec![], vec![in_window("a", Blocked, 30, window(0, 1000))]);
    assert_eq!(events[0].event.data.directive_id, "0123456789abcdef0123456789abcdef");
    assert_eq!((events[0].event.data.revision, events[0].event.data.started_at), (4, None));
    let (mut state, shadow) = (decisions(), RuleHeader { mode: Mode::Shadow, ..rule() });
    restore(&mut state);
    let switched = state.advance(&shadow, s(20));
    let modes: Vec<Mode> = switched.iter().map(|decision| decision.event.data.mode).collect();
    assert_eq!(modes, [Mode::Enforce, Mode::Shadow], "it lay on the topic of what is enforced");
}

#[test]
fn a_phase_that_is_neither_is_refused() {
    let broken = OLD_STATE.replace("\"published\"", "\"publisht\"");
    assert!(serde_json::from_str::<SubjectState>(&broken).is_err());
}

#[test]
fn another_mode_ends_a_directive_and_begins_another() {
    let shadow = RuleHeader { mode: Mode::Shadow, ..rule() };
    let (mut log, mut ids, mut state) = (Log::default(), BTreeSet::new(), decisions());
    let fired = state.change(&shadow, vec![], vec![in_window("a", Blocked, 10, window(0, 1000))]);
    assert_eq!(fired[0].event.data.mode, Mode::Shadow);
    ids.extend(directive_ids(&fired));
    for (at, now, before) in
        [(20, rule(), Mode::Shadow), (30, shadow.clone(), Mode::Enforce), (40, rule(), Mode::Shadow)]
    {
        log.write(&state);
        state = log.read();
        let mut switched = state.advance(&now, s(at));
        state.undo();
        assert_eq!(switched, state.advance(&now, s(at)), "undone, it is said again");
        state.commit();
        let expected = [format!("a superseded ALLOWED r2 @{at} ..1000"), format!("a firing BLOCKED r1 @{at} ..1000")];
        assert_eq!(told(&switched), expected);
        assert_eq!((switched[0].event.data.mode, switched[1].event.data.mode), (before, now.mode));
        assert_eq!(switched[0].directive, DirectiveRecord::Tombstone);
        assert!(ids.contains(&switched[0].event.data.directive_id));
        assert!(ids.insert(switched.pop().unwrap().event.data.directive_id), "never an id twice");
        assert_eq!(told(&state.advance(&now, s(at + 1))), [""; 0], "once");
        assert_eq!(state.touched().count(), 0);
        log = Log::default();
        state.change(&now, vec![], vec![in_window("a", Blocked, at + 2, window(0, 1000))]);
    }
}

#[test]
fn what_was_only_kept_ends_with_its_mode() {
    let shadow = RuleHeader { mode: Mode::Shadow, keep_firing_for_ns: s(50).0, ..rule() };
    let (mut log, mut state) = (Log::default(), decisions());
    state.change(&shadow, vec![], vec![in_window("a", Blocked, 10, window(0, 1000))]);
    state.change(&shadow, vec![cleared(subject("a"), window(0, 1000), s(20))], vec![]);
    log.write(&state);
    state = log.read();
    let enforce = RuleHeader { mode: Mode::Enforce, ..shadow };
    assert_eq!(told(&state.advance(&enforce, s(30))), ["a superseded ALLOWED r2 @30 ..1050"]);
    assert_eq!(state.firing("budget"), 0);
}

#[test]
fn a_rule_that_asks_for_something_else_says_so_at_once_and_a_new_version_when_it_speaks() {
    let (mut log, mut state) = (Log::default(), decisions());
    state.change(&rule(), vec![], vec![in_window("a", Blocked, 10, window(0, 1000))]);
    log.write(&state);
    state = log.read();
    let edited = RuleHeader { version: RuleVersion("v2".to_owned()), ..rule() };
    assert_eq!(told(&state.advance(&edited, s(20))), [""; 0], "what holds is the same");
    let milder = state.change(&edited, vec![], vec![in_window("a", Warning, 30, window(0, 1000))]);
    assert_eq!(told(&milder), ["a updated WARNING r2 @30 ..1000"]);
    assert_eq!(milder[0].event.data.rule.version, "v2");
    log.write(&state);
    state = log.read();
    let notifying = RuleHeader { action: Action::Notify, version: RuleVersion("v3".to_owned()), ..rule() };
    let restated = state.advance(&notifying, s(40));
    assert_eq!(told(&restated), ["a updated WARNING r3 @40 ..1000"]);
    let data = &restated[0].event.data;
    assert_eq!((data.action, data.rule.version.as_str()), (Instruction::Notify, "v3"));
}

#[test]
fn a_removed_rule_supersedes_what_fires_and_nothing_that_is_pending() {
    let held = RuleHeader { for_ns: s(50).0, ..rule() };
    let mut state = decisions();
    state.rows(&held, vec![row("a", Warning, 0), row("a", Warning, 60), row("b", Warning, 60)]);
    let mut ends = Vec::new();
    for (_, _, subject) in state.touched() {
        ends.extend(subject.unwrap().superseded("test", &held, s(500)));
    }
    assert_eq!(
        told(&ends),
        ["a superseded ALLOWED r2 @160 ..160"],
        "no later than something else would have been said"
    );
}
