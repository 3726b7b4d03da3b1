-- Decision and reservation come before execution, reconciliation after it. GenOps §2.4 and §7.2. Fires when a
-- reconciliation event of an AWU is older than its last decision or reservation event. Not assessable: AWUs without a
-- reconciliation event, and log records of several hosts whose clocks differ.
-- Judges genops_count_span_events.reconciliations, for §9.1 (2).
CREATE RULE genops_2_4_event_order WITH (
  action      = 'notify',
  reason_code = 'ACCOUNTING_INVARIANT_VIOLATION',
  severity    = 'error',
  owner       = 'governance',
  ttl         = '5 minutes'
) AS
SELECT a.service_name, a.scope_name, a.scope_version, a.trace_id, a.span_id,
       a.window_start, a.window_end,
       'reconciled before the last decision or reservation' AS message
FROM genops_awus_by_span_events AS a
WHERE a.reconciled < a.prepared;

-- As genops_2_4_event_order, of services whose events are log records.
-- Judges genops_count_log_events.reconciliations, for §9.1 (2); with spans.
CREATE RULE genops_2_4_event_order_log WITH (
  action      = 'notify',
  reason_code = 'ACCOUNTING_INVARIANT_VIOLATION',
  severity    = 'error',
  owner       = 'governance',
  ttl         = '5 minutes'
) AS
SELECT a.service_name, a.scope_name, a.scope_version, a.trace_id, a.span_id,
       a.window_start, a.window_end,
       'reconciled before the last decision or reservation' AS message
FROM genops_awus_by_log_events AS a
WHERE a.reconciled < a.prepared;

-- The phase before execution is over when resources are consumed. GenOps §2.4. Fires when a child span of the AWU that
-- bears tokens began more than 100 ms before a decision or reservation event of the AWU; the 100 ms are for clocks
-- that differ. Not assessable: consumption that is no child span with tokens, the AWU's own span included, and child
-- spans that ended more than a minute before or after the event.
-- Judges genops_count_span_events.preparations, for §9.1 (2).
CREATE RULE genops_2_4_consumption_order WITH (
  action      = 'notify',
  reason_code = 'ACCOUNTING_INVARIANT_VIOLATION',
  severity    = 'error',
  owner       = 'governance',
  ttl         = '5 minutes'
) AS
SELECT e.service_name, e.scope_name, e.scope_version, e.trace_id, e.span_id,
       concat('a model call began before ', e.event) AS message
FROM (SELECT * FROM genops_span_events WHERE event IN ('genops.policy.evaluated', 'genops.budget.reservation')) AS e
JOIN (SELECT * FROM spans WHERE total_tokens > 0) AS c ON c.trace_id = e.trace_id AND c.parent_span_id = e.span_id
    AND c.event_time BETWEEN e.event_time - INTERVAL '1 minute' AND e.event_time + INTERVAL '1 minute'
WHERE c.start_time < e.event_time - INTERVAL '100 milliseconds';

-- As genops_2_4_consumption_order, of log records; one second is for clocks that differ, and child spans may end
-- within ten minutes of the event.
-- Judges genops_count_log_events.preparations, for §9.1 (2); with spans.
CREATE RULE genops_2_4_consumption_order_log WITH (
  action      = 'notify',
  reason_code = 'ACCOUNTING_INVARIANT_VIOLATION',
  severity    = 'error',
  owner       = 'governance',
  ttl         = '5 minutes'
) AS
SELECT e.service_name, e.scope_name, e.scope_version, e.trace_id, e.span_id,
       concat('a model call began before ', e.event) AS message
FROM (SELECT * FROM genops_log_events WHERE event IN ('genops.policy.evaluated', 'genops.budget.reservation')) AS e
JOIN (SELECT * FROM spans WHERE total_tokens > 0) AS c ON c.trace_id = e.trace_id AND c.parent_span_id = e.span_id
    AND c.event_time BETWEEN e.event_time - INTERVAL '10 minutes' AND e.event_time + INTERVAL '10 minutes'
WHERE c.start_time < e.event_time - INTERVAL '1 second';
