-- A decision event has one of the four results, and unless that is ALLOWED a reason code of the taxonomy or of the
-- form x_…. GenOps §8.1 and §5. Fires for each such event with a fault.
-- Judges genops_count_span_events.decisions, for §9.1 (3), (4) and (5).
CREATE RULE genops_8_1_policy_evaluated WITH (
  action      = 'notify',
  reason_code = 'x_genops_decision_event',
  severity    = 'warning',
  owner       = 'governance',
  ttl         = '5 minutes'
) AS
SELECT found.service_name, found.scope_name, found.scope_version, found.trace_id, found.span_id,
       found.faults AS message
FROM (
  SELECT a.service_name, a.scope_name, a.scope_version, a.trace_id, a.span_id,
         concat_ws('; ',
           CASE WHEN a.result IS NULL THEN 'genops.policy.result is missing' END,
           CASE WHEN a.result NOT IN ('ALLOWED', 'BLOCKED', 'WARNING', 'RATE_LIMITED')
                THEN concat('the result is ', a.result) END,
           CASE WHEN a.result = 'ALLOWED' AND coalesce(a.reason_code, '') <> '' THEN 'ALLOWED with a reason code' END,
           CASE WHEN a.result IN ('BLOCKED', 'WARNING', 'RATE_LIMITED') AND coalesce(a.reason_code, '') = ''
                THEN 'no reason code' END,
           CASE WHEN a.result <> 'ALLOWED' AND a.reason_code <> '' AND NOT a.reason_code ~
             ('^(BUDGET_EXCEEDED|BUDGET_RESERVATION_FAILED|POLICY_DENY_MODEL|POLICY_DENY_REGION|'
             || 'POLICY_DENY_CONTENT|RATE_LIMITED|SLA_LATENCY_VIOLATION|PROVIDER_ERROR_UPSTREAM|'
             || 'ACCOUNTING_INVARIANT_VIOLATION|x_[a-z0-9_]+)$')
             THEN concat('the reason code is ', a.reason_code) END) AS faults
  FROM genops_span_events AS a
  WHERE a.event = 'genops.policy.evaluated'
) AS found
WHERE found.faults <> '';

-- As genops_8_1_policy_evaluated, of log records.
-- Judges genops_count_log_events.decisions, for §9.1 (3), (4) and (5).
CREATE RULE genops_8_1_policy_evaluated_log WITH (
  action      = 'notify',
  reason_code = 'x_genops_decision_event',
  severity    = 'warning',
  owner       = 'governance',
  ttl         = '5 minutes'
) AS
SELECT found.service_name, found.scope_name, found.scope_version, found.trace_id, found.span_id,
       found.faults AS message
FROM (
  SELECT a.service_name, a.scope_name, a.scope_version, a.trace_id, a.span_id,
         concat_ws('; ',
           CASE WHEN a.result IS NULL THEN 'genops.policy.result is missing' END,
           CASE WHEN a.result NOT IN ('ALLOWED', 'BLOCKED', 'WARNING', 'RATE_LIMITED')
                THEN concat('the result is ', a.result) END,
           CASE WHEN a.result = 'ALLOWED' AND coalesce(a.reason_code, '') <> '' THEN 'ALLOWED with a reason code' END,
           CASE WHEN a.result IN ('BLOCKED', 'WARNING', 'RATE_LIMITED') AND coalesce(a.reason_code, '') = ''
                THEN 'no reason code' END,
           CASE WHEN a.result <> 'ALLOWED' AND a.reason_code <> '' AND NOT a.reason_code ~
             ('^(BUDGET_EXCEEDED|BUDGET_RESERVATION_FAILED|POLICY_DENY_MODEL|POLICY_DENY_REGION|'
             || 'POLICY_DENY_CONTENT|RATE_LIMITED|SLA_LATENCY_VIOLATION|PROVIDER_ERROR_UPSTREAM|'
             || 'ACCOUNTING_INVARIANT_VIOLATION|x_[a-z0-9_]+)$')
             THEN concat('the reason code is ', a.reason_code) END) AS faults
  FROM genops_log_events AS a
  WHERE a.event = 'genops.policy.evaluated'
) AS found
WHERE found.faults <> '';

-- A reservation event says how much is reserved (a number), and in what unit. GenOps §8.2. Fires for each such event
-- that does not.
-- Judges genops_count_span_events.reservations, for §9.1 (3).
CREATE RULE genops_8_2_budget_reservation WITH (
  action      = 'notify',
  reason_code = 'x_genops_reservation_event',
  severity    = 'warning',
  owner       = 'governance',
  ttl         = '5 minutes'
) AS
SELECT found.service_name, found.scope_name, found.scope_version, found.trace_id, found.span_id,
       found.faults AS message
