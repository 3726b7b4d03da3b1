-- A second GROUP BY above the first: how many sessions of a team were dear in one minute.
CREATE RULE dear_sessions WITH (action = 'warn', reason_code = 'x_dear_sessions') AS
SELECT c.team, c.window_start, c.window_end, count(*) AS observed, max(c.usd) AS dearest
FROM (
  SELECT s.team, s.session_id, window_start, window_end, sum(s.cost_total) AS usd
  FROM TUMBLE(spans, event_time, INTERVAL '1 minute') AS s
  GROUP BY s.team, s.session_id, window_start, window_end
) AS c
WHERE c.usd >= 1
GROUP BY c.team, c.window_start, c.window_end
HAVING count(*) >= 2
EMIT ON CLOSE;
