-- Reads the fingerprint of the hashing key, which the collector's role may read. Only replicas may read the key itself.
--
-- Parameters: none.
-- Returns one row.
SELECT key_fingerprint FROM boundary_usage_deployment;
