-- Reads the sums over the rows and the dropped logs of the open period, for the status.
--
-- Also counts the replicas and the periods. A count stops at its limit, so that the statement does not read long
-- tables.
--
-- Parameters: $1 the largest number of replicas, of periods and of undelivered periods to count (bigint).
-- Returns one row. Sums saturate at 2^63 - 1.
SELECT s.rows, s.allowed_requests, s.denied_requests, s.replica_workspaces_sum, s.replica_users_sum, (
    SELECT least(coalesce(sum(dropped_logs), 0), 9223372036854775807)::bigint FROM boundary_usage_client_drops
) AS client_dropped_logs, (
    SELECT count(*) FROM (SELECT FROM boundary_usage_replicas LIMIT $1::bigint) AS r
) AS replicas, (
    SELECT count(*) FROM (SELECT FROM boundary_usage_periods LIMIT $1::bigint) AS p
) AS periods, (
    SELECT count(*) FROM (SELECT FROM boundary_usage_periods WHERE delivered_at IS NULL LIMIT $1::bigint) AS u
) AS undelivered
FROM (
    SELECT count(*) AS rows,
        least(coalesce(sum(allowed_requests), 0), 9223372036854775807)::bigint AS allowed_requests,
        least(coalesce(sum(denied_requests), 0), 9223372036854775807)::bigint AS denied_requests,
        least(coalesce(sum(unique_workspaces_count), 0), 9223372036854775807)::bigint AS replica_workspaces_sum,
        least(coalesce(sum(unique_users_count), 0), 9223372036854775807)::bigint AS replica_users_sum
    FROM boundary_usage_stats
) AS s;
