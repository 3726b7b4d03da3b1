//! How a rule runs, in words and plans.

use lictor_schemas::tables::Table;

use crate::compile::{CompiledRule, CompiledStore, Feed, JoinedThen, RuleKind, RuleSet, WindowedRule};
use crate::frame::Emission;
use crate::join::{JoinKind, TimeBounds};
use crate::stage::Stage;
use crate::window_spec::WindowSpec;

/// How a rule runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// What it reads: one table, or two that are joined.
    pub sources: Vec<SourceExplanation>,
    /// How two streams are joined, if they are.
    pub join: Option<JoinExplanation>,
    /// How it is windowed; none for a rule that judges row by row.
    pub windowed: Option<WindowedExplanation>,
}

/// What a rule reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceExplanation {
    /// The telemetry table.
    pub table: Table,
    /// The columns that are decoded for it.
    pub columns: Vec<String>,
    /// What is done with each row, a line per step.
    pub scan: Vec<String>,
}

/// How two streams are joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinExplanation {
    /// What comes out.
    pub kind: JoinKind,
    /// How far apart two rows may be.
    pub bounds: TimeBounds,
    /// All conditions.
    pub conditions: String,
    /// How long the panes are in which rows are kept, in nanoseconds.
    pub pane_ns: i64,
    /// By how many of the keys rows are spread over shards; if by none, they are joined on one.
    pub distribution: usize,
}

/// How a windowed rule runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowedExplanation {
    /// When it speaks.
    pub emission: Emission,
    /// How time is cut.
    pub spec: WindowSpec,
    /// The group keys besides the window, as `name TYPE`.
    pub keys: Vec<String>,
    /// What is kept per group and pane, as `aggregate: TYPE, TYPE`.
    pub states: Vec<String>,
    /// The keys that choose the shard; none if the whole rule is judged on one.
    pub distribution: Vec<String>,
    /// How many rows of earlier windows are looked back at, summed over nested `OVER`s.
    pub rows_back: usize,
    /// What is done with finished groups, level by level, a line per step.
    pub finish: Vec<Vec<String>>,
    /// Other rules that read the same sums: they are kept once for all of them.
    pub shared_with: Vec<String>,
}

impl RuleSet {
    /// How the rule of that name runs; none if there is no such rule.
    #[must_use]
    pub fn explain(&self, name: &str) -> Option<Explanation> {
        let rule = self.rules.iter().find(|rule| rule.header.name == name)?;
        let source =
            |table: Table, stage: &Stage| SourceExplanation { table, columns: stage.columns(), scan: stage.explain() };
        Some(match &rule.kind {
            RuleKind::RowWise(row_wise) => {
                Explanation { sources: vec![source(rule.table, row_wise.stage())], join: None, windowed: None }
            }
            RuleKind::Windowed(windowed) => Explanation {
                sources: self.stores[windowed.store].explain_source().into_iter().collect(),
                join: None,
                windowed: Some(self.explain_windowed(rule, windowed)),
            },
            RuleKind::Joined(joined) => {
                let sides = joined.sides.map(|side| &self.stores[side]);
                let join = JoinExplanation {
                    kind: joined.join.kind(),
                    bounds: joined.join.bounds(),
                    conditions: joined.join.predicate.to_string(),
                    pane_ns: joined.join.pane_ns(),
                    distribution: sides[0].distribution.len(),
                };
                let windowed = match &joined.then {
                    JoinedThen::Rows(_) => None,
                    JoinedThen::Windowed { rule: windowed, .. } => Some(self.explain_windowed(rule, windowed)),
                };
                let sources = sides.into_iter().filter_map(CompiledStore::explain_source).collect();
                Explanation { sources, join: Some(join), windowed }
            }
        })
    }

