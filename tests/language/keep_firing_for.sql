-- keep_firing_for: an end, or a milder result, is said once it has lasted two minutes; until then nothing has happened.
CREATE RULE slow_with_rests WITH (
  action = 'throttle', reason_code = 'SLA_LATENCY_VIOLATION', keep_firing_for = '2 minutes'
) AS
SELECT s.project, window_start, window_end, avg(s.duration_ms) AS observed, 1000 AS threshold, 'ms' AS unit,
       CASE WHEN avg(s.duration_ms) > 2000 THEN 'RATE_LIMITED' ELSE 'WARNING' END AS result
FROM TUMBLE(spans, event_time, INTERVAL '10 minutes') AS s
GROUP BY s.project, window_start, window_end
HAVING avg(s.duration_ms) > 1000
EMIT ON UPDATE;
