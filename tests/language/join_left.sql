CREATE EXTERNAL TABLE allowances (team VARCHAR, usd DOUBLE) STORED AS CSV LOCATION 'budgets.csv';

-- A left join with a reference table, telemetry on the left: teams that the table does not have get a default.
CREATE RULE over_budget_or_default WITH (action = 'warn', reason_code = 'BUDGET_EXCEEDED') AS
SELECT s.team, window_start, window_end, sum(s.cost_total) AS observed, coalesce(max(budget.usd), 5) AS threshold
FROM TUMBLE(spans, event_time, INTERVAL '1 hour') AS s
LEFT JOIN allowances AS budget ON budget.team = s.team
GROUP BY s.team, window_start, window_end
HAVING sum(s.cost_total) > coalesce(max(budget.usd), 5)
EMIT ON CLOSE;
