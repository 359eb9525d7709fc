-- Marks the summary of a period as delivered.
--
-- Parameters: $1 period id (bigint).
-- Returns the period id, or no row if the summary was delivered before or there is no such period.
UPDATE boundary_usage_periods SET delivered_at = statement_timestamp()
WHERE period_id = $1::bigint AND delivered_at IS NULL
RETURNING period_id;
