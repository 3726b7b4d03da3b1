-- for, of a rule without a window: rows of which each comes before the ttl of the one before is over, until one comes a
-- minute after the first.
CREATE RULE dear_again WITH (action = 'notify', reason_code = 'x_dear_call', ttl = '40 s', for = '1 minute') AS
SELECT s.team, s.cost_total AS observed, 5 AS threshold
FROM spans AS s
WHERE s.cost_total > 5;
