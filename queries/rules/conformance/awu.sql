-- What the rules of this folder read: the AI Workload Units (AWU) of the GenOps Governance Specification 0.1.0, and
-- their events. Values are text as attr() gives it, so that what was sent is judged and not what lictor makes of it.

-- How a service sends its GenOps events: 'span_event' or 'log'. The specification leaves it open, and an event that is
-- missed is missed where it should have been. A service that is not in the table is taken to use span events.
CREATE EXTERNAL TABLE event_carriers (service VARCHAR, carrier VARCHAR) STORED AS CSV LOCATION 'event_carriers.csv';

-- A span is an AWU if it claims to be one: if it bears an operation, accounting, policy or version attribute of §7.1
-- itself. Team, project and environment alone are no claim, since instrumentations put them on every span, and neither
-- is what only a resource says. An AWU counts as executed if it was let through and did not end with an error, or shows
-- consumption all the same.
CREATE VIEW genops_awus AS
SELECT awu.*,
       awu.result IN ('ALLOWED', 'WARNING') AS passes,
       awu.result IN ('ALLOWED', 'WARNING')
           AND (awu.status_code <> 'ERROR' OR awu.actual IS NOT NULL OR coalesce(awu.output_tokens, 0) > 0) AS executed
FROM (
  SELECT s.event_time, s.start_time, s.service_name, s.scope_name, s.scope_version, s.trace_id, s.span_id, s.name,
         s.status_code, s.duration_ms, s.output_tokens, s.kafka_partition, s.kafka_offset,
         attr('genops.team')                AS team,
         attr('genops.project')             AS project,
         attr('genops.environment')         AS environment,
         attr('genops.operation.name')      AS operation,
         attr('genops.operation.type')      AS operation_type,
         attr('genops.accounting.reserved') AS reserved,
         attr('genops.accounting.actual')   AS actual,
         attr('genops.accounting.unit')     AS unit,
         attr('genops.policy.result')       AS result,
         attr('genops.policy.reason_code')  AS reason_code,
         attr('genops.spec.version')        AS version
  FROM spans AS s
  WHERE coalesce(attr('genops.operation.name'), attr('genops.operation.type'), attr('genops.accounting.reserved'),
                 attr('genops.accounting.actual'), attr('genops.accounting.unit'), attr('genops.policy.result'),
                 attr('genops.policy.reason_code'),
                 nullif(attr('genops.spec.version'), resource_attr('genops.spec.version'))) IS NOT NULL
) AS awu;

-- Span events and log records with a name of GenOps. Team, project and environment are what the event itself says.
CREATE VIEW genops_span_events AS
SELECT e.event_time, e.service_name, e.scope_name, e.scope_version, e.trace_id, e.span_id, e.name AS event,
       e.kafka_partition, e.kafka_offset,
       coalesce(attr('sampling.threshold') ~ '[1-9a-f]', false) AS is_sampled,
       attr('genops.policy.result')                 AS result,
       attr('genops.policy.reason_code')            AS reason_code,
       attr('genops.accounting.reserved')           AS reserved,
       attr('genops.accounting.actual')             AS actual,
       attr('genops.accounting.unit')               AS unit,
       attr('genops.accounting.reconciliation_delta')AS delta,
       attr('genops.cost.total')                    AS cost,
       attr('genops.cost.currency')                 AS currency,
       attr('genops.budget.name')                   AS budget,
       attr('genops.budget.consumed')               AS consumed,
       attr('genops.budget.allocated')              AS allocated,
       attr('genops.eval.metric')                   AS metric,
       attr('genops.eval.score')                    AS score,
       nullif(attr('genops.team'), resource_attr('genops.team')) AS team,
       nullif(attr('genops.project'), resource_attr('genops.project')) AS project,
       nullif(attr('genops.environment'), resource_attr('genops.environment')) AS environment
FROM span_events AS e
WHERE starts_with(e.name, 'genops.');

