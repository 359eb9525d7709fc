-- Begins the transaction of a collection.
--
-- This statement acquires SQLite's only write lock, which excludes every flush. The busy timeout of the connection
-- limits the wait.
--
-- Parameters: none.
-- Returns nothing.
BEGIN IMMEDIATE;
