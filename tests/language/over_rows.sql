-- OVER with a frame of rows: each window is held against the mean of up to three before it.
CREATE RULE dearer_than_usual WITH (action = 'notify', reason_code = 'x_dearer_than_usual') AS
SELECT u.team, u.window_start, u.window_end, u.usd AS observed, 2 * u.usual AS threshold, u.windows
FROM (
  SELECT c.team, c.window_start, c.window_end, c.usd,
         avg(c.usd) OVER (PARTITION BY c.team ORDER BY c.window_end ROWS BETWEEN 3 PRECEDING AND 1 PRECEDING) AS usual,
         count(*) OVER (PARTITION BY c.team ORDER BY c.window_end ROWS BETWEEN 3 PRECEDING AND 1 PRECEDING) AS windows
  FROM (
    SELECT s.team, window_start, window_end, sum(s.cost_total) AS usd
    FROM TUMBLE(spans, event_time, INTERVAL '1 minute') AS s
    GROUP BY s.team, window_start, window_end
  ) AS c
) AS u
WHERE u.windows >= 2 AND u.usd > 2 * u.usual
EMIT ON CLOSE;
