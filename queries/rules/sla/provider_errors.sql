-- Fires when at least a tenth of the calls to a provider's model fail: of the last five minutes, looked at every
-- minute, if there were 30 calls. It goes with the first five minutes that are better.
-- A controller may fail over to another provider.
-- What counts is what the provider is to blame for: errors, time-outs and 429, but no other 4xx, which are the
-- caller's.
-- False alarms: a retry storm of one caller makes a tenth of few calls; a tenth of 30 is three. State: two counts per
-- model for five minutes.
-- To tune: the numbers 0.1 and 30. Raise 30 if single callers can reach it.
CREATE RULE provider_errors WITH (
  action      = 'warn',
  reason_code = 'PROVIDER_ERROR_UPSTREAM',
  severity    = 'error',
  owner       = 'sre'
) AS
SELECT made.provider,
       made.request_model,
       made.window_start,
       made.window_end,
       made.failed / CAST(made.calls AS DOUBLE) AS observed,
       0.1 AS threshold,
       'share of failed calls' AS unit,
       concat(made.failed, ' of ', made.calls, ' calls of ', made.request_model, ' at ', made.provider,
              ' have failed') AS message,
       made.calls,
       made.failed
FROM (
  SELECT s.provider, s.request_model, window_start, window_end, count(*) AS calls,
         count(*) FILTER (WHERE s.status_code = 'ERROR' AND (s.error_type IS NULL OR s.error_type IN ('408', '429')
                                                             OR s.error_type NOT LIKE '4__')) AS failed
  FROM HOP(spans, event_time, INTERVAL '1 minute', INTERVAL '5 minutes') AS s
  WHERE s.provider IS NOT NULL AND s.request_model IS NOT NULL
    AND (s.usage_leaf OR s.status_code = 'ERROR')
    AND coalesce(s.operation_type, 'inference') IN ('inference', 'embedding')
  GROUP BY s.provider, s.request_model, window_start, window_end
) AS made
WHERE made.calls >= 30 AND made.failed >= 0.1 * made.calls
EMIT ON CLOSE;
