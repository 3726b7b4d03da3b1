-- A decision other than ALLOWED has a reason code. GenOps §4.2 and §5.3. Fires for each AWU that is BLOCKED, WARNING
-- or RATE_LIMITED and has none.
-- Judges genops_count_awus.not_allowed, for §9.1 (5).
CREATE RULE genops_5_3_reason_code_required WITH (
  action      = 'notify',
  reason_code = 'x_genops_reason_code_missing',
  severity    = 'warning',
  owner       = 'governance',
  ttl         = '5 minutes'
) AS
SELECT a.service_name, a.scope_name, a.scope_version, a.trace_id, a.span_id,
       concat(a.result, ' without genops.policy.reason_code') AS message
FROM genops_awus AS a
WHERE a.result IN ('BLOCKED', 'WARNING', 'RATE_LIMITED') AND coalesce(a.reason_code, '') = '';

-- ALLOWED has no reason code. GenOps §5.3. Fires for each AWU that is ALLOWED and has one.
-- Judges genops_count_awus.allowed, for §9.1 (5).
CREATE RULE genops_5_3_reason_code_with_allowed WITH (
  action      = 'notify',
  reason_code = 'x_genops_reason_code_with_allowed',
  severity    = 'warning',
  owner       = 'governance',
  ttl         = '5 minutes'
) AS
SELECT a.service_name, a.scope_name, a.scope_version, a.trace_id, a.span_id,
       concat('ALLOWED with genops.policy.reason_code ', a.reason_code) AS message
FROM genops_awus AS a
WHERE a.result = 'ALLOWED' AND coalesce(a.reason_code, '') <> '';

-- A reason code is one of the nine of the taxonomy, or x_ and lower-case letters, digits and underscores; a list of
-- several is none. GenOps §5.3 to §5.5 and §9.1 (5). Fires for each AWU with another.
-- Judges genops_count_awus.reason_codes, for §9.1 (5).
CREATE RULE genops_5_4_reason_code_taxonomy WITH (
  action      = 'notify',
  reason_code = 'x_genops_reason_code_unknown',
  severity    = 'warning',
  owner       = 'governance',
  ttl         = '5 minutes'
) AS
SELECT a.service_name, a.scope_name, a.scope_version, a.trace_id, a.span_id,
       concat('genops.policy.reason_code is ', a.reason_code) AS message
FROM genops_awus AS a
WHERE a.reason_code <> '' AND NOT a.reason_code ~
      ('^(BUDGET_EXCEEDED|BUDGET_RESERVATION_FAILED|POLICY_DENY_MODEL|POLICY_DENY_REGION|'
      || 'POLICY_DENY_CONTENT|RATE_LIMITED|SLA_LATENCY_VIOLATION|PROVIDER_ERROR_UPSTREAM|'
      || 'ACCOUNTING_INVARIANT_VIOLATION|x_[a-z0-9_]+)$');
