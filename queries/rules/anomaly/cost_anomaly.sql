-- Fires when a team's cost of the last five minutes is far outside of its own past hour: above the mean of the twelve
-- five-minute windows before by more than four standard deviations, and at least five times that mean. A controller
-- tells the team; nothing is stopped, because a launch looks like a leak. The directive goes when a window is normal.
-- False alarms: a few long sessions at once. Measured on 50 stationary teams (docs/detection.md): eight in 300
-- team-days; the factor 3 told twelve in 100.
-- To tune: the factors 4 and 5, and the floor of 1 USD below which nobody cares. A team is judged once it has six
-- windows of history; windows without any cost do not count as history.
CREATE RULE cost_anomaly WITH (
  action      = 'notify',
  reason_code = 'x_cost_anomaly',
  severity    = 'warning',
  owner       = 'finops',
  ttl         = '5 minutes'
) AS
SELECT judged.team,
       judged.window_start,
       judged.window_end,
       judged.cost AS observed,
       greatest(judged.usual + 4 * judged.spread, 5 * judged.usual) AS threshold,
       'USD in 5 minutes' AS unit,
       'WARNING' AS result,
       concat(judged.team, ' has spent ', TRY_CAST(judged.cost AS DECIMAL(18, 2)), ' USD in five minutes; usual are ',
              TRY_CAST(judged.usual AS DECIMAL(18, 2))) AS message,
       judged.usual,
       judged.spread,
       judged.calls
FROM (
  SELECT spent.team, spent.window_start, spent.window_end, spent.cost, spent.calls,
         avg(spent.cost)    OVER (PARTITION BY spent.team ORDER BY spent.window_end
                                  ROWS BETWEEN 12 PRECEDING AND 1 PRECEDING) AS usual,
         stddev(spent.cost) OVER (PARTITION BY spent.team ORDER BY spent.window_end
                                  ROWS BETWEEN 12 PRECEDING AND 1 PRECEDING) AS spread,
         count(spent.cost)  OVER (PARTITION BY spent.team ORDER BY spent.window_end
                                  ROWS BETWEEN 12 PRECEDING AND 1 PRECEDING) AS windows
  FROM (
    SELECT s.team, window_start, window_end, sum(s.cost_total) AS cost, count(*) AS calls
    FROM TUMBLE(spans, event_time, INTERVAL '5 minutes') AS s
    WHERE s.usage_leaf AND s.team IS NOT NULL
    GROUP BY s.team, window_start, window_end
  ) AS spent
) AS judged
WHERE judged.windows >= 6
  AND judged.cost >= 1
  AND judged.cost > greatest(judged.usual + 4 * judged.spread, 5 * judged.usual)
EMIT ON CLOSE;
