-- Looks for the table of the applied migrations.
--
-- Parameters: none.
-- Returns one row, or no row if the table is missing.
SELECT name FROM sqlite_master WHERE name = 'boundary_usage_migrations';
