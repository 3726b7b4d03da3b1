-- Panes of the slide, each a part of five windows: DataFusion has no hopping windows, and is faster so than with every
-- row five times.
WITH panes AS (
  SELECT auction, date_bin(INTERVAL '2 seconds', event_time) AS pane, count(*) AS bids
  FROM spans
  WHERE name = 'bid'
  GROUP BY auction, date_bin(INTERVAL '2 seconds', event_time)
), windows AS (
  SELECT p.auction, p.pane + e.after AS at, sum(p.bids) AS bids
  FROM panes AS p
  CROSS JOIN (VALUES (INTERVAL '2 seconds'), (INTERVAL '4 seconds'), (INTERVAL '6 seconds'), (INTERVAL '8 seconds'),
                     (INTERVAL '10 seconds')) AS e (after)
  GROUP BY p.auction, p.pane + e.after
)
SELECT w.auction, w.at, w.bids AS observed
FROM windows AS w
QUALIFY w.bids = max(w.bids) OVER (PARTITION BY w.at)
