-- Fires with a unit of work that took longer than its own service level says (GenOps' sla attributes), and holds
-- for five minutes after the last one. latency_p95 judges a project as a whole; this rule has each promise kept by
-- itself.
-- A controller may route the tier's next calls to a faster model; nothing is stopped.
-- False alarms: none, but many alarms: single slow calls are told, because that is what was promised (with a target of
-- four times the median it was 55 directives a day for a project of some 10,000 calls): for a burn rate write a rule
-- with a window, for patience set the option for. Where a producer says that the target was missed without a number,
-- that counts. There is no state.
-- To tune: what producers write as genops.sla.latency_target_ms.
CREATE RULE sla_latency WITH (
  action      = 'warn',
  reason_code = 'SLA_LATENCY_VIOLATION',
  severity    = 'warning',
  owner       = 'sre',
  ttl         = '5 minutes'
) AS
SELECT s.team,
       s.project,
       s.sla_tier,
       coalesce(CAST(s.sla_actual_ms AS DOUBLE), s.latency_ms) AS observed,
       s.sla_target_ms AS threshold,
       'ms' AS unit,
       concat('a unit of work of ', coalesce(s.project, s.team, 'somebody'), ' has missed its service level') AS message
FROM spans AS s
WHERE coalesce(CAST(s.sla_actual_ms AS DOUBLE), s.latency_ms) > s.sla_target_ms
   OR (s.sla_target_ms IS NULL AND NOT s.sla_met);