CREATE VIEW genops_log_events AS
SELECT e.event_time, e.service_name, e.scope_name, e.scope_version, e.trace_id, e.span_id, e.event_name AS event,
       e.kafka_partition, e.kafka_offset,
       coalesce(attr('sampling.threshold') ~ '[1-9a-f]', false) AS is_sampled,
       attr('genops.policy.result')                 AS result,
       attr('genops.policy.reason_code')            AS reason_code,
       attr('genops.accounting.reserved')           AS reserved,
       attr('genops.accounting.actual')             AS actual,
       attr('genops.accounting.unit')               AS unit,
       attr('genops.accounting.reconciliation_delta')AS delta,
       attr('genops.cost.total')                    AS cost,
       attr('genops.cost.currency')                 AS currency,
       attr('genops.budget.name')                   AS budget,
       attr('genops.budget.consumed')               AS consumed,
       attr('genops.budget.allocated')              AS allocated,
       attr('genops.eval.metric')                   AS metric,
       attr('genops.eval.score')                    AS score,
       nullif(attr('genops.team'), resource_attr('genops.team')) AS team,
       nullif(attr('genops.project'), resource_attr('genops.project')) AS project,
       nullif(attr('genops.environment'), resource_attr('genops.environment')) AS environment
FROM logs AS e
WHERE starts_with(e.event_name, 'genops.');

-- AWUs with where their events should be, and whether all of these can be here when the AWU is judged (in_time).
-- A span event comes with its span, when that has ended, so that events from the beginning of a long AWU may be older,
-- beside other rows of the partition, than time.lateness (10 s) allows, and are then left out. That nobody is accused
-- of what was only late, events are not missed on an AWU that lasted longer than 5 s; the other 5 s are for exporters
-- that send in batches. Log records come by themselves: they are not missed on one that lasted longer than 10 minutes.
-- To judge AWUs of up to 10 minutes by span events set time.lateness to 11m, and here 5000 to 600000 and the bound of
-- genops_awus_by_span_events to 11 minutes.
CREATE VIEW genops_carried_awus AS
SELECT s.*,
       coalesce(c.carrier, 'span_event') AS carrier,
       s.duration_ms <= CASE c.carrier WHEN 'log' THEN 600000 ELSE 5000 END AS in_time
FROM genops_awus AS s
LEFT JOIN event_carriers AS c ON c.service = s.service_name;

-- One row per AWU with what its events say, by the minute in which it ended; of services that use span events.
CREATE VIEW genops_awus_by_span_events AS
SELECT j.service_name, j.scope_name, j.scope_version, j.trace_id, j.span_id, window_start, window_end,
       bool_or(j.passes) AS passes,
       bool_or(j.executed) AS executed,
       bool_or(j.in_time) AS in_time,
       max(j.result) AS result,
       max(j.reserved) AS reserved,
       max(j.actual) AS actual,
       count(*) FILTER (WHERE j.event = 'genops.policy.evaluated') AS decisions,
       count(*) FILTER (WHERE j.event = 'genops.policy.evaluated' AND j.event_result = j.result) AS same_decisions,
       count(*) FILTER (WHERE j.event = 'genops.policy.evaluated' AND j.event_result <> j.result
                          AND j.event_result IN ('ALLOWED', 'BLOCKED', 'WARNING', 'RATE_LIMITED')) AS other_decisions,
       count(*) FILTER (WHERE j.event = 'genops.budget.reservation') AS reservations,
       count(*) FILTER (WHERE j.event = 'genops.budget.reconciliation') AS reconciliations,
       count(*) FILTER (WHERE j.event_team <> j.team OR j.event_project <> j.project
                           OR j.event_environment <> j.environment) AS reattributed,
       max(j.happened) FILTER (WHERE j.event IN ('genops.policy.evaluated', 'genops.budget.reservation')) AS prepared,
       min(j.happened) FILTER (WHERE j.event = 'genops.budget.reconciliation') AS reconciled,
       max(j.event_reserved) FILTER (WHERE j.event = 'genops.budget.reservation') AS first_reserved,
       max(j.event_reserved) FILTER (WHERE j.event = 'genops.budget.reconciliation') AS last_reserved,
       max(j.event_unit) FILTER (WHERE j.event = 'genops.budget.reservation') AS first_unit,
       max(j.event_unit) FILTER (WHERE j.event = 'genops.budget.reconciliation') AS last_unit,
       max(j.event_actual) FILTER (WHERE j.event = 'genops.budget.reconciliation') AS last_actual
