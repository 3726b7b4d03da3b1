-- The top n of each window: row_number over the window's rows.
CREATE RULE two_dearest WITH (action = 'notify', reason_code = 'x_two_dearest') AS
SELECT ranked.team, ranked.window_start, ranked.window_end, ranked.usd AS observed, ranked.place
FROM (
  SELECT c.team, c.window_start, c.window_end, c.usd,
         row_number() OVER (PARTITION BY c.window_end ORDER BY c.usd DESC, c.team) AS place
  FROM (
    SELECT s.team, window_start, window_end, sum(s.cost_total) AS usd
    FROM TUMBLE(spans, event_time, INTERVAL '1 minute') AS s
    GROUP BY s.team, window_start, window_end
  ) AS c
) AS ranked
WHERE ranked.place <= 2
EMIT ON CLOSE;
