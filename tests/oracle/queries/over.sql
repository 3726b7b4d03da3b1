-- lagged
SELECT c.team, c.window_start, c.window_end, c.n - lag(c.n) OVER (PARTITION BY c.team
    ORDER BY c.window_end) AS observed, lag(c.cost, 2, 0.0) OVER (PARTITION BY c.team
    ORDER BY c.window_end) AS before
FROM (SELECT team, window_start, window_end, count(*) AS n, sum(cost_total) AS cost, max(latency_ms) AS worst FROM
    TUMBLE(spans, event_time, INTERVAL '1 minute') WHERE team IS NOT NULL AND region = 'eu' GROUP BY team,
    window_start, window_end) AS c

-- averaged
SELECT c.team, c.window_start, c.window_end, avg(c.n) OVER (PARTITION BY c.team ORDER BY c.window_end ROWS BETWEEN 3
    PRECEDING AND 1 PRECEDING) AS observed, stddev(c.worst) OVER (PARTITION BY c.team ORDER BY c.window_end ROWS
    BETWEEN 2 PRECEDING AND CURRENT ROW) AS s, first_value(c.worst) OVER (PARTITION BY c.team ORDER BY c.window_end
    ROWS BETWEEN 2 PRECEDING AND CURRENT ROW) AS f
FROM (SELECT team, window_start, window_end, count(*) AS n, sum(cost_total) AS cost, max(latency_ms) AS worst FROM
    TUMBLE(spans, event_time, INTERVAL '1 minute') WHERE team IS NOT NULL AND region = 'eu' GROUP BY team,
    window_start, window_end) AS c

-- within_window
SELECT c.team, c.window_start, c.window_end, c.n AS observed, row_number() OVER (PARTITION BY c.window_end
    ORDER BY c.worst DESC) AS place, sum(c.n) OVER (PARTITION BY c.window_start, c.window_end) AS whole
FROM (SELECT team, window_start, window_end, count(*) AS n, sum(cost_total) AS cost, max(latency_ms) AS worst FROM
    TUMBLE(spans, event_time, INTERVAL '1 minute') WHERE team IS NOT NULL AND region = 'eu' GROUP BY team,
    window_start, window_end) AS c

-- all_teams
SELECT c.team, c.window_start, c.window_end, avg(c.worst) OVER (ORDER BY c.window_end, c.team ROWS BETWEEN 4
    PRECEDING AND 1 PRECEDING) AS observed
FROM (SELECT team, window_start, window_end, count(*) AS n, sum(cost_total) AS cost, max(latency_ms) AS worst FROM
    TUMBLE(spans, event_time, INTERVAL '1 minute') WHERE team IS NOT NULL AND region = 'eu' GROUP BY team,
    window_start, window_end) AS c

-- filtered
SELECT j.team, j.window_start, j.window_end, j.n AS observed, j.usual
FROM (SELECT c.team, c.window_start, c.window_end, c.n, avg(c.n) OVER (PARTITION BY c.team ORDER BY c.window_end
    ROWS BETWEEN 2 PRECEDING AND 1 PRECEDING) AS usual FROM (SELECT team, window_start, window_end, count(*) AS n
    FROM TUMBLE(spans, event_time, INTERVAL '30 seconds') GROUP BY team, window_start, window_end) AS c WHERE c.n >
    1) AS j
WHERE j.n > j.usual

-- nested
SELECT d.team, d.window_start, d.window_end, d.rise AS observed, avg(d.rise) OVER (PARTITION BY d.team
    ORDER BY d.window_end ROWS BETWEEN 2 PRECEDING AND CURRENT ROW) AS trend
FROM (SELECT c.team, c.window_start, c.window_end, c.n - lag(c.n) OVER (PARTITION BY c.team
    ORDER BY c.window_end) AS rise FROM (SELECT team, window_start, window_end, count(*) AS n FROM HOP(spans,
    event_time, INTERVAL '30 seconds', INTERVAL '1 minute') GROUP BY team, window_start, window_end) AS c) AS d

-- shares
SELECT s.region, s.team, s.window_start, s.window_end, s.share - lag(s.share) OVER (PARTITION BY s.region, s.team
    ORDER BY s.window_end) AS observed
FROM (SELECT c.region, c.team, c.window_start, c.window_end, CAST(c.n AS DOUBLE) / sum(c.n) OVER
    (PARTITION BY c.region, c.window_end) AS share FROM (SELECT region, team, window_start, window_end,
    count(*) AS n FROM TUMBLE(spans, event_time, INTERVAL '1 minute') GROUP BY region, team, window_start,
    window_end) AS c) AS s

-- second_aggregate
SELECT c.team, c.window_start, c.window_end, max(c.n) AS observed, count(*) AS regions
FROM (SELECT team, region, window_start, window_end, count(*) AS n FROM TUMBLE(spans, event_time,
    INTERVAL '1 minute') GROUP BY team, region, window_start, window_end) AS c
GROUP BY c.team, c.window_start, c.window_end
HAVING max(c.n) > 1

-- distinct
SELECT DISTINCT c.team, c.region, c.window_start, c.window_end
FROM (SELECT team, region, window_start, window_end, count(*) AS n FROM TUMBLE(spans, event_time,
    INTERVAL '1 minute') GROUP BY team, region, window_start, window_end) AS c
WHERE c.n > 1

