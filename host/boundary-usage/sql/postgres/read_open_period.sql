-- Reads the start of the open period and the current time, both in whole milliseconds, and whether the
-- period has usage.
--
-- The first period starts with the creation of the tables. A period's length is stored in milliseconds, so a finer
-- time would leave gaps between periods.
--
-- Parameters: none.
-- Returns one row: now, period_start and has_usage.
SELECT date_trunc('milliseconds', statement_timestamp()) AS now, coalesce(
    (SELECT period_end FROM boundary_usage_periods ORDER BY period_id DESC LIMIT 1),
    (SELECT created_at FROM boundary_usage_deployment)
) AS period_start, EXISTS (SELECT 1 FROM boundary_usage_stats) AS has_usage;
