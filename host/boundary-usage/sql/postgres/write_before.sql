-- Inserts or replaces the merged set of the pruned days. The exclusive cutover lock excludes other writers.
--
-- Parameters: $1 the last pruned day, $2 periods, $3 allowed requests, $4 denied requests, $5 unique workspaces, $6
-- unique users, $7 workspaces' sketch, $8 users' sketch.
-- Returns nothing.
INSERT INTO boundary_usage_before (
    day, periods, allowed_requests, denied_requests, unique_workspaces, unique_users,
    workspaces_sketch, users_sketch
) VALUES (
    $1::date, $2::bigint, $3::bigint, $4::bigint, $5::bigint, $6::bigint,
    $7::bytea, $8::bytea
)
ON CONFLICT (only_row) DO UPDATE SET
    day = excluded.day,
    periods = excluded.periods,
    allowed_requests = excluded.allowed_requests,
    denied_requests = excluded.denied_requests,
    unique_workspaces = excluded.unique_workspaces,
    unique_users = excluded.unique_users,
    workspaces_sketch = excluded.workspaces_sketch,
    users_sketch = excluded.users_sketch;
