-- Blocks a session whose answers a content filter has stopped three times within ten minutes: somebody is trying out
-- what gets through. It is taken back ten minutes after there are fewer than three of them within ten minutes.
-- A controller refuses the session's calls. Who has sessions without end had better have it shown to a person.
-- False alarms: work about violence, medicine or law meets filters, too; three are seldom chance, but for such teams
-- raise the number. A call whose outer spans repeat its reason counts once if it has a response id. State: the ids of
-- stopped calls for ten minutes.
-- To tune: the number 3, and the words: OpenAI's and OpenTelemetry's content_filter, Gemini's SAFETY and its kind,
-- Bedrock's guardrail_intervened. A model's own refusal is none.
CREATE RULE content_block_rate WITH (
  action          = 'block',
  reason_code     = 'POLICY_DENY_CONTENT',
  severity        = 'error',
  owner           = 'security',
  keep_firing_for = '10 minutes'
) AS
SELECT s.team,
       s.session_id,
       window_start,
       window_end,
       count(DISTINCT coalesce(s.response_id, s.span_id)) AS observed,
       3 AS threshold,
       'filtered answers in 10 minutes' AS unit,
       concat('a content filter has stopped ', count(DISTINCT coalesce(s.response_id, s.span_id)),
              ' answers to session ', s.session_id) AS message
FROM HOP(spans, event_time, INTERVAL '1 minute', INTERVAL '10 minutes') AS s
WHERE s.session_id IS NOT NULL
  AND regexp_like(lower(s.finish_reason),
                  '(^|,)\s*(content_filter|safety|blocklist|prohibited_content|spii|guardrail_intervened)\s*(,|$)')
GROUP BY s.team, s.session_id, window_start, window_end
HAVING count(DISTINCT coalesce(s.response_id, s.span_id)) >= 3
EMIT ON UPDATE;
