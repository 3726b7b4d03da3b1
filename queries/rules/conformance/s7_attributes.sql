-- Every AWU has team, project, environment, operation name and type, policy result and specification version. GenOps
-- §7.1, §2.3, §4.2 and §9.1 (1). Fires for each AWU that lacks one; what its resource or scope says counts as said.
-- Judges genops_count_awus.awus, for §9.1 (1).
CREATE RULE genops_7_1_required_attributes WITH (
  action      = 'notify',
  reason_code = 'x_genops_attribute_missing',
  severity    = 'warning',
  owner       = 'governance',
  ttl         = '5 minutes'
) AS
SELECT found.service_name, found.scope_name, found.scope_version, found.trace_id, found.span_id,
       found.faults AS message
FROM (
  SELECT a.service_name, a.scope_name, a.scope_version, a.trace_id, a.span_id,
         concat_ws('; ',
           CASE WHEN a.team IS NULL THEN 'genops.team is missing' END,
           CASE WHEN a.project IS NULL THEN 'genops.project is missing' END,
           CASE WHEN a.environment IS NULL THEN 'genops.environment is missing' END,
           CASE WHEN a.operation IS NULL THEN 'genops.operation.name is missing' END,
           CASE WHEN a.operation_type IS NULL THEN 'genops.operation.type is missing' END,
           CASE WHEN a.result IS NULL THEN 'genops.policy.result is missing' END,
           CASE WHEN a.version IS NULL THEN 'genops.spec.version is missing' END) AS faults
  FROM genops_awus AS a
) AS found
WHERE found.faults <> '';

-- An AWU that reaches reservation says what it reserved, in what unit; one that was stopped before need not. GenOps
-- §7.1, §3.2 and §3.4. An AWU that was let through has reached it, and one that bears either or an actual. Fires for
-- each that lacks one.
-- Judges genops_count_awus.reserving, for §9.1 (2).
CREATE RULE genops_7_1_reservation_attributes WITH (
  action      = 'notify',
  reason_code = 'x_genops_reservation_missing',
  severity    = 'warning',
  owner       = 'governance',
  ttl         = '5 minutes'
) AS
SELECT found.service_name, found.scope_name, found.scope_version, found.trace_id, found.span_id,
       found.faults AS message
FROM (
  SELECT a.service_name, a.scope_name, a.scope_version, a.trace_id, a.span_id,
         concat_ws('; ',
           CASE WHEN a.reserved IS NULL THEN 'genops.accounting.reserved is missing' END,
           CASE WHEN a.unit IS NULL THEN 'genops.accounting.unit is missing' END) AS faults
  FROM genops_awus AS a
  WHERE a.passes OR coalesce(a.reserved, a.actual, a.unit) IS NOT NULL
) AS found
WHERE found.faults <> '';

-- An AWU whose execution is complete says what it consumed. GenOps §7.1 and §3.3 (2). Fires for each AWU that was
-- executed and has none; one that was let through and did not end with an error counts as executed. Not assessable:
-- AWUs that were stopped before execution and do not end with an error.
-- Judges genops_count_awus.executed, for §9.1 (2).
CREATE RULE genops_7_1_actual_attribute WITH (
  action      = 'notify',
  reason_code = 'x_genops_actual_missing',
  severity    = 'warning',
  owner       = 'governance',
  ttl         = '5 minutes'
) AS
SELECT a.service_name, a.scope_name, a.scope_version, a.trace_id, a.span_id,
       'executed, and genops.accounting.actual is missing' AS message
FROM genops_awus AS a
WHERE a.executed AND a.actual IS NULL;

-- Attributes have the type that the specification gives them. GenOps §7.1, §7.3, §6.3 and §11. Fires for each span on
-- which one of its number, integer or boolean attributes cannot be read as such. Not assessable: an integer where a
-- double is due and a number written as a string, which attr() shows as the same text; what should be a string and is
-- something else.
-- Judges genops_count_awus.awus, for §9.1 (1).
CREATE RULE genops_7_1_attribute_types WITH (
  action      = 'notify',
  reason_code = 'x_genops_attribute_type',
  severity    = 'warning',
  owner       = 'governance',
  ttl         = '5 minutes'
) AS
SELECT found.service_name, found.scope_name, found.scope_version, found.trace_id, found.span_id,
       found.faults AS message
