-- Creates the table of the applied migrations, if it is missing. The table has the columns of the sqlx migrator's
-- table, and another name.
--
-- Parameters: none.
-- Returns nothing.
CREATE TABLE IF NOT EXISTS boundary_usage_migrations (
    version BIGINT PRIMARY KEY,
    description TEXT NOT NULL,
    installed_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    success BOOLEAN NOT NULL,
    checksum BLOB NOT NULL,
    execution_time BIGINT NOT NULL
);
