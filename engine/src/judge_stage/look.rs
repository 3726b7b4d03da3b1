//! What people who look at a shard see: what groups measure, what holds, what rules cost. It decides nothing.

use std::time::Duration;

use super::JudgeStage;
use crate::decision::AllStanding;
use crate::exchange::RuleId;
use crate::watermark::Mark;
use crate::windowed::Look;

impl JudgeStage {
    /// How many rules there are.
    pub(crate) fn rules(&self) -> usize {
        self.judging.rules.len()
    }

    /// The name of a rule.
    pub(crate) fn name_of(&self, rule: RuleId) -> &str {
        &self.judging.rules[rule.0].header.name
    }

    /// What groups of a rule measure, see [`WindowedState::observe`](crate::windowed::WindowedState::observe).
    pub(crate) fn observe(&mut self, rule: RuleId) -> Option<Look> {
        let RuleId(number) = rule;
        let windowed = self.states.get_mut(number).filter(|state| state.quarantined.is_none())?.windowed.as_mut()?;
        let store = &self.stores[windowed.rule().store.0];
        let now = store.plan().frontier.at(&self.watermarks);
        windowed.observe(store, now)
    }

    /// Adds the directives that hold now, rule by rule, until there are `max`; the others are only counted.
    pub(crate) fn add_standing(&self, max: usize, all: &mut AllStanding) {
        self.judging.rules.iter().for_each(|rule| self.decisions.add_standing(&rule.header, max, all));
    }

    /// How long judging has taken since the shard is served, of each rule; of what several rules share each bears a
    /// part.
    pub(crate) fn spent(&self) -> impl Iterator<Item = (&str, Duration)> {
        self.states().map(|(rule, state)| (rule.header.name.as_str(), state.spent))
    }

    /// Where every input partition stands, whoever reads it, as far as it was told.
    pub(crate) fn marks(&self) -> impl Iterator<Item = &Mark> {
        self.watermarks.parts().0
    }
}
