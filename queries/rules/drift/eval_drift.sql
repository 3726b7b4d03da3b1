-- Fires when the scores of an evaluation drift: the hourly mean of a project's metric is held against its own weighted
-- past (ew_z), small deviations of one direction are added up (CUSUM, 0.5 and 8), and the hour's scores must lie at
-- least a tenth of a standard deviation from those of the past week, so that what is told matters. It finds a slow loss
-- of quality that no single hour shows. It reads spans that bear their score; eval_drift_logged reads log records.
-- A controller tells the owners of the model and of the prompt; nothing is stopped. Drift upwards is told, too: the
-- judge may have changed, not the answers.
-- False alarms: a new judge or a new data set. After it has spoken the sums begin anew, so that the directive goes with
-- the next hour unless the shift is large. Of 50 stationary projects it was one in 300 project-days, and one on the
-- first day (docs/detection.md). State: two numbers and a histogram per project, metric and hour.
-- To tune: 0.02, how slowly the past forgets; 0.5 and 8, which alarm falsely once in some thousand hours; the 30 scores
-- below which an hour is neither judged nor remembered, the 8 hours and 300 scores of past that are needed.
-- A month of past is less than lictor asks for by rule of thumb, but is enough: the sums of CUSUM start at nothing.
-- lictor: allow(long_window)
CREATE RULE eval_drift WITH (
  action      = 'warn',
  reason_code = 'x_eval_drift',
  severity    = 'warning',
  owner       = 'ml-platform',
  ttl         = '10 minutes'
) AS
SELECT judged.project,
       judged.eval_metric,
       judged.window_start,
       judged.window_end,
       judged.mean AS observed,
       judged.usual AS threshold,
       'mean score' AS unit,
       concat('the mean of ', judged.eval_metric, ' of ', judged.project, ' is ', round(judged.mean, 3),
              '; usual are ', round(judged.usual, 3)) AS message,
       judged.direction,
       judged.scores
FROM (
  SELECT told.*,
         CASE told.alarm WHEN 1 THEN 'up' WHEN -1 THEN 'down' END AS direction,
         hist_mean(told.past) AS usual
  FROM (
    SELECT scored.*, cusum(scored.z, 0.5, 8) OVER k AS alarm
    FROM (
      SELECT hourly.*,
             ew_z(hourly.mean, 0.02) OVER (PARTITION BY hourly.project, hourly.eval_metric
                                           ORDER BY hourly.window_end) AS z,
             hist_merge(hourly.shape) OVER (PARTITION BY hourly.project, hourly.eval_metric
                                            ORDER BY hourly.window_end
                                            ROWS BETWEEN 168 PRECEDING AND 2 PRECEDING) AS past,
             count(hourly.mean) OVER (PARTITION BY hourly.project, hourly.eval_metric
                                      ORDER BY hourly.window_end
                                      ROWS BETWEEN 168 PRECEDING AND 2 PRECEDING) AS hours
      FROM (
        SELECT s.project, s.eval_metric, window_start, window_end, avg(s.eval_score) AS mean,
               hist_log(s.eval_score, 16) AS shape, count(*) AS scores
        FROM TUMBLE(spans, event_time, INTERVAL '1 hour') AS s
        WHERE s.project IS NOT NULL AND s.eval_metric IS NOT NULL AND s.eval_score IS NOT NULL
        GROUP BY s.project, s.eval_metric, window_start, window_end
        HAVING count(*) >= 30
      ) AS hourly
    ) AS scored
    WINDOW k AS (PARTITION BY scored.project, scored.eval_metric ORDER BY scored.window_end)
  ) AS told
) AS judged
WHERE judged.direction IS NOT NULL
  AND judged.hours >= 8 AND hist_count(judged.past) >= 300
  AND wasserstein_norm(judged.past, judged.shape) >= 0.1
EMIT ON CLOSE;

-- The same of scores that come as log records: OpenTelemetry's event gen_ai.evaluation.result, which is written when
-- the judge is done and not when the answer is. A producer writes one of them. The project is the log record's, or that
-- of its resource.
-- lictor: allow(long_window)
CREATE RULE eval_drift_logged WITH (
  action      = 'warn',
  reason_code = 'x_eval_drift',
  severity    = 'warning',
  owner       = 'ml-platform',
  ttl         = '10 minutes'
) AS
SELECT judged.project,
       judged.eval_metric,
       judged.window_start,
       judged.window_end,
       judged.mean AS observed,
       judged.usual AS threshold,
       'mean score' AS unit,
       concat('the mean of ', judged.eval_metric, ' of ', judged.project, ' is ', round(judged.mean, 3),
              '; usual are ', round(judged.usual, 3)) AS message,
       judged.direction,
       judged.scores
FROM (
  SELECT told.*,
         CASE told.alarm WHEN 1 THEN 'up' WHEN -1 THEN 'down' END AS direction,
         hist_mean(told.past) AS usual
  FROM (
    SELECT scored.*, cusum(scored.z, 0.5, 8) OVER k AS alarm
    FROM (
      SELECT hourly.*,
             ew_z(hourly.mean, 0.02) OVER (PARTITION BY hourly.project, hourly.eval_metric
                                           ORDER BY hourly.window_end) AS z,
             hist_merge(hourly.shape) OVER (PARTITION BY hourly.project, hourly.eval_metric
                                            ORDER BY hourly.window_end
                                            ROWS BETWEEN 168 PRECEDING AND 2 PRECEDING) AS past,
             count(hourly.mean) OVER (PARTITION BY hourly.project, hourly.eval_metric
                                      ORDER BY hourly.window_end
                                      ROWS BETWEEN 168 PRECEDING AND 2 PRECEDING) AS hours
      FROM (
        SELECT s.project, s.eval_metric, window_start, window_end, avg(s.eval_score) AS mean,
               hist_log(s.eval_score, 16) AS shape, count(*) AS scores
        FROM TUMBLE(logs, event_time, INTERVAL '1 hour') AS s
        WHERE s.project IS NOT NULL AND s.eval_metric IS NOT NULL AND s.eval_score IS NOT NULL
        GROUP BY s.project, s.eval_metric, window_start, window_end
        HAVING count(*) >= 30
      ) AS hourly
    ) AS scored
    WINDOW k AS (PARTITION BY scored.project, scored.eval_metric ORDER BY scored.window_end)
  ) AS told
) AS judged
WHERE judged.direction IS NOT NULL
  AND judged.hours >= 8 AND hist_count(judged.past) >= 300
  AND wasserstein_norm(judged.past, judged.shape) >= 0.1
EMIT ON CLOSE;
