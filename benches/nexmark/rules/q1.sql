-- Currency conversion: every bid is an event, with its price in euros.
CREATE RULE q1 WITH (action = 'notify', reason_code = 'x_nexmark', ttl = '1 s') AS
SELECT attr('nexmark.auction') AS auction, attr('nexmark.bidder') AS bidder, attr('nexmark.extra') AS extra,
       0.908 * CAST(attr('nexmark.price') AS BIGINT) AS observed
FROM spans
WHERE name = 'bid';
