-- Flink's spelling of a window function is read, too.
CREATE RULE calls_in_flinks_words WITH (action = 'notify', reason_code = 'x_flink') AS
SELECT team, window_start, window_end, count(*) AS observed
FROM TABLE(HOP(TABLE spans, DESCRIPTOR(event_time), INTERVAL '1' MINUTE, INTERVAL '2' MINUTES))
GROUP BY team, window_start, window_end
HAVING count(*) >= 2
EMIT ON CLOSE;