-- aggregate_of_changes
SELECT d.region, d.window_start, d.window_end, sum(greatest(d.rise, 0)) AS observed
FROM (SELECT c.region, c.team, c.window_start, c.window_end, c.n - lag(c.n, 1, 0) OVER (PARTITION BY c.region,
    c.team ORDER BY c.window_end) AS rise FROM (SELECT region, team, window_start, window_end, count(*) AS n FROM
    TUMBLE(spans, event_time, INTERVAL '1 minute') GROUP BY region, team, window_start, window_end) AS c) AS d
GROUP BY d.region, d.window_start, d.window_end

-- windowed_view
SELECT m.team, m.window_start, m.window_end, m.worst - lag(m.worst) OVER (PARTITION BY m.team ORDER BY m.window_end) AS
    observed
FROM minutes AS m
WHERE m.n > 1

-- zoned_lagged
SELECT c.team, c.window_start, c.window_end, c.n - lag(c.n) OVER (PARTITION BY c.team ORDER BY c.window_end) AS
    observed, max(c.n) OVER (PARTITION BY c.team ORDER BY c.window_end, c.window_start ROWS BETWEEN 3 PRECEDING AND
    1 PRECEDING) AS most
FROM (SELECT team, window_start, window_end, count(*) AS n FROM CALENDAR(zoned, event_time, 'hour', zone)
      WHERE region = 'eu' GROUP BY team, window_start, window_end) AS c

-- zoned_all_teams
SELECT c.team, c.window_start, c.window_end, avg(c.n) OVER (ORDER BY c.window_end, c.window_start ROWS BETWEEN 3
    PRECEDING AND 1 PRECEDING) AS observed
FROM (SELECT team, window_start, window_end, count(*) AS n FROM CALENDAR(zoned, event_time, 'hour', zone)
      WHERE team <> 'c' GROUP BY team, window_start, window_end) AS c

-- zoned_within_window
SELECT c.region, c.team, c.window_start, c.window_end, c.n AS observed, row_number() OVER (PARTITION BY c.window_start,
    c.window_end ORDER BY c.n, c.region, c.team) AS place
FROM (SELECT team, region, window_start, window_end, count(*) AS n FROM CALENDAR(zoned, event_time, 'hour', zone)
      GROUP BY team, region, window_start, window_end) AS c

-- sessions_lagged
SELECT c.team, c.window_start, c.window_end, c.n - lag(c.n) OVER (PARTITION BY c.team ORDER BY c.window_end) AS
    observed, max(c.worst) OVER (PARTITION BY c.team ORDER BY c.window_start ROWS BETWEEN 3 PRECEDING AND CURRENT ROW)
    AS high
FROM (SELECT team, window_start, window_end, count(*) AS n, max(latency_ms) AS worst FROM SESSION(spans, event_time,
    INTERVAL '15 seconds') GROUP BY team, window_start, window_end) AS c

-- sessions_filtered
SELECT j.team, j.region, j.window_start, j.window_end, j.n AS observed, j.usual
FROM (SELECT c.region, c.team, c.window_start, c.window_end, c.n, avg(c.n) OVER (PARTITION BY c.team, c.region ORDER BY
    c.window_end ROWS BETWEEN 2 PRECEDING AND 1 PRECEDING) AS usual FROM (SELECT team, region, window_start, window_end,
    count(*) AS n FROM SESSION(billed, event_time, INTERVAL '20 seconds') GROUP BY team, region, window_start,
    window_end) AS c) AS j
WHERE j.n > j.usual

-- zoned_days_that_end_together
SELECT c.team, c.window_start, c.window_end, c.n AS observed, lag(c.n, 1, 0) OVER (PARTITION BY c.team ORDER BY
    c.window_end) AS before, sum(c.n) OVER (PARTITION BY c.window_start, c.window_end) AS whole
FROM (SELECT team, window_start, window_end, count(*) AS n FROM CALENDAR(zoned, event_time, 'day', zone)
      GROUP BY team, window_start, window_end) AS c

-- drift_against_frame
SELECT c.team, c.window_start, c.window_end, ks_stat(c.usual, c.now) AS observed, psi(c.usual, c.now) AS p,
    js_distance(c.models_before, c.models, 2) AS js, hist_count(c.usual) AS n, c.usual
FROM (SELECT w.*, hist_merge(w.now) OVER (PARTITION BY w.team ORDER BY w.window_end ROWS BETWEEN 12 PRECEDING AND
    1 PRECEDING) AS usual, hist_merge(w.models) OVER (PARTITION BY w.team ORDER BY w.window_end ROWS BETWEEN 3
    PRECEDING AND 1 PRECEDING) AS models_before
  FROM (SELECT team, window_start, window_end, hist_log(latency_ms) AS now, freq_map(request_model) AS models FROM
    TUMBLE(spans, event_time, INTERVAL '1 minute') WHERE team IS NOT NULL GROUP BY team, window_start, window_end) AS w)
    AS c

-- moments_over_frame
SELECT c.team, c.window_start, c.window_end, (moments(c.worst) OVER (PARTITION BY c.team ORDER BY c.window_end ROWS
    BETWEEN 5 PRECEDING AND 1 PRECEDING))['mean'] AS observed, (exemplar(c.team, c.team, c.worst) OVER (PARTITION BY
    c.team ORDER BY c.window_end ROWS BETWEEN 5 PRECEDING AND CURRENT ROW))['weight'] AS w
FROM (SELECT team, window_start, window_end, max(latency_ms) AS worst FROM
    TUMBLE(spans, event_time, INTERVAL '1 minute') WHERE team IS NOT NULL AND region = 'eu' GROUP BY team,
    window_start, window_end) AS c
