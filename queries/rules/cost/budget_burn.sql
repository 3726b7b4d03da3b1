CREATE EXTERNAL TABLE monthly_budgets (team VARCHAR, monthly_usd DOUBLE) STORED AS CSV LOCATION 'monthly_budgets.csv';

-- Throttles a team that spends its month's budget more than 14.4 times as fast as planned, over the last hour and still
-- over the last five minutes: 2 % of the month in an hour, and all of it in two days. The long window keeps a short
-- peak from counting, the short one lets go soon after it is over. On-plan spending is a burn rate of 1.
-- A controller slows the team down; team_daily_budget is what stops it.
-- False alarms: a planned batch, whose team needs a larger budget that day. Small budgets: below 1 USD in the hour
-- nothing is said. State: one sum per team and minute, for an hour.
-- To tune: monthly_budgets.csv, where a month has 30 days; 14.4 and 1 USD. The rate is of the budget, not of what is
-- left of it. Costs in another currency than USD are left out.
CREATE RULE budget_burn_fast WITH (
  action      = 'throttle',
  reason_code = 'x_budget_burn_rate',
  severity    = 'error',
  owner       = 'finops',
  ttl         = '10 minutes'
) AS
SELECT burnt.team,
       burnt.window_start,
       burnt.window_end,
       burn_rate(burnt.hour_usd, INTERVAL '1 hour', budget.monthly_usd, INTERVAL '30 days') AS observed,
       14.4 AS threshold,
       'times the planned rate' AS unit,
       concat(burnt.team, ' has spent ', TRY_CAST(burnt.hour_usd AS DECIMAL(18, 2)), ' USD in an hour of a budget of ',
              budget.monthly_usd, ' USD for the month') AS message,
       burn_rate(burnt.minutes_usd, INTERVAL '5 minutes', budget.monthly_usd, INTERVAL '30 days') AS short_burn,
       burnt.hour_usd
FROM (
  SELECT spent.team, spent.window_start, spent.window_end,
         sum(spent.usd) OVER (PARTITION BY spent.team ORDER BY spent.window_end
                              ROWS BETWEEN 59 PRECEDING AND CURRENT ROW) AS hour_usd,
         sum(spent.usd) OVER (PARTITION BY spent.team ORDER BY spent.window_end
                              ROWS BETWEEN 4 PRECEDING AND CURRENT ROW) AS minutes_usd
  FROM (
    SELECT s.team, window_start, window_end, coalesce(sum(s.cost_total), 0) AS usd
    FROM TUMBLE(spans, event_time, INTERVAL '1 minute') AS s
    WHERE s.usage_leaf AND s.team IS NOT NULL AND coalesce(s.cost_currency, 'USD') = 'USD'
    GROUP BY s.team, window_start, window_end
  ) AS spent
) AS burnt
JOIN monthly_budgets AS budget ON budget.team = burnt.team
WHERE burnt.hour_usd >= 1
  AND burn_rate(burnt.hour_usd, INTERVAL '1 hour', budget.monthly_usd, INTERVAL '30 days') >= 14.4
  AND burn_rate(burnt.minutes_usd, INTERVAL '5 minutes', budget.monthly_usd, INTERVAL '30 days') >= 14.4
GAP FILL FOR INTERVAL '1 hour'
EMIT ON CLOSE;

