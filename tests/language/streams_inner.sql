-- Two streams: a call that failed within a minute after the same trace had logged a warning.
CREATE RULE failed_after_warning WITH (action = 'throttle', reason_code = 'x_failed_after_warning', ttl = '5 minutes') AS
SELECT s.team, s.provider, l.severity_text AS logged, s.latency_ms AS observed
FROM spans AS s
JOIN logs AS l ON l.trace_id = s.trace_id
    AND l.event_time BETWEEN s.event_time - INTERVAL '1 minute' AND s.event_time
WHERE s.status_code = 'ERROR' AND l.severity_text = 'WARN';
