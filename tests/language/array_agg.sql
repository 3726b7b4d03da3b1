-- array_agg, with an order of its own: which tools a session has called, in the order of time.
CREATE RULE tools_in_order WITH (action = 'notify', reason_code = 'x_tools_in_order') AS
SELECT s.session_id, window_start, window_end, count(*) AS observed,
       array_agg(s.tool_name ORDER BY s.event_time) AS tools
FROM TUMBLE(spans, event_time, INTERVAL '1 minute') AS s
WHERE s.tool_name IS NOT NULL
GROUP BY s.session_id, window_start, window_end
HAVING count(*) >= 3
EMIT ON CLOSE;
