-- Highest bid with one group a window: its auction and bidder are those of the first row by price.
CREATE RULE q7_first WITH (action = 'notify', reason_code = 'x_nexmark', ttl = '1 s') AS
SELECT name, window_start, window_end, max(CAST(attr('nexmark.price') AS BIGINT)) AS observed,
       first_value(attr('nexmark.auction') ORDER BY CAST(attr('nexmark.price') AS BIGINT) DESC) AS auction,
       first_value(attr('nexmark.bidder') ORDER BY CAST(attr('nexmark.price') AS BIGINT) DESC) AS bidder
FROM TUMBLE(spans, event_time, INTERVAL '10 seconds')
WHERE name = 'bid'
GROUP BY name, window_start, window_end
EMIT ON CLOSE;
