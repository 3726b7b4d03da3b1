use lictor_schemas::columns::RequestReader;
use lictor_schemas::genops::PolicyResult;
use serde_json::{Value, json};

use super::super::held::Change;
use super::*;

const NOON: EventTime = EventTime(43_200_000_000_000);

fn held(id: &str, action: Instruction) -> Held {
    Held {
        directive_id: id.to_owned(),
        revision: 1,
        mode: Mode::Enforce,
        action,
        result: PolicyResult::Blocked,
        reason_code: None,
        rule: "r".to_owned(),
        message: None,
        params: None,
        valid_until: NOON.plus(60_000_000_000),
    }
}

fn selector(matches: &Value) -> SelectorTexts {
    let matches = matches.as_object().unwrap();
    matches.iter().map(|(column, value)| (column.clone(), lictor_schemas::columns::selector_text(value))).collect()
}

fn put(index: &mut DirectiveIndex, held: Held, matches: Value) -> Put {
    index.apply(Change::Put(Box::new(held), selector(&matches)))
}

fn block(index: &mut DirectiveIndex, id: &str, matches: Value) {
    assert_eq!(put(index, held(id, Instruction::Block), matches), Put::Taken);
}

fn index() -> DirectiveIndex {
    DirectiveIndex::new(1_000)
}

fn find(index: &DirectiveIndex, request: &Value, now: EventTime) -> Found {
    let attributes = request.as_object().unwrap().iter().map(|(name, value)| (name.as_str(), value));
    index.find(&RequestReader::new(&[]).read(attributes), now)
}

/// Which directive decides about a request at noon.
#[track_caller]
fn check(index: &DirectiveIndex, request: Value, expected: Option<&str>) {
    let found = find(index, &request, NOON);
    assert_eq!(found.strongest.as_ref().map(|held| held.directive_id.as_str()), expected, "{request}");
}

#[test]
fn a_request_is_meant_if_it_has_all_columns_of_the_selector() {
    let mut index = index();
    block(&mut index, "d1", json!({"team": "docs", "request_model": "gpt-4o"}));
    check(&index, json!({"team": "docs", "request_model": "gpt-4o", "region": "eu"}), Some("d1"));
    check(&index, json!({"genops.team": "docs", "gen_ai.request.model": "gpt-4o"}), Some("d1"));
    check(&index, json!({"team": "docs"}), None);
    check(&index, json!({"team": "docs", "request_model": "o3"}), None);
    check(&index, json!({"team": "gpt-4o", "request_model": "docs"}), None);
    check(&index, json!({}), None);
}

#[test]
fn texts_that_run_together_are_told_apart() {
    let mut index = index();
    block(&mut index, "d1", json!({"feature": "a1:b", "team": "c"}));
    check(&index, json!({"feature": "a", "team": "b1:c"}), None);
    check(&index, json!({"feature": "a1:b", "team": "c"}), Some("d1"));
    check(&index, json!({"feature": "-", "team": "c"}), None);
}

#[test]
fn the_strongest_directive_decides_and_warnings_stand_beside_it() {
    let mut index = index();
    let by_team = json!({"team": "docs"});
    assert_eq!(put(&mut index, held("w2", Instruction::Warn), by_team.clone()), Put::Taken);
    assert_eq!(put(&mut index, held("w1", Instruction::Warn), json!({"project": "p"})), Put::Taken);
    assert_eq!(put(&mut index, held("n", Instruction::Notify), by_team.clone()), Put::Taken);
    check(&index, json!({"team": "docs", "project": "p"}), Some("w2"));
    let found = find(&index, &json!({"team": "docs", "project": "p"}), NOON);
    let warnings: Vec<&str> = found.warnings.iter().map(|held| held.directive_id.as_str()).collect();
    assert_eq!(warnings, ["w1", "w2"]);
    assert_eq!(put(&mut index, held("t", Instruction::Throttle), json!({"project": "p"})), Put::Taken);
    check(&index, json!({"team": "docs", "project": "p"}), Some("t"));
    block(&mut index, "b", by_team);
    check(&index, json!({"team": "docs", "project": "p"}), Some("b"));
    check(&index, json!({"project": "p"}), Some("t"));
}

#[test]
fn of_two_that_are_as_strong_the_longer_one_decides() {
    let mut index = index();
    let longer = Held { valid_until: NOON.plus(1 << 50), ..held("a", Instruction::Block) };
    put(&mut index, longer, json!({"team": "docs"}));
    block(&mut index, "b", json!({"team": "docs"}));
    check(&index, json!({"team": "docs"}), Some("a"));
    block(&mut index, "c", json!({"project": "p"}));
    check(&index, json!({"team": "x", "project": "p"}), Some("c"));
}

