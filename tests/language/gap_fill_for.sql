-- GAP FILL FOR: calls of a team that suddenly stop; minutes without any are part of the past, too.
CREATE RULE fallen_silent WITH (action = 'warn', reason_code = 'x_fallen_silent') AS
SELECT c.team, c.window_start, c.window_end, c.calls AS observed, c.usual AS threshold
FROM (
  SELECT n.team, n.window_start, n.window_end, n.calls,
         max(n.calls) OVER (PARTITION BY n.team ORDER BY n.window_end
                            ROWS BETWEEN 2 PRECEDING AND 1 PRECEDING) AS usual
  FROM (
    SELECT s.team, window_start, window_end, count(*) AS calls
    FROM TUMBLE(spans, event_time, INTERVAL '1 minute') AS s
    WHERE s.team IS NOT NULL
    GROUP BY s.team, window_start, window_end
  ) AS n
) AS c
WHERE c.calls = 0 AND c.usual >= 2
GAP FILL FOR INTERVAL '10 minutes'
EMIT ON CLOSE;
