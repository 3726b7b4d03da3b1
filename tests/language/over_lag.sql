-- OVER with lag: each window is held against the one before it of the same key.
CREATE RULE tripled WITH (action = 'warn', reason_code = 'x_tripled') AS
SELECT t.team, t.window_start, t.window_end, t.calls AS observed, 3 * t.before AS threshold
FROM (
  SELECT c.team, c.window_start, c.window_end, c.calls,
         lag(c.calls) OVER (PARTITION BY c.team ORDER BY c.window_end) AS before
  FROM (
    SELECT s.team, window_start, window_end, count(*) AS calls
    FROM TUMBLE(spans, event_time, INTERVAL '1 minute') AS s
    GROUP BY s.team, window_start, window_end
  ) AS c
) AS t
WHERE t.calls >= 3 * t.before
EMIT ON CLOSE;
