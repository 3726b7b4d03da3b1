CREATE EXTERNAL TABLE zones_of_teams (team VARCHAR, zone VARCHAR) STORED AS CSV LOCATION 'zones.csv';

-- Yesterday of each team, once it is midnight where it works.
CREATE RULE spent_yesterday WITH (action = 'notify', reason_code = 'x_spent_yesterday') AS
SELECT s.team, window_start, window_end, sum(s.cost_total) AS observed
FROM CALENDAR((SELECT s.*, z.zone FROM spans AS s JOIN zones_of_teams AS z ON z.team = s.team),
              event_time, 'day', zone) AS s
GROUP BY s.team, window_start, window_end
HAVING sum(s.cost_total) >= 10
EMIT ON CLOSE;
