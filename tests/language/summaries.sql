-- moments, hist_fixed, max_concurrency, exemplar and burn_rate_ratio in one window.
CREATE RULE summed_up WITH (action = 'notify', reason_code = 'x_summed_up') AS
SELECT c.agent_name, c.window_start, c.window_end, c.most AS observed, 2 AS threshold,
       c.m['mean'] AS mean, sqrt(c.m['m2'] / c.m['n']) AS spread, c.heaviest['span_id'] AS heaviest,
       hist_cdf(c.h, 15000) AS quick, burn_rate_ratio(c.slow, c.calls, 0.75) AS burned
FROM (
  SELECT s.agent_name, window_start, window_end, moments(s.latency_ms) AS m, hist_fixed(s.latency_ms, 0, 40000, 8) AS h,
         max_concurrency(s.start_time, s.event_time) AS most, exemplar(s.trace_id, s.span_id, s.latency_ms) AS heaviest,
         count(*) AS calls, count(*) FILTER (WHERE s.latency_ms > 20000) AS slow
  FROM TUMBLE(spans, event_time, INTERVAL '1 minute') AS s
  GROUP BY s.agent_name, window_start, window_end
) AS c
WHERE c.most >= 2
EMIT ON UPDATE;
