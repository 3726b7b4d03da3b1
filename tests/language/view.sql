-- A window over a view: the view filters and computes, the window follows its event_time.
CREATE VIEW model_calls AS
SELECT *, input_tokens + output_tokens AS tokens FROM spans WHERE operation_type = 'inference';

CREATE RULE tokens_per_minute WITH (action = 'throttle', reason_code = 'x_tokens_per_minute') AS
SELECT m.team, window_start, window_end, sum(m.tokens) AS observed, 1000 AS threshold, 'tokens' AS unit
FROM TUMBLE(model_calls, event_time, INTERVAL '1 minute') AS m
GROUP BY m.team, window_start, window_end
HAVING sum(m.tokens) > 1000
EMIT ON CLOSE;
