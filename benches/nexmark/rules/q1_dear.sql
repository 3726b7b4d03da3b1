-- Currency conversion as a rule would have it: every price is converted, and the highest are events.
CREATE RULE q1_dear WITH (action = 'notify', reason_code = 'x_nexmark', ttl = '1 s') AS
SELECT attr('nexmark.auction') AS auction, attr('nexmark.bidder') AS bidder, attr('nexmark.extra') AS extra,
       0.908 * CAST(attr('nexmark.price') AS BIGINT) AS observed
FROM spans
WHERE name = 'bid' AND 0.908 * CAST(attr('nexmark.price') AS BIGINT) >= 90000000;
