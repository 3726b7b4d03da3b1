-- Flink's words are read, too.
CREATE RULE calls_so_far WITH (action = 'notify', reason_code = 'x_calls_so_far') AS
SELECT team, window_start, window_end, count(*) AS observed
FROM TABLE(CUMULATE(TABLE spans, DESCRIPTOR(event_time), INTERVAL '1' MINUTE, INTERVAL '3' MINUTES))
GROUP BY team, window_start, window_end
HAVING count(*) >= 2
EMIT ON CLOSE;