FROM (
  SELECT a.service_name, a.scope_name, a.scope_version, a.trace_id, a.span_id,
         concat_ws('; ',
           CASE WHEN TRY_CAST(a.reserved AS DOUBLE) IS NULL
                THEN 'genops.accounting.reserved is missing or no number' END,
           CASE WHEN coalesce(a.unit, '') = '' THEN 'genops.accounting.unit is missing' END) AS faults
  FROM genops_span_events AS a
  WHERE a.event = 'genops.budget.reservation'
) AS found
WHERE found.faults <> '';

-- As genops_8_2_budget_reservation, of log records.
-- Judges genops_count_log_events.reservations, for §9.1 (3).
CREATE RULE genops_8_2_budget_reservation_log WITH (
  action      = 'notify',
  reason_code = 'x_genops_reservation_event',
  severity    = 'warning',
  owner       = 'governance',
  ttl         = '5 minutes'
) AS
SELECT found.service_name, found.scope_name, found.scope_version, found.trace_id, found.span_id,
       found.faults AS message
FROM (
  SELECT a.service_name, a.scope_name, a.scope_version, a.trace_id, a.span_id,
         concat_ws('; ',
           CASE WHEN TRY_CAST(a.reserved AS DOUBLE) IS NULL
                THEN 'genops.accounting.reserved is missing or no number' END,
           CASE WHEN coalesce(a.unit, '') = '' THEN 'genops.accounting.unit is missing' END) AS faults
  FROM genops_log_events AS a
  WHERE a.event = 'genops.budget.reservation'
) AS found
WHERE found.faults <> '';

-- A reconciliation event says what was consumed and what had been reserved (numbers), and in what unit. GenOps §8.3.
-- Fires for each such event that does not.
-- Judges genops_count_span_events.reconciliations, for §9.1 (3).
CREATE RULE genops_8_3_budget_reconciliation WITH (
  action      = 'notify',
  reason_code = 'x_genops_reconciliation_event',
  severity    = 'warning',
  owner       = 'governance',
  ttl         = '5 minutes'
) AS
SELECT found.service_name, found.scope_name, found.scope_version, found.trace_id, found.span_id,
       found.faults AS message
FROM (
  SELECT a.service_name, a.scope_name, a.scope_version, a.trace_id, a.span_id,
         concat_ws('; ',
           CASE WHEN TRY_CAST(a.actual AS DOUBLE) IS NULL
                THEN 'genops.accounting.actual is missing or no number' END,
           CASE WHEN TRY_CAST(a.reserved AS DOUBLE) IS NULL
                THEN 'genops.accounting.reserved is missing or no number' END,
           CASE WHEN coalesce(a.unit, '') = '' THEN 'genops.accounting.unit is missing' END) AS faults
  FROM genops_span_events AS a
  WHERE a.event = 'genops.budget.reconciliation'
) AS found
WHERE found.faults <> '';

-- As genops_8_3_budget_reconciliation, of log records.
-- Judges genops_count_log_events.reconciliations, for §9.1 (3).
CREATE RULE genops_8_3_budget_reconciliation_log WITH (
  action      = 'notify',
  reason_code = 'x_genops_reconciliation_event',
  severity    = 'warning',
  owner       = 'governance',
  ttl         = '5 minutes'
) AS
SELECT found.service_name, found.scope_name, found.scope_version, found.trace_id, found.span_id,
       found.faults AS message
FROM (
  SELECT a.service_name, a.scope_name, a.scope_version, a.trace_id, a.span_id,
         concat_ws('; ',
           CASE WHEN TRY_CAST(a.actual AS DOUBLE) IS NULL
                THEN 'genops.accounting.actual is missing or no number' END,
           CASE WHEN TRY_CAST(a.reserved AS DOUBLE) IS NULL
                THEN 'genops.accounting.reserved is missing or no number' END,
           CASE WHEN coalesce(a.unit, '') = '' THEN 'genops.accounting.unit is missing' END) AS faults
  FROM genops_log_events AS a
  WHERE a.event = 'genops.budget.reconciliation'
) AS found
WHERE found.faults <> '';

