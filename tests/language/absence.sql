-- Absence: a call that is not followed by an evaluation of its trace within ten minutes.
CREATE RULE not_evaluated WITH (action = 'warn', reason_code = 'x_not_evaluated', ttl = '1 hour') AS
SELECT s.team, s.session_id
FROM spans AS s
LEFT JOIN logs AS e ON e.trace_id = s.trace_id AND e.event_time >= s.event_time
    AND e.event_time <= s.event_time + INTERVAL '10 minutes'
WHERE s.operation_name = 'chat' AND e.trace_id IS NULL;
