CREATE EXTERNAL TABLE polling_tools (tool_name VARCHAR) STORED AS CSV LOCATION 'polling_tools.csv';

-- Blocks a session that calls the same tool with the same arguments five times within two minutes: whatever the tool
-- said, the agent did not take it in. The block is taken back two minutes after fewer are seen.
-- A controller refuses the session this call and no other: it hashes the arguments as it writes them to telemetry. One
-- that refuses the tool altogether leaves arguments_sha256 out of account.
-- Arguments may hold what people wrote, so only their SHA-256 leaves the record, as arguments_sha256; it serves to
-- tell them apart. Tool calls whose telemetry has no arguments (they are opt-in) are not judged.
-- False alarms: tools that are meant to be asked again, such as the state of a job: name them in polling_tools.csv.
-- Arguments of other order or spelling are others, so some loops are missed. State: one count per tool, arguments and
-- session for two minutes.
-- To tune: the number 5, polling_tools.csv.
CREATE RULE repeat_call_loop WITH (
  action          = 'block',
  reason_code     = 'x_runaway_loop',
  severity        = 'error',
  owner           = 'platform',
  keep_firing_for = '2 minutes'
) AS
WITH tool_calls AS (
  SELECT s.event_time, s.team, s.session_id, s.tool_name,
         encode(sha256(coalesce(attr('gen_ai.tool.call.arguments'), attr('tool.parameters'), attr('ai.toolCall.args'))),
                'hex') AS arguments_sha256
  FROM spans AS s
  WHERE s.session_id IS NOT NULL AND s.tool_name IS NOT NULL
    AND s.tool_name NOT IN (SELECT p.tool_name FROM polling_tools AS p)
)
SELECT c.team,
       c.session_id,
       c.tool_name,
       c.arguments_sha256,
       window_start,
       window_end,
       count(*) AS observed,
       5 AS threshold,
       'same calls in 2 minutes' AS unit,
       concat('session ', c.session_id, ' has called ', c.tool_name, ' ', count(*),
              ' times with the same arguments') AS message
FROM HOP(tool_calls, event_time, INTERVAL '15 seconds', INTERVAL '2 minutes') AS c
WHERE c.arguments_sha256 IS NOT NULL
GROUP BY c.team, c.session_id, c.tool_name, c.arguments_sha256, window_start, window_end
HAVING count(*) >= 5
EMIT ON UPDATE;
