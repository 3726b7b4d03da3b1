-- Fires when a model's 95th percentile of latency over five minutes is far outside of what the same model has had so
-- far, with no target to configure: a detector of level and step (ew_level_diff) learns what is usual and scores the
-- logarithm, so that twice as slow is as unusual for a fast model as for a slow one. The percentile must also be half
-- as much again as usual, or two thirds of it, so that what is told matters. latency_p95 judges a promise, this rule
-- judges a habit.
-- A controller tells the owners, who may route to another region; nothing is stopped. After it has fired it is silent
-- for twelve windows of the model, an hour, so that an incident is told once.
-- False alarms: of ten stationary models one in 60 model-days (docs/detection.md). A model that becomes faster all at
-- once fires, too; one that serves people by day and batches by night
-- may fire at the change until both are in its past. State: some hundred numbers per model. It is silent for the first
-- 60 windows of a model, while it learns.
-- To tune: 1.1, the score from which on it is an alert; 0.4, the logarithm of half as much again; the pause of 12; the
-- 20 calls below which a percentile means little.
CREATE RULE latency_anomaly WITH (
  action      = 'warn',
  reason_code = 'x_latency_anomaly',
  severity    = 'warning',
  owner       = 'sre',
  ttl         = '10 minutes'
) AS
SELECT judged.provider,
       judged.response_model,
       judged.window_start,
       judged.window_end,
       judged.score AS observed,
       1.1 AS threshold,
       'score' AS unit,
       concat('p95 latency of ', judged.response_model, ' is ', TRY_CAST(judged.p95_ms AS BIGINT), ' ms; usual are ',
              CAST(exp(judged.usual_ln) AS BIGINT)) AS message,
       judged.p95_ms,
       judged.calls
FROM (
  SELECT scored.*,
         cooldown(scored.score >= 1.1 AND abs(ln(greatest(scored.p95_ms, 1.0)) - scored.usual_ln) >= 0.4, 12) OVER k
           AS fires
  FROM (
    SELECT measured.*,
           ew_level_diff(ln(greatest(measured.p95_ms, 1.0))) OVER k AS score,
           ew_mean(ln(greatest(measured.p95_ms, 1.0)), 0.01) OVER k AS usual_ln
    FROM (
      SELECT s.provider, s.response_model, window_start, window_end, count(*) AS calls,
             hist_quantile(hist_log(s.latency_ms, 16), 0.95) AS p95_ms
      FROM TUMBLE(spans, event_time, INTERVAL '5 minutes') AS s
      WHERE s.usage_leaf AND s.response_model IS NOT NULL AND s.latency_ms IS NOT NULL
      GROUP BY s.provider, s.response_model, window_start, window_end
      HAVING count(*) >= 20
    ) AS measured
    WINDOW k AS (PARTITION BY measured.provider, measured.response_model ORDER BY measured.window_end)
  ) AS scored
  WINDOW k AS (PARTITION BY scored.provider, scored.response_model ORDER BY scored.window_end)
) AS judged
WHERE judged.fires
EMIT ON CLOSE;
