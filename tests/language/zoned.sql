CREATE EXTERNAL TABLE zones (team VARCHAR, zone VARCHAR) STORED AS CSV LOCATION 'zones.csv';

CREATE VIEW located AS SELECT s.*, z.zone FROM spans AS s JOIN zones AS z ON z.team = s.team;

-- The day of each team, by the clocks of its own zone, as it is spent.
CREATE RULE spend_today WITH (action = 'warn', reason_code = 'x_spend_today') AS
SELECT s.team, window_start, window_end, sum(s.cost_total) AS observed
FROM CALENDAR(located, event_time, 'day', zone) AS s
GROUP BY s.team, window_start, window_end
HAVING sum(s.cost_total) >= 10
EMIT ON UPDATE;
