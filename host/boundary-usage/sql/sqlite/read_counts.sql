-- Reads the sums over the rows and the dropped logs of the open period, for the status.
--
-- Also counts the replicas and the periods. A count stops at its limit, so that the statement does not read long
-- tables.
--
-- Parameters: ?1 the largest number of replicas, of periods and of undelivered periods to count (integer).
-- Returns one row. Sums saturate at 2^63 - 1. SQLite's sum() fails if it overflows, so the halves of the numbers are
-- added separately: the upper 31 bits, and the lower 32 bits.
WITH halves AS (
    SELECT count(*) AS rows,
        coalesce(sum(allowed_requests >> 32), 0) AS allowed_high,
        coalesce(sum(allowed_requests & 4294967295), 0) AS allowed_low,
        coalesce(sum(denied_requests >> 32), 0) AS denied_high,
        coalesce(sum(denied_requests & 4294967295), 0) AS denied_low,
        coalesce(sum(unique_workspaces_count >> 32), 0) AS workspaces_high,
        coalesce(sum(unique_workspaces_count & 4294967295), 0) AS workspaces_low,
        coalesce(sum(unique_users_count >> 32), 0) AS users_high,
        coalesce(sum(unique_users_count & 4294967295), 0) AS users_low
    FROM boundary_usage_stats
), drops AS (
    SELECT coalesce(sum(dropped_logs >> 32), 0) AS high, coalesce(sum(dropped_logs & 4294967295), 0) AS low
    FROM boundary_usage_client_drops
)
SELECT rows,
    iif(allowed_high + (allowed_low >> 32) < 2147483648, (allowed_high << 32) + allowed_low, 9223372036854775807)
        AS allowed_requests,
    iif(denied_high + (denied_low >> 32) < 2147483648, (denied_high << 32) + denied_low, 9223372036854775807)
        AS denied_requests,
    iif(workspaces_high + (workspaces_low >> 32) < 2147483648, (workspaces_high << 32) + workspaces_low,
        9223372036854775807) AS replica_workspaces_sum,
    iif(users_high + (users_low >> 32) < 2147483648, (users_high << 32) + users_low, 9223372036854775807)
        AS replica_users_sum,
    (SELECT iif(high + (low >> 32) < 2147483648, (high << 32) + low, 9223372036854775807) FROM drops)
        AS client_dropped_logs,
    (SELECT count(*) FROM (SELECT 1 FROM boundary_usage_replicas LIMIT ?1)) AS replicas,
    (SELECT count(*) FROM (SELECT 1 FROM boundary_usage_periods LIMIT ?1)) AS periods,
    (SELECT count(*) FROM (SELECT 1 FROM boundary_usage_periods WHERE delivered_at IS NULL LIMIT ?1)) AS undelivered
FROM halves;