-- Reconciliation_delta is actual minus reserved. GenOps §7.3 and §8.3. Fires for each genops.budget.reconciliation
-- event of which it is not, by more than a millionth.
-- Judges genops_count_span_events.deltas, for §9.1 (3).
CREATE RULE genops_8_3_reconciliation_delta WITH (
  action      = 'notify',
  reason_code = 'x_genops_reconciliation_delta',
  severity    = 'warning',
  owner       = 'governance',
  ttl         = '5 minutes'
) AS
SELECT found.service_name, found.scope_name, found.scope_version, found.trace_id, found.span_id,
       found.faults AS message
FROM (
  SELECT a.service_name, a.scope_name, a.scope_version, a.trace_id, a.span_id,
         concat_ws('; ',
           CASE WHEN abs(TRY_CAST(a.delta AS DOUBLE) - (TRY_CAST(a.actual AS DOUBLE) - TRY_CAST(a.reserved AS DOUBLE)))
                     > 1e-6 * greatest(1.0, abs(TRY_CAST(a.actual AS DOUBLE)), abs(TRY_CAST(a.reserved AS DOUBLE)))
                THEN concat('delta is ', a.delta, ' at ', a.actual, ' of ', a.reserved) END) AS faults
  FROM genops_span_events AS a
  WHERE a.event = 'genops.budget.reconciliation'
) AS found
WHERE found.faults <> '';

-- As genops_8_3_reconciliation_delta, of log records.
-- Judges genops_count_log_events.deltas, for §9.1 (3).
CREATE RULE genops_8_3_reconciliation_delta_log WITH (
  action      = 'notify',
  reason_code = 'x_genops_reconciliation_delta',
  severity    = 'warning',
  owner       = 'governance',
  ttl         = '5 minutes'
) AS
SELECT found.service_name, found.scope_name, found.scope_version, found.trace_id, found.span_id,
       found.faults AS message
FROM (
  SELECT a.service_name, a.scope_name, a.scope_version, a.trace_id, a.span_id,
         concat_ws('; ',
           CASE WHEN abs(TRY_CAST(a.delta AS DOUBLE) - (TRY_CAST(a.actual AS DOUBLE) - TRY_CAST(a.reserved AS DOUBLE)))
                     > 1e-6 * greatest(1.0, abs(TRY_CAST(a.actual AS DOUBLE)), abs(TRY_CAST(a.reserved AS DOUBLE)))
                THEN concat('delta is ', a.delta, ' at ', a.actual, ' of ', a.reserved) END) AS faults
  FROM genops_log_events AS a
  WHERE a.event = 'genops.budget.reconciliation'
) AS found
WHERE found.faults <> '';

-- Reserved and unit of the reconciliation are those of the reservation, and its actual is the AWU's. GenOps §3.3 (3)
-- and §8.3. Fires when they differ on an AWU with one event of each kind. Not assessable: AWUs with several of a kind,
-- of which nobody knows which belong together.
-- Judges genops_count_span_events.reconciliations, for §9.1 (3); absence.
CREATE RULE genops_8_3_reconciliation_matches WITH (
  action      = 'notify',
  reason_code = 'ACCOUNTING_INVARIANT_VIOLATION',
  severity    = 'error',
  owner       = 'governance',
  ttl         = '5 minutes'
) AS
SELECT a.service_name, a.scope_name, a.scope_version, a.trace_id, a.span_id,
       a.window_start, a.window_end,
       concat('reserved ', a.first_reserved, ' ', a.first_unit, ', reconciled ', a.last_reserved, ' ', a.last_unit,
              ', actual ', a.last_actual, ', on the span ', a.actual) AS message
FROM genops_awus_by_span_events AS a
WHERE a.reservations = 1 AND a.reconciliations = 1
  AND (a.first_reserved <> a.last_reserved OR nullif(a.first_unit, '') <> nullif(a.last_unit, '')
       OR a.last_actual <> a.actual);

-- As genops_8_3_reconciliation_matches, of services whose events are log records.
-- Judges genops_count_log_events.reconciliations, for §9.1 (3); absence.
CREATE RULE genops_8_3_reconciliation_matches_log WITH (
  action      = 'notify',
  reason_code = 'ACCOUNTING_INVARIANT_VIOLATION',
  severity    = 'error',
  owner       = 'governance',
  ttl         = '5 minutes'
) AS
SELECT a.service_name, a.scope_name, a.scope_version, a.trace_id, a.span_id,
       a.window_start, a.window_end,
       concat('reserved ', a.first_reserved, ' ', a.first_unit, ', reconciled ', a.last_reserved, ' ', a.last_unit,
              ', actual ', a.last_actual, ', on the span ', a.actual) AS message
FROM genops_awus_by_log_events AS a
WHERE a.reservations = 1 AND a.reconciliations = 1
  AND (a.first_reserved <> a.last_reserved OR nullif(a.first_unit, '') <> nullif(a.last_unit, '')
       OR a.last_actual <> a.actual);

