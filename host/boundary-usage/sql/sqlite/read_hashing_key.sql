-- Reads the key of the id hashes.
--
-- Parameters: none.
-- Returns one row with hashing_key, or no row if the database has lost it.
SELECT hashing_key FROM boundary_usage_deployment;
