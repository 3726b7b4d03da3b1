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

-- update_sessions
SELECT team, window_start, window_end, count(*) AS observed, sum(cost_total) AS cost, max(event_time) AS last
FROM SESSION(spans, event_time, INTERVAL '9 seconds')
GROUP BY team, window_start, window_end

-- update_sessions_in_between
SELECT team, region, window_start, window_end, count(*) AS observed,
    string_agg(request_model, ',' ORDER BY kafka_offset) AS models
FROM SESSION(billed, event_time, INTERVAL '25 seconds')
GROUP BY team, region, window_start, window_end
HAVING count(*) BETWEEN 2 AND 4

-- update_sessions_and_limits
SELECT c.team, c.window_start, c.window_end, c.slow AS observed, l.most AS threshold
FROM (SELECT s.team, window_start, window_end, avg(s.latency_ms) AS slow, count(*) AS n
      FROM SESSION(spans, event_time, INTERVAL '12 seconds') AS s
      GROUP BY s.team, window_start, window_end) AS c
LEFT JOIN limits AS l ON l.team = c.team
WHERE c.slow > 550
