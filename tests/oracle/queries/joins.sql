-- below_inner
SELECT s.team, l.most, sum(s.cost_total) AS observed, window_start, window_end
FROM TUMBLE(spans, event_time, INTERVAL '1 minute') AS s
JOIN limits AS l ON l.team = s.team
GROUP BY s.team, l.most, window_start, window_end

-- below_left
SELECT s.team, count(l.team) AS observed, count(*) AS n, window_start, window_end
FROM TUMBLE(spans, event_time, INTERVAL '1 minute') AS s
LEFT JOIN limits AS l ON l.team = s.team
GROUP BY s.team, window_start, window_end

-- below_in
SELECT s.team, count(*) AS observed, window_start, window_end
FROM TUMBLE(spans, event_time, INTERVAL '1 minute') AS s
WHERE s.region IN (SELECT region FROM known)
GROUP BY s.team, window_start, window_end

-- below_not_in
SELECT s.team, count(*) AS observed, window_start, window_end
FROM TUMBLE(spans, event_time, INTERVAL '1 minute') AS s
WHERE s.region NOT IN (SELECT region FROM known)
GROUP BY s.team, window_start, window_end

-- below_not_exists
SELECT s.region, count(*) AS observed, window_start, window_end
FROM TUMBLE(spans, event_time, INTERVAL '1 minute') AS s
WHERE NOT EXISTS (SELECT 1 FROM known AS k WHERE k.region = s.region)
GROUP BY s.region, window_start, window_end

-- below_left_null
SELECT s.region, count(*) AS observed, window_start, window_end
FROM TUMBLE(spans, event_time, INTERVAL '1 minute') AS s
LEFT JOIN known AS k ON k.region = s.region
WHERE k.region IS NULL
GROUP BY s.region, window_start, window_end

-- above_inner
SELECT c.team, c.region, c.window_start, c.window_end, c.cost AS observed, l.most AS threshold
FROM (SELECT team, region, window_start, window_end, count(*) AS n, sum(cost_total) AS cost FROM TUMBLE(spans,
    event_time, INTERVAL '1 minute') GROUP BY team, region, window_start, window_end) AS c
JOIN limits AS l ON l.team = c.team
WHERE c.cost > 0.1 * l.most

-- above_left
SELECT c.team, c.region, c.window_start, c.window_end, c.n AS observed, coalesce(l.most, -1) AS most
FROM (SELECT team, region, window_start, window_end, count(*) AS n, sum(cost_total) AS cost FROM TUMBLE(spans,
    event_time, INTERVAL '1 minute') GROUP BY team, region, window_start, window_end) AS c
LEFT JOIN limits AS l ON l.team = c.team

-- above_in
SELECT c.team, c.region, c.window_start, c.window_end, c.n AS observed
FROM (SELECT team, region, window_start, window_end, count(*) AS n, sum(cost_total) AS cost FROM TUMBLE(spans,
    event_time, INTERVAL '1 minute') GROUP BY team, region, window_start, window_end) AS c
WHERE c.region IN (SELECT region FROM known)

-- above_not_in
SELECT c.team, c.region, c.window_start, c.window_end, c.n AS observed
FROM (SELECT team, region, window_start, window_end, count(*) AS n, sum(cost_total) AS cost FROM TUMBLE(spans,
    event_time, INTERVAL '1 minute') GROUP BY team, region, window_start, window_end) AS c
WHERE c.region NOT IN (SELECT region FROM known)

-- above_not_exists
SELECT c.team, c.region, c.window_start, c.window_end, c.n AS observed
FROM (SELECT team, region, window_start, window_end, count(*) AS n, sum(cost_total) AS cost FROM TUMBLE(spans,
    event_time, INTERVAL '1 minute') GROUP BY team, region, window_start, window_end) AS c
WHERE NOT EXISTS (SELECT 1 FROM known AS k WHERE k.region = c.region)

-- above_range
SELECT c.team, c.region, c.window_start, c.window_end, c.n AS observed, l.most
FROM (SELECT team, region, window_start, window_end, count(*) AS n, sum(cost_total) AS cost FROM TUMBLE(spans,
    event_time, INTERVAL '1 minute') GROUP BY team, region, window_start, window_end) AS c
JOIN limits AS l ON l.team = c.team AND l.most < c.n

-- in_having
SELECT s.region, window_start, window_end, count(*) AS observed
FROM TUMBLE(spans, event_time, INTERVAL '1 minute') AS s
GROUP BY s.region, window_start, window_end
HAVING s.region NOT IN (SELECT region FROM known)

-- scalar_subquery
SELECT c.team, c.region, c.window_start, c.window_end, c.n AS observed
FROM (SELECT team, region, window_start, window_end, count(*) AS n, sum(cost_total) AS cost FROM TUMBLE(spans,
    event_time, INTERVAL '1 minute') GROUP BY team, region, window_start, window_end) AS c
WHERE c.cost > (SELECT min(most) FROM limits)
