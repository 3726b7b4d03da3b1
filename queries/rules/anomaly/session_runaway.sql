-- Catches an agent that runs in circles: one session that calls models far more often within five minutes than a person
-- or a healthy agent does. It warns from 60 calls on and blocks from 120; while the loop goes on, so does the directive,
-- and it is taken back within five minutes after the loop has ended.
-- A controller refuses the session's requests (and only them) while the result is BLOCKED.
-- To tune: the two numbers below; batch jobs that share one session id need a rule of their own.
CREATE RULE session_runaway WITH (
  action      = 'block',
  reason_code = 'x_session_runaway',
  severity    = 'error',
  owner       = 'platform'
) AS
SELECT loop.team,
       loop.session_id,
       loop.window_start,
       loop.window_end,
       loop.calls AS observed,
       CASE WHEN loop.calls >= 120 THEN 120 ELSE 60 END AS threshold,
       'calls in 5 minutes' AS unit,
       CASE WHEN loop.calls >= 120 THEN 'BLOCKED' ELSE 'WARNING' END AS result,
       concat('session ', loop.session_id, ' of ', loop.team, ' has called models ', loop.calls,
              ' times within five minutes') AS message,
       loop.tokens,
       loop.cost
FROM (
  SELECT s.team, s.session_id, window_start, window_end,
         count(*) AS calls, sum(s.total_tokens) AS tokens, sum(s.cost_total) AS cost
  FROM HOP(spans, event_time, INTERVAL '1 minute', INTERVAL '5 minutes') AS s
  WHERE s.usage_leaf AND s.session_id IS NOT NULL
  GROUP BY s.team, s.session_id, window_start, window_end
) AS loop
WHERE loop.calls >= 60
EMIT ON UPDATE;
