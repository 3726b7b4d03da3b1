-- The table metrics: one row per data point; gauges and sums have a value, histograms count, sum, min and max.
CREATE RULE long_queue WITH (action = 'throttle', reason_code = 'x_long_queue') AS
SELECT m.service_name, window_start, window_end, max(m.value) AS observed, 100 AS threshold
FROM TUMBLE(metrics, event_time, INTERVAL '1 minute') AS m
WHERE m.metric_name = 'queue.length'
GROUP BY m.service_name, window_start, window_end
HAVING max(m.value) > 100
EMIT ON CLOSE;

CREATE RULE slow_histogram WITH (action = 'notify', reason_code = 'SLA_LATENCY_VIOLATION') AS
SELECT m.service_name, window_start, window_end, sum(m.sum) / sum(m.count) AS observed, max(m.max) AS slowest
FROM TUMBLE(metrics, event_time, INTERVAL '1 minute') AS m
WHERE m.metric_name = 'gen_ai.client.operation.duration'
GROUP BY m.service_name, window_start, window_end
HAVING sum(m.sum) / sum(m.count) > 2
EMIT ON CLOSE;
