CREATE EXTERNAL TABLE sla (project VARCHAR, tier VARCHAR, p95_ms DOUBLE) STORED AS CSV LOCATION 'sla.csv';

-- Fires when the 95th percentile of a project's model latency over five minutes is above what its service level
-- promises, and goes with the first window that keeps the promise. From twice the promise on, callers are told to slow
-- down.
-- A controller may also route to another model or region.
-- Of 40 calls the 95th percentile is the second slowest, which chance makes slow: so the lower end of its interval, two
-- and a half standard errors of the rank below it, must be above the promise, too: that is at 86 % of 40 calls and at
-- 93 % of 1,000.
-- To tune: sla.csv; the 2.5 standard errors; the 20 calls below which a percentile means little. A project without a
-- row has no promise.
CREATE RULE latency_p95 WITH (
  action      = 'throttle',
  reason_code = 'SLA_LATENCY_VIOLATION',
  severity    = 'error',
  owner       = 'sre',
  ttl         = '5 minutes'
) AS
SELECT measured.project,
       measured.window_start,
       measured.window_end,
       measured.p95     AS observed,
       promised.p95_ms  AS threshold,
       'ms'             AS unit,
       CASE WHEN measured.p95 > 2 * promised.p95_ms THEN 'RATE_LIMITED' ELSE 'WARNING' END AS result,
       concat('p95 latency of ', measured.project, ' is ', TRY_CAST(measured.p95 AS BIGINT), ' ms; its ', promised.tier,
              ' tier promises ', CAST(promised.p95_ms AS BIGINT)) AS message,
       measured.calls
FROM (
  SELECT s.project, window_start, window_end, count(*) AS calls,
         approx_percentile_cont(0.95) WITHIN GROUP (ORDER BY s.latency_ms) AS p95,
         hist_log(s.latency_ms, 16) AS shape
  FROM TUMBLE(spans, event_time, INTERVAL '5 minutes') AS s
  WHERE s.usage_leaf AND s.project IS NOT NULL
  GROUP BY s.project, window_start, window_end
) AS measured
JOIN sla AS promised ON promised.project = measured.project
WHERE measured.calls >= 20 AND measured.p95 > promised.p95_ms
  AND hist_quantile(measured.shape, 0.95 - 2.5 * sqrt(0.95 * 0.05 / measured.calls)) > promised.p95_ms
EMIT ON CLOSE;
