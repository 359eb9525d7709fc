//! How a flush's transaction begins: its locks and its read go out with the BEGIN, in one round trip.
//!
//! Each would be a round trip of its own, and all are known beforehand. The write, which depends on what was read, goes out with
//! the COMMIT when the unique sets stay as they are. So two round trips remain of six, or three when there are sketches to send.
//!
//! The server plans anew what comes together, unless it is prepared. So it is prepared at a connection's first flush. As with all
//! prepared statements, that needs a session of one's own: a pooler must not lend one by transaction.

use futures_util::StreamExt;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Either};
use tokio::time::timeout;
use uuid::Uuid;

use super::transaction::{FLUSH, PostgresTransaction, lock_conflict, lock_key};
use super::{Failure, PostgresLease, failure, write};
use crate::database::connections::timed_out;
use crate::database::{Lock, LockMode, Stored, rows};

/// Statements of [`FLUSH`]'s beginning; the settings, the locks and the read follow.
const BEGINNING: usize = 4;

/// How many statements are prepared after the beginning, where they are not yet.
const PREPARED: usize = 2;

/// Begins a flush.
pub(super) async fn open(
    mut lease: PostgresLease,
    settings: &[String],
    replica: Uuid,
) -> Result<(PostgresTransaction, Stored), Failure> {
    let prepared = if lease.notes.has_prepared_flushes { 0 } else { PREPARED };
    let beginning = BEGINNING + settings.len() + prepared;
    let reply = timeout(FLUSH.reply, reply(&mut lease, settings, replica)).await;
    let (answered, result) = reply.unwrap_or_else(|_| (0, Err(timed_out(FLUSH.reply))));
    match result {
        Ok(row) => {
            lease.notes.has_prepared_flushes = true;
            let row = row.ok_or(sqlx::Error::RowNotFound).map_err(Failure::Connection)?;
            let stored = failure::decoded(rows::stored(&row)).map_err(Failure::Answer)?;
            Ok((PostgresTransaction::new(lease, &FLUSH), stored))
        }
        Err(error) if failure::is_session_over(&error) => Err(Failure::Connection(error)),
        Err(error) if failure::is_lock_timeout(&error) => Err(Failure::Answer(if answered == beginning {
            lock_conflict(Lock::Cutover, LockMode::Shared, FLUSH.lock)
        } else {
            lock_conflict(Lock::Replica(replica), LockMode::Exclusive, FLUSH.lock)
        })),
        Err(error) => Err(Failure::Answer(failure::of("opening a transaction", error))),
    }
}

/// Sends all statements at once. Answers how many of them were carried out, and the last row: that of the read.
async fn reply(
    lease: &mut PostgresLease,
    settings: &[String],
    replica: Uuid,
) -> (usize, Result<Option<PgRow>, sqlx::Error>) {
    let mut statements = vec![FLUSH.begin.to_owned()];
    statements.extend_from_slice(settings);
    if !lease.notes.has_prepared_flushes {
        statements.push(format!("PREPARE boundary_usage_read (uuid) AS {}", rows::READ));
        statements.push(write::prepare());
    }
    statements.push("SELECT pg_advisory_xact_lock_shared(9)".to_owned());
    // What varies is a number and a UUID, written by us, and the quoted name of a schema in the settings.
    statements.push(format!("SELECT pg_advisory_xact_lock(9, {})", lock_key(replica)));
    statements.push(format!("EXECUTE boundary_usage_read ('{replica}')"));
    let mut results = sqlx::raw_sql(AssertSqlSafe(statements.join("; "))).fetch_many(&mut lease.connection);
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