#[test]
fn a_directive_applies_until_its_end_and_is_dropped_then() {
    let mut index = index();
    let end = held("d1", Instruction::Block).valid_until;
    block(&mut index, "d1", json!({"team": "docs"}));
    let request = json!({"team": "docs"});
    assert!(find(&index, &request, end.plus(-1)).strongest.is_some());
    assert_eq!(find(&index, &request, end), Found::default(), "the end is the first instant after it");
    assert_eq!((index.expire(end.plus(-1), 9), index.len()), (0, 1));
    assert_eq!((index.expire(end, 9), index.len(), index.selector_sets()), (1, 0, 0));
}

#[test]
fn many_that_end_together_are_dropped_bit_by_bit() {
    let mut index = index();
    (0..10).for_each(|n| block(&mut index, &format!("d{n}"), json!({"team": n.to_string()})));
    assert_eq!((index.expire(EventTime::MAX, 4), index.len()), (4, 6));
    assert_eq!((index.expire(EventTime::MAX, 100), index.is_empty()), (6, true));
}

#[test]
fn a_shadow_directive_never_decides() {
    let mut index = index();
    let shadow = Held { mode: Mode::Shadow, ..held("s", Instruction::Block) };
    put(&mut index, shadow, json!({"team": "docs"}));
    let found = find(&index, &json!({"team": "docs"}), NOON);
    assert_eq!((found.strongest.is_none(), found.warnings.is_empty()), (true, true));
    assert_eq!(found.shadow.unwrap().directive_id, "s");
}

#[test]
fn numbers_and_booleans_are_compared_as_text() {
    let mut index = index();
    block(&mut index, "n", json!({"tier": 5}));
    block(&mut index, "b", json!({"is_batch": true}));
    for tier in [json!(5), json!(5.0), json!("5")] {
        check(&index, json!({"tier": tier}), Some("n"));
    }
    check(&index, json!({"is_batch": "true"}), Some("b"));
    check(&index, json!({"is_batch": false}), None);
    check(&index, json!({"tier": 5.5}), None);
}

#[test]
fn a_null_in_a_selector_means_those_who_say_nothing() {
    let mut index = index();
    block(&mut index, "d1", json!({"team": null, "request_model": "gpt-4o"}));
    check(&index, json!({"request_model": "gpt-4o"}), Some("d1"));
    check(&index, json!({"request_model": "gpt-4o", "team": "unknown"}), Some("d1"));
    check(&index, json!({"request_model": "gpt-4o", "team": "docs"}), None);
}

#[test]
fn a_revision_takes_the_place_of_the_one_before() {
    let mut index = index();
    block(&mut index, "d1", json!({"team": "docs"}));
    let later = EventTime(NOON.0 * 2);
    let renewed = Held { revision: 2, valid_until: later, ..held("d1", Instruction::Block) };
    assert_eq!(put(&mut index, renewed.clone(), json!({"team": "docs"})), Put::Taken);
    assert_eq!((index.len(), index.iter().next()), (1, Some(&renewed)));
    assert_eq!(index.expire(later.plus(-1), 9), 0, "the old end is forgotten");
    let same = Held { revision: 3, ..renewed.clone() };
    assert_eq!(put(&mut index, same, json!({"team": "docs"})), Put::Taken);
    assert_eq!(index.iter().next().map(|held| held.revision), Some(3));
    assert_eq!(put(&mut index, renewed, json!({"team": "docs"})), Put::Outdated);
    let milder = Held { revision: 4, ..held("d1", Instruction::Warn) };
    put(&mut index, milder, json!({"team": "docs"}));
    let found = find(&index, &json!({"team": "docs"}), NOON);
    assert_eq!((found.strongest.unwrap().action, found.warnings.len()), (Instruction::Warn, 1));
}

#[test]
fn what_is_over_is_forgotten_and_its_place_is_used_again() {
    let mut index = index();
    block(&mut index, "d1", json!({"team": "docs"}));
    block(&mut index, "d2", json!({"team": "docs"}));
    assert_eq!(index.apply(Change::End("d2".to_owned())), Put::Ended);
    check(&index, json!({"team": "docs"}), Some("d1"));
    index.apply(Change::End("d1".to_owned()));
    index.apply(Change::End("never there".to_owned()));
    check(&index, json!({"team": "docs"}), None);
    assert_eq!((index.len(), index.selector_sets()), (0, 0));
    block(&mut index, "d3", json!({"project": "p"}));
    check(&index, json!({"project": "p"}), Some("d3"));
    assert_eq!(index.sets.len(), 1);
}

#[test]
fn beyond_the_limit_nothing_more_is_held_and_that_is_remembered() {
    let mut index = DirectiveIndex::new(1);
    block(&mut index, "d1", json!({"team": "docs"}));
    assert!(!index.is_incomplete());
    assert_eq!(put(&mut index, held("d2", Instruction::Block), json!({"team": "x"})), Put::LeftOut);
    assert!(index.is_incomplete());
    let renewed = Held { revision: 2, ..held("d1", Instruction::Block) };
    assert_eq!(put(&mut index, renewed, json!({"team": "docs"})), Put::Taken);
    assert_eq!(index.len(), 1);
}
