-- Fires when the models that answer a project are in other shares than in its past week: an hour's mix against that of
-- the last 168 hours but one, by the Jensen-Shannon distance (base 2: 0 for the same shares, 1 for wholly different
-- ones), where chance is ruled out by a chi-squared test. model_mix speaks within five minutes and looks back for half
-- an hour; this rule sees smaller moves, against a longer past.
-- A controller tells the owners, who may pin the model; nothing is stopped. The directive goes with the first hour that
-- is as usual, or when the week has taken up the new mix.
-- False alarms: a release that you have made yourself; weekends that are unlike weekdays. State: a map of at most 256
-- models per project and hour.
-- To tune: 0.1; the 200 calls below which an hour is neither judged nor remembered, so that nights do not count; the
-- 1,000 calls of past that are needed.
CREATE RULE mix_drift_model WITH (
  action      = 'warn',
  reason_code = 'x_mix_drift',
  severity    = 'warning',
  owner       = 'ml-platform',
  ttl         = '10 minutes'
) AS
SELECT judged.project,
       judged.window_start,
       judged.window_end,
       js_distance(judged.usual, judged.mix, 2) AS observed,
       0.1 AS threshold,
       'Jensen-Shannon distance' AS unit,
       concat(judged.project, ' is answered by another mix of models than in the past week') AS message,
       chi2_pvalue(judged.usual, judged.mix) AS p_value,
       judged.calls
FROM (
  SELECT hourly.project, hourly.window_start, hourly.window_end, hourly.mix, hourly.calls,
         hist_merge(hourly.mix) OVER (PARTITION BY hourly.project ORDER BY hourly.window_end
                                      ROWS BETWEEN 168 PRECEDING AND 2 PRECEDING) AS usual
  FROM (
    SELECT s.project, window_start, window_end, freq_map(s.response_model) AS mix, count(*) AS calls
    FROM TUMBLE(spans, event_time, INTERVAL '1 hour') AS s
    WHERE s.usage_leaf AND s.response_model IS NOT NULL AND s.project IS NOT NULL
    GROUP BY s.project, window_start, window_end
    HAVING count(*) >= 200
  ) AS hourly
) AS judged
WHERE hist_count(judged.usual) >= 1000
  AND js_distance(judged.usual, judged.mix, 2) >= 0.1
  AND chi2_pvalue(judged.usual, judged.mix) < 0.001
EMIT ON CLOSE;

-- Fires when a project's agents call tools in other shares than in its past week, by the numbers of mix_drift_model. An
-- agent that has lost a tool, or has found one that it should not have, shows here, as does a prompt that makes it
-- search where it used to know.
-- A controller tells the owners of the agent; nothing is stopped.
-- False alarms: a release with new tools is told for as long as the week remembers. State: a map of at most 256 tools
-- per project and hour.
-- To tune: as in mix_drift_model. With dozens of tools, raise the 200 calls to five of each that matters.
CREATE RULE mix_drift_tool WITH (
  action      = 'warn',
  reason_code = 'x_mix_drift',
  severity    = 'warning',
  owner       = 'ml-platform',
  ttl         = '10 minutes'
) AS
SELECT judged.project,
       judged.window_start,
       judged.window_end,
       js_distance(judged.usual, judged.mix, 2) AS observed,
       0.1 AS threshold,
       'Jensen-Shannon distance' AS unit,
       concat(judged.project, ' is using another mix of tools than in the past week') AS message,
       chi2_pvalue(judged.usual, judged.mix) AS p_value,
       judged.calls
FROM (
  SELECT hourly.project, hourly.window_start, hourly.window_end, hourly.mix, hourly.calls,
         hist_merge(hourly.mix) OVER (PARTITION BY hourly.project ORDER BY hourly.window_end
                                      ROWS BETWEEN 168 PRECEDING AND 2 PRECEDING) AS usual
  FROM (
    SELECT s.project, window_start, window_end, freq_map(s.tool_name) AS mix, count(*) AS calls
    FROM TUMBLE(spans, event_time, INTERVAL '1 hour') AS s
    WHERE s.tool_name IS NOT NULL AND s.project IS NOT NULL
    GROUP BY s.project, window_start, window_end
    HAVING count(*) >= 200
  ) AS hourly
) AS judged
WHERE hist_count(judged.usual) >= 1000
  AND js_distance(judged.usual, judged.mix, 2) >= 0.1
  AND chi2_pvalue(judged.usual, judged.mix) < 0.001
EMIT ON CLOSE;

-- Fires when a project's answers end for other reasons than in its past week, by the numbers of mix_drift_model. More
-- `length` are answers cut off, more `content_filter` are refusals, more `tool_calls` are agents that go round in
-- circles: all of them before a user complains.
-- A controller tells the owners; nothing is stopped.
-- False alarms: another client library that spells reasons in its own way. Several reasons of one answer count as one
-- of their own. State: a map of the reasons per project and hour.
-- To tune: as in mix_drift_model. For a single rare reason write a rule on its share.
CREATE RULE mix_drift_finish WITH (
  action      = 'warn',
  reason_code = 'x_mix_drift',
  severity    = 'warning',
  owner       = 'ml-platform',
  ttl         = '10 minutes'
) AS
SELECT judged.project,
       judged.window_start,
       judged.window_end,
       js_distance(judged.usual, judged.mix, 2) AS observed,
       0.1 AS threshold,
       'Jensen-Shannon distance' AS unit,
       concat(judged.project, ' is ending its answers for other reasons than in the past week') AS message,
       chi2_pvalue(judged.usual, judged.mix) AS p_value,
       judged.calls
FROM (
  SELECT hourly.project, hourly.window_start, hourly.window_end, hourly.mix, hourly.calls,
         hist_merge(hourly.mix) OVER (PARTITION BY hourly.project ORDER BY hourly.window_end
                                      ROWS BETWEEN 168 PRECEDING AND 2 PRECEDING) AS usual
  FROM (
    SELECT s.project, window_start, window_end, freq_map(s.finish_reason) AS mix, count(*) AS calls
    FROM TUMBLE(spans, event_time, INTERVAL '1 hour') AS s
    WHERE s.usage_leaf AND s.finish_reason IS NOT NULL AND s.project IS NOT NULL
    GROUP BY s.project, window_start, window_end
    HAVING count(*) >= 200
  ) AS hourly
) AS judged
WHERE hist_count(judged.usual) >= 1000
  AND js_distance(judged.usual, judged.mix, 2) >= 0.1
  AND chi2_pvalue(judged.usual, judged.mix) < 0.001
EMIT ON CLOSE;
