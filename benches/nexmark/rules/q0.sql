-- Pass-through: every bid is an event.
CREATE RULE q0 WITH (action = 'notify', reason_code = 'x_nexmark', ttl = '1 s') AS
SELECT attr('nexmark.auction') AS auction, attr('nexmark.bidder') AS bidder, attr('nexmark.price') AS price,
       attr('nexmark.extra') AS extra
FROM spans
WHERE name = 'bid';
