-- for, of a rule that speaks on update: at the instant at which it has gone on for so long, whether a row comes or not.
CREATE RULE slow_just_now WITH (action = 'throttle', reason_code = 'SLA_LATENCY_VIOLATION', for = '1 minute') AS
SELECT s.project, window_start, window_end, avg(s.duration_ms) AS observed, 1000 AS threshold, 'ms' AS unit
FROM TUMBLE(spans, event_time, INTERVAL '10 minutes') AS s
GROUP BY s.project, window_start, window_end
HAVING avg(s.duration_ms) > 1000
EMIT ON UPDATE;
