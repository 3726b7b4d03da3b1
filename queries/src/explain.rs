//! How a rule runs, in words and plans.

use lictor_schemas::tables::Table;

use crate::compile::{CompiledRule, RuleKind, RuleSet, WindowedRule};
use crate::window_spec::WindowSpec;

/// How a rule runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The telemetry table it reads.
    pub table: Table,
    /// The columns that are decoded for it.
    pub columns: Vec<String>,
    /// What is done with each row, a line per step.
    pub scan: Vec<String>,
    /// How it is windowed; none for a rule that judges row by row.
    pub windowed: Option<WindowedExplanation>,
}

/// How a windowed rule runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowedExplanation {
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
    /// Other rules that read the same rows of the same windows by the same keys.
    pub alike: Vec<String>,
}

impl RuleSet {
    /// How the rule of that name runs; none if there is no such rule.
    #[must_use]
    pub fn explain(&self, name: &str) -> Option<Explanation> {
        let rule = self.rules.iter().find(|rule| rule.header.name == name)?;
        let (columns, scan, windowed) = match &rule.kind {
            RuleKind::RowWise(row_wise) => (row_wise.stage().columns(), row_wise.stage().explain(), None),
            RuleKind::Windowed(windowed) => {
                let stage = &windowed.scan.stage;
                (stage.columns(), stage.explain(), Some(self.explain_windowed(rule, windowed)))
            }
        };
        Some(Explanation { table: rule.table, columns, scan, windowed })
    }

    fn explain_windowed(&self, rule: &CompiledRule, windowed: &WindowedRule) -> WindowedExplanation {
        let keys = windowed.aggregation.explain_keys();
        let is_alike = |other: &&CompiledRule| match &other.kind {
            RuleKind::Windowed(of_other) if other.header.name != rule.header.name => {
                other.table == rule.table
                    && of_other.aggregation.spec() == windowed.aggregation.spec()
                    && of_other.aggregation.explain_keys() == keys
                    && of_other.scan.stage.explain() == windowed.scan.stage.explain()
            }
            _ => false,
        };
        WindowedExplanation {
            spec: windowed.aggregation.spec(),
            states: windowed.aggregation.explain_states(),
            distribution: windowed.distribution.iter().filter_map(|key| keys.get(*key).cloned()).collect(),
            rows_back: windowed.finish.rows_back(),
            finish: windowed.finish.explain(),
            alike: self.rules.iter().filter(is_alike).map(|other| other.header.name.clone()).collect(),
            keys,
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
        assert_eq!(explained.table, Table::Spans);
        assert!(explained.columns.contains(&"status_code".to_owned()), "{explained:?}");
        assert!(explained.scan[0].starts_with("filter status_code"), "{explained:?}");
        let windowed = explained.windowed.unwrap();
        assert_eq!((windowed.spec.to_string(), windowed.keys), ("1h".to_owned(), vec!["team Utf8View".to_owned()]));
        assert_eq!(windowed.distribution, ["team Utf8View"]);
        assert!(
            windowed.states.iter().any(|s| s.starts_with("avg(") && s.ends_with(": UInt64, Float64")),
            "{:?}",
            windowed.states
        );
        assert!(windowed.finish[0].iter().any(|line| line.starts_with("filter ")), "{:?}", windowed.finish);
        assert_eq!(windowed.alike, ["two"]);
    }

    #[test]
    fn a_row_wise_rule_has_no_window() {
        let explained = explained("SELECT team, cost_total AS observed FROM spans WHERE cost_total > 5");
        assert_eq!(explained.windowed, None);
        assert!(!explained.scan.is_empty());
    }
}
