-- Reads the merged set of the pruned days.
--
-- Parameters: none.
-- Returns one row with the columns of a day, or no row if no day was pruned.
SELECT day, periods, false AS spans_midnight, allowed_requests, denied_requests, unique_workspaces, unique_users,
    workspaces_sketch, users_sketch
FROM boundary_usage_before;
