CREATE EXTERNAL TABLE model_aliases (request_model VARCHAR, response_model VARCHAR)
STORED AS CSV LOCATION 'model_aliases.csv';

-- Fires with the first answer that comes from another model than was asked for, and holds for an hour after the last
-- one: one directive for each pair of models. model_mix compares shares and needs a past; this rule needs one call.
-- A controller tells the owners and may pin the model; nothing is stopped.
-- Names are compared without the path in front (models/, openai/) and in lower case. A request for a model may be
-- answered by any of its dated snapshots (gpt-4o by gpt-4o-2024-08-06); a request for a snapshot may not be answered
-- by another one.
-- False alarms: routers, deployments with names of their own, fall-backs that you have asked for: each pair of them is
-- told once until it is in model_aliases.csv. There is no state.
-- To tune: model_aliases.csv, names without the path in front; a response_model of * allows any answer.
CREATE RULE model_swap WITH (
  action      = 'warn',
  reason_code = 'x_model_swap',
  severity    = 'warning',
  owner       = 'ml-platform',
  ttl         = '1 hour'
) AS
WITH answered AS (
  SELECT s.provider, s.request_model, s.response_model,
         regexp_replace(lower(s.request_model), '^.*/|-latest$|-v\d+(:\d+)?$', '', 'g')  AS asked,
         regexp_replace(lower(s.response_model), '^.*/|-latest$|-v\d+(:\d+)?$', '', 'g') AS got
  FROM spans AS s
  WHERE s.usage_leaf AND s.request_model IS NOT NULL AND s.response_model IS NOT NULL
), compared AS (
  SELECT *,
         regexp_replace(asked, '[-@](\d{8}|\d{4}-\d\d-\d\d|\d\d-\d{4}|\d{3,4})$', '') AS asked_model,
         regexp_replace(got, '[-@](\d{8}|\d{4}-\d\d-\d\d|\d\d-\d{4}|\d{3,4})$', '')   AS got_model
  FROM answered
)
SELECT c.provider,
       c.request_model,
       c.response_model,
       concat(coalesce(c.provider, 'a provider'), ' was asked for ', c.request_model, ' and has answered with ',
              c.response_model) AS message
FROM compared AS c
LEFT JOIN model_aliases AS alias ON alias.request_model = c.asked AND alias.response_model = c.got
LEFT JOIN (SELECT request_model FROM model_aliases WHERE response_model = '*') AS any_answer
  ON any_answer.request_model = c.asked
WHERE c.asked <> c.got
  AND (c.asked_model <> c.got_model OR (c.asked <> c.asked_model AND c.got <> c.got_model))
  AND alias.request_model IS NULL AND any_answer.request_model IS NULL;
