-- An identifier must not be used twice. GenOps §2.2. Fires when two AWUs with one trace id and span id differ in start
-- or name within an hour (UTC); the same span sent again is none. Not assessable: what is used again in another hour,
-- or only by spans that were sampled away.
-- Judges genops_count_awus.awus, for §9.1 (6).
-- lictor: allow(unbounded_subject)
CREATE RULE genops_2_2_identifier_reused WITH (
  action      = 'notify',
  reason_code = 'x_genops_identifier_reused',
  severity    = 'error',
  owner       = 'governance',
  ttl         = '5 minutes'
) AS
SELECT a.trace_id, a.span_id, window_start, window_end,
       count(DISTINCT concat(a.name, ' ', a.start_time)) AS observed, 1 AS threshold, 'AWUs' AS unit,
       'AWUs that differ in name or start have the same trace id and span id' AS message,
       min(a.service_name) AS service_name, min(a.scope_name) AS scope_name, min(a.scope_version) AS scope_version
FROM TUMBLE(genops_awus, event_time, INTERVAL '1 hour') AS a
GROUP BY a.trace_id, a.span_id, window_start, window_end
HAVING count(DISTINCT concat(a.name, ' ', a.start_time)) > 1
EMIT ON UPDATE;

-- Team, project and environment of an AWU do not change while it lasts. GenOps §2.3. Fires when an event of the AWU
-- says another one than its span. Not assessable: what events do not repeat, and a change before the span was sent;
-- the span has one value only.
-- Judges genops_count_awus.by_span_events, for §9.1 (7).
CREATE RULE genops_2_3_attribution_immutable WITH (
  action      = 'notify',
  reason_code = 'x_genops_attribution_changed',
  severity    = 'warning',
  owner       = 'governance',
  ttl         = '5 minutes'
) AS
SELECT a.service_name, a.scope_name, a.scope_version, a.trace_id, a.span_id,
       a.window_start, a.window_end,
       concat(a.reattributed, ' events say another team, project or environment than their AWU') AS message
FROM genops_awus_by_span_events AS a
WHERE a.reattributed > 0;

-- As genops_2_3_attribution_immutable, of services whose events are log records.
-- Judges genops_count_awus.by_log_events, for §9.1 (7).
CREATE RULE genops_2_3_attribution_immutable_log WITH (
  action      = 'notify',
  reason_code = 'x_genops_attribution_changed',
  severity    = 'warning',
  owner       = 'governance',
  ttl         = '5 minutes'
) AS
SELECT a.service_name, a.scope_name, a.scope_version, a.trace_id, a.span_id,
       a.window_start, a.window_end,
       concat(a.reattributed, ' events say another team, project or environment than their AWU') AS message
FROM genops_awus_by_log_events AS a
WHERE a.reattributed > 0;
