-- Fires when an agent has far more calls under way at once than it ever has: in a minute at least 20, and at least five
-- times what 99 % of its minutes so far did not exceed. Agents that call agents, and retries without a pause, look like
-- this long before the bill does.
-- A controller limits the agent's concurrency; the directive goes two minutes after the last such minute.
-- False alarms: a batch that is run for the first time. A burst is part of what is usual from then on; of an agent that
-- is as young as a quarter of an hour, its greatest burst is. State: a histogram of
-- numbers per agent, and a minute's bounds of calls.
-- Spans arrive when calls end, so that a burst shows when its first calls are over: long calls are seen late.
-- To tune: 20 and 5.
CREATE RULE parallel_burst WITH (
  action          = 'throttle',
  reason_code     = 'RATE_LIMITED',
  severity        = 'error',
  owner           = 'platform',
  ttl             = '2 minutes',
  keep_firing_for = '2 minutes'
) AS
SELECT judged.agent_name,
       judged.window_start,
       judged.window_end,
       judged.parallel AS observed,
       greatest(20.0, 5 * coalesce(judged.usual, 0)) AS threshold,
       'calls at once' AS unit,
       concat(judged.agent_name, ' has had ', CAST(judged.parallel AS BIGINT), ' calls under way at once') AS message,
       judged.calls
FROM (
  SELECT busy.*, running_quantile(busy.parallel, 0.99) OVER (PARTITION BY busy.agent_name ORDER BY busy.window_end)
                 AS usual
  FROM (
    SELECT s.agent_name, window_start, window_end, count(*) AS calls,
           max_concurrency(s.start_time, s.event_time) AS parallel
    FROM HOP(spans, event_time, INTERVAL '10 seconds', INTERVAL '1 minute') AS s
    WHERE s.usage_leaf AND s.agent_name IS NOT NULL
    GROUP BY s.agent_name, window_start, window_end
  ) AS busy
) AS judged
WHERE judged.parallel >= greatest(20.0, 5 * coalesce(judged.usual, 0))
EMIT ON CLOSE;
