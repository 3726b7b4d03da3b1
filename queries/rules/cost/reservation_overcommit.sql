-- Blocks a team whose open reservations and consumption together are more than its daily budget: calls that are under
-- way have been promised more than is left. Open is what has been reserved (event genops.budget.reservation) and not
-- reconciled (genops.budget.reconciliation); what has been reconciled counts as it was measured. team_daily_budget
-- sees a cost when a call has ended, this rule sees it before.
-- A controller refuses the team's calls until reservations are settled; the block is taken back a minute after that.
-- False alarms: reservations that nobody reconciles stay open until midnight (UTC); accounting_gap finds them. A call
-- that is reserved before midnight and reconciled after it makes the next day's sum smaller by its reservation. State:
-- one sum per team and day.
-- To tune: budgets.csv, which team_daily_budget has, too. Only log records are read (as span events, both would arrive
-- when all is over), and only units of USD.
CREATE RULE reservation_overcommit WITH (
  action          = 'block',
  reason_code     = 'BUDGET_RESERVATION_FAILED',
  severity        = 'error',
  owner           = 'finops',
  keep_firing_for = '1 minute'
) AS
SELECT promised.team,
       promised.window_start,
       promised.window_end,
       promised.consumed + promised.open AS observed,
       budget.daily_usd AS threshold,
       'USD' AS unit,
       concat(promised.team, ' has consumed ', TRY_CAST(promised.consumed AS DECIMAL(18, 2)), ' and reserved ',
              TRY_CAST(promised.open AS DECIMAL(18, 2)), ' of its ', budget.daily_usd, ' USD for the day') AS message,
       promised.open AS reserved_usd,
       promised.consumed AS consumed_usd
FROM (
  SELECT l.team, window_start, window_end,
         sum(CASE l.event_name WHEN 'genops.budget.reservation' THEN l.accounting_reserved
                               ELSE -coalesce(l.accounting_reserved, 0) END) AS open,
         coalesce(sum(l.accounting_actual) FILTER (WHERE l.event_name = 'genops.budget.reconciliation'), 0) AS consumed
  FROM TUMBLE(logs, event_time, INTERVAL '1 day') AS l
  WHERE l.event_name IN ('genops.budget.reservation', 'genops.budget.reconciliation')
    AND l.team IS NOT NULL AND l.accounting_unit = 'USD'
  GROUP BY l.team, window_start, window_end
) AS promised
JOIN budgets AS budget ON budget.team = promised.team
WHERE promised.consumed + promised.open > budget.daily_usd
EMIT ON UPDATE;
