//! The life of a directive as a table: what is found when, and what is said of it.
//!
//! Times are seconds of event time, `ttl` is 100 s. A step is a line, what it publishes stands behind `->`:
//!
//! | step | what happens |
//! |---|---|
//! | `close 0-60 W` | a window of a rule that speaks on close, and what is found in it; `-` is nothing |
//! | `run 10 0-1000 B` | a row at 10 of a running window, which violates |
//! | `clear 20 0-1000` | a row at 20 of a running window, which does not any more |
//! | `row 10 W` | a row of a rule without windows |
//! | `session 0-50 W` | a session that has ended |
//! | `to 120` | the watermark |
//!
//! An event is `state result @time..valid_until`. Every case is run as it stands; read back from its log after every
//! step; with every step undone and done again; and with time in steps of a second.

use std::fmt::Write as _;

use super::tests::{Log, in_window, row, rule, s, subject, window};
use super::*;
use lictor_schemas::event::State;

/// Name, options in seconds, steps.
type Case = (&'static str, &'static str, &'static [&'static str]);

const ON_CLOSE: &[Case] = &[
    ("it fires when it closes", "", &["close 0-60 W -> firing W @60..220", "to 120 -> resolved A @120..220"]),
    (
        "a hold fires with the window that confirms it",
        "for=60",
        &["close 0-60 W", "to 119", "close 60-120 W -> firing W @120..280", "to 180 -> resolved A @180..280"],
    ),
    ("nobody confirms it", "for=60", &["close 0-60 W", "to 120", "close 120-180 W", "to 400"]),
    (
        "a window without it begins the hold anew",
        "for=60",
        &["close 0-60 W", "close 60-120 -", "close 120-180 W", "close 180-240 W -> firing W @240..400"],
    ),
    (
        "a window without rows begins the hold anew",
        "for=60",
        &["close 0-60 W", "close 120-180 W", "close 180-240 W -> firing W @240..400"],
    ),
    ("a hold of less than a window waits for the next", "for=1", &["close 0-60 W", "to 119", "to 120", "to 500"]),
    (
        "a hold of less than a window fires with the next",
        "for=1",
        &["close 0-60 W", "close 60-120 W -> firing W @120..280"],
    ),
    (
        "a hold of two windows takes three",
        "for=120",
        &["close 0-60 W", "close 60-120 W", "close 120-180 W -> firing W @180..340"],
    ),
    ("what has escalated fires as that", "for=60", &["close 0-60 W", "close 60-120 B -> firing B @120..280"]),
    ("what has become milder fires as that", "for=60", &["close 0-60 B", "close 60-120 W -> firing W @120..280"]),
    (
        "results come and go at once",
        "",
        &[
            "close 0-60 W -> firing W @60..220",
            "close 60-120 B -> updated B @120..280",
            "close 120-180 R -> updated R @180..340",
            "close 180-240 W -> updated W @240..400",
            "to 300 -> resolved A @300..400",
        ],
    ),
    (
        "it goes on firing for a while",
        "keep=90",
        &["close 0-60 W -> firing W @60..310", "close 60-120 -", "to 209", "to 210 -> resolved A @210..310"],
    ),
    (
        "what comes back was never gone",
        "keep=90",
        &["close 0-60 W -> firing W @60..310", "close 60-120 -", "close 120-180 W", "to 185 -> updated W @185..430"],
    ),
    (
        "what comes back worse is said at once",
        "keep=90",
        &["close 0-60 W -> firing W @60..310", "close 60-120 -", "close 120-180 B -> updated B @180..430"],
    ),
    (
        "what comes back milder is said when the severe one has had its time",
        "keep=90",
        &[
            "close 0-60 B -> firing B @60..310",
            "close 60-120 -",
            "close 120-180 W",
            "to 209 -> updated B @185..430",
            "to 210 -> updated W @210..430",
            "to 330 -> resolved A @330..430",
        ],
    ),
    (
        "a de-escalation that lasts is said late",
        "keep=90",
        &[
            "close 0-60 B -> firing B @60..310",
            "close 60-120 W",
            "close 120-180 W",
            "close 180-240 W -> updated B @185..430, updated W @210..430",
        ],
    ),
    (
        "a flap of the result is no news",
        "keep=90",
        &[
            "close 0-60 B -> firing B @60..310",
            "close 60-120 W",
            "close 120-180 B",
            "close 180-240 W -> updated B @185..430",
            "to 299",
            "to 330 -> updated W @330..390",
        ],
    ),
    (
        "it is repeated while it goes on",
        "repeat=30",
        &["close 0-60 W -> firing W @60..220", "to 119 -> updated W @90..220", "close 60-120 W -> updated W @120..280"],
    ),
    (
        "an end is not repeated",
        "repeat=30",
        &["close 0-60 W -> firing W @60..220", "to 500 -> updated W @90..220, resolved A @120..220"],
    ),
    (
        "what is only kept is not repeated",
        "repeat=30 keep=60",
        &["close 0-60 W -> firing W @60..280", "to 500 -> updated W @90..280, resolved A @180..280"],
    ),
    (
        "hold and keep together",
        "for=60 keep=60",
        &[
            "close 0-60 W",
            "close 60-120 W -> firing W @120..340",
            "close 120-180 -",
            "close 180-240 W -> updated W @240..460",
            "close 240-300 -",
            "to 360 -> resolved A @360..460",
            "close 300-360 W",
            "to 1000",
        ],
    ),
];

