-- count(DISTINCT …): one user from many regions.
CREATE RULE many_regions WITH (action = 'warn', reason_code = 'x_many_regions') AS
SELECT s.user_id, window_start, window_end, count(DISTINCT s.region) AS observed, 2 AS threshold
FROM TUMBLE(spans, event_time, INTERVAL '1 minute') AS s
GROUP BY s.user_id, window_start, window_end
HAVING count(DISTINCT s.region) > 2
EMIT ON UPDATE;
