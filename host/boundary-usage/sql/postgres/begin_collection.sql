-- Begins the transaction of a collection, with its time limits.
--
-- The lock_timeout is longer than a hanging flush can hold the lock.
--
-- set_transaction.sql must follow in the same round trip.
--
-- Parameters: none.
-- Returns nothing.
BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;
SET LOCAL lock_timeout = '30s';
SET LOCAL statement_timeout = '300s';
SET LOCAL idle_in_transaction_session_timeout = '60s';