const ON_UPDATE: &[Case] = &[
    ("it fires at once", "", &["run 10 0-1000 W -> firing W @10..1000", "clear 20 0-1000 -> resolved A @20..1000"]),
    ("a hold fires when it is over", "for=30", &["run 10 0-1000 W", "to 39", "to 40 -> firing W @40..1000"]),
    ("what clears in time was nothing", "for=30", &["run 10 0-1000 W", "clear 39 0-1000", "to 900"]),
    (
        "what clears and comes back begins anew",
        "for=30",
        &["run 10 0-1000 W", "clear 20 0-1000", "run 25 0-1000 W", "to 54", "to 55 -> firing W @55..1000"],
    ),
    (
        "what clears as the hold ends has gone on for so long",
        "for=30",
        &["run 10 0-1000 W", "clear 40 0-1000 -> firing W @40..1000, resolved A @40..1000"],
    ),
    (
        "a row beyond the end of the hold comes after it",
        "for=30",
        &["run 10 0-1000 W", "run 100 0-1000 B -> firing W @40..1000, updated B @100..1000"],
    ),
    ("the window's end ends the hold", "for=30", &["run 980 0-1000 W", "to 1100"]),
    ("an end at the same instant comes first", "for=30", &["run 970 0-1000 W", "to 1000", "to 1100"]),
    (
        "the next window carries it on",
        "for=30",
        &["run 980 0-1000 W", "run 1005 1000-2000 W", "to 1000", "to 1009", "to 1010 -> firing W @1010..2000"],
    ),
    (
        "the next window comes too late",
        "for=30",
        &["run 980 0-1000 W", "to 1000", "run 1005 1000-2000 W", "to 1034", "to 1035 -> firing W @1035..2000"],
    ),
    (
        "overlapping windows carry it on",
        "for=60",
        &["run 60 0-100 W", "run 70 50-150 W", "to 100", "to 119", "to 120 -> firing W @120..150"],
    ),
    (
        "it goes on firing for a while",
        "keep=50",
        &[
            "run 10 0-1000 W -> firing W @10..1050",
            "clear 20 0-1000",
            "run 60 0-1000 W",
            "clear 80 0-1000",
            "to 129",
            "to 130 -> resolved A @130..1050",
        ],
    ),
    (
        "what comes back later is another directive",
        "keep=50",
        &[
            "run 10 0-1000 W -> firing W @10..1050",
            "clear 20 0-1000",
            "run 80 0-1000 W -> resolved A @70..1050, firing W @80..1050",
            "clear 90 0-1000",
            "run 200 0-1000 B -> resolved A @140..1050, firing B @200..1050",
        ],
    ),
    (
        "it outlives its window and is found in the next",
        "keep=50",
        &["run 990 0-1000 W -> firing W @990..1050", "to 1000", "run 1030 1000-2000 W -> updated W @1030..2050"],
    ),
    (
        "it outlives its window",
        "keep=50",
        &["run 990 0-1000 W -> firing W @990..1050", "to 1049", "to 1050 -> resolved A @1050..1050"],
    ),
    (
        "a late row escalates",
        "",
        &["run 100 0-1000 W -> firing W @100..1000", "run 95 0-1000 B -> updated B @95..1000"],
    ),
    (
        "a late row corrects",
        "",
        &["run 100 0-1000 W -> firing W @100..1000", "clear 100 0-1000 -> resolved A @100..1000"],
    ),
    (
        "a late row has it begin earlier",
        "for=30",
        &["run 100 0-1000 W", "run 95 0-1000 W", "to 124", "to 125 -> firing W @125..1000"],
    ),
    ("a late row takes it back", "for=30", &["run 100 0-1000 W", "clear 100 0-1000", "to 900"]),
    (
        "a de-escalation is damped, an escalation is not",
        "keep=50",
        &[
            "run 10 0-1000 B -> firing B @10..1050",
            "run 20 0-1000 W",
            "to 69",
            "to 70 -> updated W @70..1050",
            "run 75 0-1000 B -> updated B @75..1050",
            "clear 80 0-1000",
            "to 130 -> resolved A @130..1050",
        ],
    ),
    (
        "a flap of the result is no news",
        "keep=50",
        &[
            "run 10 0-1000 W -> firing W @10..1050",
            "run 20 0-1000 B -> updated B @20..1050",
            "run 30 0-1000 W",
            "run 40 0-1000 B",
            "run 50 0-1000 W",
            "to 99",
            "to 100 -> updated W @100..1050",
        ],
    ),
    (
        "what clears while it is damped is kept in its own right",
        "keep=50",
        &[
            "run 10 0-1000 B -> firing B @10..1050",
            "run 20 0-1000 W",
            "clear 60 0-1000",
            "to 200 -> updated W @70..110, resolved A @110..110",
        ],
    ),
    (
        "it is repeated while it goes on",
        "repeat=30",
        &["run 10 0-1000 W -> firing W @10..1000", "to 75 -> updated W @40..1000, updated W @70..1000"],
    ),
    (
        "an escalation counts as a repetition",
        "repeat=30",
        &["run 10 0-1000 W -> firing W @10..1000", "run 35 0-1000 B -> updated B @35..1000", "to 64", "to 64"],
    ),
    (
        "time that jumps leaves nothing out",
        "for=30 keep=20",
        &["run 10 0-1000 W", "to 5000 -> firing W @40..1020, resolved A @1020..1020"],
    ),
    (
        "time that jumps repeats what went on",
        "for=30 repeat=400",
        &[
            "run 10 0-1000 W",
            "to 5000 -> firing W @40..1000, updated W @440..1000, updated W @840..1000, resolved A @1000..1000",
        ],
    ),
];

