-- An AWU that proceeds, or was stopped after it had reserved, has a reservation event. GenOps §3.3 (1), §7.2 and
-- §7.2.1. Fires when an AWU that was let through, or bears genops.accounting.reserved, ended without one. Not
-- assessable: span events that the SDK dropped (128 per span is OpenTelemetry's default), log records that are
-- sampled, and AWUs that lasted longer than awu.sql allows.
-- Judges genops_count_awus.reserving_by_span_events, for §9.1 (2) and (3); absence.
CREATE RULE genops_3_3_reservation_event WITH (
  action      = 'notify',
  reason_code = 'ACCOUNTING_INVARIANT_VIOLATION',
  severity    = 'error',
  owner       = 'governance',
  ttl         = '5 minutes'
) AS
SELECT a.service_name, a.scope_name, a.scope_version, a.trace_id, a.span_id,
       a.window_start, a.window_end,
       concat('no reservation event; the decision is ', coalesce(a.result, 'not known')) AS message
FROM genops_awus_by_span_events AS a
WHERE a.in_time AND a.reservations = 0 AND (a.passes OR a.reserved IS NOT NULL);

-- As genops_3_3_reservation_event, of services whose events are log records.
-- Judges genops_count_awus.reserving_by_log_events, for §9.1 (2) and (3); absence.
CREATE RULE genops_3_3_reservation_event_log WITH (
  action      = 'notify',
  reason_code = 'ACCOUNTING_INVARIANT_VIOLATION',
  severity    = 'error',
  owner       = 'governance',
  ttl         = '5 minutes'
) AS
SELECT a.service_name, a.scope_name, a.scope_version, a.trace_id, a.span_id,
       a.window_start, a.window_end,
       concat('no reservation event; the decision is ', coalesce(a.result, 'not known')) AS message
FROM genops_awus_by_log_events AS a
WHERE a.in_time AND a.reservations = 0 AND (a.passes OR a.reserved IS NOT NULL);

-- An AWU that was executed has a reconciliation event, even if its consumption cannot be told. GenOps §3.3 (3), §3.5
-- and §7.2. Fires when an AWU that was executed ended without one. An AWU that was let through and did not end with an
-- error counts as executed. Not assessable: AWUs that were stopped before execution and do not end with an error;
-- dropped and sampled events and long AWUs, as above.
-- Judges genops_count_awus.executed_by_span_events, for §9.1 (2) and (3); absence.
CREATE RULE genops_3_3_reconciliation_event WITH (
  action      = 'notify',
  reason_code = 'ACCOUNTING_INVARIANT_VIOLATION',
  severity    = 'error',
  owner       = 'governance',
  ttl         = '5 minutes'
) AS
SELECT a.service_name, a.scope_name, a.scope_version, a.trace_id, a.span_id,
       a.window_start, a.window_end,
       'executed, and no reconciliation event' AS message
FROM genops_awus_by_span_events AS a
WHERE a.in_time AND a.reconciliations = 0 AND a.executed;

-- As genops_3_3_reconciliation_event, of services whose events are log records.
-- Judges genops_count_awus.executed_by_log_events, for §9.1 (2) and (3); absence.
CREATE RULE genops_3_3_reconciliation_event_log WITH (
  action      = 'notify',
  reason_code = 'ACCOUNTING_INVARIANT_VIOLATION',
  severity    = 'error',
  owner       = 'governance',
  ttl         = '5 minutes'
) AS
SELECT a.service_name, a.scope_name, a.scope_version, a.trace_id, a.span_id,
       a.window_start, a.window_end,
       'executed, and no reconciliation event' AS message
FROM genops_awus_by_log_events AS a
WHERE a.in_time AND a.reconciliations = 0 AND a.executed;

-- When a reservation fails, the decision is BLOCKED. GenOps §3.5. Fires when the reason is BUDGET_RESERVATION_FAILED
-- and the decision another one. Not assessable: reservations that fail and say so nowhere; that the same reservation
-- always has the same outcome (the state it depends on is not in telemetry).
-- Judges genops_count_awus.failed_reservations, for §9.1 (2).
CREATE RULE genops_3_5_failed_reservation WITH (
  action      = 'notify',
  reason_code = 'ACCOUNTING_INVARIANT_VIOLATION',
  severity    = 'error',
  owner       = 'governance',
  ttl         = '5 minutes'
) AS
SELECT a.service_name, a.scope_name, a.scope_version, a.trace_id, a.span_id,
       concat('the reservation failed, and the decision is ', coalesce(a.result, 'missing')) AS message
FROM genops_awus AS a
WHERE a.reason_code = 'BUDGET_RESERVATION_FAILED' AND coalesce(a.result, '') <> 'BLOCKED';
