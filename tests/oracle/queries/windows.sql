-- two_keys
SELECT team, region, window_start, window_end, count(*) AS observed
FROM TUMBLE(spans, event_time, INTERVAL '1 minute')
GROUP BY team, region, window_start, window_end

-- no_key
SELECT scope, window_start, window_end, count(*) AS observed, sum(cost_total) AS cost
FROM TUMBLE((SELECT *, 'all' AS scope FROM spans), event_time, INTERVAL '1 minute')
GROUP BY scope, window_start, window_end

-- constant_key
SELECT 'all' AS scope, window_start, window_end, count(*) AS observed
FROM TUMBLE(spans, event_time, INTERVAL '1 minute')
GROUP BY 'all', window_start, window_end

-- computed_key
SELECT upper(coalesce(team, 'nobody')) AS who, window_start, window_end, avg(latency_ms) AS observed
FROM TUMBLE(spans, event_time, INTERVAL '1 minute')
GROUP BY upper(coalesce(team, 'nobody')), window_start, window_end

-- number_key
SELECT input_tokens, window_start, window_end, count(*) AS observed
FROM TUMBLE(spans, event_time, INTERVAL '2 minutes')
GROUP BY input_tokens, window_start, window_end

-- key_of_a_number_with_a_point
SELECT cost_total, window_start, window_end, count(*) AS observed, max(kafka_offset) AS high
FROM HOP(spans, event_time, INTERVAL '10 seconds', INTERVAL '3 minutes')
GROUP BY cost_total, window_start, window_end

-- session_of_a_number_with_a_point
SELECT cost_total, window_start, window_end, count(*) AS observed, sum(input_tokens) AS tokens
FROM SESSION(spans, event_time, INTERVAL '40 seconds')
GROUP BY cost_total, window_start, window_end

-- offset_windows
SELECT team, window_start, window_end, count(*) AS observed
FROM TUMBLE(spans, event_time, INTERVAL '1 minute', INTERVAL '17 seconds')
GROUP BY team, window_start, window_end

-- hop
SELECT team, window_start, window_end, count(*) AS observed, sum(cost_total) AS cost, max(latency_ms) AS high
FROM HOP(spans, event_time, INTERVAL '1 minute', INTERVAL '3 minutes')
GROUP BY team, window_start, window_end

-- hop_uneven
SELECT team, window_start, window_end, count(*) AS observed, median(latency_ms) AS m, count(DISTINCT
    region) AS regions
FROM HOP(spans, event_time, INTERVAL '40 seconds', INTERVAL '1 minute')
GROUP BY team, window_start, window_end

-- hop_offset
SELECT team, region, window_start, window_end, stddev(latency_ms) AS observed,
    array_agg(kafka_offset ORDER BY kafka_offset) AS offsets
FROM HOP(spans, event_time, INTERVAL '45 seconds', INTERVAL '2 minutes', INTERVAL '7 seconds')
GROUP BY team, region, window_start, window_end

-- hop_ordered
SELECT team, window_start, window_end, string_agg(request_model, ',' ORDER BY kafka_offset) AS models,
    last_value(region ORDER BY kafka_offset) AS region
FROM HOP(spans, event_time, INTERVAL '30 seconds', INTERVAL '1 minute')
GROUP BY team, window_start, window_end

-- hop_of_many_panes
SELECT team, window_start, window_end, count(*) AS observed, sum(input_tokens) AS tokens, min(kafka_offset) AS low,
    max(request_model) AS model, bool_or(usage_leaf) AS leaf
FROM HOP(spans, event_time, INTERVAL '10 seconds', INTERVAL '3 minutes')
GROUP BY team, window_start, window_end

-- hop_of_many_panes_that_slides_by_some
SELECT usage_leaf, window_start, window_end, count(DISTINCT team) AS observed, avg(input_tokens) AS tokens,
    sum(latency_ms) AS latency
FROM HOP(spans, event_time, INTERVAL '20 seconds', INTERVAL '130 seconds', INTERVAL '3 seconds')
GROUP BY usage_leaf, window_start, window_end

-- hop_of_many_panes_merged_two_by_two
SELECT team, window_start, window_end, count(*) AS observed, stddev(latency_ms) AS spread
FROM HOP(spans, event_time, INTERVAL '10 seconds', INTERVAL '2 minutes')
GROUP BY team, window_start, window_end

-- cumulate_of_many_panes
SELECT team, window_start, window_end, count(*) AS observed, sum(input_tokens) AS tokens, max(kafka_offset) AS high
FROM CUMULATE(spans, event_time, INTERVAL '5 seconds', INTERVAL '2 minutes', INTERVAL '4 seconds')
GROUP BY team, window_start, window_end

-- view
SELECT b.team, window_start, window_end, sum(b.cost_total) AS observed
FROM TUMBLE(billed, event_time, INTERVAL '1 minute') AS b
GROUP BY b.team, window_start, window_end

-- with_query
WITH slow AS (SELECT team, window_start, window_end, max(latency_ms) AS worst FROM TUMBLE(spans, event_time,
    INTERVAL '1 minute') GROUP BY team, window_start, window_end)
