-- Fires when a call's reported cost is off the price table by more than 1 %: the tokens of the call, at the price of
-- the model that answered, on the day, for the tier. The telemetry's prices are old, cached tokens are counted
-- twice, or a contract has prices of its own.
-- A controller tells the owners of the telemetry; no budget can be trusted before that is mended. Nothing is stopped.
-- It holds for an hour after the last such call: one directive for each model and service.
-- False alarms: negotiated prices, until llm_prices.csv has them; fees per request or per tool, which tokens do not
-- have. There is no state.
-- To tune: 1 %, and the millionth of a dollar below which a difference is rounding.
CREATE RULE cost_recompute_mismatch WITH (
  action      = 'warn',
  reason_code = 'x_cost_mismatch',
  severity    = 'warning',
  owner       = 'finops',
  ttl         = '1 hour'
) AS
SELECT priced.provider,
       priced.model,
       priced.service_name,
       priced.reported AS observed,
       priced.priced AS threshold,
       'USD' AS unit,
       concat('a call of ', priced.model, ' reports a cost of ', priced.reported, ' USD; by the price table it is ',
              priced.priced) AS message,
       priced.input_tokens,
       priced.output_tokens
FROM (
  SELECT s.provider, coalesce(s.response_model, s.request_model) AS model, s.service_name, s.cost_total AS reported,
         s.input_tokens, s.output_tokens,
         llm_cost_usd(s.provider, coalesce(s.response_model, s.request_model), s.input_tokens, s.cache_read_tokens,
                      s.cache_write_tokens, s.output_tokens, s.reasoning_tokens,
                      coalesce(attr('openai.response.service_tier'), attr('gen_ai.openai.response.service_tier')),
                      s.event_time) AS priced
  FROM spans AS s
  WHERE s.usage_leaf AND s.cost_source = 'reported' AND coalesce(s.cost_currency, 'USD') = 'USD'
) AS priced
WHERE abs(priced.reported - priced.priced) > greatest(0.01 * priced.priced, 0.000001);

-- Fires when a call has tokens but no price: neither does the telemetry report a cost, nor has the price table the
-- model that answered. Such calls are left out of every sum of cost, so that a budget never sees them.
-- A controller tells finops; a strict one refuses the model until it has a price. It holds for an hour after the last
-- such call: one directive for each model.
-- False alarms: models that you run yourself and that cost nothing by the token. Give them a row with zeros. There is
-- no state.
-- To tune: llm_prices.csv, beside the folders of the rules.
CREATE RULE unpriced_model WITH (
  action      = 'warn',
  reason_code = 'x_unpriced_model',
  severity    = 'warning',
  owner       = 'finops',
  ttl         = '1 hour'
) AS
SELECT s.provider,
       coalesce(s.response_model, s.request_model) AS model,
       concat('calls of ', coalesce(s.response_model, s.request_model), ' have no price: no budget counts them')
         AS message,
       s.input_tokens,
       s.output_tokens
FROM spans AS s
WHERE s.usage_leaf AND s.cost_total IS NULL AND coalesce(s.response_model, s.request_model) IS NOT NULL
  AND coalesce(s.input_tokens, 0) + coalesce(s.output_tokens, 0) > 0;
