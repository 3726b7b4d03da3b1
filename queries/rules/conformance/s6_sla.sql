-- AWUs on which a service level is enforced.
CREATE VIEW genops_sla AS
SELECT s.event_time, s.service_name, s.scope_name, s.scope_version, s.trace_id, s.span_id,
       attr('genops.sla.tier')              AS tier,
       attr('genops.sla.latency_target_ms') AS target,
       attr('genops.sla.actual_latency_ms') AS actual_ms,
       attr('genops.sla.met')               AS met
FROM spans AS s
WHERE coalesce(attr('genops.sla.tier'), attr('genops.sla.latency_target_ms'), attr('genops.sla.actual_latency_ms'),
               attr('genops.sla.met')) IS NOT NULL;

-- Where a service level is enforced, tier, latency_target_ms, actual_latency_ms and met are all there. GenOps §6.3.
-- Fires for each span that has some and not all. Not assessable: enforcement of which the span says nothing.
-- Judges genops_count_spans.service_levels.
CREATE RULE genops_6_3_sla_attributes WITH (
  action      = 'notify',
  reason_code = 'x_genops_sla_incomplete',
  severity    = 'warning',
  owner       = 'governance',
  ttl         = '5 minutes'
) AS
SELECT found.service_name, found.scope_name, found.scope_version, found.trace_id, found.span_id,
       found.faults AS message
FROM (
  SELECT a.service_name, a.scope_name, a.scope_version, a.trace_id, a.span_id,
         concat_ws('; ',
           CASE WHEN coalesce(a.tier, '') = '' THEN 'genops.sla.tier is missing' END,
           CASE WHEN coalesce(a.target, '') = '' THEN 'genops.sla.latency_target_ms is missing' END,
           CASE WHEN coalesce(a.actual_ms, '') = '' THEN 'genops.sla.actual_latency_ms is missing' END,
           CASE WHEN coalesce(a.met, '') = '' THEN 'genops.sla.met is missing' END) AS faults
  FROM genops_sla AS a
) AS found
WHERE found.faults <> '';

-- Met is true if the actual latency is at most the target, else false. GenOps §6.3. Fires for each span whose three
-- values contradict each other.
-- Judges genops_count_spans.service_levels_met_or_not.
CREATE RULE genops_6_3_sla_met WITH (
  action      = 'notify',
  reason_code = 'x_genops_sla_inconsistent',
  severity    = 'warning',
  owner       = 'governance',
  ttl         = '5 minutes'
) AS
SELECT a.service_name, a.scope_name, a.scope_version, a.trace_id, a.span_id,
       concat('genops.sla.met is ', a.met, ' at ', a.actual_ms, ' of ', a.target, ' ms') AS message
FROM genops_sla AS a
WHERE a.met IN ('true', 'false')
  AND (a.met = 'true') <> (TRY_CAST(a.actual_ms AS BIGINT) <= TRY_CAST(a.target AS BIGINT));
