-- levels_and_steps
SELECT c.*, ew_level_diff(c.a, 0.2, 0.05, 0.05, 0.1, 3, 0.9, 0.3, 50, 3, 5, 8) OVER k AS score,
       ew_mean(c.a, 0.1) OVER k AS mean, ew_var(c.a) OVER k AS variance, ew_z(c.a) OVER k AS z
FROM (SELECT team, window_start, window_end, sum(latency_ms) AS a
      FROM TUMBLE(spans, event_time, INTERVAL '1 minute') GROUP BY team, window_start, window_end) AS c
WINDOW k AS (PARTITION BY c.team ORDER BY c.window_end)

-- a_state_is_a_column
SELECT c.team, c.window_start, c.window_end, s['width'] AS width, s['mean'] AS mean, s['drift'] AS drift
FROM (SELECT b.*, adwin_state(b.a, 0.2, 1, 5, 2, 4) OVER (PARTITION BY b.team ORDER BY b.window_end) AS s
      FROM (SELECT team, window_start, window_end, max(latency_ms) AS a
            FROM HOP(spans, event_time, INTERVAL '30 seconds', INTERVAL '90 seconds')
            GROUP BY team, window_start, window_end) AS b) AS c

-- one_in_another
SELECT * FROM (
  SELECT b.*, cooldown(b.z > 0.5, 3) OVER (PARTITION BY b.team ORDER BY b.window_end) AS fires,
         cooldown(b.z > 0.5, INTERVAL '4 minutes') OVER (PARTITION BY b.team ORDER BY b.window_end) AS rarely,
         k_of_n(b.z > 0, 2, 3) OVER (PARTITION BY b.team ORDER BY b.window_end) AS often
  FROM (SELECT a.*, ew_z(a.cost, 0.2) OVER (PARTITION BY a.team ORDER BY a.window_end) AS z,
               lag(a.cost) OVER (PARTITION BY a.team ORDER BY a.window_end) AS before
        FROM (SELECT team, window_start, window_end, round(sum(cost_total), 6) AS cost
              FROM CUMULATE(spans, event_time, INTERVAL '1 minute', INTERVAL '3 minutes')
              GROUP BY team, window_start, window_end) AS a) AS b) AS c
WHERE c.fires OR c.often OR c.before > 1

-- of_two_keys_and_after_a_filter
SELECT b.*, cusum((b.n - 2) / 1.5, 0.25, 2) OVER k AS alarm, hysteresis(b.n, 3, 2) OVER k AS high,
       sum(b.n) OVER (PARTITION BY b.team, b.region ORDER BY b.window_end ROWS 3 PRECEDING) AS lately
FROM (SELECT team, region, window_start, window_end, count(*) AS n
      FROM TUMBLE(spans, event_time, INTERVAL '2 minutes') GROUP BY region, team, window_start, window_end
      HAVING max(latency_ms) > 300) AS b
WINDOW k AS (PARTITION BY b.team, b.region ORDER BY b.window_end)

-- above_a_second_group_by
SELECT c.*, page_hinkley(c.n, 3, 0.1, 2, 0.999, 'both') OVER k AS drift, robust_z(c.n, 7) OVER k AS z,
       running_quantile(c.n, 0.9) OVER k AS usual, holt(c.n, 0.4, 0.1, 2) OVER k AS forecast
FROM (SELECT b.team, b.window_start, b.window_end, sum(b.n) AS n
      FROM (SELECT team, region, window_start, window_end, count(*) AS n
            FROM TUMBLE(spans, event_time, INTERVAL '1 minute') GROUP BY team, region, window_start, window_end) AS b
      GROUP BY b.team, b.window_start, b.window_end) AS c
WINDOW k AS (PARTITION BY c.team ORDER BY c.window_end)

-- failures
SELECT c.*, ddm(c.failed, 5, 1, 2) OVER k AS ddm, eddm(c.failed, 3) OVER k AS eddm, hddm_a(c.share) OVER k AS hddm_a,
       hddm_w(c.share, 0.1, 0.3, 0.2, true) OVER k AS hddm_w, kswin(c.share, 0.1, 10, 3) OVER k AS kswin
FROM (SELECT team, window_start, window_end, max(latency_ms) > 700 AS failed,
             avg(CASE WHEN latency_ms > 500 THEN 1 ELSE 0 END) AS share
      FROM TUMBLE(spans, event_time, INTERVAL '20 seconds') GROUP BY team, window_start, window_end) AS c
WINDOW k AS (PARTITION BY c.team ORDER BY c.window_end)

-- seasons_and_what_is_left
SELECT c.*, seasonal_z(c.n, c.window_start, 'hour_of_day', 0.1, 0.3) OVER k AS z,
       holt_exhaustion(c.n, 40 - c.n) OVER k AS eta, ewma_chart(c.n, 0.3, 1, 3, 1.5, false) OVER k AS chart
FROM (SELECT team, window_start, window_end, count(*) AS n
      FROM CALENDAR(spans, event_time, 'hour', 'Asia/Kathmandu') GROUP BY team, window_start, window_end) AS c
WINDOW k AS (PARTITION BY c.team ORDER BY c.window_end)

-- nothing_is_ignored
SELECT c.*, ew_mean(c.cost) OVER k AS mean, ew_mean(nullif(c.cost, 0.1) / 0.0) OVER k AS beyond
FROM (SELECT team, window_start, window_end, min(cost_total) AS cost
      FROM TUMBLE(spans, event_time, INTERVAL '30 seconds') GROUP BY team, window_start, window_end) AS c
WINDOW k AS (PARTITION BY c.team ORDER BY c.window_end)

-- in_a_zone_of_ones_own
SELECT c.*, ew_z(c.n) OVER (PARTITION BY c.team, c.region ORDER BY c.window_end, c.window_start) AS z
FROM (SELECT team, region, window_start, window_end, count(*) AS n
      FROM CALENDAR(zoned, event_time, 'hour', zone)
      GROUP BY team, region, window_start, window_end) AS c
