//! The questions, as rules and as plain SQL.

use lictor_queries::{References, RuleFile, RuleSet, compile};

/// How the events of a rule say its answer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Saying {
    /// Every row of the result begins a directive.
    Rows,
    /// Every row of the result is one revision of a directive, with its window.
    Windows,
    /// A directive holds while its row comes again, from window to window, each so many nanoseconds after the last.
    Runs(i64),
}

/// A question of Nexmark.
pub(crate) struct Question {
    /// What Nexmark calls it, and how it is asked if that is another way than Nexmark's.
    pub(crate) name: &'static str,
    /// What it is about.
    pub(crate) about: &'static str,
    rules: &'static str,
    /// Plain SQL. Of its columns `at` is when: the time of the row, or the end of the window.
    pub(crate) batch: &'static str,
    /// The columns that an answer is known by.
    pub(crate) key: &'static [&'static str],
    pub(crate) saying: Saying,
}

impl Question {
    /// Its rule, compiled anew.
    pub(crate) fn rules(&self) -> RuleSet {
        let file = RuleFile { file: format!("{}.sql", self.name), text: self.rules.to_owned() };
        let (rules, faults) = compile(&[file], &References::new());
        if let Some(fault) = faults.first() {
            panic!("{}", fault.render(self.rules, false));
        }
        rules
    }
}

/// A question with its two texts.
macro_rules! question {
    ($name:literal, $about:literal, $key:expr, $saying:expr) => {
        Question {
            name: $name,
            about: $about,
            rules: include_str!(concat!("rules/", $name, ".sql")),
            batch: include_str!(concat!("batch/", $name, ".sql")),
            key: &$key,
            saying: $saying,
        }
    };
}

const SECOND_NS: i64 = 1_000_000_000;

/// In the order of their numbers.
pub(crate) const QUESTIONS: &[Question] = &[
    question!("q0", "pass-through, every bid an event", ["auction", "bidder", "price", "extra"], Saying::Rows),
    question!("q1", "currency conversion, every bid an event", ["auction", "bidder", "extra"], Saying::Rows),
    question!("q1_dear", "currency conversion, the highest events", ["auction", "bidder", "extra"], Saying::Rows),
    question!("q2", "selection of every 123rd auction", ["span_id", "auction"], Saying::Rows),
    question!("q5", "hot items, 10 s every 2 s", ["auction"], Saying::Runs(2 * SECOND_NS)),
    question!("q7", "highest bid of 10 s, by auction and bidder", ["auction", "bidder"], Saying::Runs(10 * SECOND_NS)),
    question!("q7_first", "highest bid of 10 s, one group", ["auction", "bidder"], Saying::Windows),
    question!("q8", "new users with auctions, 10 s", ["id", "full_name"], Saying::Runs(10 * SECOND_NS)),
];
