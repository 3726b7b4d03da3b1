CREATE EXTERNAL TABLE agents (agent_name VARCHAR, owner VARCHAR) STORED AS CSV LOCATION 'agents.csv';

-- GAP FILL FROM: an agent that ought to report and does not, whether it ever has or not.
CREATE RULE silent_agent WITH (action = 'notify', reason_code = 'x_silent_agent') AS
SELECT s.agent_name, window_start, window_end, count(*) AS observed
FROM TUMBLE(spans, event_time, INTERVAL '1 minute') AS s
GROUP BY s.agent_name, window_start, window_end
HAVING count(*) = 0
GAP FILL FROM agents
EMIT ON CLOSE;
