CREATE EXTERNAL TABLE registered (agent_name VARCHAR, owner VARCHAR) STORED AS CSV LOCATION 'agents.csv';

-- An anti join (NOT EXISTS, NOT IN): agents that the reference table does not have.
CREATE RULE unregistered_agent WITH (action = 'block', reason_code = 'x_unregistered_agent') AS
SELECT s.agent_name, window_start, window_end, count(*) AS observed
FROM TUMBLE(spans, event_time, INTERVAL '1 minute') AS s
WHERE s.agent_name IS NOT NULL AND NOT EXISTS (SELECT 1 FROM registered AS a WHERE a.agent_name = s.agent_name)
GROUP BY s.agent_name, window_start, window_end
EMIT ON UPDATE;
