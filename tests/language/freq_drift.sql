-- freq_map: the mix of models of a window is held against that of the windows before it, while the window runs on.
CREATE RULE other_models WITH (action = 'warn', reason_code = 'x_mix_drift') AS
SELECT u.team, u.window_start, u.window_end, js_distance(u.usual, u.now, 2) AS observed, 0.7 AS threshold,
       tvd(u.usual, u.now) AS moved, hist_share(u.now, 'gpt-4o') AS gpt
FROM (
  SELECT w.team, w.window_start, w.window_end, w.now,
         hist_merge(w.now) OVER (PARTITION BY w.team ORDER BY w.window_end
                                 ROWS BETWEEN 12 PRECEDING AND 1 PRECEDING) AS usual
  FROM (
    SELECT s.team, window_start, window_end, freq_map(s.response_model) AS now
    FROM HOP(spans, event_time, INTERVAL '1 minute', INTERVAL '2 minutes') AS s
    GROUP BY s.team, window_start, window_end
  ) AS w
) AS u
WHERE js_distance(u.usual, u.now, 2) >= 0.7 AND chi2_pvalue(u.usual, u.now) < 0.5
EMIT ON CLOSE;
