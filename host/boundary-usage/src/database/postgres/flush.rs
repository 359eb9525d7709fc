//! How a flush's transaction begins: its locks and its read go out with the BEGIN, in one round trip.
//!
//! Each would be a round trip of its own, and all are known beforehand. Three round trips remain of six, the fewest that the
//! contract allows: the write depends on what was read, and the commit on what the write answered.

use futures_util::StreamExt;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Either, PgConnection};
use tokio::time::timeout;
use uuid::Uuid;

use super::transaction::{FLUSH, PostgresTransaction, lock_conflict, lock_key};
use super::{Failure, failure};
use crate::database::connections::{Lease, timed_out};
use crate::database::{Lock, LockMode, Stored, rows};

/// Statements of [`FLUSH`]'s beginning; those of the locks and the read follow.
const BEGINNING: usize = 4;

/// Begins a flush.
pub(super) async fn open(
    mut lease: Lease<PgConnection>,
    replica: Uuid,
) -> Result<(PostgresTransaction, Stored), Failure> {
    let reply = timeout(FLUSH.reply, reply(&mut lease.connection, replica)).await;
    let (answered, result) = reply.unwrap_or_else(|_| (0, Err(timed_out())));
    match result {
        Ok(row) => {
            let row = row.ok_or(sqlx::Error::RowNotFound).map_err(Failure::Connection)?;
            let stored = failure::decoded(rows::stored(&row)).map_err(Failure::Answer)?;
            Ok((PostgresTransaction::new(lease, &FLUSH), stored))
        }
        Err(error) if failure::is_session_over(&error) => Err(Failure::Connection(error)),
        Err(error) if failure::is_lock_timeout(&error) => Err(Failure::Answer(match answered {
            BEGINNING => lock_conflict(Lock::Cutover, LockMode::Shared, FLUSH.lock),
            _ => lock_conflict(Lock::Replica(replica), LockMode::Exclusive, FLUSH.lock),
        })),
        Err(error) => Err(Failure::Answer(failure::of("opening a transaction", error))),
    }
}

/// Sends all statements at once. Answers how many of them were carried out, and the last row: that of the read.
async fn reply(connection: &mut PgConnection, replica: Uuid) -> (usize, Result<Option<PgRow>, sqlx::Error>) {
    // The only part that varies is a UUID, written by us.
    let read = rows::READ.replace("$1", &format!("'{replica}'::uuid"));
    let key = lock_key(replica);
    let begin = FLUSH.begin;
    let sql =
        format!("{begin}; SELECT pg_advisory_xact_lock_shared(9); SELECT pg_advisory_xact_lock(9, {key}); {read}");
    let mut results = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_many(connection);
    let (mut answered, mut last_row) = (0, None);
    while let Some(result) = results.next().await {
        match result {
            Ok(Either::Left(_)) => answered += 1,
            Ok(Either::Right(row)) => last_row = Some(row),
            Err(error) => return (answered, Err(error)),
        }
    }
    (answered, Ok(last_row))
}
