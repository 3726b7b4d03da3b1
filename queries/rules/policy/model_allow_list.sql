CREATE EXTERNAL TABLE allowed_models (provider VARCHAR, model VARCHAR) STORED AS CSV LOCATION 'allowed_models.csv';

-- Blocks a team from a model that is not on the allow-list, as soon as one of its requests for it is seen. The directive
-- holds for fifteen minutes after the last such request.
-- A controller refuses the team's requests for this model of this provider, and no others.
-- To tune: allowed_models.csv, with the names as requests carry them and providers by their OpenTelemetry names. Requests
-- that name no model (tools, retrieval) are not judged.
CREATE RULE model_allow_list WITH (
  action      = 'block',
  reason_code = 'POLICY_DENY_MODEL',
  severity    = 'error',
  owner       = 'security',
  ttl         = '15 minutes'
) AS
SELECT s.team,
       s.provider,
       s.request_model,
       'BLOCKED' AS result,
       concat(coalesce(s.team, 'somebody'), ' asks ', coalesce(s.provider, 'a provider'), ' for ', s.request_model,
              ', which is not on the allow-list') AS message
FROM spans AS s
LEFT JOIN allowed_models AS allowed ON allowed.provider = s.provider AND allowed.model = s.request_model
WHERE s.request_model IS NOT NULL AND allowed.model IS NULL;
