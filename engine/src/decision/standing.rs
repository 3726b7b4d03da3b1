//! What holds now, for people who look.

use lictor_schemas::event::{Finding, Instruction};
use lictor_schemas::rule::{Mode, RuleHeader};
use lictor_schemas::time::EventTime;
use lictor_schemas::violation::Subject;

use super::Decisions;

/// A directive that holds, as it was published last.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    /// Its rule.
    pub rule: String,
    /// Its id.
    pub directive_id: String,
    /// Its last revision.
    pub revision: u32,
    /// Whom it is about.
    pub subject: Subject,
    /// Whether it is to be applied.
    pub mode: Mode,
    /// What it asks for.
    pub action: Instruction,
    /// What the rule finds now: numbers may be newer than those that were published.
    pub finding: Finding,
    /// Since when it fires; not known of what an older version has published.
    pub since: Option<EventTime>,
    /// When controllers drop it unless they hear of it again.
    pub valid_until: EventTime,
}

impl Decisions {
    /// The directives of a rule that hold now, by subject.
    pub fn standing<'a>(&'a self, rule: &'a RuleHeader) -> impl Iterator<Item = Standing> + 'a {
        let active = self.rules.get(&rule.name).into_iter().flat_map(|of_rule| of_rule.active.values());
        active.filter_map(move |active| active.standing(rule))
    }
}
