-- HOP: windows of two minutes, a new one every minute, so that each row is in two of them.
CREATE RULE two_dear_minutes WITH (action = 'throttle', reason_code = 'x_two_dear_minutes') AS
SELECT s.team, window_start, window_end, sum(s.cost_total) AS observed, 10 AS threshold
FROM HOP(spans, event_time, INTERVAL '1 minute', INTERVAL '2 minutes') AS s
GROUP BY s.team, window_start, window_end
HAVING sum(s.cost_total) >= 10
EMIT ON CLOSE;
