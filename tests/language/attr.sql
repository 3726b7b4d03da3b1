-- attr('…') and resource_attr('…'): attributes that have no column, as text.
CREATE RULE risky WITH (action = 'block', reason_code = 'x_risky') AS
SELECT s.team, resource_attr('k8s.namespace.name') AS namespace, window_start, window_end,
       max(CAST(attr('acme.score') AS DOUBLE)) AS observed, 0.9 AS threshold
FROM TUMBLE(spans, event_time, INTERVAL '1 minute') AS s
WHERE attr('acme.risk') = 'high'
GROUP BY s.team, resource_attr('k8s.namespace.name'), window_start, window_end
HAVING max(CAST(attr('acme.score') AS DOUBLE)) > 0.9
EMIT ON UPDATE;
