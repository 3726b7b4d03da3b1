-- EMIT ON UPDATE: judged after every record that changes a group; what no longer violates is taken back.
CREATE RULE slow_minute WITH (action = 'throttle', reason_code = 'SLA_LATENCY_VIOLATION') AS
SELECT s.project, window_start, window_end, avg(s.duration_ms) AS observed, 1000 AS threshold, 'ms' AS unit,
       CASE WHEN avg(s.duration_ms) > 2000 THEN 'RATE_LIMITED' ELSE 'WARNING' END AS result
FROM TUMBLE(spans, event_time, INTERVAL '1 minute') AS s
GROUP BY s.project, window_start, window_end
HAVING avg(s.duration_ms) > 1000
EMIT ON UPDATE;
