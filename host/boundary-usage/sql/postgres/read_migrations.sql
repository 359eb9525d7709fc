-- Reads the applied migrations.
--
-- Parameters: none.
-- Returns version and checksum of each, in the order of their versions.
SELECT version, checksum FROM boundary_usage_migrations ORDER BY version;
