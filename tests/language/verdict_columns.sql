-- Columns with a meaning: a row says itself why, how it is to be stopped, until when, and with which parameters.
CREATE RULE quota WITH (action = 'throttle', reason_code = 'x_quota') AS
SELECT s.team, window_start, window_end, count(*) AS observed, 2 AS threshold, 'calls' AS unit,
       CASE WHEN count(*) > 4 THEN 'RATE_LIMITED' WHEN count(*) > 2 THEN 'WARNING' ELSE 'ALLOWED' END AS result,
       CASE WHEN count(*) > 4 THEN 'BUDGET_EXCEEDED' ELSE 'x_quota_nearly_reached' END AS reason_code,
       window_end + INTERVAL '90 seconds' AS valid_until,
       '{"retry_after_ms": 2000}' AS params,
       concat(s.team, ' has made ', count(*), ' calls') AS message
FROM TUMBLE(spans, event_time, INTERVAL '1 minute') AS s
GROUP BY s.team, window_start, window_end
EMIT ON CLOSE;
