-- The table logs: one row per log record.
CREATE RULE error_logs WITH (action = 'warn', reason_code = 'x_error_logs') AS
SELECT l.service_name, window_start, window_end, count(*) AS observed, max(l.body) AS example
FROM TUMBLE(logs, event_time, INTERVAL '1 minute') AS l
WHERE l.severity_number >= 17
GROUP BY l.service_name, window_start, window_end
HAVING count(*) >= 2
EMIT ON UPDATE;
