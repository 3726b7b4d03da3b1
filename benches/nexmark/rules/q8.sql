-- New users: who has come and opened an auction within the same ten seconds. A row may name a seller who comes later.
CREATE VIEW persons AS
SELECT event_time, attr('nexmark.id') AS id, attr('nexmark.full_name') AS full_name
FROM spans WHERE name = 'person';

CREATE VIEW auctions AS
SELECT event_time, attr('nexmark.seller') AS seller
FROM spans WHERE name = 'auction';

CREATE VIEW newcomers AS
SELECT p.event_time, p.id, p.full_name
FROM persons AS p
JOIN auctions AS a ON a.seller = p.id
    AND a.event_time BETWEEN p.event_time - INTERVAL '10 seconds' AND p.event_time + INTERVAL '10 seconds'
    AND date_bin(INTERVAL '10 seconds', a.event_time) = date_bin(INTERVAL '10 seconds', p.event_time);

CREATE RULE q8 WITH (action = 'notify', reason_code = 'x_nexmark') AS
SELECT n.id, n.full_name, window_start, window_end, count(*) AS observed
FROM TUMBLE(newcomers, event_time, INTERVAL '10 seconds') AS n
GROUP BY n.id, n.full_name, window_start, window_end
EMIT ON CLOSE;
