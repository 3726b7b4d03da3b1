-- Fires when a team will have spent its daily budget before the (UTC) day ends if it goes on like this, while there is
-- still time to do something: two forecasts must agree, the rate of the day so far (linear_projection) and the level
-- and trend of the last hours (Holt), so that an early peak that is over does not speak.
-- A controller tells the owners; nothing is stopped. The directive goes with the first hour that fits the budget again,
-- or at midnight. Once the budget is spent, team_daily_budget speaks instead.
-- False alarms: teams that do all of their work before noon. State: a sum per
-- team and hour of the day, and two numbers per team.
-- To tune: the three hours of the day before which nothing is said, and 1 USD. Budgets are those of budgets.csv, which
-- team_daily_budget declares. Costs in another currency than USD are left out.
CREATE RULE budget_forecast WITH (
  action      = 'warn',
  reason_code = 'x_budget_forecast',
  severity    = 'warning',
  owner       = 'finops',
  ttl         = '10 minutes'
) AS
SELECT judged.team,
       judged.window_start,
       judged.window_end,
       judged.projected AS observed,
       judged.daily_usd AS threshold,
       'USD by midnight' AS unit,
       concat(judged.team, ' has spent ', TRY_CAST(judged.day_usd AS DECIMAL(18, 2)), ' of its ', judged.daily_usd,
              ' USD for the day, which will be gone in ', CAST(ceil(judged.hours_left) AS BIGINT), ' hours') AS message,
       judged.day_usd,
       judged.hours_left AS hours_to_exhaustion
FROM (
  SELECT known.*,
         holt_exhaustion(known.hour_usd, known.daily_usd - known.day_usd) OVER k AS hours_left,
         linear_projection(known.day_usd, known.window_start, known.window_start + INTERVAL '1 day', known.window_end)
           AS projected
  FROM (
    SELECT hourly.*, budget.daily_usd,
           hourly.day_usd - CASE WHEN hourly.start_before = hourly.window_start THEN hourly.usd_before ELSE 0 END
             AS hour_usd
    FROM (
      SELECT spent.*,
             lag(spent.day_usd) OVER (PARTITION BY spent.team ORDER BY spent.window_end) AS usd_before,
             lag(spent.window_start) OVER (PARTITION BY spent.team ORDER BY spent.window_end) AS start_before
      FROM (
        SELECT s.team, window_start, window_end, coalesce(sum(s.cost_total), 0) AS day_usd
        FROM CUMULATE(spans, event_time, INTERVAL '1 hour', INTERVAL '1 day') AS s
        WHERE s.usage_leaf AND s.team IS NOT NULL AND coalesce(s.cost_currency, 'USD') = 'USD'
        GROUP BY s.team, window_start, window_end
      ) AS spent
    ) AS hourly
    JOIN budgets AS budget ON budget.team = hourly.team
  ) AS known
  WINDOW k AS (PARTITION BY known.team ORDER BY known.window_end)
) AS judged
WHERE judged.day_usd >= 1 AND judged.day_usd < judged.daily_usd
  AND judged.window_end >= judged.window_start + INTERVAL '3 hours'
  AND judged.projected > judged.daily_usd
  AND 3600 * judged.hours_left < to_unixtime(judged.window_start) + 86400 - to_unixtime(judged.window_end)
GAP FILL FOR INTERVAL '1 day'
EMIT ON CLOSE;
