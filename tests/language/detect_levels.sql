-- Sequence detectors of level and step: what is unusual for this team, and then silence for three windows.
CREATE RULE unusual WITH (action = 'notify', reason_code = 'x_unusual') AS
SELECT d.team, d.window_start, d.window_end, d.score AS observed, 1.1 AS threshold, d.usd, d.usual, d.before
FROM (
  SELECT s.*, cooldown(s.score >= 1.1 AND s.usd - s.usual >= 1, 3)
              OVER (PARTITION BY s.team ORDER BY s.window_end) AS fires
  FROM (
    SELECT c.*,
           ew_level_diff(c.usd, 0.5, 0.05, 0.05, 0.1, 3, 0.9, 0.3, 50, 3, 2, 3) OVER k AS score,
           ew_mean(c.usd, 0.2) OVER k AS usual,
           lag(c.usd) OVER k AS before
    FROM (
      SELECT team, window_start, window_end, sum(cost_total) AS usd
      FROM TUMBLE(spans, event_time, INTERVAL '1 minute')
      GROUP BY team, window_start, window_end
    ) AS c
    WINDOW k AS (PARTITION BY c.team ORDER BY c.window_end)
  ) AS s
) AS d
WHERE d.fires
EMIT ON CLOSE;
