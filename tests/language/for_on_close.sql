-- for: a violation that passes is none. Of a rule that speaks on close: windows one after the other, until one ends two
-- minutes after the first of them did.
CREATE RULE slow_for_long WITH (action = 'warn', reason_code = 'SLA_LATENCY_VIOLATION', for = '2 minutes') AS
SELECT s.project, window_start, window_end, avg(s.duration_ms) AS observed, 1000 AS threshold, 'ms' AS unit
FROM TUMBLE(spans, event_time, INTERVAL '1 minute') AS s
GROUP BY s.project, window_start, window_end
HAVING avg(s.duration_ms) > 1000;
