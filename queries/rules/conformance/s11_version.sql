-- The specification's version is three whole numbers with full stops between them. GenOps §11.3. Fires for each AWU
-- whose genops.spec.version is not, such as `0.1` or `v0.1.0`. Not assessable: whether the runtime implements that
-- version.
-- Judges genops_count_awus.versions, for §9.1 (1).
CREATE RULE genops_11_3_version_format WITH (
  action      = 'notify',
  reason_code = 'x_genops_version_format',
  severity    = 'warning',
  owner       = 'governance',
  ttl         = '5 minutes'
) AS
SELECT a.service_name, a.scope_name, a.scope_version, a.trace_id, a.span_id,
       concat('genops.spec.version is ', a.version) AS message
FROM genops_awus AS a
WHERE NOT a.version ~ '^(0|[1-9][0-9]*)[.](0|[1-9][0-9]*)[.](0|[1-9][0-9]*)$';

-- A runtime declares the exact version that it implements. GenOps §11.1. Fires when one instance of a service (its
-- service.instance.id) declares several through the same instrumentation within an hour (UTC). Not assessable:
-- services without an instance id, where a rolling upgrade has two versions rightly.
-- Judges genops_count_spans.versions_of_instances.
-- lictor: allow(unbounded_subject)
CREATE RULE genops_11_1_one_version WITH (
  action      = 'notify',
  reason_code = 'x_genops_version_several',
  severity    = 'warning',
  owner       = 'governance',
  ttl         = '5 minutes'
) AS
SELECT v.service_name, v.scope_name, v.scope_version, v.instance, window_start, window_end,
       count(DISTINCT v.version) AS observed, 1 AS threshold, 'versions' AS unit,
       concat('declares ', min(v.version), ' and ', max(v.version)) AS message
FROM TUMBLE((
  SELECT s.event_time, s.service_name, s.scope_name, s.scope_version, attr('genops.spec.version') AS version,
         resource_attr('service.instance.id') AS instance
  FROM spans AS s
  WHERE attr('genops.spec.version') IS NOT NULL AND resource_attr('service.instance.id') IS NOT NULL
), event_time, INTERVAL '1 hour') AS v
GROUP BY v.service_name, v.scope_name, v.scope_version, v.instance, window_start, window_end
HAVING count(DISTINCT v.version) > 1
EMIT ON UPDATE;
