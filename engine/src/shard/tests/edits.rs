//! Rules that go, come back, are faulty for a while, or are only looked at from now on.

use super::*;

#[test]
fn a_removed_rule_takes_its_directives_with_it_and_does_not_come_back() {
    let other = "CREATE RULE other WITH (action = 'notify', reason_code = 'x_test') AS
        SELECT team, input_tokens AS observed FROM spans WHERE input_tokens > 5;";
    let both = format!("{}{other}", counted(""));
    let mut bench = Bench::new(&both);
    bench.read(START, &teams(&["a"]));
    let fired = bench.read(START.plus(2 * MINUTE_NS), &teams(&["b"]));
    let directive = fired[0].event.data.clone();
    bench.commit();
    bench.restart(other);
    assert!(bench.shard.is_dirty(), "the directive must be ended even if nothing comes");
    let ends = bench.shard.changes(bench.next).orphans;
    bench.shard.undo().unwrap();
    bench.restart(other);
    assert_eq!(bench.commit().orphans, ends, "what was not committed is said again, in the same words");
    let [Decision { event, directive: record }] = ends.as_slice() else { panic!("one end: {ends:?}") };
    let data = &event.data;
    assert_eq!((data.state, *record), (State::Superseded, DirectiveRecord::Tombstone));
    assert_eq!((&data.directive_id, data.revision), (&directive.directive_id, directive.revision + 1));
    assert_eq!((&data.rule, &data.selector), (&directive.rule, &directive.selector));
    assert!(!bench.shard.is_dirty());
    bench.restart(&both);
    assert_eq!(bench.commit().orphans, []);
    let counted = &bench.shard.status()[0];
    assert_eq!((counted.groups, counted.firing), (0, 0), "what the first one knew is not known to the second");
}

#[test]
fn a_rule_of_a_log_without_heads_is_ended_by_its_name() {
    let mut bench = Bench::new(&counted(""));
    bench.read(START, &teams(&["a"]));
    let fired = bench.read(START.plus(2 * MINUTE_NS), &teams(&["b"]));
    bench.commit();
    bench.log.retain(|(key, _)| !key.starts_with("r/"));
    bench.restart(&counted("").replace("counted", "renamed"));
    let ends = bench.commit().orphans;
    let (before, after) = (&fired[0].event.data, &ends[0].event.data);
    assert_eq!((&after.rule.name, &after.rule.version), (&before.rule.name, &before.rule.version));
    assert_eq!((after.state, &after.directive_id), (State::Superseded, &before.directive_id));
    assert!(!bench.log.iter().any(|(key, value)| key == "r/counted" && value.is_some()));
}

#[test]
fn what_a_new_version_says_of_a_directive_bears_its_version() {
    let edited = running("counted", 9);
    let mut bench = Bench::new(&edited.replace("'notify'", "'warn'"));
    let fired = bench.read(START, &teams(&["a"]));
    bench.commit();
    bench.restart(&edited);
    let restated = bench.read(START.plus(1), &teams(&["a"]));
    let (before, after) = (&fired[0].event.data, &restated[0].event.data);
    assert_eq!((&after.directive_id, after.revision), (&before.directive_id, before.revision + 1));
    assert_ne!(after.rule.version, before.rule.version);
    assert_eq!((after.state, after.action.as_str()), (State::Updated, "notify"));
    bench.commit();
    bench.restart(&edited.replace("'notify'", "'notify', mode = 'shadow'"));
    let switched = bench.read(START.plus(2), &teams(&["a"]));
    let states: Vec<State> = switched.iter().map(|decision| decision.event.data.state).collect();
    assert_eq!(states, [State::Superseded, State::Firing]);
}

#[test]
fn in_shadow_mode_no_rule_enforces_whatever_it_says() {
    let text = format!("{}{}", counted(""), running("shadowed", 2).replace("'notify'", "'notify', mode = 'shadow'"));
    let of = |mode: Mode| -> Vec<Mode> {
        let (rules, _) = compile(&[RuleFile { file: "r.sql".into(), text: text.clone() }], &References::new());
        let settings = PipelineSettings { mode, ..PipelineSettings::default() };
        let stages = Stages::new(rules, Arc::new(PriceTable::empty()), &settings);
        stages.judge.judging.rules.iter().map(|rule| rule.header.mode).collect()
    };
    assert_eq!(of(Mode::Enforce), [Mode::Enforce, Mode::Shadow]);
    assert_eq!(of(Mode::Shadow), [Mode::Shadow, Mode::Shadow]);
}

