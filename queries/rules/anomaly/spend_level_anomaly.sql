-- Fires when a team's cost of five minutes is far outside of what the team has had so far: a detector of level and step
-- (ew_level_diff) learns each team's own spread, and the cost must be 1 USD above the usual. cost_anomaly looks back
-- for an hour and is easy to explain; this rule looks back for days and is silent for teams that are restless anyway.
-- A controller tells the team; nothing is stopped, because a launch looks like a leak. After it has fired it is silent
-- for twelve windows, an hour, so that an incident is told once.
-- False alarms: the first day of a new workload. State: some hundred numbers per team. It is silent for the first 60
-- windows of a team, while it learns.
-- To tune: 1.1, the score from which on it is an alert; the pause of 12; the floor of 1 USD below which nobody cares.
CREATE RULE spend_level_anomaly WITH (
  action      = 'notify',
  reason_code = 'x_cost_anomaly',
  severity    = 'warning',
  owner       = 'finops',
  ttl         = '10 minutes'
) AS
SELECT judged.team,
       judged.window_start,
       judged.window_end,
       judged.usd AS observed,
       judged.usual + 1.0 AS threshold,
       'USD in 5 minutes' AS unit,
       concat(judged.team, ' has spent ', TRY_CAST(judged.usd AS DECIMAL(18, 2)), ' USD in five minutes; usual are ',
              TRY_CAST(judged.usual AS DECIMAL(18, 2))) AS message,
       judged.score
FROM (
  SELECT scored.*, cooldown(scored.score >= 1.1 AND scored.usd - scored.usual >= 1.0, 12) OVER k AS fires
  FROM (
    SELECT spent.*, ew_level_diff(spent.usd) OVER k AS score, ew_mean(spent.usd, 0.0005) OVER k AS usual
    FROM (
      SELECT s.team, window_start, window_end, coalesce(sum(s.cost_total), 0) AS usd
      FROM TUMBLE(spans, event_time, INTERVAL '5 minutes') AS s
      WHERE s.usage_leaf AND s.team IS NOT NULL AND coalesce(s.cost_currency, 'USD') = 'USD'
      GROUP BY s.team, window_start, window_end
    ) AS spent
    WINDOW k AS (PARTITION BY spent.team ORDER BY spent.window_end)
  ) AS scored
  WINDOW k AS (PARTITION BY scored.team ORDER BY scored.window_end)
) AS judged
WHERE judged.fires
GAP FILL FOR INTERVAL '1 day'
EMIT ON CLOSE;
