-- Fires when the answers of a project are of other lengths than in its past week: an hour's histogram of output tokens
-- against that of the last 168 hours but one. Two measures must agree. The Kolmogorov-Smirnov distance of the shares is
-- at least 0.1, so that the move matters; the population stability index is above 0.1 and above what chance exceeds
-- once in a thousand, so that it is one.
-- A controller tells the owners: a prompt, a model or its default length has changed. Nothing is stopped; the directive
-- goes with the first hour that is as usual, or when the week has taken up the new shape.
-- False alarms: a release that you have made yourself; batches by night beside people by day. State: a histogram of
-- eight cells per doubling per project and hour.
-- To tune: 0.1 and 0.1, where 0.25 is a severe move; the 300 calls below which an hour is neither judged nor
-- remembered; the 1,000 calls of past that are needed.
CREATE RULE shape_drift_output WITH (
  action      = 'warn',
  reason_code = 'x_distribution_drift',
  severity    = 'warning',
  owner       = 'ml-platform',
  ttl         = '10 minutes'
) AS
SELECT judged.project,
       judged.window_start,
       judged.window_end,
       ks_stat(judged.usual, judged.shape) AS observed,
       0.1 AS threshold,
       'Kolmogorov-Smirnov distance' AS unit,
       concat(judged.project, ' has answers of another length than in the past week: the median is ',
              CAST(hist_quantile(judged.shape, 0.5) AS BIGINT), ' tokens; usual are ',
              CAST(hist_quantile(judged.usual, 0.5) AS BIGINT)) AS message,
       psi(judged.usual, judged.shape) AS psi,
       psi_critical(judged.usual, judged.shape, 0.001) AS psi_by_chance,
       judged.calls
FROM (
  SELECT hourly.project, hourly.window_start, hourly.window_end, hourly.shape, hourly.calls,
         hist_merge(hourly.shape) OVER (PARTITION BY hourly.project ORDER BY hourly.window_end
                                        ROWS BETWEEN 168 PRECEDING AND 2 PRECEDING) AS usual
  FROM (
    SELECT s.project, window_start, window_end, hist_log(s.output_tokens) AS shape, count(*) AS calls
    FROM TUMBLE(spans, event_time, INTERVAL '1 hour') AS s
    WHERE s.usage_leaf AND s.output_tokens IS NOT NULL AND s.project IS NOT NULL
    GROUP BY s.project, window_start, window_end
    HAVING count(*) >= 300
  ) AS hourly
) AS judged
WHERE hist_count(judged.usual) >= 1000
  AND ks_stat(judged.usual, judged.shape) >= 0.1
  AND psi(judged.usual, judged.shape) > greatest(0.1, psi_critical(judged.usual, judged.shape, 0.001))
EMIT ON CLOSE;

-- Fires when a project's calls take other times than in its past week, by the numbers of shape_drift_output, but for
-- a distance of 0.2: load and a provider's weather move latencies by a tenth on any day. It sees what a percentile does
-- not: a second hump from a cache that has stopped to work, or from a fallback region.
-- Calls that become faster fire, too: another model may answer.
-- A controller tells the owners; nothing is stopped.
-- False alarms: nights that are faster than days; sla rules say what breaks a promise. State: a histogram of eight
-- cells per doubling per project and hour.
-- To tune: as in shape_drift_output.
CREATE RULE shape_drift_latency WITH (
  action      = 'warn',
  reason_code = 'x_distribution_drift',
  severity    = 'warning',
  owner       = 'sre',
  ttl         = '10 minutes'
) AS
SELECT judged.project,
       judged.window_start,
       judged.window_end,
       ks_stat(judged.usual, judged.shape) AS observed,
       0.2 AS threshold,
       'Kolmogorov-Smirnov distance' AS unit,
       concat(judged.project, ' has calls of another latency than in the past week: the median is ',
              CAST(hist_quantile(judged.shape, 0.5) AS BIGINT), ' milliseconds; usual are ',
              CAST(hist_quantile(judged.usual, 0.5) AS BIGINT)) AS message,
       psi(judged.usual, judged.shape) AS psi,
       psi_critical(judged.usual, judged.shape, 0.001) AS psi_by_chance,
       judged.calls
FROM (
  SELECT hourly.project, hourly.window_start, hourly.window_end, hourly.shape, hourly.calls,
         hist_merge(hourly.shape) OVER (PARTITION BY hourly.project ORDER BY hourly.window_end
                                        ROWS BETWEEN 168 PRECEDING AND 2 PRECEDING) AS usual
  FROM (
    SELECT s.project, window_start, window_end, hist_log(s.latency_ms) AS shape, count(*) AS calls
    FROM TUMBLE(spans, event_time, INTERVAL '1 hour') AS s
    WHERE s.usage_leaf AND s.latency_ms IS NOT NULL AND s.project IS NOT NULL
    GROUP BY s.project, window_start, window_end
    HAVING count(*) >= 300
  ) AS hourly
) AS judged
WHERE hist_count(judged.usual) >= 1000
  AND ks_stat(judged.usual, judged.shape) >= 0.2
  AND psi(judged.usual, judged.shape) > greatest(0.1, psi_critical(judged.usual, judged.shape, 0.001))
EMIT ON CLOSE;
