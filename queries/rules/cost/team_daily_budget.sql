CREATE EXTERNAL TABLE budgets (team VARCHAR, daily_usd DOUBLE) STORED AS CSV LOCATION 'budgets.csv';

-- Warns a team that has spent 80 % of its daily budget, and blocks it for the rest of the (UTC) day once it has spent
-- all of it. The directive appears with the very record that crosses the line, and is taken back at midnight.
-- A controller refuses the team's requests while the result is BLOCKED, and shows the warning until then.
-- To tune: change budgets.csv, which is read when lictor starts. A team without a row there has no budget. Costs in
-- another currency than USD are left out; usage_leaf keeps nested spans from being counted twice.
CREATE RULE team_daily_budget WITH (
  action      = 'block',
  reason_code = 'BUDGET_EXCEEDED',
  severity    = 'critical',
  owner       = 'finops'
) AS
SELECT spent.team,
       spent.window_start,
       spent.window_end,
       spent.cost       AS observed,
       budget.daily_usd AS threshold,
       'USD'            AS unit,
       CASE WHEN spent.cost >= budget.daily_usd THEN 'BLOCKED' ELSE 'WARNING' END AS result,
       concat(spent.team, ' has spent ', TRY_CAST(spent.cost AS DECIMAL(18, 2)), ' of its ', budget.daily_usd,
              ' USD for the day') AS message,
       spent.calls
FROM (
  SELECT s.team, window_start, window_end, sum(s.cost_total) AS cost, count(*) AS calls
  FROM TUMBLE(spans, event_time, INTERVAL '1 day') AS s
  WHERE s.usage_leaf AND s.team IS NOT NULL AND coalesce(s.cost_currency, 'USD') = 'USD'
  GROUP BY s.team, window_start, window_end
) AS spent
JOIN budgets AS budget ON budget.team = spent.team
WHERE spent.cost >= 0.8 * budget.daily_usd
EMIT ON UPDATE;