const ROWS: &[Case] = &[
    ("it holds for the ttl", "", &["row 0 W -> firing W @0..100", "to 99", "to 100 -> expired A @100..100"]),
    ("a hold fires with a row that confirms it", "for=50", &["row 0 W", "to 59", "row 60 W -> firing W @60..160"]),
    ("rows before the end of the hold do not", "for=50", &["row 0 W", "row 49 W", "row 50 W -> firing W @50..150"]),
    ("one row confirms nothing", "for=50", &["row 0 W", "to 1000"]),
    (
        "silence begins the hold anew",
        "for=50",
        &["row 0 W", "row 110 W", "row 150 W", "row 160 W -> firing W @160..260"],
    ),
    (
        "a hold may be longer than the ttl",
        "for=150",
        &["row 0 W", "row 90 W", "row 180 W -> firing W @180..280", "to 280 -> expired A @280..280"],
    ),
    (
        "a row that was read late counts from its time",
        "for=50",
        &["row 100 W", "row 60 W", "row 112 W -> firing W @112..212"],
    ),
    (
        "it goes on firing for a while",
        "keep=50",
        &["row 0 W -> firing W @0..150", "to 149", "to 150 -> expired A @150..150"],
    ),
    (
        "what comes back was never gone",
        "keep=50",
        &["row 0 W -> firing W @0..150", "to 140", "row 145 W -> updated W @145..295"],
    ),
    (
        "a milder row takes over when the severe one has had its time",
        "keep=50",
        &[
            "row 0 B -> firing B @0..150",
            "row 40 W",
            "to 149 -> updated B @75..190",
            "to 300 -> updated W @150..190, expired A @190..190",
        ],
    ),
    (
        "it is repeated while it goes on",
        "repeat=60",
        &["row 0 W -> firing W @0..100", "row 50 W -> updated W @50..150", "row 110 W -> updated W @110..150"],
    ),
    (
        "a session that ended is confirmed by the next",
        "for=60",
        &["session 0-50 W", "session 70-120 W -> firing W @120..220", "to 220 -> expired A @220..220"],
    ),
    ("a session that comes too late confirms nothing", "for=60", &["session 0-50 W", "session 140-160 W", "to 900"]),
];

