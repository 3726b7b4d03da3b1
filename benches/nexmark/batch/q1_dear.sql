SELECT auction, bidder, extra, 0.908 * CAST(price AS BIGINT) AS observed, event_time AS at
FROM spans
WHERE name = 'bid' AND 0.908 * CAST(price AS BIGINT) >= 90000000
