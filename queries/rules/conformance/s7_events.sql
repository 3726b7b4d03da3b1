-- Every decision has its event. GenOps §7.2, §8.1 and §9.1 (3). Fires when an AWU with a genops.policy.result ended
-- without one. Not assessable: span events that the SDK dropped, log records that are sampled, and AWUs that lasted
-- longer than awu.sql allows.
-- Judges genops_count_awus.decided_by_span_events, for §9.1 (3); absence.
CREATE RULE genops_7_2_decision_event WITH (
  action      = 'notify',
  reason_code = 'x_genops_decision_event_missing',
  severity    = 'warning',
  owner       = 'governance',
  ttl         = '5 minutes'
) AS
SELECT a.service_name, a.scope_name, a.scope_version, a.trace_id, a.span_id,
       a.window_start, a.window_end,
       concat('no decision event; the decision is ', a.result) AS message
FROM genops_awus_by_span_events AS a
WHERE a.in_time AND a.decisions = 0 AND a.result IS NOT NULL;

-- As genops_7_2_decision_event, of services whose events are log records.
-- Judges genops_count_awus.decided_by_log_events, for §9.1 (3); absence.
CREATE RULE genops_7_2_decision_event_log WITH (
  action      = 'notify',
  reason_code = 'x_genops_decision_event_missing',
  severity    = 'warning',
  owner       = 'governance',
  ttl         = '5 minutes'
) AS
SELECT a.service_name, a.scope_name, a.scope_version, a.trace_id, a.span_id,
       a.window_start, a.window_end,
       concat('no decision event; the decision is ', a.result) AS message
FROM genops_awus_by_log_events AS a
WHERE a.in_time AND a.decisions = 0 AND a.result IS NOT NULL;

-- An AWU that was not executed has no reconciliation event. GenOps §7.2.1. Fires when one that is BLOCKED, or
-- RATE_LIMITED without an actual consumption, has such an event. Not assessable: other AWUs that were stopped before
-- execution; telemetry does not say so.
-- Judges genops_count_awus.stopped_by_span_events, for §9.1 (3).
CREATE RULE genops_7_2_1_reconciliation_without_execution WITH (
  action      = 'notify',
  reason_code = 'ACCOUNTING_INVARIANT_VIOLATION',
  severity    = 'error',
  owner       = 'governance',
  ttl         = '5 minutes'
) AS
SELECT a.service_name, a.scope_name, a.scope_version, a.trace_id, a.span_id,
       a.window_start, a.window_end,
       concat(a.result, ' before execution, and reconciled') AS message
FROM genops_awus_by_span_events AS a
WHERE a.reconciliations > 0
  AND (a.result = 'BLOCKED'
       OR (a.result = 'RATE_LIMITED' AND coalesce(TRY_CAST(a.actual AS DOUBLE), 0) = 0));

-- As genops_7_2_1_reconciliation_without_execution, of services whose events are log records.
-- Judges genops_count_awus.stopped_by_log_events, for §9.1 (3).
CREATE RULE genops_7_2_1_reconciliation_without_execution_log WITH (
  action      = 'notify',
  reason_code = 'ACCOUNTING_INVARIANT_VIOLATION',
  severity    = 'error',
  owner       = 'governance',
  ttl         = '5 minutes'
) AS
SELECT a.service_name, a.scope_name, a.scope_version, a.trace_id, a.span_id,
       a.window_start, a.window_end,
       concat(a.result, ' before execution, and reconciled') AS message
FROM genops_awus_by_log_events AS a
WHERE a.reconciliations > 0
  AND (a.result = 'BLOCKED'
       OR (a.result = 'RATE_LIMITED' AND coalesce(TRY_CAST(a.actual AS DOUBLE), 0) = 0));