fn rule_of(options: &str) -> RuleHeader {
    let mut of_case = rule();
    for option in options.split_whitespace() {
        let (name, seconds) = option.split_once('=').unwrap();
        let ns = s(seconds.parse().unwrap()).0;
        match name {
            "for" => of_case.for_ns = ns,
            "keep" => of_case.keep_firing_for_ns = ns,
            "repeat" => of_case.repeat_interval_ns = Some(ns),
            _ => panic!("no option {name}"),
        }
    }
    of_case
}

fn result_of(word: &str) -> Option<PolicyResult> {
    match word {
        "W" => Some(PolicyResult::Warning),
        "R" => Some(PolicyResult::RateLimited),
        "B" => Some(PolicyResult::Blocked),
        "-" => None,
        _ => panic!("no result {word}"),
    }
}

fn seconds(word: &str) -> i64 {
    word.parse().unwrap()
}

fn bounds(word: &str) -> (i64, i64) {
    let (start, end) = word.split_once('-').unwrap();
    (seconds(start), seconds(end))
}

/// Does one step.
fn step(state: &mut Decisions, rule: &RuleHeader, text: &str) -> Vec<Decision> {
    let violation = |at: i64, (start, end): (i64, i64), word: &str| {
        let found = result_of(word).map(|result| in_window("a", result, at, window(start, end)));
        found.into_iter().collect::<Vec<_>>()
    };
    match text.split_whitespace().collect::<Vec<_>>().as_slice() {
        ["close", at, word] => {
            let (start, end) = bounds(at);
            state.replace(rule, violation(end, (start, end), word), window(start, end), s(2 * end - start))
        }
        ["run", at, of_window, word] => state.change(rule, vec![], violation(seconds(at), bounds(of_window), word)),
        ["clear", at, of_window] => {
            let (start, end) = bounds(of_window);
            let cleared = Cleared { subject: subject("a"), window: window(start, end), at: s(seconds(at)) };
            state.change(rule, vec![cleared], vec![])
        }
        ["row", at, word] => state.rows(rule, vec![row("a", result_of(word).unwrap(), seconds(at))]),
        ["session", of_window, word] => state.sessions(rule, violation(bounds(of_window).1, bounds(of_window), word)),
        ["to", at] => state.advance(rule, s(seconds(at))),
        _ => panic!("no step {text}"),
    }
}

