-- Stores the key of the id hashes in a new database. A database that has a key keeps it.
--
-- Parameters: $1 16 random bytes (bytea).
-- Returns nothing.
INSERT INTO boundary_usage_deployment (hashing_key) VALUES ($1::bytea) ON CONFLICT DO NOTHING;
