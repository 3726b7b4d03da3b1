-- QUALIFY: a condition on a window function without a subquery around it.
CREATE RULE half_of_all WITH (action = 'notify', reason_code = 'x_half_of_all') AS
SELECT c.team, c.window_start, c.window_end, c.calls AS observed
FROM (
  SELECT s.team, window_start, window_end, count(*) AS calls
  FROM TUMBLE(spans, event_time, INTERVAL '1 minute') AS s
  GROUP BY s.team, window_start, window_end
) AS c
QUALIFY 2 * c.calls > sum(c.calls) OVER (PARTITION BY c.window_end)
EMIT ON CLOSE;