/// The events as the table writes them.
fn told(decisions: &[Decision]) -> String {
    let mut text = String::new();
    for decision in decisions {
        let data = &decision.event.data;
        let (at, until) = (decision.event.time.0 / s(1).0, data.valid_until.0 / s(1).0);
        let result = &data.finding.result.as_str()[..1];
        let separator = if text.is_empty() { "" } else { ", " };
        write!(text, "{separator}{} {result} @{at}..{until}", data.state.as_str()).unwrap();
    }
    text
}

/// How a step of a case is done.
type Way = fn(&mut Decisions, &mut Log, &RuleHeader, &str) -> Vec<Decision>;

const WAYS: [(&str, Way); 4] = [
    ("as it stands", |state, _, rule, text| step(state, rule, text)),
    ("read back from the log", |state, log, rule, text| {
        let decisions = step(state, rule, text);
        log.write(state);
        *state = log.read();
        decisions
    }),
    ("undone and done again", |state, log, rule, text| {
        let before = log.clone();
        step(state, rule, text);
        state.undo();
        assert_eq!(log.clone(), before);
        let decisions = step(state, rule, text);
        log.write(state);
        state.commit();
        decisions
    }),
    ("second by second", |state, _, rule, text| {
        let Some(to) = text.strip_prefix("to ") else { return step(state, rule, text) };
        let mut decisions = Vec::new();
        for second in 0..=seconds(to) {
            decisions.extend(state.advance(rule, s(second)));
        }
        decisions
    }),
];

#[track_caller]
fn check(kind: &str, (name, options, steps): &Case) {
    let rule = rule_of(options);
    let mut first: Option<Vec<Decision>> = None;
    for (way, take) in WAYS {
        let (mut state, mut log, mut events) = (Decisions::new("test", SUBJECTS_MAX), Log::default(), Vec::new());
        for line in *steps {
            let (text, expected) = line.split_once(" -> ").unwrap_or((*line, ""));
            let decisions = take(&mut state, &mut log, &rule, text);
            assert_eq!(told(&decisions), expected, "{kind}: {name} ({options}), {way}: after `{text}`");
            events.extend(decisions);
        }
        check_lives(&events, name);
        assert_eq!(first.get_or_insert_with(|| events.clone()), &events, "{kind}: {name}, {way}: the same bytes");
    }
}

/// A directive begins with revision 1, which rises by one, and says nothing once it has ended; it begins where it says.
#[track_caller]
fn check_lives(events: &[Decision], name: &str) {
    let mut lives: BTreeMap<&str, (u32, bool)> = BTreeMap::new();
    let mut began: BTreeMap<&str, EventTime> = BTreeMap::new();
    for decision in events {
        let data = &decision.event.data;
        let (revision, is_over) = lives.get(data.directive_id.as_str()).copied().unwrap_or_default();
        assert_eq!((data.revision, is_over), (revision + 1, false), "{name}");
        assert_eq!(data.state == State::Firing, data.revision == 1, "{name}");
        let started_at = *began.entry(&data.directive_id).or_insert(data.valid_from);
        assert_eq!(data.started_at, Some(started_at), "{name}");
        assert_eq!(decision.directive == DirectiveRecord::Tombstone, data.state.is_ended(), "{name}");
        lives.insert(&data.directive_id, (data.revision, data.state.is_ended()));
    }
}

#[test]
fn a_violation_in_windows_that_close_lives_so() {
    ON_CLOSE.iter().for_each(|case| check("on close", case));
}

#[test]
fn a_violation_in_running_windows_lives_so() {
    ON_UPDATE.iter().for_each(|case| check("on update", case));
}

#[test]
fn a_violation_of_rows_lives_so() {
    ROWS.iter().for_each(|case| check("rows", case));
    assert!(ON_CLOSE.len() + ON_UPDATE.len() + ROWS.len() >= 40);
}
