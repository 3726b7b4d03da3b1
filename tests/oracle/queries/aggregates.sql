-- sums
SELECT team, window_start, window_end, count(*) AS observed, sum(cost_total) AS cost, avg(latency_ms) AS mean,
    min(latency_ms) AS low, max(input_tokens) AS high
FROM TUMBLE(spans, event_time, INTERVAL '1 minute')
GROUP BY team, window_start, window_end

-- spread
SELECT team, window_start, window_end, stddev(latency_ms) AS observed, var_pop(cost_total) AS v,
    var_samp(cost_total) AS w, stddev_pop(latency_ms) AS s
FROM TUMBLE(spans, event_time, INTERVAL '1 minute')
GROUP BY team, window_start, window_end

-- medians
SELECT team, window_start, window_end, median(latency_ms) AS observed, percentile_cont(0.9) WITHIN GROUP
    (ORDER BY latency_ms) AS p90
FROM TUMBLE(spans, event_time, INTERVAL '1 minute')
GROUP BY team, window_start, window_end

-- distinct_values
SELECT team, window_start, window_end, count(DISTINCT request_model) AS observed, sum(DISTINCT input_tokens) AS s,
    avg(DISTINCT cost_total) AS a, count(*) AS n
FROM TUMBLE(spans, event_time, INTERVAL '1 minute')
GROUP BY team, window_start, window_end

-- approx
SELECT team, window_start, window_end, approx_distinct(input_tokens) AS observed,
    approx_distinct(request_model) AS models
FROM TUMBLE(spans, event_time, INTERVAL '1 minute')
GROUP BY team, window_start, window_end

-- percentiles within 0.05
SELECT team, window_start, window_end, approx_percentile_cont(0.95) WITHIN GROUP (ORDER BY latency_ms) AS observed,
    approx_median(latency_ms) AS m, approx_percentile_cont_with_weight(1 + input_tokens, 0.5) WITHIN GROUP
    (ORDER BY latency_ms) AS w
FROM TUMBLE(spans, event_time, INTERVAL '1 minute')
GROUP BY team, window_start, window_end

-- arrays
SELECT team, window_start, window_end, array_sort(array_agg(input_tokens ORDER BY event_time)) AS all_values,
    array_sort(array_agg(DISTINCT request_model)) AS models, array_agg(input_tokens ORDER BY kafka_offset
    DESC) AS newest_first
FROM TUMBLE(spans, event_time, INTERVAL '1 minute')
GROUP BY team, window_start, window_end

-- bits
SELECT team, window_start, window_end, bool_or(usage_leaf) AS some, bool_and(usage_leaf) AS each,
    bit_xor(input_tokens) AS x, bit_and(input_tokens) AS a, bit_or(input_tokens) AS o
FROM TUMBLE(spans, event_time, INTERVAL '1 minute')
GROUP BY team, window_start, window_end

-- pairs
SELECT team, window_start, window_end, corr(latency_ms, input_tokens) AS observed, covar_pop(latency_ms,
    input_tokens) AS p, covar_samp(latency_ms, input_tokens) AS s
FROM TUMBLE(spans, event_time, INTERVAL '1 minute')
GROUP BY team, window_start, window_end

-- regression
SELECT team, window_start, window_end, regr_slope(latency_ms, input_tokens) AS observed, regr_intercept(latency_ms,
    input_tokens) AS i, regr_count(latency_ms, input_tokens) AS c, regr_r2(latency_ms, input_tokens) AS r,
    regr_avgx(latency_ms, input_tokens) AS x, regr_sxy(latency_ms, input_tokens) AS xy, regr_sxx(latency_ms,
    input_tokens) AS xx, regr_syy(latency_ms, input_tokens) AS yy, regr_avgy(latency_ms, input_tokens) AS y
FROM TUMBLE(spans, event_time, INTERVAL '1 minute')
GROUP BY team, window_start, window_end

-- first_last
SELECT team, window_start, window_end, first_value(request_model ORDER BY kafka_offset) AS f,
    last_value(request_model ORDER BY event_time, kafka_offset) AS l, nth_value(kafka_offset, 2
    ORDER BY kafka_offset) AS second
FROM TUMBLE(spans, event_time, INTERVAL '1 minute')
GROUP BY team, window_start, window_end

-- texts
SELECT team, window_start, window_end, string_agg(request_model, ',' ORDER BY kafka_offset) AS models
FROM TUMBLE(spans, event_time, INTERVAL '1 minute')
GROUP BY team, window_start, window_end

