-- Records a flush as the replica's last one, if the preceding statement has written the replica's row.
--
-- This statement must directly follow insert_usage.sql, update_usage.sql or update_requests.sql in the same
-- transaction.
--
-- Parameters: ?1 replica id (text), ?2 flush number (integer). Returns the replica id if the preceding statement has
-- written the row, and no row otherwise.
INSERT INTO boundary_usage_replicas (replica_id, last_flush, flushed_at)
SELECT ?1, ?2, strftime('%Y-%m-%dT%H:%M:%f000Z', 'now') WHERE changes() > 0
ON CONFLICT (replica_id) DO UPDATE SET last_flush = excluded.last_flush, flushed_at = excluded.flushed_at
RETURNING replica_id;
