use std::sync::Arc;

use lictor_queries::{References, RuleFile, compile};
use lictor_schemas::prices::PriceTable;

use crate::pipeline::{PipelineSettings, Stages};

/// Which scan each one shares its filter with, of rules that count what these conditions let through.
fn shared(rules: &[(&str, &str)]) -> Vec<usize> {
    let rule = |(number, (window, condition)): (usize, &(&str, &str))| {
        format!(
            "CREATE RULE r{number} WITH (action = 'warn', reason_code = 'x_test') AS
             SELECT team, window_start, window_end, count(*) AS observed
             FROM TUMBLE(spans, event_time, INTERVAL '{window}') WHERE {condition}
             GROUP BY team, window_start, window_end HAVING count(*) > 5;"
        )
    };
    let text = rules.iter().enumerate().map(rule).collect();
    let (rules, faults) = compile(&[RuleFile { file: "r.sql".into(), text }], &References::new());
    assert_eq!(faults, []);
    let stages = Stages::new(rules, Arc::new(PriceTable::empty()), &PipelineSettings::default());
    stages.scan.scannings.iter().map(|scanning| scanning.filters_as).collect()
}

#[test]
fn rows_are_filtered_once_for_all_that_filter_alike() {
    let (teams, large) = ("team IS NOT NULL", "team IS NOT NULL AND input_tokens > 1000");
    assert_eq!(shared(&[("1 minute", teams), ("1 hour", large), ("1 hour", teams), ("1 day", large)]), [0, 1, 0, 1]);
    // The same text, and not the same number.
    assert_eq!(shared(&[("1 minute", "cost_total > 1"), ("1 hour", "cost_total > 1.5")]), [0, 1]);
}
