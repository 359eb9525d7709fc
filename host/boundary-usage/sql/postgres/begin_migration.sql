-- Begins the transaction that creates or updates the tables, with its time limits.
--
-- set_transaction.sql must follow in the same round trip.
--
-- Parameters: none.
-- Returns nothing.
BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;
SET LOCAL lock_timeout = '60s';
SET LOCAL statement_timeout = '300s';
SET LOCAL idle_in_transaction_session_timeout = '60s';