-- texts_backwards
SELECT team, window_start, window_end, string_agg(request_model, ',' ORDER BY latency_ms DESC) AS models,
    first_value(request_model ORDER BY latency_ms) AS f
FROM TUMBLE(spans, event_time, INTERVAL '1 minute')
GROUP BY team, window_start, window_end

-- nth
SELECT team, window_start, window_end, nth_value(request_model, 2 ORDER BY latency_ms) AS second
FROM TUMBLE(spans, event_time, INTERVAL '1 minute')
GROUP BY team, window_start, window_end

-- arrays_by_latency
SELECT team, window_start, window_end, array_agg(kafka_offset ORDER BY latency_ms) AS slowest_last
FROM TUMBLE(spans, event_time, INTERVAL '1 minute')
GROUP BY team, window_start, window_end

-- arrays_both_ways
SELECT team, window_start, window_end, array_agg(kafka_offset ORDER BY latency_ms DESC) AS a, array_agg(kafka_offset
    ORDER BY latency_ms) AS b, first_value(region ORDER BY latency_ms DESC) AS c
FROM TUMBLE(spans, event_time, INTERVAL '1 minute')
GROUP BY team, window_start, window_end

-- texts_by_latency
SELECT team, window_start, window_end, string_agg(request_model, ',' ORDER BY latency_ms) AS models
FROM TUMBLE(spans, event_time, INTERVAL '1 minute')
GROUP BY team, window_start, window_end

-- two_percentiles within 0.05
SELECT team, window_start, window_end, approx_percentile_cont(0.5) WITHIN GROUP (ORDER BY latency_ms) AS observed,
    approx_percentile_cont(0.9) WITHIN GROUP (ORDER BY input_tokens DESC) AS t, percentile_cont(0.5) WITHIN GROUP
    (ORDER BY cost_total) AS c
FROM TUMBLE(spans, event_time, INTERVAL '1 minute')
GROUP BY team, window_start, window_end

-- any
SELECT team, window_start, window_end, any_value(team) AS t, count(*) AS observed
FROM TUMBLE(spans, event_time, INTERVAL '1 minute')
GROUP BY team, window_start, window_end

-- firsts
SELECT team, window_start, window_end, first_value(kafka_offset ORDER BY latency_ms) AS a, last_value(kafka_offset
    ORDER BY cost_total NULLS FIRST, latency_ms) AS b, first_value(cost_total ORDER BY latency_ms DESC) AS c,
    last_value(region ORDER BY latency_ms) AS d
FROM TUMBLE(spans, event_time, INTERVAL '1 minute')
GROUP BY team, window_start, window_end

-- filters
SELECT team, window_start, window_end, count(*) FILTER (WHERE cost_total > 0.5) AS observed, sum(latency_ms) FILTER
    (WHERE region = 'eu') AS eu, count(DISTINCT region) FILTER (WHERE usage_leaf) AS r
FROM TUMBLE(spans, event_time, INTERVAL '1 minute')
GROUP BY team, window_start, window_end

-- having
SELECT team, window_start, window_end, sum(cost_total) AS observed
FROM TUMBLE(spans, event_time, INTERVAL '1 minute')
WHERE usage_leaf
GROUP BY team, window_start, window_end
HAVING sum(cost_total) > 0.6 AND count(*) > 1

-- histograms
SELECT team, window_start, window_end, hist_quantile(hist_log(latency_ms), 0.9) AS observed, hist_log(latency_ms, 4) AS h,
    hist_fixed(latency_ms, 0, 1000, 10) AS f, hist_fixed(cost_total, [0.1, 0.3, 0.7]) AS e,
    freq_map(request_model) AS m, freq_map(region, 1) AS other, hist_log(latency_ms) FILTER (WHERE usage_leaf) AS leaves
FROM HOP(spans, event_time, INTERVAL '30 seconds', INTERVAL '90 seconds')
GROUP BY team, window_start, window_end

-- summaries
SELECT team, window_start, window_end, max_concurrency(event_time - INTERVAL '20 seconds', event_time) AS observed,
    (moments(latency_ms))['mean'] AS mean, (moments(cost_total))['m2'] + 1 AS m2, (moments(latency_ms))['n'] AS n,
    exemplar(trace_id, span_id, latency_ms) AS slowest, l2_distance(vec_mean([latency_ms, 1]), [0, 0]) AS far
FROM HOP(spans, event_time, INTERVAL '30 seconds', INTERVAL '90 seconds')
GROUP BY team, window_start, window_end
