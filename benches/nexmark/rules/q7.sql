-- Highest bid: whose it was and on what, of every ten seconds.
CREATE RULE q7 WITH (action = 'notify', reason_code = 'x_nexmark') AS
SELECT c.auction, c.bidder, c.window_start, c.window_end, c.price AS observed
FROM (
  SELECT attr('nexmark.auction') AS auction, attr('nexmark.bidder') AS bidder, window_start, window_end,
         max(CAST(attr('nexmark.price') AS BIGINT)) AS price
  FROM TUMBLE(spans, event_time, INTERVAL '10 seconds')
  WHERE name = 'bid'
  GROUP BY attr('nexmark.auction'), attr('nexmark.bidder'), window_start, window_end
) AS c
QUALIFY c.price = max(c.price) OVER (PARTITION BY c.window_start, c.window_end)
EMIT ON CLOSE;
