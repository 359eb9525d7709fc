-- Replaces the unique sets in a replica's row, adds the request counts, and records the flush.
--
-- The statement writes nothing if the flush is not newer than the replica's last one, or if the replica has no row.
-- Request counts saturate at 2^63 - 1.
--
-- Parameters: $1 replica id (uuid), $2 flush number, $3 allowed requests, $4 denied requests, $5 unique workspaces, $6
-- unique users (bigint), $7 sketch of the workspaces, $8 sketch of the users (bytea). Returns the replica id if the
-- statement wrote a row, and no row otherwise.
WITH written AS (
    UPDATE boundary_usage_stats AS s SET
        allowed_requests = s.allowed_requests + least($3::bigint, 9223372036854775807 - s.allowed_requests),
        denied_requests = s.denied_requests + least($4::bigint, 9223372036854775807 - s.denied_requests),
        unique_workspaces_count = $5::bigint,
        unique_users_count = $6::bigint,
        workspaces_sketch = $7::bytea,
        users_sketch = $8::bytea,
        updated_at = statement_timestamp()
    FROM boundary_usage_replicas AS r
    WHERE s.replica_id = $1::uuid AND r.replica_id = $1::uuid AND r.last_flush < $2::bigint
    RETURNING s.replica_id
)
INSERT INTO boundary_usage_replicas (replica_id, last_flush, flushed_at)
SELECT replica_id, $2::bigint, statement_timestamp() FROM written
ON CONFLICT (replica_id) DO UPDATE SET last_flush = excluded.last_flush, flushed_at = excluded.flushed_at
RETURNING replica_id;
