-- A conversation much longer than the ones before it.
CREATE RULE long_conversation WITH (action = 'notify', reason_code = 'x_long_conversation', ttl = '1 minute') AS
SELECT c.agent_name, c.window_start, c.window_end, c.calls AS observed, c.usual AS threshold
FROM (
  SELECT n.agent_name, n.window_start, n.window_end, n.calls,
         avg(n.calls) OVER (PARTITION BY n.agent_name ORDER BY n.window_end
                            ROWS BETWEEN 2 PRECEDING AND 1 PRECEDING) AS usual
  FROM (
    SELECT s.agent_name, window_start, window_end, count(*) AS calls
    FROM SESSION(spans, event_time, INTERVAL '1 minute') AS s
    GROUP BY s.agent_name, window_start, window_end
  ) AS n
) AS c
WHERE c.calls > 2 * c.usual
EMIT ON CLOSE;
