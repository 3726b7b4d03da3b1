-- first_value and last_value, with an order of their own: a session that began with one model and ended with another.
CREATE RULE model_changed WITH (action = 'notify', reason_code = 'x_model_changed') AS
SELECT s.session_id, window_start, window_end, count(*) AS observed,
       first_value(s.request_model ORDER BY s.event_time) AS began_with,
       last_value(s.request_model ORDER BY s.event_time) AS ended_with
FROM TUMBLE(spans, event_time, INTERVAL '1 minute') AS s
GROUP BY s.session_id, window_start, window_end
HAVING first_value(s.request_model ORDER BY s.event_time) <> last_value(s.request_model ORDER BY s.event_time)
EMIT ON CLOSE;
