SELECT span_id, auction, CAST(price AS BIGINT) AS observed, event_time AS at
FROM spans
WHERE name = 'bid' AND CAST(auction AS BIGINT) % 123 = 0
