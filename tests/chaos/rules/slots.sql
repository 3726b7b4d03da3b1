-- Rules that make every wrong, missing or doubled update of a state visible in an event. The telemetry bears the number
-- of its ten-second slot as `feature`, so that each window's groups are subjects of their own and each speaks. Nothing
-- that they say depends on how input partitions interleave, but what `slot_levels` observes.
--
-- A directive is renewed when half of its validity is over, and how far time has come by then depends on the
-- interleaving: therefore the long `ttl`.

-- The exact sums of every team and slot.
CREATE RULE slot_totals WITH (action = 'notify', reason_code = 'x_slot_totals', ttl = '4 days') AS
SELECT s.team, s.feature, window_start, window_end, count(*) AS observed, sum(s.input_tokens) AS tokens,
       min(s.input_tokens) AS fewest, max(s.input_tokens) AS most, count(DISTINCT s.session_id) AS sessions
FROM TUMBLE(spans, event_time, INTERVAL '10 seconds') AS s
WHERE s.team IS NOT NULL
GROUP BY s.team, s.feature, window_start, window_end
EMIT ON CLOSE;

-- Overlapping windows: what a team does in each of them decides how it is called.
CREATE RULE team_hops WITH (action = 'block', mode = 'shadow', reason_code = 'x_team_hops', ttl = '4 days') AS
SELECT s.team, window_start, window_end, sum(s.input_tokens) AS observed, count(*) AS calls,
       CASE sum(s.input_tokens) % 3 WHEN 0 THEN 'BLOCKED' WHEN 1 THEN 'RATE_LIMITED' ELSE 'WARNING' END AS result
FROM HOP(spans, event_time, INTERVAL '10 seconds', INTERVAL '30 seconds') AS s
WHERE s.team IS NOT NULL
GROUP BY s.team, window_start, window_end
EMIT ON CLOSE;

-- What a team did in its three slots before: the history is part of the state.
CREATE RULE slot_history WITH (action = 'notify', reason_code = 'x_slot_history', ttl = '4 days') AS
SELECT counted.team, counted.feature, counted.window_start, counted.window_end, counted.calls AS observed,
       sum(counted.calls) OVER (PARTITION BY counted.team ORDER BY counted.window_end
                                ROWS BETWEEN 3 PRECEDING AND 1 PRECEDING) AS before,
       lag(counted.tokens) OVER (PARTITION BY counted.team ORDER BY counted.window_end) AS tokens_before
FROM (
  SELECT s.team, s.feature, window_start, window_end, count(*) AS calls, sum(s.input_tokens) AS tokens
  FROM TUMBLE(spans, event_time, INTERVAL '10 seconds') AS s
  WHERE s.team IS NOT NULL
  GROUP BY s.team, s.feature, window_start, window_end
) AS counted
EMIT ON CLOSE;

-- Many groups in windows that are open for long: most of the state.
CREATE RULE sessions WITH (action = 'notify', reason_code = 'x_sessions', ttl = '4 days') AS
SELECT s.session_id, window_start, window_end, count(*) AS observed, sum(s.input_tokens) AS tokens
FROM TUMBLE(spans, event_time, INTERVAL '5 minutes') AS s
WHERE s.session_id IS NOT NULL
GROUP BY s.session_id, window_start, window_end
EMIT ON CLOSE;

-- Row by row. A session lies in one partition, so its rows have an order.
CREATE RULE dear_calls WITH (action = 'block', reason_code = 'x_dear_calls', ttl = '20 seconds') AS
SELECT s.session_id, s.input_tokens AS observed,
       CASE WHEN s.input_tokens > 950 THEN 'BLOCKED' ELSE 'WARNING' END AS result
FROM spans AS s
WHERE s.input_tokens > 850;

-- Calls of a session that go on: pending, firing, repeated, kept.
CREATE RULE dear_sessions WITH (
  action = 'throttle', reason_code = 'x_dear_sessions', ttl = '12 seconds', for = '8 seconds',
  keep_firing_for = '6 seconds', repeat_interval = '1 minute'
) AS
SELECT s.session_id, s.input_tokens AS observed,
       CASE WHEN s.input_tokens > 900 THEN 'RATE_LIMITED' ELSE 'WARNING' END AS result
FROM spans AS s
WHERE s.input_tokens > 600;

