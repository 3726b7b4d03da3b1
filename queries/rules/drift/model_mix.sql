-- Fires when the models that answer are no longer the models that used to answer. For each requested model it compares
-- the shares of the answering models in the last five minutes with their average shares in the windows before, and adds
-- up what has grown: the total variation distance, 0 for the same mix and 1 for a wholly different one. A provider that
-- silently serves a smaller model, or an alias that moves to a new snapshot, shows here first.
-- A controller tells the owners and may pin the model; nothing is stopped. Once the new mix has filled the past, it is
-- the usual one and the directive goes.
-- To tune: the threshold of 0.3, and the 20 calls below which shares mean little. A requested model is judged once it has
-- been seen for fifteen minutes.
CREATE RULE model_mix WITH (
  action      = 'warn',
  reason_code = 'x_model_drift',
  severity    = 'warning',
  owner       = 'ml-platform',
  ttl         = '5 minutes'
) AS
SELECT judged.provider,
       judged.request_model,
       judged.window_start,
       judged.window_end,
       sum(greatest(judged.share - judged.usual, 0)) AS observed,
       0.3 AS threshold,
       'total variation distance' AS unit,
       'WARNING' AS result,
       concat('requests for ', judged.request_model, ' are answered by another mix of models than before') AS message,
       max(judged.calls_in_window) AS calls
FROM (
  -- A model's usual share counts the windows in which it did not answer as zeros.
  SELECT past.provider, past.request_model, past.window_start, past.window_end,
         past.share, past.calls_in_window, past.windows_seen,
         coalesce(past.shares / least(past.windows_seen, 6), 0) AS usual
  FROM (
    SELECT mix.provider, mix.request_model, mix.window_start, mix.window_end, mix.share, mix.calls_in_window,
           sum(mix.share) OVER (
             PARTITION BY mix.provider, mix.request_model, mix.response_model ORDER BY mix.window_end
             ROWS BETWEEN 6 PRECEDING AND 1 PRECEDING
           ) AS shares,
           (to_unixtime(mix.window_start) - to_unixtime(min(mix.window_start) OVER (
             PARTITION BY mix.provider, mix.request_model ORDER BY mix.window_end
             ROWS BETWEEN 24 PRECEDING AND CURRENT ROW
           ))) / 300 AS windows_seen
    FROM (
      SELECT answered.provider, answered.request_model, answered.response_model,
             answered.window_start, answered.window_end,
             CAST(answered.calls AS DOUBLE) / sum(answered.calls) OVER (
               PARTITION BY answered.provider, answered.request_model, answered.window_start, answered.window_end
             ) AS share,
             sum(answered.calls) OVER (
               PARTITION BY answered.provider, answered.request_model, answered.window_start, answered.window_end
             ) AS calls_in_window
      FROM (
        SELECT s.provider, s.request_model, s.response_model, window_start, window_end, count(*) AS calls
        FROM TUMBLE(spans, event_time, INTERVAL '5 minutes') AS s
        WHERE s.usage_leaf AND s.request_model IS NOT NULL AND s.response_model IS NOT NULL
        GROUP BY s.provider, s.request_model, s.response_model, window_start, window_end
      ) AS answered
    ) AS mix
  ) AS past
) AS judged
WHERE judged.calls_in_window >= 20 AND judged.windows_seen >= 3
GROUP BY judged.provider, judged.request_model, judged.window_start, judged.window_end
HAVING sum(greatest(judged.share - judged.usual, 0)) >= 0.3
EMIT ON CLOSE;
