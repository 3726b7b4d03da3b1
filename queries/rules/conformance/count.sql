-- How much there was for the other rules of this folder to judge, by runtime and hour (UTC): who is not found among
-- nothing has not passed. `lictor conformance` reads them; they ask nothing of anybody (shadow).

-- Counts spans: all of them, those that say that others were sampled away (a threshold in the trace state or in the
-- attributes of the collector's probabilistic sampler, which is not 0; a rate of Honeycomb's), those with a parent in
-- the same process, those on which a service level is enforced, and those of an instance that declare a version.
-- lictor: allow(unbounded_subject)
CREATE RULE genops_count_spans WITH (
  action      = 'notify',
  reason_code = 'x_genops_counted',
  severity    = 'info',
  owner       = 'governance',
  mode        = 'shadow',
  ttl         = '1 minute'
) AS
SELECT c.service_name, c.scope_name, c.scope_version, c.sdk, c.hour, window_start, window_end,
       count(*) AS spans,
       count(*) FILTER (WHERE c.is_sampled) AS sampled,
       count(*) FILTER (WHERE c.is_child) AS children,
       count(c.service_level) AS service_levels,
       count(c.met) AS service_levels_met_or_not,
       count(c.version_of_instance) AS versions_of_instances
FROM TUMBLE((
  SELECT event_time, service_name, scope_name, scope_version,
         concat_ws(' ', resource_attr('telemetry.sdk.name'), resource_attr('telemetry.sdk.language'),
                   resource_attr('telemetry.sdk.version'))                      AS sdk,
         CAST(date_trunc('hour', event_time) AS VARCHAR)                        AS hour,
         coalesce(trace_state ~ 'th:[0-9a-f]*[1-9a-f]', false)
             OR coalesce(attr('sampling.threshold') ~ '[1-9a-f]', false)
             OR coalesce(TRY_CAST(attr('SampleRate') AS DOUBLE) > 1, false)     AS is_sampled,
         parent_span_id IS NOT NULL AND kind IN ('INTERNAL', 'CLIENT', 'PRODUCER') AS is_child,
         coalesce(attr('genops.sla.tier'), attr('genops.sla.latency_target_ms'), attr('genops.sla.actual_latency_ms'),
                  attr('genops.sla.met'))                                       AS service_level,
         attr('genops.sla.met')                                                 AS met,
         CASE WHEN resource_attr('service.instance.id') IS NOT NULL THEN attr('genops.spec.version')
              END                                                               AS version_of_instance
  FROM spans
), event_time, INTERVAL '1 hour') AS c
GROUP BY c.service_name, c.scope_name, c.scope_version, c.sdk, c.hour, window_start, window_end;

-- Counts spans that have a parent in the same process which did not come within an hour: spans are sampled or get lost
-- one by one. A server's or a consumer's parent may be somebody else's and is not missed.
CREATE RULE genops_count_orphans WITH (
  action      = 'notify',
  reason_code = 'x_genops_counted',
  severity    = 'info',
  owner       = 'governance',
  mode        = 'shadow',
  ttl         = '1 minute'
) AS
SELECT c.service_name, c.scope_name, c.scope_version, c.hour, window_start, window_end,
       count(*) AS orphans
FROM TUMBLE((
  SELECT s.event_time, s.service_name, s.scope_name, s.scope_version,
         CAST(date_trunc('hour', s.event_time) AS VARCHAR) AS hour
  FROM (SELECT * FROM spans WHERE parent_span_id IS NOT NULL AND kind IN ('INTERNAL', 'CLIENT', 'PRODUCER')) AS s
  LEFT ANTI JOIN spans AS p ON p.trace_id = s.trace_id AND p.span_id = s.parent_span_id
      AND p.event_time BETWEEN s.event_time - INTERVAL '1 minute' AND s.event_time + INTERVAL '1 hour'
), event_time, INTERVAL '1 hour') AS c
GROUP BY c.service_name, c.scope_name, c.scope_version, c.hour, window_start, window_end;

