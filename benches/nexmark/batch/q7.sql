-- As Nexmark has it: the bids that are as high as the highest of their window.
WITH bids AS (
  SELECT auction, bidder, CAST(price AS BIGINT) AS price, date_bin(INTERVAL '10 seconds', event_time) AS window_start
  FROM spans
  WHERE name = 'bid'
), highest AS (
  SELECT window_start, max(price) AS price
  FROM bids
  GROUP BY window_start
)
SELECT DISTINCT b.auction, b.bidder, b.window_start + INTERVAL '10 seconds' AS at, b.price AS observed
FROM bids AS b
JOIN highest AS h ON h.window_start = b.window_start AND h.price = b.price
