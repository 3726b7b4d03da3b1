-- hist_log and hist_merge: the histogram of a window is held against that of up to twelve windows before it.
CREATE RULE longer_answers WITH (action = 'notify', reason_code = 'x_distribution_drift') AS
SELECT u.team, u.window_start, u.window_end, ks_stat(u.usual, u.now) AS observed, 0.5 AS threshold,
       hist_count(u.usual) AS rows_before, hist_count(u.now) AS rows_now,
       hist_quantile(u.now, 1) AS most, hist_ignored(u.now) AS odd
FROM (
  SELECT w.team, w.window_start, w.window_end, w.now,
         hist_merge(w.now) OVER (PARTITION BY w.team ORDER BY w.window_end
                                 ROWS BETWEEN 12 PRECEDING AND 1 PRECEDING) AS usual
  FROM (
    SELECT s.team, window_start, window_end, hist_log(s.output_tokens, 1) AS now
    FROM TUMBLE(spans, event_time, INTERVAL '1 minute') AS s
    GROUP BY s.team, window_start, window_end
  ) AS w
) AS u
WHERE ks_stat(u.usual, u.now) >= 0.5
EMIT ON CLOSE;
