-- approx_percentile_cont: a quantile in bounded state (a t-digest, which is merged over panes).
CREATE RULE slow_p90 WITH (action = 'throttle', reason_code = 'SLA_LATENCY_VIOLATION') AS
SELECT s.project, window_start, window_end, count(*) AS calls, 1000 AS threshold, 'ms' AS unit,
       approx_percentile_cont(0.9) WITHIN GROUP (ORDER BY s.duration_ms) AS observed
FROM HOP(spans, event_time, INTERVAL '1 minute', INTERVAL '2 minutes') AS s
GROUP BY s.project, window_start, window_end
HAVING approx_percentile_cont(0.9) WITHIN GROUP (ORDER BY s.duration_ms) > 1000
EMIT ON CLOSE;
