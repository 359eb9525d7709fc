-- Begins a transaction that reads one state of the database. It waits for no other transaction.
--
-- Parameters: none.
-- Returns nothing.
BEGIN DEFERRED;
