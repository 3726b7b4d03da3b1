-- An anti join says the same without a WHERE, and `NOT` only for rows that are looked at: tool calls that nobody
-- approved in the two minutes before.
CREATE RULE unapproved_tool_call WITH (action = 'block', reason_code = 'x_unapproved_tool_call') AS
SELECT t.agent_name, t.tool_name
FROM (SELECT * FROM spans WHERE operation_name = 'execute_tool') AS t
LEFT ANTI JOIN (SELECT * FROM logs WHERE severity_text = 'APPROVED') AS a
    ON a.trace_id = t.trace_id AND a.event_time BETWEEN t.event_time - INTERVAL '2 minutes' AND t.event_time;
