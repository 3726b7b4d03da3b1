-- CUMULATE: windows that begin together and end step after step; the last has the full length.
CREATE RULE calls_so_far WITH (action = 'notify', reason_code = 'x_calls_so_far') AS
SELECT s.team, window_start, window_end, count(*) AS observed
FROM CUMULATE(spans, event_time, INTERVAL '1 minute', INTERVAL '3 minutes') AS s
GROUP BY s.team, window_start, window_end
HAVING count(*) >= 2
EMIT ON CLOSE;
