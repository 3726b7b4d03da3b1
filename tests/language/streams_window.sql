-- Windows over a view that joins two streams: what calls cost whose trace has logged a violation.
CREATE VIEW flagged AS
SELECT s.event_time, s.team, s.trace_id, s.cost_total
FROM spans AS s, logs AS l
WHERE l.trace_id = s.trace_id AND l.severity_text = 'VIOLATION'
    AND l.event_time >= s.event_time - INTERVAL '30 seconds' AND l.event_time <= s.event_time + INTERVAL '30 seconds';

CREATE RULE flagged_cost WITH (action = 'warn', reason_code = 'x_flagged_cost') AS
SELECT f.team, window_start, window_end, sum(f.cost_total) AS observed
FROM TUMBLE(flagged, event_time, INTERVAL '1 minute') AS f
GROUP BY f.team, window_start, window_end
HAVING sum(f.cost_total) > 1
EMIT ON CLOSE;

CREATE RULE flagged_cost_at_once WITH (action = 'warn', reason_code = 'x_flagged_cost') AS
SELECT f.team, window_start, window_end, sum(f.cost_total) AS observed
FROM TUMBLE(flagged, event_time, INTERVAL '1 minute') AS f
GROUP BY f.team, window_start, window_end
HAVING sum(f.cost_total) > 1
EMIT ON UPDATE;