FROM TUMBLE((
  SELECT s.*, e.event, e.event_time AS happened, e.result AS event_result,
         e.team AS event_team, e.project AS event_project, e.environment AS event_environment,
         e.reserved AS event_reserved, e.unit AS event_unit, e.actual AS event_actual
  FROM (SELECT * FROM genops_carried_awus WHERE carrier = 'span_event') AS s
  LEFT JOIN genops_span_events AS e ON e.trace_id = s.trace_id AND e.span_id = s.span_id
      AND e.event_time BETWEEN s.event_time - INTERVAL '1 minute' AND s.event_time
), event_time, INTERVAL '1 minute') AS j
GROUP BY j.service_name, j.scope_name, j.scope_version, j.trace_id, j.span_id, window_start, window_end;

-- The same of services that use log records, which come by themselves: up to ten minutes before the AWU ends, and a
-- minute after that.
CREATE VIEW genops_awus_by_log_events AS
SELECT j.service_name, j.scope_name, j.scope_version, j.trace_id, j.span_id, window_start, window_end,
       bool_or(j.passes) AS passes,
       bool_or(j.executed) AS executed,
       bool_or(j.in_time) AS in_time,
       max(j.result) AS result,
       max(j.reserved) AS reserved,
       max(j.actual) AS actual,
       count(*) FILTER (WHERE j.event = 'genops.policy.evaluated') AS decisions,
       count(*) FILTER (WHERE j.event = 'genops.policy.evaluated' AND j.event_result = j.result) AS same_decisions,
       count(*) FILTER (WHERE j.event = 'genops.policy.evaluated' AND j.event_result <> j.result
                          AND j.event_result IN ('ALLOWED', 'BLOCKED', 'WARNING', 'RATE_LIMITED')) AS other_decisions,
       count(*) FILTER (WHERE j.event = 'genops.budget.reservation') AS reservations,
       count(*) FILTER (WHERE j.event = 'genops.budget.reconciliation') AS reconciliations,
       count(*) FILTER (WHERE j.event_team <> j.team OR j.event_project <> j.project
                           OR j.event_environment <> j.environment) AS reattributed,
       max(j.happened) FILTER (WHERE j.event IN ('genops.policy.evaluated', 'genops.budget.reservation')) AS prepared,
       min(j.happened) FILTER (WHERE j.event = 'genops.budget.reconciliation') AS reconciled,
       max(j.event_reserved) FILTER (WHERE j.event = 'genops.budget.reservation') AS first_reserved,
       max(j.event_reserved) FILTER (WHERE j.event = 'genops.budget.reconciliation') AS last_reserved,
       max(j.event_unit) FILTER (WHERE j.event = 'genops.budget.reservation') AS first_unit,
       max(j.event_unit) FILTER (WHERE j.event = 'genops.budget.reconciliation') AS last_unit,
       max(j.event_actual) FILTER (WHERE j.event = 'genops.budget.reconciliation') AS last_actual
FROM TUMBLE((
  SELECT s.*, e.event, e.event_time AS happened, e.result AS event_result,
         e.team AS event_team, e.project AS event_project, e.environment AS event_environment,
         e.reserved AS event_reserved, e.unit AS event_unit, e.actual AS event_actual
  FROM (SELECT * FROM genops_carried_awus WHERE carrier = 'log') AS s
  LEFT JOIN genops_log_events AS e ON e.trace_id = s.trace_id AND e.span_id = s.span_id
      AND e.event_time BETWEEN s.event_time - INTERVAL '10 minutes' AND s.event_time + INTERVAL '1 minute'
), event_time, INTERVAL '1 minute') AS j
GROUP BY j.service_name, j.scope_name, j.scope_version, j.trace_id, j.span_id, window_start, window_end;
