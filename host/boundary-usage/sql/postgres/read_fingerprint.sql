-- Reads the fingerprint of the hashing key, which the collector's role may read. The key itself is for replicas.
--
-- Parameters: none.
-- Returns one row.
SELECT key_fingerprint FROM boundary_usage_deployment;