    fn explain_windowed(&self, rule: &CompiledRule, windowed: &WindowedRule) -> WindowedExplanation {
        let store = &self.stores[windowed.store];
        let keys = store.aggregation.explain_keys();
        let shares = |other: &&CompiledRule| match &other.kind {
            RuleKind::Windowed(of_other) => other.header.name != rule.header.name && of_other.store == windowed.store,
            RuleKind::RowWise(_) | RuleKind::Joined(_) => false,
        };
        WindowedExplanation {
            emission: windowed.emission,
            spec: store.aggregation.spec(),
            states: store.aggregation.explain_states(),
            distribution: store.distribution.iter().filter_map(|key| keys.get(*key).cloned()).collect(),
            rows_back: windowed.finish.rows_kept(),
            finish: windowed.finish.explain(),
            shared_with: self.rules.iter().filter(shares).map(|other| other.header.name.clone()).collect(),
            keys,
        }
    }
}

impl CompiledStore {
    /// What is read for it; none if its rows are joined first.
    fn explain_source(&self) -> Option<SourceExplanation> {
        match &self.feed {
            Feed::Table { table, scan } | Feed::Side { table, scan, .. } => {
                Some(SourceExplanation { table: *table, columns: scan.stage.columns(), scan: scan.stage.explain() })
            }
            Feed::Joined { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{References, RuleFile, compile};

    use super::*;

    fn explained(query: &str) -> Explanation {
        let rule =
            |name: &str| format!("CREATE RULE {name} WITH (action = 'warn', reason_code = 'x_test') AS {query};");
        let text = format!("{}{}", rule("one"), rule("two"));
        let (rules, faults) = compile(&[RuleFile { file: "r.sql".into(), text }], &References::new());
        assert_eq!(faults, []);
        rules.explain("one").unwrap()
    }

    #[test]
    fn a_windowed_rule_says_what_it_reads_keeps_and_does() {
        let explained = explained(
            "SELECT team, window_start, window_end, avg(input_tokens) AS observed
             FROM TUMBLE(spans, event_time, INTERVAL '1 hour') WHERE status_code = 'ERROR'
             GROUP BY team, window_start, window_end HAVING count(*) > 3",
        );
        let source = &explained.sources[0];
        assert_eq!(source.table, Table::Spans);
        assert!(source.columns.contains(&"status_code".to_owned()), "{explained:?}");
        assert!(source.scan[0].starts_with("filter status_code"), "{explained:?}");
        let windowed = explained.windowed.unwrap();
        assert_eq!((windowed.spec.to_string(), windowed.keys), ("1h".to_owned(), vec!["team Utf8View".to_owned()]));
        assert_eq!(windowed.distribution, ["team Utf8View"]);
        assert!(
            windowed.states.iter().any(|s| s.starts_with("avg(") && s.ends_with(": UInt64, Float64")),
            "{:?}",
            windowed.states
        );
        assert!(windowed.finish[0].iter().any(|line| line.starts_with("filter ")), "{:?}", windowed.finish);
        assert_eq!(windowed.shared_with, ["two"]);
    }

    #[test]
    fn a_row_wise_rule_has_no_window() {
        let explained = explained("SELECT team, cost_total AS observed FROM spans WHERE cost_total > 5");
        assert_eq!(explained.windowed, None);
        assert!(!explained.sources[0].scan.is_empty());
    }

    #[test]
    fn so_many_rules_share_sums_as_a_group_has_bits() {
        let rule = |n: usize| {
            format!(
                "CREATE RULE r{n} WITH (action = 'warn', reason_code = 'x_test') AS
                 SELECT team, window_start, window_end, count(*) AS observed
                 FROM TUMBLE(spans, event_time, INTERVAL '1 hour') GROUP BY team, window_start, window_end
                 HAVING count(*) > {n} EMIT ON UPDATE;"
            )
        };
        let text = (0..70).map(rule).collect();
        let (rules, faults) = compile(&[RuleFile { file: "r.sql".into(), text }], &References::new());
        assert_eq!((faults, rules.stores.len()), (vec![], 2));
        let shared = |name: &str| rules.explain(name).unwrap().windowed.unwrap().shared_with.len();
        assert_eq!((shared("r0"), shared("r69")), (63, 5));
    }
}
