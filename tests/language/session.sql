-- SESSION: a conversation that has cost too much, once it is over.
CREATE RULE dear_conversation WITH (action = 'notify', reason_code = 'x_dear_conversation', ttl = '10 minutes') AS
SELECT s.session_id, window_start, window_end, sum(s.cost_total) AS observed, count(*) AS calls
FROM SESSION(spans, event_time, INTERVAL '2 minutes') AS s
WHERE s.session_id IS NOT NULL
GROUP BY s.session_id, window_start, window_end
HAVING sum(s.cost_total) >= 5
EMIT ON CLOSE;
