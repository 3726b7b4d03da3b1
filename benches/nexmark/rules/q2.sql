-- Selection: the bids on every 123rd auction. The span's id makes each of them a subject of its own.
CREATE RULE q2 WITH (action = 'notify', reason_code = 'x_nexmark', ttl = '1 s') AS
SELECT span_id, attr('nexmark.auction') AS auction, CAST(attr('nexmark.price') AS BIGINT) AS observed
FROM spans
WHERE name = 'bid' AND CAST(attr('nexmark.auction') AS BIGINT) % 123 = 0;
