CREATE EXTERNAL TABLE budget_steps (percent BIGINT) STORED AS CSV LOCATION 'budget_steps.csv';

-- Tells a team, once for each step, that it has spent half, three quarters and 90 % of its daily budget, with the
-- record that crosses the line. Each step is a directive of its own that lasts until midnight (UTC): who must act at
-- 90 % need not be whom 50 % is sent to. Nothing is stopped; team_daily_budget blocks at 100 %.
-- False alarms: none but wrong prices; 50 % before noon is news, 50 % at night is not. State: one sum per team, step
-- and day, since a step is part of what the directive is about.
-- To tune: budget_steps.csv, and the budgets of budgets.csv, which team_daily_budget has, too. Costs in another
-- currency than USD are left out.
CREATE RULE budget_soft WITH (
  action      = 'warn',
  reason_code = 'x_budget_soft_limit',
  severity    = 'info',
  owner       = 'finops'
) AS
SELECT spent.team,
       spent.percent,
       spent.window_start,
       spent.window_end,
       spent.cost AS observed,
       budget.daily_usd * spent.percent / 100 AS threshold,
       'USD' AS unit,
       concat(spent.team, ' has spent ', spent.percent, ' % of its ', budget.daily_usd, ' USD for the day') AS message,
       budget.daily_usd AS budget_usd
FROM (
  SELECT s.team, s.percent, window_start, window_end, sum(s.cost_total) AS cost
  FROM TUMBLE((
    SELECT s.event_time, s.team, s.cost_total, step.percent
    FROM spans AS s CROSS JOIN budget_steps AS step
    WHERE s.usage_leaf AND s.team IS NOT NULL AND coalesce(s.cost_currency, 'USD') = 'USD'
  ), event_time, INTERVAL '1 day') AS s
  GROUP BY s.team, s.percent, window_start, window_end
) AS spent
JOIN budgets AS budget ON budget.team = spent.team
WHERE spent.cost >= budget.daily_usd * spent.percent / 100
EMIT ON UPDATE;