-- Warns a team that spends its month's budget faster than planned for longer: 6 times over six hours (5 % of the
-- month), 3 times over a day (10 %) or 1.5 times over three days (15 %), and as fast over the last twelfth of that. The
-- three say how soon somebody must look: within the hour, today, this week.
-- A controller tells the owners; nothing is stopped.
-- False alarms: month ends and launches; a team that works five days a week burns 1.4 on each of them, which is below
-- 1.5 on purpose. Below 1 USD in the long window nothing is said. State: one sum per team and quarter of an hour,
-- for three days.
-- To tune: monthly_budgets.csv; the three rates. Costs in another currency than USD are left out.
CREATE RULE budget_burn_slow WITH (
  action      = 'warn',
  reason_code = 'x_budget_burn_rate',
  severity    = 'warning',
  owner       = 'finops',
  ttl         = '1 hour'
) AS
SELECT judged.team,
       judged.window_start,
       judged.window_end,
       CASE judged.span WHEN '6 hours' THEN judged.burn_6h WHEN '1 day' THEN judged.burn_1d ELSE judged.burn_3d END
         AS observed,
       CASE judged.span WHEN '6 hours' THEN 6.0 WHEN '1 day' THEN 3.0 ELSE 1.5 END AS threshold,
       'times the planned rate' AS unit,
       concat(judged.team, ' has spent its budget of ', judged.monthly_usd, ' USD for the month too fast for ',
              judged.span) AS message,
       judged.span AS burnt_over
FROM (
  SELECT rated.*,
         CASE WHEN rated.usd_6h >= 1 AND rated.burn_6h >= 6.0 AND rated.burn_30m >= 6.0 THEN '6 hours'
              WHEN rated.usd_1d >= 1 AND rated.burn_1d >= 3.0 AND rated.burn_2h >= 3.0 THEN '1 day'
              WHEN rated.usd_3d >= 1 AND rated.burn_3d >= 1.5 AND rated.burn_6h >= 1.5 THEN '3 days' END AS span
  FROM (
    SELECT burnt.*, budget.monthly_usd,
           burn_rate(burnt.usd_30m, INTERVAL '30 minutes', budget.monthly_usd, INTERVAL '30 days') AS burn_30m,
           burn_rate(burnt.usd_2h, INTERVAL '2 hours', budget.monthly_usd, INTERVAL '30 days') AS burn_2h,
           burn_rate(burnt.usd_6h, INTERVAL '6 hours', budget.monthly_usd, INTERVAL '30 days') AS burn_6h,
           burn_rate(burnt.usd_1d, INTERVAL '1 day', budget.monthly_usd, INTERVAL '30 days') AS burn_1d,
           burn_rate(burnt.usd_3d, INTERVAL '3 days', budget.monthly_usd, INTERVAL '30 days') AS burn_3d
    FROM (
      SELECT spent.team, spent.window_start, spent.window_end,
             sum(spent.usd) OVER (PARTITION BY spent.team ORDER BY spent.window_end
                                  ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) AS usd_30m,
             sum(spent.usd) OVER (PARTITION BY spent.team ORDER BY spent.window_end
                                  ROWS BETWEEN 7 PRECEDING AND CURRENT ROW) AS usd_2h,
             sum(spent.usd) OVER (PARTITION BY spent.team ORDER BY spent.window_end
                                  ROWS BETWEEN 23 PRECEDING AND CURRENT ROW) AS usd_6h,
             sum(spent.usd) OVER (PARTITION BY spent.team ORDER BY spent.window_end
                                  ROWS BETWEEN 95 PRECEDING AND CURRENT ROW) AS usd_1d,
             sum(spent.usd) OVER (PARTITION BY spent.team ORDER BY spent.window_end
                                  ROWS BETWEEN 287 PRECEDING AND CURRENT ROW) AS usd_3d
      FROM (
        SELECT s.team, window_start, window_end, coalesce(sum(s.cost_total), 0) AS usd
        FROM TUMBLE(spans, event_time, INTERVAL '15 minutes') AS s
        WHERE s.usage_leaf AND s.team IS NOT NULL AND coalesce(s.cost_currency, 'USD') = 'USD'
        GROUP BY s.team, window_start, window_end
      ) AS spent
    ) AS burnt
    JOIN monthly_budgets AS budget ON budget.team = burnt.team
  ) AS rated
) AS judged
WHERE judged.span IS NOT NULL
GAP FILL FOR INTERVAL '3 days'
EMIT ON CLOSE;
