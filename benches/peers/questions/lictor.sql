-- Asked as questions and not as rules: every window is a row that "violates", so that every answer is published.

CREATE RULE spend WITH (action = 'notify', reason_code = 'x_spend', ttl = '1 minute', repeat_interval = '1 minute') AS
SELECT s.team, s.request_model, window_start, window_end, sum(s.cost_total) AS observed
FROM TUMBLE(spans, event_time, INTERVAL '1 minute') AS s
GROUP BY s.team, s.request_model, window_start, window_end;

CREATE RULE budget WITH (action = 'block', reason_code = 'BUDGET_EXCEEDED') AS
SELECT s.team, window_start, window_end, sum(s.cost_total) AS observed
FROM TUMBLE(spans, event_time, INTERVAL '1 day') AS s
GROUP BY s.team, window_start, window_end HAVING sum(s.cost_total) >= {budget_usd}
EMIT ON UPDATE;

CREATE RULE latency WITH (
  action = 'notify', reason_code = 'x_latency', ttl = '1 minute', repeat_interval = '1 minute'
) AS
SELECT s.request_model, window_start, window_end, hist_quantile(hist_log(s.latency_ms, 64), 0.95) AS observed
FROM HOP(spans, event_time, INTERVAL '1 minute', INTERVAL '5 minutes') AS s
GROUP BY s.request_model, window_start, window_end;
