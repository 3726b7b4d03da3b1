SELECT auction, bidder, price, extra, event_time AS at
FROM spans
WHERE name = 'bid'
