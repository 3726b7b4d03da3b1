-- Usage that outer spans repeat counts once, whichever records they come in.
CREATE VIEW usage AS
SELECT event_time, team, cost_total FROM USAGE_LEAVES(spans, INTERVAL '30 seconds', INTERVAL '5 minutes');

CREATE RULE spent WITH (action = 'warn', reason_code = 'BUDGET_EXCEEDED') AS
SELECT u.team, window_start, window_end, sum(u.cost_total) AS observed
FROM TUMBLE(usage, event_time, INTERVAL '1 hour') AS u
GROUP BY u.team, window_start, window_end
HAVING sum(u.cost_total) >= 3
EMIT ON CLOSE;

-- Said while the hour goes on, half a minute after a span has ended.
CREATE RULE spent_so_far WITH (action = 'throttle', reason_code = 'BUDGET_EXCEEDED') AS
SELECT u.team, window_start, window_end, sum(u.cost_total) AS observed
FROM TUMBLE(usage, event_time, INTERVAL '1 hour') AS u
GROUP BY u.team, window_start, window_end
HAVING sum(u.cost_total) >= 3
EMIT ON UPDATE;

-- A span that counts.
CREATE RULE dear_call WITH (action = 'notify', reason_code = 'x_dear_call', ttl = '2 hours') AS
SELECT s.span_id, s.cost_total AS observed
FROM USAGE_LEAVES(spans, INTERVAL '30 seconds', INTERVAL '5 minutes') AS s
WHERE s.cost_total >= 3;
