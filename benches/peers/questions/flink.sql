CREATE TABLE spend (`key` STRING, `start` BIGINT, `value` DOUBLE) WITH (
  'connector' = 'kafka', 'topic' = '{name}.spend', 'format' = 'json',
  'sink.transactional-id-prefix' = '{name}.spend', {sink});

CREATE TABLE alerts (`key` STRING, `start` BIGINT, `value` DOUBLE) WITH (
  'connector' = 'kafka', 'topic' = '{name}.alerts', 'format' = 'json',
  'sink.transactional-id-prefix' = '{name}.alerts', {sink});

CREATE TABLE latency (`key` STRING, `start` BIGINT, `value` DOUBLE) WITH (
  'connector' = 'kafka', 'topic' = '{name}.latency', 'format' = 'json',
  'sink.transactional-id-prefix' = '{name}.latency', {sink});

INSERT INTO spend
SELECT team || '|' || model, 1000 * UNIX_TIMESTAMP(CAST(window_start AS STRING)), SUM(cost)
FROM TUMBLE(TABLE spans, DESCRIPTOR(rowtime), INTERVAL '1' MINUTE)
GROUP BY team, model, window_start, window_end;

-- Window functions of Flink speak only when their window closes, a running total over processing time speaks at once.
INSERT INTO alerts
SELECT team, `day` * 86400000, spent
FROM (
  SELECT team, `day`, cost, SUM(cost) OVER (
    PARTITION BY team, `day` ORDER BY proctime ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS spent
  FROM (SELECT team, end_ms / 86400000 AS `day`, cost, proctime FROM spans)
)
WHERE spent >= {budget_usd} AND spent - cost < {budget_usd};

INSERT INTO latency
SELECT model, 1000 * UNIX_TIMESTAMP(CAST(window_start AS STRING)), PERCENTILE(latency_ms, 0.95)
FROM HOP(TABLE spans, DESCRIPTOR(rowtime), INTERVAL '1' MINUTE, INTERVAL '5' MINUTES)
GROUP BY model, window_start, window_end
