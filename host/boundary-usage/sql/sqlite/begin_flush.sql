-- Begins the transaction of a flush.
--
-- It acquires SQLite's only write lock. That lock includes both locks of a flush, and no later statement has to wait
-- for it. The busy timeout of the connection limits the wait.
--
-- Parameters: none.
-- Returns nothing.
BEGIN IMMEDIATE;
