-- Sequence detectors of failures: more of them than before, in three of five windows, until they are rare.
CREATE RULE failing WITH (action = 'throttle', reason_code = 'x_failing') AS
SELECT d.provider, d.window_start, d.window_end, d.share AS observed, d.level, d.often, d.z
FROM (
  SELECT c.*,
         hysteresis(c.share, 0.5, 0.25) OVER k AS is_high,
         k_of_n(c.share >= 0.5, 2, 3) OVER k AS often,
         hddm_a(c.share, 0.2, 0.4) OVER k AS level,
         robust_z(c.share, 5) OVER k AS z
  FROM (
    SELECT provider, window_start, window_end,
           avg(CASE WHEN error_type IS NULL THEN 0.0 ELSE 1.0 END) AS share
    FROM TUMBLE(spans, event_time, INTERVAL '1 minute')
    GROUP BY provider, window_start, window_end
  ) AS c
  WINDOW k AS (PARTITION BY c.provider ORDER BY c.window_end)
) AS d
WHERE d.is_high
EMIT ON CLOSE;
