-- Inserts or replaces a day of the history, for a collection. The exclusive cutover lock excludes other collections.
--
-- Parameters: ?1 the date, ?2 periods, ?3 whether one spans midnight, ?4 allowed requests, ?5 denied requests, ?6
-- unique workspaces, ?7 unique users, ?8 workspaces' sketch, ?9 users' sketch.
-- Returns nothing.
INSERT INTO boundary_usage_days (
    day, periods, spans_midnight, allowed_requests, denied_requests, unique_workspaces, unique_users,
    workspaces_sketch, users_sketch
) VALUES (
    ?1, ?2, ?3, ?4, ?5, ?6, ?7,
    ?8, ?9
)
ON CONFLICT (day) DO UPDATE SET
    periods = excluded.periods,
    spans_midnight = excluded.spans_midnight,
    allowed_requests = excluded.allowed_requests,
    denied_requests = excluded.denied_requests,
    unique_workspaces = excluded.unique_workspaces,
    unique_users = excluded.unique_users,
    workspaces_sketch = excluded.workspaces_sketch,
    users_sketch = excluded.users_sketch;
