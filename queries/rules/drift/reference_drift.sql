-- What is usual, as `lictor baseline` has written it: see the view below. Until it has, the table is empty.
CREATE EXTERNAL TABLE usual_shapes (project VARCHAR, output_tokens VARCHAR, latency_ms VARCHAR, calls BIGINT)
STORED AS CSV LOCATION 'usual_shapes.csv';

-- The baseline: lictor baseline reference_drift.sql -c lictor.yaml --last 7d -o usual_shapes.csv
CREATE VIEW shapes_of_the_past AS
SELECT s.project,
       hist_log(s.output_tokens) AS output_tokens,
       hist_log(s.latency_ms) AS latency_ms,
       count(*) AS calls
FROM spans AS s
WHERE s.usage_leaf AND s.project IS NOT NULL
GROUP BY s.project
HAVING count(*) >= 1000;

-- Fires when the answers of a project are of other lengths than in the week that you have put down as good: an hour's
-- histogram of output tokens against the baseline's. What creeps, a bit longer every week, shape_drift_output takes up
-- into its past and never tells; this rule does. The measures are the same: a Kolmogorov-Smirnov distance of at least
-- 0.1, and a population stability index above 0.1 and above what chance exceeds once in a thousand.
-- A controller tells the owners; nothing is stopped. It goes with the first hour that is as the baseline.
-- False alarms: after a release that you have made yourself, until a new baseline is written; nights and weekends, if
-- the baseline has none: take whole weeks. A project without a baseline says nothing. State: a histogram of eight cells
-- per doubling per project, for an hour; shared with shape_drift_output.
-- To tune: 0.1 and 0.1, where 0.25 is a severe move; the 300 calls below which an hour is not judged; the 1,000 of the
-- baseline.
CREATE RULE reference_drift_output WITH (
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
       concat(judged.project, ' has answers of another length than in its baseline: the median is ',
              CAST(hist_quantile(judged.shape, 0.5) AS BIGINT), ' tokens; usual are ',
              CAST(hist_quantile(judged.usual, 0.5) AS BIGINT)) AS message,
       psi(judged.usual, judged.shape) AS psi,
       psi_critical(judged.usual, judged.shape, 0.001) AS psi_by_chance,
       judged.calls
FROM (
  SELECT hourly.project, hourly.window_start, hourly.window_end, hourly.shape, hourly.calls,
         hist_parse(r.output_tokens) AS usual
  FROM (
    SELECT s.project, window_start, window_end, hist_log(s.output_tokens) AS shape, count(*) AS calls
    FROM TUMBLE(spans, event_time, INTERVAL '1 hour') AS s
    WHERE s.usage_leaf AND s.output_tokens IS NOT NULL AND s.project IS NOT NULL
    GROUP BY s.project, window_start, window_end
    HAVING count(*) >= 300
  ) AS hourly
  JOIN usual_shapes AS r ON r.project = hourly.project
) AS judged
WHERE ks_stat(judged.usual, judged.shape) >= 0.1
  AND psi(judged.usual, judged.shape) > greatest(0.1, psi_critical(judged.usual, judged.shape, 0.001))
EMIT ON CLOSE;

-- Fires when a project's calls take other times than in its baseline, by the numbers of reference_drift_output, but
-- for a distance of 0.2: load and a provider's weather move latencies by a tenth on any day. Calls that become faster
-- fire, too: another model may answer.
-- A controller tells the owners; nothing is stopped.
-- False alarms: as of reference_drift_output. State: a histogram of eight cells per doubling per project, for an hour;
-- shared with shape_drift_latency.
-- To tune: as in reference_drift_output.
CREATE RULE reference_drift_latency WITH (
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
       concat(judged.project, ' has calls of another latency than in its baseline: the median is ',
              CAST(hist_quantile(judged.shape, 0.5) AS BIGINT), ' milliseconds; usual are ',
              CAST(hist_quantile(judged.usual, 0.5) AS BIGINT)) AS message,
       psi(judged.usual, judged.shape) AS psi,
       psi_critical(judged.usual, judged.shape, 0.001) AS psi_by_chance,
       judged.calls
FROM (
  SELECT hourly.project, hourly.window_start, hourly.window_end, hourly.shape, hourly.calls,
         hist_parse(r.latency_ms) AS usual
  FROM (
    SELECT s.project, window_start, window_end, hist_log(s.latency_ms) AS shape, count(*) AS calls
    FROM TUMBLE(spans, event_time, INTERVAL '1 hour') AS s
    WHERE s.usage_leaf AND s.latency_ms IS NOT NULL AND s.project IS NOT NULL
    GROUP BY s.project, window_start, window_end
    HAVING count(*) >= 300
  ) AS hourly
  JOIN usual_shapes AS r ON r.project = hourly.project
) AS judged
WHERE ks_stat(judged.usual, judged.shape) >= 0.2
  AND psi(judged.usual, judged.shape) > greatest(0.1, psi_critical(judged.usual, judged.shape, 0.001))
EMIT ON CLOSE;
