-- Reads how long the open period has lasted and how long the oldest undelivered summary has waited, for metrics.
--
-- Parameters: none.
-- Returns one row: open_period_ms, and oldest_undelivered_ms (null if all summaries are delivered).
SELECT (1000 * extract(epoch FROM statement_timestamp() - coalesce(
    (SELECT period_end FROM boundary_usage_periods ORDER BY period_id DESC LIMIT 1),
    (SELECT created_at FROM boundary_usage_deployment)
)))::bigint AS open_period_ms, (
    SELECT (1000 * extract(epoch FROM statement_timestamp() - min(period_end)))::bigint
    FROM boundary_usage_periods WHERE delivered_at IS NULL
) AS oldest_undelivered_ms;
