//! What people who look at an instance see of its shards.

use std::collections::BTreeMap;
use std::time::Duration;

use lictor_connectors::TopicPartition;

use super::JudgeTask;
use crate::decision::AllStanding;
use crate::exchange::RuleId;
use crate::watermark::Mark;
use crate::windowed::Observed;

/// Rules of shards that one look evaluates, or asks for when their next window closes; the next look goes on with
/// others. With a look per second it is a hundredth of a core, however many rules there are.
pub(crate) const LOOKS_MAX: usize = 8;

/// Whose turn it is to be looked at.
#[derive(Debug, Default)]
pub(crate) struct Rota {
    next: usize,
}

impl Rota {
    /// Goes through what can be looked at, beginning with whose turn it is, until enough have been seen.
    pub(crate) fn go(&mut self, count: usize, mut look: impl FnMut(usize) -> bool) {
        let mut seen = 0;
        for _ in 0..count {
            if seen == LOOKS_MAX {
                return;
            }
            let number = self.next % count;
            self.next = (number + 1) % count;
            seen += usize::from(look(number));
        }
    }
}

impl JudgeTask {
    /// What groups measure of the rules whose turn it is.
    pub fn observe(&mut self) -> Vec<(String, Observed)> {
        let rules = self.shards.values().next().map_or(0, |served| served.shard.stage().rules());
        let shards: Vec<i32> = self.shards.keys().copied().collect();
        let mut seen = Vec::new();
        let mut rota = std::mem::take(&mut self.rota);
        rota.go(rules * shards.len(), |number| {
            let Some(served) = self.shards.get_mut(&shards[number / rules.max(1)]) else { return false };
            let (stage, rule) = (served.shard.stage_mut(), RuleId(number % rules.max(1)));
            let Some(look) = stage.observe(rule) else { return false };
            seen.extend(look.seen.map(|observed| (stage.name_of(rule).to_owned(), observed)));
            true
        });
        self.rota = rota;
        seen
    }

    /// The directives that hold now, shard by shard; at most `max`, the others are only counted.
    #[must_use]
    pub fn standing(&self, max: usize) -> AllStanding {
        let mut all = AllStanding::default();
        self.shards.values().for_each(|served| served.shard.stage().add_standing(max, &mut all));
        all
    }

    /// How long judging has taken, of each rule, over the shards that are served.
    #[must_use]
    pub fn spent(&self) -> BTreeMap<String, Duration> {
        let mut total: BTreeMap<String, Duration> = BTreeMap::new();
        for (rule, spent) in self.shards.values().flat_map(|served| served.shard.stage().spent()) {
            match total.get_mut(rule) {
                Some(sum) => *sum += spent,
                None => drop(total.insert(rule.to_owned(), spent)),
            }
        }
        total
    }

    /// Where every input partition stands, whoever reads it: as the shard knows that is furthest behind on each.
    #[must_use]
    pub fn marks(&self) -> Vec<Mark> {
        let mut lowest: BTreeMap<&TopicPartition, &Mark> = BTreeMap::new();
        for mark in self.shards.values().flat_map(|served| served.shard.stage().marks()) {
            let known = lowest.entry(&mark.partition).or_insert(mark);
            if (mark.high, mark.is_idle) < (known.high, known.is_idle) {
                *known = mark;
            }
        }
        lowest.into_values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_has_a_turn_and_nobody_two_in_one_look() {
        let (mut rota, mut looked) = (Rota::default(), Vec::new());
        for _ in 0..3 {
            rota.go(10, |number| {
                looked.push(number);
                // There is nothing to see of every second one.
                number % 2 == 0
            });
        }
        assert_eq!(looked[..10], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert_eq!(looked.len(), 30, "a look goes round once at most");
        let mut looked = Vec::new();
        let mut rota = Rota::default();
        (0..2).for_each(|_| {
            rota.go(100, |number| {
                looked.push(number);
                true
            });
        });
        assert_eq!(looked, (0..2 * LOOKS_MAX).collect::<Vec<_>>());
        rota.go(0, |_| unreachable!("nobody is there"));
    }
}