SELECT team, window_start, window_end, worst AS observed
FROM slow
WHERE worst > 700

-- window_in_select
SELECT team, window_start, window_end, CAST(count(*) AS DOUBLE) / extract(epoch FROM window_end -
    window_start) AS observed
FROM HOP(spans, event_time, INTERVAL '30 seconds', INTERVAL '1 minute')
GROUP BY team, window_start, window_end
HAVING extract(minute FROM window_start) >= 1

-- cumulate
SELECT team, window_start, window_end, count(*) AS observed, sum(cost_total) AS cost, max(latency_ms) AS high
FROM CUMULATE(spans, event_time, INTERVAL '1 minute', INTERVAL '5 minutes')
GROUP BY team, window_start, window_end

-- cumulate_from_an_offset
SELECT team, region, window_start, window_end, count(DISTINCT request_model) AS observed
FROM CUMULATE(billed, event_time, INTERVAL '20 seconds', INTERVAL '2 minutes', INTERVAL '7 seconds')
GROUP BY team, region, window_start, window_end

-- calendar_hours_of_a_half_hour_zone
SELECT team, window_start, window_end, count(*) AS observed, avg(latency_ms) AS mean
FROM CALENDAR(spans, event_time, 'hour', 'Asia/Kolkata')
GROUP BY team, window_start, window_end

-- calendar_days
SELECT team, window_start, window_end, count(*) AS observed, sum(cost_total) AS cost
FROM CALENDAR(spans, event_time, 'day', 'America/Los_Angeles')
GROUP BY team, window_start, window_end

-- calendar_months_and_a_second_aggregate
SELECT region, window_start, window_end, count(*) AS observed, max(n) AS busiest
FROM (SELECT team, region, window_start, window_end, count(*) AS n
      FROM CALENDAR(spans, event_time, 'month', 'Asia/Tokyo') GROUP BY team, region, window_start, window_end)
GROUP BY region, window_start, window_end

-- in_flinks_words
SELECT team, window_start, window_end, count(*) AS observed, min(latency_ms) AS low
FROM TABLE(HOP(TABLE spans, DESCRIPTOR(event_time), INTERVAL '30' SECONDS, INTERVAL '1' MINUTES))
GROUP BY team, window_start, window_end

-- sessions
SELECT team, window_start, window_end, count(*) AS observed, sum(cost_total) AS cost, min(event_time) AS first,
    max(event_time) AS last
FROM SESSION(spans, event_time, INTERVAL '9 seconds')
GROUP BY team, window_start, window_end

-- sessions_of_rows_that_count
SELECT team, region, window_start, window_end, count(DISTINCT request_model) AS observed,
    string_agg(request_model, ',' ORDER BY kafka_offset) AS models
FROM SESSION(billed, event_time, INTERVAL '25 seconds')
WHERE latency_ms > 200
GROUP BY team, region, window_start, window_end
HAVING count(*) > 1

-- sessions_and_limits
SELECT c.team, c.window_start, c.window_end, c.cost AS observed, l.most AS threshold
FROM (SELECT s.team, window_start, window_end, sum(s.cost_total) AS cost
      FROM TABLE(SESSION(TABLE spans, DESCRIPTOR(event_time), INTERVAL '15' SECONDS)) AS s
      GROUP BY s.team, window_start, window_end) AS c
LEFT JOIN limits AS l ON l.team = c.team
WHERE c.cost > 0.2

-- hours_of_each_teams_zone
SELECT s.team, window_start, window_end, count(*) AS observed, sum(s.cost_total) AS cost, max(s.latency_ms) AS high
FROM CALENDAR((SELECT s.*, z.zone FROM spans AS s JOIN zones AS z ON z.who = s.team), event_time, 'hour', zone) AS s
GROUP BY s.team, window_start, window_end

-- days_of_each_rows_zone
SELECT z.region, window_start, window_end, count(*) AS observed, count(DISTINCT z.team) AS teams
FROM TABLE(CALENDAR(TABLE zoned, DESCRIPTOR(event_time), 'day', zone)) AS z
WHERE z.latency_ms > 150
GROUP BY z.region, window_start, window_end

-- zones_said_by_an_expression
SELECT who, window_start, window_end, count(*) AS observed, median(latency_ms) AS m,
    max(window_end - event_time) AS longest
FROM CALENDAR((SELECT *, coalesce(team, 'nobody') AS who FROM zoned), event_time, 'hour',
    CASE WHEN region = 'eu' THEN 'Asia/Kolkata' WHEN region = 'us' THEN zone END)
GROUP BY who, window_start, window_end
HAVING count(*) > 1

-- zoned_hours_and_a_second_aggregate
SELECT region, window_start, window_end, count(*) AS observed, max(n) AS busiest
FROM (SELECT team, region, window_start, window_end, count(*) AS n
      FROM CALENDAR(zoned, event_time, 'hour', zone) GROUP BY team, region, window_start, window_end)
GROUP BY region, window_start, window_end
