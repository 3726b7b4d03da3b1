-- Sequence detectors of drift over overlapping windows: three methods, each with its state as columns.
CREATE RULE drifted WITH (action = 'warn', reason_code = 'x_drifted') AS
SELECT d.team, d.window_start, d.window_end, d.calls AS observed, d.up['high'] AS high, d.width['width'] AS width,
       d.moved, d.forecast
FROM (
  SELECT c.*,
         cusum_state((c.calls - 2) / 1.0, 0.5, 3) OVER k AS up,
         adwin_state(c.calls, 0.3, 1, 5, 2, 4) OVER k AS width,
         page_hinkley(c.calls, 3, 0.1, 4) OVER k AS moved,
         holt(c.calls, 0.5, 0.5) OVER k AS forecast
  FROM (
    SELECT team, window_start, window_end, count(*) AS calls
    FROM HOP(spans, event_time, INTERVAL '1 minute', INTERVAL '2 minutes')
    GROUP BY team, window_start, window_end
  ) AS c
  WINDOW k AS (PARTITION BY c.team ORDER BY c.window_end)
) AS d
WHERE d.up['alarm'] = 1
EMIT ON CLOSE;
