-- Required attributes are not empty, placeholders or meaningless. GenOps §9.1 (8). Fires for each AWU on which one is
-- empty or a word that says nothing (`unknown`, `default`, `n/a`, …), or a number is none (NaN, infinite). To tune:
-- the words. Result, reason code and version have rules of their own. Not assessable: words that look as if they meant
-- something.
-- Judges genops_count_awus.awus, for §9.1 (8).
CREATE RULE genops_9_1_8_meaningful_values WITH (
  action      = 'notify',
  reason_code = 'x_genops_placeholder',
  severity    = 'warning',
  owner       = 'governance',
  ttl         = '5 minutes'
) AS
SELECT found.service_name, found.scope_name, found.scope_version, found.trace_id, found.span_id,
       found.faults AS message
FROM (
  SELECT a.service_name, a.scope_name, a.scope_version, a.trace_id, a.span_id,
         concat_ws('; ',
           CASE WHEN lower(trim(a.team)) ~ a.nothing THEN 'genops.team says nothing' END,
           CASE WHEN lower(trim(a.project)) ~ a.nothing THEN 'genops.project says nothing' END,
           CASE WHEN lower(trim(a.environment)) ~ a.nothing THEN 'genops.environment says nothing' END,
           CASE WHEN lower(trim(a.operation)) ~ a.nothing THEN 'genops.operation.name says nothing' END,
           CASE WHEN lower(trim(a.operation_type)) ~ a.nothing THEN 'genops.operation.type says nothing' END,
           CASE WHEN lower(trim(a.unit)) ~ a.nothing THEN 'genops.accounting.unit says nothing' END,
           CASE WHEN NOT coalesce(abs(TRY_CAST(a.reserved AS DOUBLE)) < 1e300, true)
                THEN 'genops.accounting.reserved is not finite' END,
           CASE WHEN NOT coalesce(abs(TRY_CAST(a.actual AS DOUBLE)) < 1e300, true)
                THEN 'genops.accounting.actual is not finite' END) AS faults
  FROM (
    SELECT *, '^(|-|[?]|unknown|none|null|nil|undefined|n/?a|default|todo|tbd|placeholder|changeme|example)$' AS nothing
    FROM genops_awus
  ) AS a
) AS found
WHERE found.faults <> '';
