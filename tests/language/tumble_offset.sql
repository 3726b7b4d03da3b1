-- TUMBLE with an offset: hours that begin at a quarter past.
CREATE RULE hour_of_calls WITH (action = 'notify', reason_code = 'x_hour_of_calls') AS
SELECT s.team, window_start, window_end, count(*) AS observed
FROM TUMBLE(spans, event_time, INTERVAL '1 hour', INTERVAL '15 minutes') AS s
GROUP BY s.team, window_start, window_end
HAVING count(*) >= 2
EMIT ON CLOSE;
