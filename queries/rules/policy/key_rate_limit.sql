CREATE EXTERNAL TABLE rate_limits (service_name VARCHAR, requests_per_minute BIGINT, tokens_per_minute BIGINT)
STORED AS CSV LOCATION 'rate_limits.csv';

-- Throttles an API key of a service that makes more than 600 requests or uses more than a million tokens within a
-- minute, until the minute is over; params say how long that was when it fired. A key is known where a gateway writes
-- it (LiteLLM's user_api_key_hash, or acme.api_key if that is yours: add it below); without one the service as a whole
-- is limited.
-- A controller answers 429 with Retry-After. It is not the provider's limit, but yours, so that one job does not use
-- it up.
-- False alarms: jobs that are meant to be fast: give them a row. Telemetry comes after the call, so a burst of seconds
-- is seen when it is over; a gateway that counts itself is faster. State: two sums per key and minute.
-- To tune: rate_limits.csv, for services that need other limits than 600 and 1,000,000. Failed requests count as well.
CREATE RULE key_rate_limit WITH (
  action      = 'throttle',
  reason_code = 'RATE_LIMITED',
  severity    = 'warning',
  owner       = 'platform'
) AS
WITH requests AS (
  SELECT s.event_time, s.service_name,
         coalesce(s.total_tokens, s.input_tokens, s.output_tokens) AS tokens,
         coalesce(attr('metadata.user_api_key_hash'), attr('user_api_key_hash')) AS api_key
  FROM spans AS s
  WHERE s.service_name IS NOT NULL AND (s.usage_leaf OR (s.status_code = 'ERROR' AND s.request_model IS NOT NULL))
)
SELECT used.service_name,
       used.api_key,
       used.window_start,
       used.window_end,
       CASE WHEN used.requests > coalesce(own.requests_per_minute, 600) THEN used.requests
            ELSE used.tokens END AS observed,
       CASE WHEN used.requests > coalesce(own.requests_per_minute, 600) THEN coalesce(own.requests_per_minute, 600)
            ELSE coalesce(own.tokens_per_minute, 1000000) END AS threshold,
       CASE WHEN used.requests > coalesce(own.requests_per_minute, 600) THEN 'requests a minute'
            ELSE 'tokens a minute' END AS unit,
       concat('{"retry_after_ms": ', 1000 * (to_unixtime(used.window_end) - to_unixtime(used.latest)), '}') AS params,
       concat(used.service_name, ' has made ', used.requests, ' requests with ', used.tokens,
              ' tokens within a minute') AS message,
       used.requests,
       used.tokens
FROM (
  SELECT r.service_name, r.api_key, window_start, window_end, count(*) AS requests, max(r.event_time) AS latest,
         coalesce(sum(r.tokens), 0) AS tokens
  FROM TUMBLE(requests, event_time, INTERVAL '1 minute') AS r
  GROUP BY r.service_name, r.api_key, window_start, window_end
) AS used
LEFT JOIN rate_limits AS own ON own.service_name = used.service_name
WHERE used.requests > coalesce(own.requests_per_minute, 600) OR used.tokens > coalesce(own.tokens_per_minute, 1000000)
EMIT ON UPDATE;
