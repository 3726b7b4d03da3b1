CREATE EXTERNAL TABLE session_limits (team VARCHAR, calls BIGINT, usd DOUBLE)
STORED AS CSV LOCATION 'session_limits.csv';

-- Blocks a session that has called models more than 50 times or cost more than 5 USD, however slowly: session_runaway
-- finds loops that are fast, this rule those that are not. A session ends with fifteen minutes of silence, and so does
-- the block, which a refused session comes to by itself.
-- A controller refuses the session's calls, and only them. An agent may ask its user whether to go on in a new
-- session.
-- False alarms: long conversations of a person, and batch jobs that share one session id. Of 50 generated projects,
-- half of them with agents, 18 sessions in 300 project-days had more than 50 calls without any loop. State: two sums
-- per session that is under way.
-- To tune: session_limits.csv, for teams that need more than 50 calls or 5 USD. A null there means no such limit for
-- the team. What it costs: a rule that speaks on update about sessions has each record of spans judged by itself.
CREATE RULE session_step_limit WITH (
  action      = 'block',
  reason_code = 'x_runaway_loop',
  severity    = 'error',
  owner       = 'platform'
) AS
SELECT steps.team,
       steps.session_id,
       steps.window_start,
       steps.window_end,
       CASE WHEN steps.calls > steps.calls_max THEN steps.calls ELSE steps.usd END AS observed,
       CASE WHEN steps.calls > steps.calls_max THEN steps.calls_max ELSE steps.usd_max END AS threshold,
       CASE WHEN steps.calls > steps.calls_max THEN 'calls in a session' ELSE 'USD in a session' END AS unit,
       concat('session ', steps.session_id, ' of ', coalesce(steps.team, 'somebody'), ' has made ', steps.calls,
              ' calls for ', TRY_CAST(steps.usd AS DECIMAL(18, 2)), ' USD') AS message,
       steps.calls,
       steps.usd
FROM (
  SELECT made.*,
         CASE WHEN own.team IS NULL THEN 50 ELSE own.calls END AS calls_max,
         CASE WHEN own.team IS NULL THEN 5 ELSE own.usd END AS usd_max
  FROM (
    SELECT s.team, s.session_id, window_start, window_end, count(*) AS calls,
           coalesce(sum(s.cost_total) FILTER (WHERE coalesce(s.cost_currency, 'USD') = 'USD'), 0) AS usd
    FROM SESSION(spans, event_time, INTERVAL '15 minutes') AS s
    WHERE s.usage_leaf AND s.session_id IS NOT NULL
    GROUP BY s.team, s.session_id, window_start, window_end
  ) AS made
  LEFT JOIN session_limits AS own ON own.team = made.team
) AS steps
WHERE steps.calls > steps.calls_max OR steps.usd > steps.usd_max
EMIT ON UPDATE;
