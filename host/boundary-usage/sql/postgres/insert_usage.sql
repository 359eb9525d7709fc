-- Inserts the row of a replica that has none in the open period, and records the flush.
--
-- The statement writes nothing if the flush is not newer than the replica's last one, or if the replica has a row.
--
-- Parameters: $1 replica id (uuid), $2 flush number, $3 allowed requests, $4 denied requests, $5 unique workspaces, $6
-- unique users (bigint), $7 sketch of the workspaces, $8 sketch of the users (bytea). Returns the replica id if the
-- statement wrote a row, and no row otherwise.
WITH written AS (
    INSERT INTO boundary_usage_stats AS s (
        replica_id, allowed_requests, denied_requests, unique_workspaces_count, unique_users_count,
        workspaces_sketch, users_sketch, window_start, updated_at
    )
    SELECT $1::uuid, $3::bigint, $4::bigint, $5::bigint, $6::bigint, $7::bytea, $8::bytea,
        statement_timestamp(), statement_timestamp()
    WHERE NOT EXISTS (SELECT FROM boundary_usage_replicas WHERE replica_id = $1::uuid AND last_flush >= $2::bigint)
    ON CONFLICT (replica_id) DO NOTHING
    RETURNING s.replica_id
)
INSERT INTO boundary_usage_replicas (replica_id, last_flush, flushed_at)
SELECT replica_id, $2::bigint, statement_timestamp() FROM written
ON CONFLICT (replica_id) DO UPDATE SET last_flush = excluded.last_flush, flushed_at = excluded.flushed_at
RETURNING replica_id;
