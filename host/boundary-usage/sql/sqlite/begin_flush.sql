-- Begins the transaction of a flush.
--
-- This statement acquires SQLite's only write lock. That lock takes the place of both locks of a flush, so no later
-- statement has to wait. The busy timeout of the connection limits the wait.
--
-- Parameters: none.
-- Returns nothing.
BEGIN IMMEDIATE;
