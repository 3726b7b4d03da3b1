-- Spans that an exporter sends again within ten minutes count once.
CREATE VIEW once AS
SELECT DISTINCT ON (span_id) * FROM (SELECT event_time, team, span_id, cost_total FROM spans) AS s
WITHIN INTERVAL '10 minutes';

CREATE RULE spent WITH (action = 'warn', reason_code = 'BUDGET_EXCEEDED') AS
SELECT o.team, window_start, window_end, sum(o.cost_total) AS observed
FROM TUMBLE(once, event_time, INTERVAL '1 hour') AS o
GROUP BY o.team, window_start, window_end
HAVING sum(o.cost_total) >= 3
EMIT ON CLOSE;

-- The first of a kind, told when it is known to be the first.
CREATE RULE new_model WITH (action = 'notify', reason_code = 'x_new_model', ttl = '1 hour') AS
SELECT DISTINCT ON (team, request_model) team, request_model FROM spans
WITHIN INTERVAL '10 minutes';
