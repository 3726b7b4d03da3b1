//! What holds now, for people who look.

use std::collections::BTreeMap;

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

/// The directives that hold: some of them, and how many there are.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AllStanding {
    /// The first, as many as were asked for.
    pub first: Vec<Standing>,
    /// How many of all ask for what.
    pub by_action: BTreeMap<&'static str, usize>,
}

impl Decisions {
    /// Adds the directives of a rule that hold now, by subject, until there are `max`; the others are only counted.
    pub fn add_standing(&self, rule: &RuleHeader, max: usize, all: &mut AllStanding) {
        for active in self.rules.get(&rule.name).into_iter().flat_map(|of_rule| of_rule.active.values()) {
            let Some(action) = active.action(rule) else { continue };
            *all.by_action.entry(action.as_str()).or_default() += 1;
            if all.first.len() < max {
                all.first.extend(active.standing(rule));
            }
        }
    }
}
