-- mode = 'shadow': the same events, marked as not to be acted on.
CREATE RULE dear_in_shadow WITH (action = 'block', reason_code = 'x_dear_call', mode = 'shadow', ttl = '2 minutes') AS
SELECT s.team, s.cost_total AS observed
FROM spans AS s
WHERE s.cost_total > 5;
