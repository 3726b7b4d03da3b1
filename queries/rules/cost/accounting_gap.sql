-- Fires when a reservation is not reconciled within ten minutes: budgets that are kept by reservations leak what is
-- never settled. A policy decision that stops the unit of work settles it, too: what did not run has nothing to
-- reconcile.
-- A controller tells the team that answers for the producer. The directive holds for an hour after the last such gap.
-- False alarms: calls of more than ten minutes; reconciliations that come by another pipeline and are late. State: ten
-- minutes of the producer's reservations and reconciliations.
-- To tune: the ten minutes, at both places of this file, to the longest call. This rule reads the events of spans, the
-- next one log records: a producer writes one of them.
CREATE RULE accounting_gap WITH (
  action      = 'warn',
  reason_code = 'ACCOUNTING_INVARIANT_VIOLATION',
  severity    = 'error',
  owner       = 'finops',
  ttl         = '1 hour'
) AS
SELECT reserved.team,
       reserved.service_name,
       concat('a reservation of ', coalesce(reserved.team, 'somebody'),
              ' was not reconciled within ten minutes') AS message,
       reserved.accounting_reserved AS observed
FROM (SELECT * FROM span_events WHERE name = 'genops.budget.reservation') AS reserved
LEFT JOIN (
  SELECT * FROM span_events
  WHERE name = 'genops.budget.reconciliation'
     OR (name = 'genops.policy.evaluated' AND policy_result IN ('BLOCKED', 'RATE_LIMITED'))
) AS settled
  ON settled.trace_id = reserved.trace_id AND settled.span_id = reserved.span_id
 AND settled.event_time BETWEEN reserved.event_time AND reserved.event_time + INTERVAL '10 minutes'
WHERE settled.span_id IS NULL;

-- The same of producers that write the events as log records.
CREATE RULE accounting_gap_logged WITH (
  action      = 'warn',
  reason_code = 'ACCOUNTING_INVARIANT_VIOLATION',
  severity    = 'error',
  owner       = 'finops',
  ttl         = '1 hour'
) AS
SELECT reserved.team,
       reserved.service_name,
       concat('a reservation of ', coalesce(reserved.team, 'somebody'),
              ' was not reconciled within ten minutes') AS message,
       reserved.accounting_reserved AS observed
FROM (SELECT * FROM logs WHERE event_name = 'genops.budget.reservation') AS reserved
LEFT JOIN (
  SELECT * FROM logs
  WHERE event_name = 'genops.budget.reconciliation'
     OR (event_name = 'genops.policy.evaluated' AND policy_result IN ('BLOCKED', 'RATE_LIMITED'))
) AS settled
  ON settled.trace_id = reserved.trace_id AND settled.span_id = reserved.span_id
 AND settled.event_time BETWEEN reserved.event_time AND reserved.event_time + INTERVAL '10 minutes'
WHERE settled.span_id IS NULL;

-- Fires when a unit of work has consumed at least twice what was reserved for it: reservations that are so wrong
-- protect no budget. Less than reserved is what a reservation is for, and is not told.
-- A controller tells the team. The directive holds for an hour after the last such unit of work. There is no state.
-- False alarms: reservations that are a token of goodwill, such as 1.
-- To tune: the tolerance, 1 for a consumption of twice the reservation.
CREATE RULE accounting_delta WITH (
  action      = 'notify',
  reason_code = 'ACCOUNTING_INVARIANT_VIOLATION',
  severity    = 'warning',
  owner       = 'finops',
  ttl         = '1 hour'
) AS
SELECT s.team,
       s.service_name,
       s.accounting_delta AS observed,
       s.accounting_reserved AS threshold,
       s.accounting_unit AS unit,
       concat(coalesce(s.team, 'somebody'), ' has consumed ', s.accounting_reserved + s.accounting_delta,
              ' of ', s.accounting_reserved, ' reserved') AS message
FROM spans AS s
WHERE s.accounting_reserved > 0 AND s.accounting_delta >= 1 * s.accounting_reserved;
