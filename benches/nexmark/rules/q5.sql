-- Hot items: the auctions with the most bids of the last ten seconds, every two seconds.
CREATE RULE q5 WITH (action = 'notify', reason_code = 'x_nexmark') AS
SELECT c.auction, c.window_start, c.window_end, c.bids AS observed
FROM (
  SELECT attr('nexmark.auction') AS auction, window_start, window_end, count(*) AS bids
  FROM HOP(spans, event_time, INTERVAL '2 seconds', INTERVAL '10 seconds')
  WHERE name = 'bid'
  GROUP BY attr('nexmark.auction'), window_start, window_end
) AS c
QUALIFY c.bids = max(c.bids) OVER (PARTITION BY c.window_start, c.window_end)
EMIT ON CLOSE;
