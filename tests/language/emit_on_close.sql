-- EMIT ON CLOSE (also what holds if nothing is said): a window is judged once, when event time passes its end.
CREATE RULE many_errors WITH (action = 'warn', reason_code = 'x_many_errors', ttl = '2 minutes') AS
SELECT s.team, window_start, window_end, count(*) AS observed
FROM TUMBLE(spans, event_time, INTERVAL '1 minute') AS s
WHERE s.status_code = 'ERROR'
GROUP BY s.team, window_start, window_end
HAVING count(*) >= 2;