-- Counts AWUs by what the rules ask of them. One that is reserving has reached reservation; `too_long` are those that
-- lasted longer than awu.sql allows, so that their events are not missed.
-- lictor: allow(unbounded_subject)
CREATE RULE genops_count_awus WITH (
  action      = 'notify',
  reason_code = 'x_genops_counted',
  severity    = 'info',
  owner       = 'governance',
  mode        = 'shadow',
  ttl         = '1 minute'
) AS
SELECT c.service_name, c.scope_name, c.scope_version, c.version, c.carrier, c.hour, window_start, window_end,
       count(*) AS awus,
       count(*) FILTER (WHERE NOT c.in_time) AS too_long,
       count(c.version) AS versions,
       count(c.result) AS decided,
       count(*) FILTER (WHERE c.result = 'ALLOWED') AS allowed,
       count(*) FILTER (WHERE c.result IN ('BLOCKED', 'WARNING', 'RATE_LIMITED')) AS not_allowed,
       count(*) FILTER (WHERE c.result = 'BLOCKED') AS blocked,
       count(nullif(c.reason_code, '')) AS reason_codes,
       count(*) FILTER (WHERE c.reason_code = 'BUDGET_RESERVATION_FAILED') AS failed_reservations,
       count(*) FILTER (WHERE c.reserving) AS reserving,
       count(*) FILTER (WHERE c.executed) AS executed,
       count(*) FILTER (WHERE c.carrier = 'span_event') AS by_span_events,
       count(*) FILTER (WHERE c.carrier = 'log') AS by_log_events,
       count(*) FILTER (WHERE c.carrier = 'span_event' AND c.stopped) AS stopped_by_span_events,
       count(*) FILTER (WHERE c.carrier = 'log' AND c.stopped) AS stopped_by_log_events,
       count(*) FILTER (WHERE c.in_time AND c.carrier = 'span_event' AND c.reserving) AS reserving_by_span_events,
       count(*) FILTER (WHERE c.in_time AND c.carrier = 'log' AND c.reserving) AS reserving_by_log_events,
       count(*) FILTER (WHERE c.in_time AND c.carrier = 'span_event' AND c.executed) AS executed_by_span_events,
       count(*) FILTER (WHERE c.in_time AND c.carrier = 'log' AND c.executed) AS executed_by_log_events,
       count(c.result) FILTER (WHERE c.in_time AND c.carrier = 'span_event') AS decided_by_span_events,
       count(c.result) FILTER (WHERE c.in_time AND c.carrier = 'log') AS decided_by_log_events
FROM TUMBLE((
  SELECT *,
         CAST(date_trunc('hour', event_time) AS VARCHAR)                        AS hour,
         coalesce(passes, false) OR coalesce(reserved, actual, unit) IS NOT NULL AS reserving,
         result = 'BLOCKED'
             OR (result = 'RATE_LIMITED' AND coalesce(TRY_CAST(actual AS DOUBLE), 0) = 0) AS stopped
  FROM genops_carried_awus
), event_time, INTERVAL '1 hour') AS c
GROUP BY c.service_name, c.scope_name, c.scope_version, c.version, c.carrier, c.hour, window_start, window_end;

-- Counts span events with a name of GenOps by what they say.
CREATE RULE genops_count_span_events WITH (
  action      = 'notify',
  reason_code = 'x_genops_counted',
  severity    = 'info',
  owner       = 'governance',
  mode        = 'shadow',
  ttl         = '1 minute'
) AS
SELECT c.service_name, c.scope_name, c.scope_version, c.hour, window_start, window_end,
       count(*) AS events,
       count(*) FILTER (WHERE c.event = 'genops.policy.evaluated') AS decisions,
       count(*) FILTER (WHERE c.event = 'genops.budget.reservation') AS reservations,
       count(*) FILTER (WHERE c.event = 'genops.budget.reconciliation') AS reconciliations,
       count(*) FILTER (WHERE c.event IN ('genops.policy.evaluated', 'genops.budget.reservation')) AS preparations,
       count(c.delta) FILTER (WHERE c.event = 'genops.budget.reconciliation') AS deltas,
       count(*) FILTER (WHERE c.event IN ('genops.cost.calculated', 'genops.budget.alert',
                                          'genops.evaluation.complete'))                AS optional,
       count(*) FILTER (WHERE c.is_sampled) AS sampled
FROM TUMBLE((
  SELECT *, CAST(date_trunc('hour', event_time) AS VARCHAR) AS hour
  FROM genops_span_events
), event_time, INTERVAL '1 hour') AS c
GROUP BY c.service_name, c.scope_name, c.scope_version, c.hour, window_start, window_end;

-- Counts log records with an event name of GenOps by what they say.
CREATE RULE genops_count_log_events WITH (
  action      = 'notify',
  reason_code = 'x_genops_counted',
  severity    = 'info',
  owner       = 'governance',
  mode        = 'shadow',
  ttl         = '1 minute'
) AS
SELECT c.service_name, c.scope_name, c.scope_version, c.hour, window_start, window_end,
       count(*) AS events,
       count(*) FILTER (WHERE c.event = 'genops.policy.evaluated') AS decisions,
       count(*) FILTER (WHERE c.event = 'genops.budget.reservation') AS reservations,
       count(*) FILTER (WHERE c.event = 'genops.budget.reconciliation') AS reconciliations,
       count(*) FILTER (WHERE c.event IN ('genops.policy.evaluated', 'genops.budget.reservation')) AS preparations,
       count(c.delta) FILTER (WHERE c.event = 'genops.budget.reconciliation') AS deltas,
       count(*) FILTER (WHERE c.event IN ('genops.cost.calculated', 'genops.budget.alert',
                                          'genops.evaluation.complete'))                AS optional,
       count(*) FILTER (WHERE c.is_sampled) AS sampled
FROM TUMBLE((
  SELECT *, CAST(date_trunc('hour', event_time) AS VARCHAR) AS hour
  FROM genops_log_events
), event_time, INTERVAL '1 hour') AS c
GROUP BY c.service_name, c.scope_name, c.scope_version, c.hour, window_start, window_end;