#[test]
fn a_rule_that_comes_back_within_a_window_has_new_directives() {
    let both = format!("{}{}", running("busy", 9), counted("HAVING count(*) > 100"));
    let mut bench = Bench::new(&both);
    let first = bench.read(START, &teams(&["a"]));
    bench.commit();
    for _ in 0..2 {
        bench.restart(&counted("HAVING count(*) > 100"));
        bench.read(START.plus(1), &teams(&["b"]));
        bench.commit();
    }
    bench.restart(&both);
    let second = bench.read(START.plus(2), &teams(&["a"]));
    let ids = [&first, &second].map(|decisions| decisions[0].event.data.directive_id.clone());
    assert_ne!(ids[0], ids[1]);
    bench.commit();
    bench.restart(&counted("HAVING count(*) > 100"));
    bench.read(START.plus(5 * MINUTE_NS), &teams(&["b"]));
    bench.commit();
    bench.restart(&counted("HAVING count(*) > 100"));
    bench.commit();
    bench.compact();
    assert!(!bench.log.iter().any(|(key, _)| key.starts_with("s/busy/")), "the window is long over");
}

#[test]
fn a_deployment_that_only_looks_ends_what_rules_that_do_not_run_have_said() {
    let (text, other) = (running("busy", 9), counted("HAVING count(*) > 100"));
    for is_quarantined in [true, false] {
        let mut bench = Bench::new(&format!("{text}{other}"));
        bench.read(START, &teams(&["a"]));
        if is_quarantined {
            bench.shard.stage.quarantine(crate::exchange::RuleId(0), "overflow".to_owned());
        }
        bench.commit();
        let after = if is_quarantined { format!("{text}{other}") } else { format!("{other}{FAULTY}") };
        bench.restart(&after);
        assert_eq!(bench.commit().orphans, [], "what it has said stays while directives are applied");
        bench.mode = Mode::Shadow;
        bench.restart(&after);
        let ends = bench.commit().orphans;
        let said: Vec<_> = ends.iter().map(|end| (end.event.data.state, end.event.data.mode)).collect();
        assert_eq!(said, [(State::Superseded, Mode::Enforce)]);
        bench.restart(&after);
        assert_eq!(bench.commit().orphans, [], "once");
    }
}

#[test]
fn a_faulty_rule_finds_its_state_and_its_directives_when_it_is_mended() {
    let other = "CREATE RULE other WITH (action = 'notify', reason_code = 'x_test') AS
        SELECT team, window_start, window_end, count(*) AS observed
        FROM TUMBLE(spans, event_time, INTERVAL '1 minute') GROUP BY team, window_start, window_end;";
    let both = format!("{}{other}", counted(""));
    let mut bench = Bench::new(&both);
    bench.read(START.plus(-2 * MINUTE_NS), &teams(&["a"]));
    let fired = bench.read(START, &teams(&["b", "b"]));
    assert!(!fired.is_empty());
    bench.commit();
    bench.read(START.plus(1), &teams(&["b"]));
    bench.commit();
    for _ in 0..2 {
        bench.restart(&format!("{other}{FAULTY}"));
        // Generations go by, and with them what was in the log.
        for n in 0..300 {
            bench.read(START.plus(n + 2), &teams(&["b"]));
            assert_eq!(bench.commit().orphans, []);
        }
    }
    bench.restart(&both);
    assert_eq!((bench.shard.status()[0].groups, bench.shard.status()[0].firing), (1, 1));
    let decisions = bench.read(START.plus(2 * MINUTE_NS), &teams(&["c"]));
    let of_counted = |d: &&Decision| d.event.data.rule.name == "counted" && d.event.data.finding.observed.is_some();
    let found: Vec<Decision> = decisions.iter().filter(of_counted).cloned().collect();
    assert_eq!(observed(&found), [("team=b".to_owned(), Some(3.0))]);
    bench.commit();
    bench.restart(other);
    assert_eq!(bench.commit().orphans.len(), 1, "removed from a whole rule set, it is gone");
}
