-- The table span_events: one row per event of a span, such as an exception.
CREATE RULE exceptions WITH (action = 'warn', reason_code = 'x_exceptions') AS
SELECT e.team, attr('exception.type') AS exception, window_start, window_end, count(*) AS observed
FROM TUMBLE(span_events, event_time, INTERVAL '1 minute') AS e
WHERE e.name = 'exception'
GROUP BY e.team, attr('exception.type'), window_start, window_end
HAVING count(*) >= 2
EMIT ON CLOSE;
