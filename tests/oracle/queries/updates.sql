-- update_budget
SELECT team, window_start, window_end, sum(cost_total) AS observed, count(*) AS n
FROM TUMBLE(spans, event_time, INTERVAL '2 minutes')
WHERE usage_leaf
GROUP BY team, window_start, window_end
HAVING sum(cost_total) >= 1

-- update_between
SELECT team, window_start, window_end, count(*) AS observed
FROM TUMBLE(spans, event_time, INTERVAL '1 minute')
GROUP BY team, window_start, window_end
HAVING count(*) BETWEEN 3 AND 6

-- update_hop
SELECT team, region, window_start, window_end, count(*) AS observed, avg(latency_ms) AS mean
FROM HOP(spans, event_time, INTERVAL '1 minute', INTERVAL '2 minutes')
GROUP BY team, region, window_start, window_end
HAVING avg(latency_ms) > 500

-- update_hop_uneven
SELECT team, window_start, window_end, count(DISTINCT request_model) AS observed, median(latency_ms) AS m
FROM HOP(spans, event_time, INTERVAL '40 seconds', INTERVAL '1 minute')
GROUP BY team, window_start, window_end
HAVING count(DISTINCT request_model) = 2

-- update_join
SELECT c.team, c.region, c.window_start, c.window_end, c.cost AS observed, l.most AS threshold
FROM (SELECT team, region, window_start, window_end, count(*) AS n, sum(cost_total) AS cost FROM TUMBLE(spans,
    event_time, INTERVAL '1 minute') GROUP BY team, region, window_start, window_end) AS c
JOIN limits AS l ON l.team = c.team
WHERE c.cost > 0.1 * l.most AND c.n < 5

-- update_not_in
SELECT c.team, c.region, c.window_start, c.window_end, c.n AS observed
FROM (SELECT team, region, window_start, window_end, count(*) AS n, sum(cost_total) AS cost FROM TUMBLE(spans,
    event_time, INTERVAL '1 minute') GROUP BY team, region, window_start, window_end) AS c
WHERE c.region NOT IN (SELECT region FROM known) AND c.n BETWEEN 2 AND 3

-- update_ordered
SELECT team, window_start, window_end, last_value(request_model ORDER BY kafka_offset) AS newest,
    count(*) AS observed
FROM TUMBLE(spans, event_time, INTERVAL '1 minute')
GROUP BY team, window_start, window_end

-- update_cumulate
SELECT team, window_start, window_end, count(*) AS observed, sum(cost_total) AS cost
FROM CUMULATE(spans, event_time, INTERVAL '1 minute', INTERVAL '3 minutes')
GROUP BY team, window_start, window_end
HAVING count(*) BETWEEN 4 AND 20

-- update_calendar
SELECT team, region, window_start, window_end, sum(cost_total) AS observed
FROM CALENDAR(spans, event_time, 'hour', 'Australia/Adelaide')
GROUP BY team, region, window_start, window_end
HAVING sum(cost_total) > 1

-- update_zoned
SELECT team, region, window_start, window_end, sum(cost_total) AS observed
FROM CALENDAR(zoned, event_time, 'hour', zone)
GROUP BY team, region, window_start, window_end
HAVING sum(cost_total) BETWEEN 0.505 AND 2.505

-- update_zoned_without_the_teams
SELECT region, window_start, window_end, count(*) AS observed
FROM CALENDAR(zoned, event_time, 'day', zone)
GROUP BY region, window_start, window_end
HAVING count(*) BETWEEN 7 AND 300
