-- WITH inside of WITH: names for queries, windows and aggregates among them.
CREATE RULE mostly_failing WITH (action = 'warn', reason_code = 'x_mostly_failing') AS
WITH per_minute AS (
  WITH calls AS (
    SELECT event_time, team, tool_name, status_code FROM spans WHERE tool_name IS NOT NULL
  )
  SELECT c.team, c.tool_name, window_start, window_end,
         count(*) AS calls, count(*) FILTER (WHERE c.status_code = 'ERROR') AS failed
  FROM TUMBLE(calls, event_time, INTERVAL '1 minute') AS c
  GROUP BY c.team, c.tool_name, window_start, window_end
), shares AS (
  SELECT *, CAST(failed AS DOUBLE) / calls AS share FROM per_minute
)
SELECT team, tool_name, window_start, window_end, share AS observed, 0.5 AS threshold, calls
FROM shares
WHERE share > 0.5
EMIT ON CLOSE;
