-- Stores the key of the id hashes in a new database. A database that has a key keeps it.
--
-- Parameters: ?1 16 random bytes (blob).
-- Returns nothing.
INSERT INTO boundary_usage_deployment (hashing_key) VALUES (?1) ON CONFLICT DO NOTHING;
