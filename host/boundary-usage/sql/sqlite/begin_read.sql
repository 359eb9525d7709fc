-- Begins a transaction that reads one state of the database. The transaction does not wait for others.
--
-- Parameters: none.
-- Returns nothing.
BEGIN DEFERRED;
