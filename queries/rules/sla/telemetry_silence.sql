-- Fires when a service that used to send spans sends none for fifteen minutes: three windows of five minutes without
-- any, where the day before them had 20 each in the mean. What is silent is governed by no rule, and costs all the
-- same.
-- A controller tells the owners: an exporter that has died, a collector that is full, or a service that is down.
-- The directive goes when spans come again, or when the day's mean has fallen below 20 because the silence is usual.
-- False alarms: a service that sleeps at night fires every evening; of 50 services with quiet nights it was three in
-- 300 service-days (docs/detection.md). Leave such services out, or raise the three windows above their nights. A
-- service is judged once it has been seen for an hour, and forgotten after a day of silence.
-- If all telemetry stops, time goes on with the clock, and this rule speaks nevertheless. State: 290 counts per
-- service.
-- To tune: the numbers 3, 20 and 12.
CREATE RULE telemetry_silence WITH (
  action      = 'warn',
  reason_code = 'x_telemetry_gap',
  severity    = 'error',
  owner       = 'sre',
  ttl         = '10 minutes'
) AS
SELECT judged.service_name,
       judged.window_start,
       judged.window_end,
       judged.lately AS observed,
       judged.usual AS threshold,
       'spans' AS unit,
       concat(judged.service_name, ' has sent no spans for fifteen minutes; usual are ', CAST(judged.usual AS BIGINT),
              ' in five') AS message
FROM (
  SELECT sent.service_name, sent.window_start, sent.window_end,
         sum(sent.spans)   OVER (PARTITION BY sent.service_name ORDER BY sent.window_end
                                 ROWS BETWEEN 2 PRECEDING AND CURRENT ROW) AS lately,
         avg(sent.spans)   OVER (PARTITION BY sent.service_name ORDER BY sent.window_end
                                 ROWS BETWEEN 290 PRECEDING AND 3 PRECEDING) AS usual,
         count(sent.spans) OVER (PARTITION BY sent.service_name ORDER BY sent.window_end
                                 ROWS BETWEEN 290 PRECEDING AND 3 PRECEDING) AS windows
  FROM (
    SELECT s.service_name, window_start, window_end, count(*) AS spans
    FROM TUMBLE(spans, event_time, INTERVAL '5 minutes') AS s
    WHERE s.service_name IS NOT NULL
    GROUP BY s.service_name, window_start, window_end
  ) AS sent
) AS judged
WHERE judged.lately = 0 AND judged.windows >= 12 AND judged.usual >= 20
GAP FILL FOR INTERVAL '1 day'
EMIT ON CLOSE;