FROM (
  SELECT s.service_name, s.scope_name, s.scope_version, s.trace_id, s.span_id,
         concat_ws('; ',
           CASE WHEN s.accounting_reserved IS NOT NULL AND TRY_CAST(s.accounting_reserved AS DOUBLE) IS NULL
                THEN 'genops.accounting.reserved is no number' END,
           CASE WHEN s.accounting_actual IS NOT NULL AND TRY_CAST(s.accounting_actual AS DOUBLE) IS NULL
                THEN 'genops.accounting.actual is no number' END,
           CASE WHEN s.delta IS NOT NULL AND TRY_CAST(s.delta AS DOUBLE) IS NULL
                THEN 'genops.accounting.reconciliation_delta is no number' END,
           CASE WHEN s.budget_allocated IS NOT NULL AND TRY_CAST(s.budget_allocated AS DOUBLE) IS NULL
                THEN 'genops.budget.allocated is no number' END,
           CASE WHEN s.budget_consumed IS NOT NULL AND TRY_CAST(s.budget_consumed AS DOUBLE) IS NULL
                THEN 'genops.budget.consumed is no number' END,
           CASE WHEN s.budget_remaining IS NOT NULL AND TRY_CAST(s.budget_remaining AS DOUBLE) IS NULL
                THEN 'genops.budget.remaining is no number' END,
           CASE WHEN s.cost_total IS NOT NULL AND TRY_CAST(s.cost_total AS DOUBLE) IS NULL
                THEN 'genops.cost.total is no number' END,
           CASE WHEN s.eval_score IS NOT NULL AND TRY_CAST(s.eval_score AS DOUBLE) IS NULL
                THEN 'genops.eval.score is no number' END,
           CASE WHEN s.eval_threshold IS NOT NULL AND TRY_CAST(s.eval_threshold AS DOUBLE) IS NULL
                THEN 'genops.eval.threshold is no number' END,
           CASE WHEN s.tokens_input IS NOT NULL AND TRY_CAST(s.tokens_input AS BIGINT) IS NULL
                THEN 'genops.tokens.input is no whole number' END,
           CASE WHEN s.tokens_output IS NOT NULL AND TRY_CAST(s.tokens_output AS BIGINT) IS NULL
                THEN 'genops.tokens.output is no whole number' END,
           CASE WHEN s.tokens_total IS NOT NULL AND TRY_CAST(s.tokens_total AS BIGINT) IS NULL
                THEN 'genops.tokens.total is no whole number' END,
           CASE WHEN s.policy_timestamp IS NOT NULL AND TRY_CAST(s.policy_timestamp AS BIGINT) IS NULL
                THEN 'genops.policy.timestamp is no whole number' END,
           CASE WHEN s.sla_latency_target_ms IS NOT NULL AND TRY_CAST(s.sla_latency_target_ms AS BIGINT) IS NULL
                THEN 'genops.sla.latency_target_ms is no whole number' END,
           CASE WHEN s.sla_actual_latency_ms IS NOT NULL AND TRY_CAST(s.sla_actual_latency_ms AS BIGINT) IS NULL
                THEN 'genops.sla.actual_latency_ms is no whole number' END,
           CASE WHEN s.eval_passed NOT IN ('true', 'false') THEN 'genops.eval.passed is no boolean' END,
           CASE WHEN s.sla_met NOT IN ('true', 'false') THEN 'genops.sla.met is no boolean' END) AS faults
  FROM (
    SELECT service_name, scope_name, scope_version, trace_id, span_id,
           attr('genops.accounting.reserved')             AS accounting_reserved,
           attr('genops.accounting.actual')               AS accounting_actual,
           attr('genops.accounting.reconciliation_delta') AS delta,
           attr('genops.budget.allocated')                AS budget_allocated,
           attr('genops.budget.consumed')                 AS budget_consumed,
           attr('genops.budget.remaining')                AS budget_remaining,
           attr('genops.cost.total')                      AS cost_total,
           attr('genops.eval.score')                      AS eval_score,
           attr('genops.eval.threshold')                  AS eval_threshold,
           attr('genops.tokens.input')                    AS tokens_input,
           attr('genops.tokens.output')                   AS tokens_output,
           attr('genops.tokens.total')                    AS tokens_total,
           attr('genops.policy.timestamp')                AS policy_timestamp,
           attr('genops.sla.latency_target_ms')           AS sla_latency_target_ms,
           attr('genops.sla.actual_latency_ms')           AS sla_actual_latency_ms,
           attr('genops.eval.passed')                     AS eval_passed,
           attr('genops.sla.met')                         AS sla_met
    FROM spans
  ) AS s
) AS found
WHERE found.faults <> '';
