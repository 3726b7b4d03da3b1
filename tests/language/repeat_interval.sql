-- repeat_interval: a violation that goes on unchanged is published again, with the numbers of then.
CREATE RULE spending WITH (action = 'block', reason_code = 'BUDGET_EXCEEDED', repeat_interval = '5 minutes') AS
SELECT s.team, window_start, window_end, sum(s.cost_total) AS observed, 10 AS threshold, 'USD' AS unit
FROM TUMBLE(spans, event_time, INTERVAL '1 hour') AS s
GROUP BY s.team, window_start, window_end
HAVING sum(s.cost_total) > 10
EMIT ON UPDATE;