-- The same of windows that still run.
CREATE RULE held_slots WITH (
  action = 'warn', reason_code = 'x_held_slots', for = '2 seconds', keep_firing_for = '4 seconds'
) AS
SELECT s.session_id, s.feature, window_start, window_end, count(*) AS observed, avg(s.input_tokens) AS tokens
FROM TUMBLE(spans, event_time, INTERVAL '10 seconds') AS s
WHERE s.session_id IS NOT NULL
GROUP BY s.session_id, s.feature, window_start, window_end
HAVING avg(s.input_tokens) > 500
EMIT ON UPDATE;

-- Judged after every record of a session.
CREATE RULE session_slots WITH (action = 'warn', reason_code = 'x_session_slots') AS
SELECT s.session_id, s.feature, window_start, window_end, count(*) AS observed, sum(s.input_tokens) AS tokens,
       CASE WHEN count(*) >= 6 THEN 'RATE_LIMITED' ELSE 'WARNING' END AS result
FROM TUMBLE(spans, event_time, INTERVAL '10 seconds') AS s
WHERE s.session_id IS NOT NULL
GROUP BY s.session_id, s.feature, window_start, window_end
HAVING count(*) >= 3
EMIT ON UPDATE;

-- Judged after every record of a team, which come from all partitions: the levels are met in their order, but by which
-- record depends on the interleaving. A record has fewer spans than there are between two levels.
CREATE RULE slot_levels WITH (action = 'block', reason_code = 'x_slot_levels') AS
SELECT s.team, s.feature, window_start, window_end, count(*) AS observed,
       CASE WHEN count(*) >= 22 THEN 'BLOCKED' WHEN count(*) >= 14 THEN 'RATE_LIMITED' ELSE 'WARNING' END AS result
FROM TUMBLE(spans, event_time, INTERVAL '10 seconds') AS s
WHERE s.team IS NOT NULL
GROUP BY s.team, s.feature, window_start, window_end
HAVING count(*) >= 6
EMIT ON UPDATE;

-- Windows that end at another time for every team and slot.
CREATE RULE slot_bursts WITH (action = 'notify', reason_code = 'x_slot_bursts', ttl = '1 second') AS
SELECT s.team, s.feature, window_start, window_end, count(*) AS observed, sum(s.input_tokens) AS tokens
FROM SESSION(spans, event_time, INTERVAL '2 seconds') AS s
WHERE s.team IS NOT NULL
GROUP BY s.team, s.feature, window_start, window_end
EMIT ON CLOSE;

-- Two calls of a session that follow each other within three seconds: rows of the stream joined with itself.
CREATE RULE quick_pairs WITH (action = 'notify', reason_code = 'x_quick_pairs', ttl = '4 days') AS
SELECT s.session_id, CAST(s.event_time AS VARCHAR) AS called_at, CAST(n.event_time AS VARCHAR) AS followed_at,
       s.input_tokens + n.input_tokens AS observed
FROM spans AS s
JOIN spans AS n ON n.session_id = s.session_id AND n.event_time > s.event_time
    AND n.event_time <= s.event_time + INTERVAL '3 seconds';

-- A call that no other of its session follows within five seconds.
CREATE RULE last_calls WITH (action = 'notify', reason_code = 'x_last_calls', ttl = '4 days') AS
SELECT s.session_id, CAST(s.event_time AS VARCHAR) AS called_at, s.input_tokens AS observed
FROM spans AS s
LEFT JOIN spans AS n ON n.session_id = s.session_id AND n.event_time > s.event_time
    AND n.event_time <= s.event_time + INTERVAL '5 seconds'
WHERE s.session_id IS NOT NULL AND n.session_id IS NULL;

-- The first call of each session in a slot, summed up for its team: windows around a join.
CREATE VIEW first_calls AS
SELECT DISTINCT ON (session_id, feature) event_time, session_id, team, feature, input_tokens FROM spans
WHERE session_id IS NOT NULL
WITHIN INTERVAL '10 seconds';

CREATE RULE first_calls_of_teams WITH (action = 'notify', reason_code = 'x_first_calls', ttl = '4 days') AS
SELECT f.team, f.feature, window_start, window_end, count(*) AS observed, sum(f.input_tokens) AS tokens
FROM TUMBLE(first_calls, event_time, INTERVAL '10 seconds') AS f
WHERE f.team IS NOT NULL
GROUP BY f.team, f.feature, window_start, window_end
EMIT ON CLOSE;
