-- A decision is ALLOWED, BLOCKED, WARNING or RATE_LIMITED, in these letters. GenOps §4.1 and §9.1 (4). Fires for each
-- AWU whose genops.policy.result is another word, such as `allowed`.
-- Judges genops_count_awus.decided, for §9.1 (4).
CREATE RULE genops_4_1_decision_state WITH (
  action      = 'notify',
  reason_code = 'x_genops_decision_state',
  severity    = 'warning',
  owner       = 'governance',
  ttl         = '5 minutes'
) AS
SELECT a.service_name, a.scope_name, a.scope_version, a.trace_id, a.span_id,
       concat('genops.policy.result is ', a.result) AS message
FROM genops_awus AS a
WHERE a.result NOT IN ('ALLOWED', 'BLOCKED', 'WARNING', 'RATE_LIMITED');

-- An AWU that is BLOCKED must not proceed. GenOps §4.1 and §3.5. Fires when a blocked AWU's span bears output tokens,
-- or a genops.accounting.actual above zero. Not assessable: consumption that is not on the span.
-- Judges genops_count_awus.blocked, for §9.1 (2).
CREATE RULE genops_4_1_blocked_proceeds WITH (
  action      = 'notify',
  reason_code = 'ACCOUNTING_INVARIANT_VIOLATION',
  severity    = 'error',
  owner       = 'governance',
  ttl         = '5 minutes'
) AS
SELECT a.service_name, a.scope_name, a.scope_version, a.trace_id, a.span_id,
       concat('blocked for ', coalesce(a.reason_code, 'no reason'), ', and it consumed all the same') AS message
FROM genops_awus AS a
WHERE a.result = 'BLOCKED' AND (TRY_CAST(a.actual AS DOUBLE) > 0 OR a.output_tokens > 0);

-- An AWU that is BLOCKED must not proceed. GenOps §4.1 and §3.5. Fires when a direct child span of a blocked AWU bears
-- tokens. Not assessable: grandchildren, children that ended more than ten minutes before the AWU or come in more than
-- a minute after it, and children that were sampled away.
-- Judges genops_count_awus.blocked, for §9.1 (2).
CREATE RULE genops_4_1_blocked_child_proceeds WITH (
  action      = 'notify',
  reason_code = 'ACCOUNTING_INVARIANT_VIOLATION',
  severity    = 'error',
  owner       = 'governance',
  ttl         = '5 minutes'
) AS
SELECT a.service_name, a.scope_name, a.scope_version, a.trace_id, a.span_id,
       concat('blocked, and its child span used ', c.total_tokens, ' tokens') AS message
FROM (SELECT * FROM genops_awus WHERE result = 'BLOCKED') AS a
JOIN (SELECT * FROM spans WHERE total_tokens > 0) AS c ON c.trace_id = a.trace_id AND c.parent_span_id = a.span_id
    AND c.event_time BETWEEN a.event_time - INTERVAL '10 minutes' AND a.event_time + INTERVAL '1 minute';

-- A decision that is recorded is not modified; another outcome is another decision event. GenOps §4.3. Fires when an
-- AWU's span says a result that none of its genops.policy.evaluated events has. Not assessable: AWUs that lasted
-- longer than awu.sql allows or have no such event, and words that are no decision (rules of §4.1 and §8.1).
-- Judges genops_count_span_events.decisions; absence.
CREATE RULE genops_4_3_decision_modified WITH (
  action      = 'notify',
  reason_code = 'x_genops_decision_modified',
  severity    = 'warning',
  owner       = 'governance',
  ttl         = '5 minutes'
) AS
SELECT a.service_name, a.scope_name, a.scope_version, a.trace_id, a.span_id,
       a.window_start, a.window_end,
       concat('the span says ', a.result, ', no decision event does') AS message
FROM genops_awus_by_span_events AS a
WHERE a.in_time AND a.other_decisions > 0 AND a.same_decisions = 0
  AND a.result IN ('ALLOWED', 'BLOCKED', 'WARNING', 'RATE_LIMITED');

-- As genops_4_3_decision_modified, of services whose events are log records.
-- Judges genops_count_log_events.decisions; absence.
CREATE RULE genops_4_3_decision_modified_log WITH (
  action      = 'notify',
  reason_code = 'x_genops_decision_modified',
  severity    = 'warning',
  owner       = 'governance',
  ttl         = '5 minutes'
) AS
SELECT a.service_name, a.scope_name, a.scope_version, a.trace_id, a.span_id,
       a.window_start, a.window_end,
       concat('the span says ', a.result, ', no decision event does') AS message
FROM genops_awus_by_log_events AS a
WHERE a.in_time AND a.other_decisions > 0 AND a.same_decisions = 0
  AND a.result IN ('ALLOWED', 'BLOCKED', 'WARNING', 'RATE_LIMITED');

-- No decision without an AWU. GenOps §4.4. Fires when a genops.policy.evaluated event lies on a span that is no AWU,
-- once an hour has passed, since a span's end is later than its events. Not assessable: AWUs that last longer than an
-- hour.
-- Judges genops_count_span_events.decisions; absence.
CREATE RULE genops_4_4_parent_awu WITH (
  action      = 'notify',
  reason_code = 'x_genops_no_awu',
  severity    = 'warning',
  owner       = 'governance',
  ttl         = '5 minutes'
) AS
SELECT e.service_name, e.scope_name, e.scope_version, e.trace_id, e.span_id,
       'a decision on a span that is no AWU' AS message
FROM (SELECT * FROM genops_span_events WHERE event = 'genops.policy.evaluated') AS e
LEFT ANTI JOIN genops_awus AS a ON a.trace_id = e.trace_id AND a.span_id = e.span_id
    AND a.event_time BETWEEN e.event_time AND e.event_time + INTERVAL '1 hour';

-- No decision without an AWU. GenOps §4.4. Fires when the span that a genops.policy.evaluated log record names has not
-- come within an hour, or the record names none. Not assessable if traces are sampled: the AWU's span is then missing
-- for another reason; leave the rule out. Nor are AWUs that last longer than an hour.
-- Judges genops_count_log_events.decisions; absence.
CREATE RULE genops_4_4_parent_awu_log WITH (
  action      = 'notify',
  reason_code = 'x_genops_no_awu',
  severity    = 'warning',
  owner       = 'governance',
  ttl         = '5 minutes'
) AS
SELECT e.service_name, e.scope_name, e.scope_version, e.trace_id, e.span_id,
       'a decision of which no AWU is known' AS message
FROM (SELECT * FROM genops_log_events WHERE event = 'genops.policy.evaluated') AS e
LEFT ANTI JOIN genops_awus AS a ON a.trace_id = e.trace_id AND a.span_id = e.span_id
    AND a.event_time BETWEEN e.event_time - INTERVAL '1 minute' AND e.event_time + INTERVAL '1 hour';
