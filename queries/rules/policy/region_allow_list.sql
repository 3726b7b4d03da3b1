CREATE EXTERNAL TABLE allowed_regions (team VARCHAR, region VARCHAR) STORED AS CSV LOCATION 'allowed_regions.csv';

-- Blocks a team from models in a region that is not on the list, as soon as one of its calls there is seen. The
-- directive holds for fifteen minutes after the last such call.
-- A controller refuses the team's calls of this provider in this region, and no others.
-- False alarms: cloud.region on the resource is where the caller runs, which need not be where the model does; have
-- the gateway write the model's region on the span. Calls without a region, or with a host's name in its place (the
-- column falls back to server.address), are not judged. There is no state.
-- To tune: allowed_regions.csv; rows of team * are for everybody.
CREATE RULE region_allow_list WITH (
  action      = 'block',
  reason_code = 'POLICY_DENY_REGION',
  severity    = 'error',
  owner       = 'security',
  ttl         = '15 minutes'
) AS
SELECT s.team,
       s.provider,
       s.region,
       'BLOCKED' AS result,
       concat(coalesce(s.team, 'somebody'), ' calls models in ', s.region,
              ', which is not on the list of regions') AS message
FROM spans AS s
LEFT JOIN (SELECT region FROM allowed_regions WHERE team = '*') AS everybody ON everybody.region = s.region
LEFT JOIN allowed_regions AS own ON own.team = s.team AND own.region = s.region
WHERE s.request_model IS NOT NULL AND s.region IS NOT NULL AND strpos(s.region, '.') = 0
  AND everybody.region IS NULL AND own.region IS NULL;
