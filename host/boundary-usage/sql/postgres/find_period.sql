-- Looks for a closed period.
--
-- Parameters: $1 period id (bigint).
-- Returns the period id, or no row if there is no such period.
SELECT period_id FROM boundary_usage_periods WHERE period_id = $1::bigint;
