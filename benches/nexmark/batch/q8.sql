-- As Nexmark has it: both sides grouped by their window, then joined.
WITH persons AS (
  SELECT id, full_name, date_bin(INTERVAL '10 seconds', event_time) AS window_start
  FROM spans
  WHERE name = 'person'
  GROUP BY id, full_name, date_bin(INTERVAL '10 seconds', event_time)
), sellers AS (
  SELECT seller, date_bin(INTERVAL '10 seconds', event_time) AS window_start, count(*) AS auctions
  FROM spans
  WHERE name = 'auction'
  GROUP BY seller, date_bin(INTERVAL '10 seconds', event_time)
)
SELECT p.id, p.full_name, p.window_start + INTERVAL '10 seconds' AS at, s.auctions AS observed
FROM persons AS p
JOIN sellers AS s ON s.seller = p.id AND s.window_start = p.window_start
