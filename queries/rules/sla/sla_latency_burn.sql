-- Fires when a tier of a project misses its latency targets far more often than an objective of 99 % allows: 14.4 times
-- as often over an hour and still over five minutes, or 6 times over six hours and half an hour. sla_latency tells of
-- each miss; this rule says when misses add up to a broken objective: 14.4 % of an hour's calls spend 2 % of what a
-- month may miss.
-- A controller may route the tier to a faster model; nothing is stopped. The short window lets go soon after it is
-- over.
-- False alarms: tiers with few calls; fewer than 50 in the long window are not judged. State: two counts per project,
-- tier and five minutes, for six hours.
-- To tune: the objective 0.99, the rates 14.4 and 6, the 50 calls; what producers write as
-- genops.sla.latency_target_ms.
CREATE RULE sla_latency_burn WITH (
  action      = 'warn',
  reason_code = 'SLA_LATENCY_VIOLATION',
  severity    = 'error',
  owner       = 'sre',
  ttl         = '30 minutes'
) AS
SELECT judged.project,
       judged.sla_tier,
       judged.window_start,
       judged.window_end,
       CASE WHEN judged.is_fast THEN judged.burn_1h ELSE judged.burn_6h END AS observed,
       CASE WHEN judged.is_fast THEN 14.4 ELSE 6.0 END AS threshold,
       'times the allowed rate of misses' AS unit,
       concat('the tier ', judged.sla_tier, ' of ', judged.project, ' has missed ', judged.missed_6h,
              ' latency targets in six hours') AS message,
       CASE WHEN judged.is_fast THEN '1 hour' ELSE '6 hours' END AS burnt_over
FROM (
  SELECT rated.*,
         rated.calls_1h >= 50 AND rated.burn_1h >= 14.4 AND rated.burn_5m >= 14.4 AS is_fast,
         rated.calls_6h >= 50 AND rated.burn_6h >= 6.0 AND rated.burn_30m >= 6.0 AS is_slow
  FROM (
    SELECT kept.*,
           burn_rate_ratio(kept.missed, kept.calls, 0.99) AS burn_5m,
           burn_rate_ratio(kept.missed_30m, kept.calls_30m, 0.99) AS burn_30m,
           burn_rate_ratio(kept.missed_1h, kept.calls_1h, 0.99) AS burn_1h,
           burn_rate_ratio(kept.missed_6h, kept.calls_6h, 0.99) AS burn_6h
    FROM (
      SELECT counted.*,
             sum(counted.missed) OVER (PARTITION BY counted.project, counted.sla_tier ORDER BY counted.window_end
                                       ROWS BETWEEN 5 PRECEDING AND CURRENT ROW) AS missed_30m,
             sum(counted.calls)  OVER (PARTITION BY counted.project, counted.sla_tier ORDER BY counted.window_end
                                       ROWS BETWEEN 5 PRECEDING AND CURRENT ROW) AS calls_30m,
             sum(counted.missed) OVER (PARTITION BY counted.project, counted.sla_tier ORDER BY counted.window_end
                                       ROWS BETWEEN 11 PRECEDING AND CURRENT ROW) AS missed_1h,
             sum(counted.calls)  OVER (PARTITION BY counted.project, counted.sla_tier ORDER BY counted.window_end
                                       ROWS BETWEEN 11 PRECEDING AND CURRENT ROW) AS calls_1h,
             sum(counted.missed) OVER (PARTITION BY counted.project, counted.sla_tier ORDER BY counted.window_end
                                       ROWS BETWEEN 71 PRECEDING AND CURRENT ROW) AS missed_6h,
             sum(counted.calls)  OVER (PARTITION BY counted.project, counted.sla_tier ORDER BY counted.window_end
                                       ROWS BETWEEN 71 PRECEDING AND CURRENT ROW) AS calls_6h
      FROM (
        SELECT s.project, s.sla_tier, window_start, window_end, count(*) AS calls,
               count(*) FILTER (WHERE coalesce(coalesce(CAST(s.sla_actual_ms AS DOUBLE), s.latency_ms)
                                                 > s.sla_target_ms, NOT s.sla_met)) AS missed
        FROM TUMBLE(spans, event_time, INTERVAL '5 minutes') AS s
        WHERE s.project IS NOT NULL AND s.sla_tier IS NOT NULL
          AND (s.sla_target_ms IS NOT NULL OR s.sla_met IS NOT NULL)
        GROUP BY s.project, s.sla_tier, window_start, window_end
      ) AS counted
    ) AS kept
  ) AS rated
) AS judged
WHERE judged.is_fast OR judged.is_slow
GAP FILL FOR INTERVAL '6 hours'
EMIT ON CLOSE;
