-- Sequence detectors see the windows in which nothing happened: a team's budget lasts so many minutes more.
CREATE RULE running_out WITH (action = 'warn', reason_code = 'x_running_out') AS
SELECT d.team, d.window_start, d.window_end, d.minutes AS observed, 10 AS threshold, d.usual, d.z
FROM (
  SELECT c.*,
         holt_exhaustion(c.usd, 20 - c.usd, 0.5, 0) OVER k AS minutes,
         running_quantile(c.usd, 0.5) OVER k AS usual,
         seasonal_z(c.usd, c.window_start, 'hour_of_day') OVER k AS z
  FROM (
    SELECT team, window_start, window_end, coalesce(sum(cost_total), 0) AS usd
    FROM TUMBLE(spans, event_time, INTERVAL '1 minute')
    GROUP BY team, window_start, window_end
  ) AS c
  WINDOW k AS (PARTITION BY c.team ORDER BY c.window_end)
) AS d
WHERE d.minutes < 10
GAP FILL FOR INTERVAL '5 minutes'
EMIT ON CLOSE;
