-- A conversation that costs too much, while it goes on.
CREATE RULE costly_conversation WITH (action = 'block', reason_code = 'x_costly_conversation') AS
SELECT s.session_id, window_start, window_end, sum(s.cost_total) AS observed, count(*) AS calls
FROM SESSION(spans, event_time, INTERVAL '2 minutes') AS s
WHERE s.session_id IS NOT NULL
GROUP BY s.session_id, window_start, window_end
HAVING sum(s.cost_total) >= 5
EMIT ON UPDATE;
