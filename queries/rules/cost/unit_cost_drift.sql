-- Fires when a successful call of a project costs at least 30 % more than it used to: an hour's cost by its calls
-- without an error, against the median of the last 168 such hours but one. It finds what no budget does: longer
-- prompts, a dearer model, retries that are paid for. Failed calls cost, too, but are not counted below the line, so
-- failures show.
-- A controller tells the owners; nothing is stopped. Once half of the past is dear, dear is usual and the directive
-- goes.
-- False alarms: of 50 stationary projects 11 in 300 project-days (docs/detection.md); a launch that changes what a call
-- is. A median of a week does not move with a single bad day. State: one number per project and hour, 168 of them.
-- To tune: the factor 1.3; the 200 calls below which an hour is neither judged nor remembered, so that nights do not
-- count; the six hours of past that are needed. Costs in another currency than USD are left out.
CREATE RULE unit_cost_drift WITH (
  action      = 'warn',
  reason_code = 'x_unit_cost_drift',
  severity    = 'warning',
  owner       = 'finops',
  ttl         = '10 minutes'
) AS
SELECT judged.project,
       judged.window_start,
       judged.window_end,
       judged.unit_cost AS observed,
       1.3 * judged.usual AS threshold,
       'USD per successful call' AS unit,
       concat('a successful call of ', judged.project, ' costs ', TRY_CAST(judged.unit_cost AS DECIMAL(18, 6)),
              ' USD; usual are ', TRY_CAST(judged.usual AS DECIMAL(18, 6))) AS message,
       judged.usual,
       judged.calls
FROM (
  SELECT hourly.project, hourly.window_start, hourly.window_end, hourly.unit_cost, hourly.calls,
         median(hourly.unit_cost) OVER (PARTITION BY hourly.project ORDER BY hourly.window_end
                                        ROWS BETWEEN 168 PRECEDING AND 2 PRECEDING) AS usual,
         count(hourly.unit_cost)  OVER (PARTITION BY hourly.project ORDER BY hourly.window_end
                                        ROWS BETWEEN 168 PRECEDING AND 2 PRECEDING) AS hours
  FROM (
    SELECT s.project, window_start, window_end, count(*) AS calls,
           sum(s.cost_total) / nullif(count(*) FILTER (WHERE s.status_code <> 'ERROR'), 0) AS unit_cost
    FROM TUMBLE(spans, event_time, INTERVAL '1 hour') AS s
    WHERE s.usage_leaf AND s.project IS NOT NULL AND coalesce(s.cost_currency, 'USD') = 'USD'
    GROUP BY s.project, window_start, window_end
    HAVING count(*) >= 200
  ) AS hourly
) AS judged
WHERE judged.hours >= 6 AND judged.unit_cost >= 1.3 * judged.usual
EMIT ON CLOSE;
