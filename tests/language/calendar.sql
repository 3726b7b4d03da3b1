-- CALENDAR: days of the people who spend; Rome's have 23 or 25 hours twice a year.
CREATE RULE spend_of_the_day WITH (action = 'warn', reason_code = 'x_spend_of_the_day') AS
SELECT s.team, window_start, window_end, sum(s.cost_total) AS observed
FROM CALENDAR(spans, event_time, 'day', 'Europe/Rome') AS s
GROUP BY s.team, window_start, window_end
HAVING sum(s.cost_total) >= 10
EMIT ON UPDATE;