-- Optional events have what is required of them if they are sent. GenOps §8.4. That is, of genops.cost.calculated a
-- total and an ISO 4217 currency, of genops.budget.alert a name, consumed and allocated, of genops.evaluation.complete
-- a metric and a score. Fires for each such event that lacks one. Of a currency only the form is judged, three capital
-- letters.
-- Judges genops_count_span_events.optional.
CREATE RULE genops_8_4_optional_events WITH (
  action      = 'notify',
  reason_code = 'x_genops_optional_event',
  severity    = 'warning',
  owner       = 'governance',
  ttl         = '5 minutes'
) AS
SELECT found.service_name, found.scope_name, found.scope_version, found.trace_id, found.span_id,
       found.faults AS message
FROM (
  SELECT a.service_name, a.scope_name, a.scope_version, a.trace_id, a.span_id,
         concat_ws('; ',
           CASE WHEN a.event = 'genops.cost.calculated' AND TRY_CAST(a.cost AS DOUBLE) IS NULL
                THEN 'genops.cost.total is missing or no number' END,
           CASE WHEN a.event = 'genops.cost.calculated' AND NOT coalesce(a.currency, '') ~ '^[A-Z]{3}$'
                THEN 'genops.cost.currency is missing or no currency' END,
           CASE WHEN a.event = 'genops.budget.alert' AND coalesce(a.budget, '') = ''
                THEN 'genops.budget.name is missing' END,
           CASE WHEN a.event = 'genops.budget.alert' AND TRY_CAST(a.consumed AS DOUBLE) IS NULL
                THEN 'genops.budget.consumed is missing or no number' END,
           CASE WHEN a.event = 'genops.budget.alert' AND TRY_CAST(a.allocated AS DOUBLE) IS NULL
                THEN 'genops.budget.allocated is missing or no number' END,
           CASE WHEN a.event = 'genops.evaluation.complete' AND coalesce(a.metric, '') = ''
                THEN 'genops.eval.metric is missing' END,
           CASE WHEN a.event = 'genops.evaluation.complete' AND TRY_CAST(a.score AS DOUBLE) IS NULL
                THEN 'genops.eval.score is missing or no number' END) AS faults
  FROM genops_span_events AS a
  WHERE a.event IN ('genops.cost.calculated', 'genops.budget.alert', 'genops.evaluation.complete')
) AS found
WHERE found.faults <> '';

-- As genops_8_4_optional_events, of log records.
-- Judges genops_count_log_events.optional.
CREATE RULE genops_8_4_optional_events_log WITH (
  action      = 'notify',
  reason_code = 'x_genops_optional_event',
  severity    = 'warning',
  owner       = 'governance',
  ttl         = '5 minutes'
) AS
SELECT found.service_name, found.scope_name, found.scope_version, found.trace_id, found.span_id,
       found.faults AS message
FROM (
  SELECT a.service_name, a.scope_name, a.scope_version, a.trace_id, a.span_id,
         concat_ws('; ',
           CASE WHEN a.event = 'genops.cost.calculated' AND TRY_CAST(a.cost AS DOUBLE) IS NULL
                THEN 'genops.cost.total is missing or no number' END,
           CASE WHEN a.event = 'genops.cost.calculated' AND NOT coalesce(a.currency, '') ~ '^[A-Z]{3}$'
                THEN 'genops.cost.currency is missing or no currency' END,
           CASE WHEN a.event = 'genops.budget.alert' AND coalesce(a.budget, '') = ''
                THEN 'genops.budget.name is missing' END,
           CASE WHEN a.event = 'genops.budget.alert' AND TRY_CAST(a.consumed AS DOUBLE) IS NULL
                THEN 'genops.budget.consumed is missing or no number' END,
           CASE WHEN a.event = 'genops.budget.alert' AND TRY_CAST(a.allocated AS DOUBLE) IS NULL
                THEN 'genops.budget.allocated is missing or no number' END,
           CASE WHEN a.event = 'genops.evaluation.complete' AND coalesce(a.metric, '') = ''
                THEN 'genops.eval.metric is missing' END,
           CASE WHEN a.event = 'genops.evaluation.complete' AND TRY_CAST(a.score AS DOUBLE) IS NULL
                THEN 'genops.eval.score is missing or no number' END) AS faults
  FROM genops_log_events AS a
  WHERE a.event IN ('genops.cost.calculated', 'genops.budget.alert', 'genops.evaluation.complete')
) AS found
WHERE found.faults <> '';
