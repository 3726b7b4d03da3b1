-- A rule without a window: each row of the result is a violation by itself and holds for the ttl.
CREATE RULE dear_call WITH (action = 'notify', reason_code = 'x_dear_call', ttl = '2 minutes') AS
SELECT s.team, s.request_model, s.cost_total AS observed, 5 AS threshold, s.output_tokens
FROM spans AS s
WHERE s.cost_total > 5;
