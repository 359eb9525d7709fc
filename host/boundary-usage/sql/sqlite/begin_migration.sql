-- Begins the transaction that creates or updates the tables.
--
-- This statement acquires SQLite's only write lock, so one process at a time migrates. The busy timeout of the
-- connection limits the wait.
--
-- Parameters: none.
-- Returns nothing.
BEGIN IMMEDIATE;
