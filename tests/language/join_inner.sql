CREATE EXTERNAL TABLE budgets (team VARCHAR, usd DOUBLE) STORED AS CSV LOCATION 'budgets.csv';

-- An inner join with a reference table: teams that the table does not have are not judged.
CREATE RULE over_budget WITH (action = 'block', reason_code = 'BUDGET_EXCEEDED') AS
SELECT spent.team, spent.window_start, spent.window_end, spent.usd AS observed, budget.usd AS threshold
FROM (
  SELECT s.team, window_start, window_end, sum(s.cost_total) AS usd
  FROM TUMBLE(spans, event_time, INTERVAL '1 hour') AS s
  GROUP BY s.team, window_start, window_end
) AS spent
JOIN budgets AS budget ON budget.team = spent.team
WHERE spent.usd > budget.usd
EMIT ON UPDATE;
