-- Fires when an agent's context grows with every step: from eight calls on, the input tokens of a session follow time
-- in a straight line upwards (R² of at least 90 %), and the largest call has 50,000 of them. Each step then pays for
-- all steps before it, so that the session's cost grows with the square of its length.
-- A controller tells the owners, or has the agent compact its context; nothing is stopped. The directive goes when the
-- context has been compacted, or the session is over, fifteen minutes after its last call.
-- False alarms: reading one long document step by step looks the same. Agents that take turns in one session are
-- looked at one by one, by their names; without names they blur the line, and nothing is said. State: five moments per
-- agent and session.
-- To tune: the numbers 8, 50000 and 0.9. It has each record of spans judged by itself, as session_step_limit does.
CREATE RULE context_snowball WITH (
  action      = 'warn',
  reason_code = 'x_context_growth',
  severity    = 'warning',
  owner       = 'platform'
) AS
SELECT grown.team,
       grown.session_id,
       grown.agent_name,
       grown.window_start,
       grown.window_end,
       grown.tokens AS observed,
       50000 AS threshold,
       'input tokens of a call' AS unit,
       concat('the context of session ', grown.session_id, ' grows by ', TRY_CAST(60 * grown.slope AS BIGINT),
              ' tokens a minute and has reached ', grown.tokens) AS message,
       grown.steps,
       grown.r2
FROM (
  SELECT s.team, s.session_id, s.agent_name, window_start, window_end,
         count(*) AS steps, max(s.input_tokens) AS tokens,
         regr_slope(CAST(s.input_tokens AS DOUBLE), CAST(to_unixtime(s.event_time) AS DOUBLE)) AS slope,
         regr_r2(CAST(s.input_tokens AS DOUBLE), CAST(to_unixtime(s.event_time) AS DOUBLE)) AS r2
  FROM SESSION(spans, event_time, INTERVAL '15 minutes') AS s
  WHERE s.usage_leaf AND s.session_id IS NOT NULL AND s.input_tokens IS NOT NULL
  GROUP BY s.team, s.session_id, s.agent_name, window_start, window_end
) AS grown
WHERE grown.steps >= 8 AND grown.tokens >= 50000 AND grown.slope > 0 AND grown.r2 >= 0.9
EMIT ON UPDATE;
