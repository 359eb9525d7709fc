-- Begins the transaction of a flush, with its time limits.
--
-- set_transaction.sql must follow in the same round trip.
--
-- Parameters: none.
-- Returns nothing.
BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '10s';
SET LOCAL idle_in_transaction_session_timeout = '15s';
