-- A verdict that telemetry says: words outside the closed sets are not published, the rule's own stand in for them.
CREATE RULE told_by_guard WITH (action = 'throttle', reason_code = 'x_guard', ttl = '2 minutes') AS
SELECT s.team, attr('guard.result') AS result, coalesce(attr('guard.reason'), 'x_unsaid') AS reason_code
FROM spans AS s
WHERE attr('guard.result') IS NOT NULL;
