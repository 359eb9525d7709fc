//! Empty SQLite and PostgreSQL databases, a new one for each test.

use anyhow::{Context, Result};
use boundary_usage::Database;
use sqlx::postgres::PgPool;
use sqlx::sqlite::SqlitePool;
use sqlx::{AssertSqlSafe, Executor};
use tempfile::TempDir;

use crate::pgbouncer::{PgBouncer, PoolMode};
use crate::postgres_server::PostgresServer;

/// Runs the body of a test on both kinds of database.
///
/// The two tests are named `…::sqlite` and `…::postgres`. The body receives a [`TestDatabase`].
#[macro_export]
macro_rules! on_each_database {
    ($($(#[$attribute:meta])* async fn $name:ident($database:ident) $body:block)*) => {$(
        $(#[$attribute])*
        mod $name {
            #[allow(unused_imports)]
            use super::*;

            async fn promise($database: $crate::databases::TestDatabase) -> anyhow::Result<()> $body

            #[tokio::test]
            async fn sqlite() -> anyhow::Result<()> {
                promise($crate::databases::TestDatabase::sqlite()?).await
            }

            #[tokio::test]
            async fn postgres() -> anyhow::Result<()> {
                promise($crate::databases::TestDatabase::postgres().await?).await
            }
        }
    )*};
}

/// The connections to the server behind a pooler: PgBouncer's own default.
const POOL_SIZE: usize = 20;

/// Runs the body of a test like [`on_each_database`], and also on PostgreSQL behind PgBouncer.
///
/// The tests for the two pool modes are named `…::pgbouncer_transaction` and `…::pgbouncer_session`.
#[macro_export]
macro_rules! on_each_database_and_pooler {
    ($($(#[$attribute:meta])* async fn $name:ident($database:ident) $body:block)*) => {$(
        $(#[$attribute])*
        mod $name {
            #[allow(unused_imports)]
            use super::*;
            use $crate::databases::TestDatabase as Test;
            use $crate::pgbouncer::PoolMode;

            async fn promise($database: Test) -> anyhow::Result<()> $body

            #[tokio::test]
            async fn sqlite() -> anyhow::Result<()> {
                promise(Test::sqlite()?).await
            }

            #[tokio::test]
            async fn postgres() -> anyhow::Result<()> {
                promise(Test::postgres().await?).await
            }

            #[tokio::test]
            async fn pgbouncer_transaction() -> anyhow::Result<()> {
                promise(Test::through_pgbouncer(PoolMode::Transaction).await?).await
            }

            #[tokio::test]
            async fn pgbouncer_session() -> anyhow::Result<()> {
                promise(Test::through_pgbouncer(PoolMode::Session).await?).await
            }
        }
    )*};
}

/// An empty database, which tests can also read and change without the library.
pub struct TestDatabase {
    /// The URL for the library.
    pub url: String,
    /// Whether it is PostgreSQL.
    pub is_postgres: bool,
    /// The URL for the test's own statements, which bypass a pooler.
    direct_url: String,
    /// The directory of the SQLite file, which is removed on drop.
    _directory: Option<TempDir>,
    /// The pooler, which is killed on drop.
    _pooler: Option<PgBouncer>,
}

impl TestDatabase {
    /// Returns a SQLite database whose file does not exist yet.
    ///
    /// # Errors
    ///
    /// Returns an error if the temporary directory cannot be created.
    pub fn sqlite() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let url = format!("sqlite:{}", directory.path().join("usage.db").display());
        let direct_url = url.clone();
        Ok(Self { url, is_postgres: false, direct_url, _directory: Some(directory), _pooler: None })
    }

    /// Creates a database on this process's PostgreSQL server.
    ///
    /// # Errors
    ///
    /// Returns an error if PostgreSQL is not installed or does not start.
    pub async fn postgres() -> Result<Self> {
        let url = PostgresServer::running()?.new_database().await?;
        let direct_url = url.clone();
        Ok(Self { url, is_postgres: true, direct_url, _directory: None, _pooler: None })
    }

    /// Creates a database of this process's PostgreSQL server, behind a PgBouncer of the test's own.
    ///
    /// # Errors
    ///
    /// Returns an error if PostgreSQL or PgBouncer is not installed.
    pub async fn through_pgbouncer(mode: PoolMode) -> Result<Self> {
        let test = Self::postgres().await?;
        let pooler = PgBouncer::start(mode, POOL_SIZE)?;
        Ok(Self { url: pooler.url_of(&test.direct_url)?, _pooler: Some(pooler), ..test })
    }

    /// Connects with the library.
    ///
    /// # Errors
    ///
    /// Returns the library's error.
    pub async fn connect(&self) -> Result<Database, boundary_usage::Error> {
        Database::connect(&self.url).await
    }

    /// Returns the URL of the same PostgreSQL database for another role.
    pub fn url_as(&self, role: &str) -> String {
        self.url.replacen("postgres@", &format!("{role}@"), 1)
    }

    /// Runs SQL without the library.
    ///
    /// # Errors
    ///
    /// Returns an error if the SQL fails.
    pub async fn execute(&self, sql: &str) -> Result<()> {
        let sql = AssertSqlSafe(sql.to_owned());
        if self.is_postgres {
            let pool = PgPool::connect(&self.direct_url).await?;
            pool.execute(sql).await?;
            pool.close().await;
        } else {
            let pool = SqlitePool::connect(&self.direct_url).await?;
            pool.execute(sql).await?;
            pool.close().await;
        }
        Ok(())
    }

    /// Reads one number with SQL, without the library.
    ///
    /// # Errors
    ///
    /// Returns an error if the SQL fails, or returns no number.
    pub async fn number(&self, sql: &str) -> Result<i64> {
        let sql = AssertSqlSafe(sql.to_owned());
        let number = if self.is_postgres {
            let pool = PgPool::connect(&self.direct_url).await?;
            sqlx::query_scalar::<_, i64>(sql).fetch_one(&pool).await
        } else {
            let pool = SqlitePool::connect(&self.direct_url).await?;
            sqlx::query_scalar::<_, i64>(sql).fetch_one(&pool).await
        };
        number.context("cannot read a number")
    }

    /// Moves the times in a column into the past, so that a test need not wait.
    ///
    /// # Errors
    ///
    /// Returns an error if the update fails.
    pub async fn set_back(&self, table: &str, column: &str, seconds: u32) -> Result<()> {
        self.shift(table, column, -i64::from(seconds)).await
    }

    /// Returns an SQL expression for the time this number of days ago.
    pub fn days_ago(&self, days: u32) -> String {
        if self.is_postgres {
            format!("now() - interval '{days} days'")
        } else {
            format!("strftime('%Y-%m-%dT%H:%M:%f000Z', 'now', '-{days} days')")
        }
    }

    /// Returns an SQL expression for a table with the numbers from 1 to `last` in the column `value`.
    pub fn numbers(&self, last: u32) -> String {
        if self.is_postgres {
            format!("(SELECT value FROM generate_series(1, {last}) AS series (value)) AS numbers")
        } else {
            let series =
                "WITH RECURSIVE series (value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM series WHERE value";
            format!("({series} < {last}) SELECT value FROM series) AS numbers")
        }
    }

    /// Moves the times in a column into the future.
    ///
    /// They are then as if the database's clock had been ahead.
    ///
    /// # Errors
    ///
    /// Returns an error if the update fails.
    pub async fn set_ahead(&self, table: &str, column: &str, seconds: u32) -> Result<()> {
        self.shift(table, column, i64::from(seconds)).await
    }

    async fn shift(&self, table: &str, column: &str, seconds: i64) -> Result<()> {
        let shifted = if self.is_postgres {
            format!("{column} + interval '{seconds} seconds'")
        } else {
            format!("strftime('%Y-%m-%dT%H:%M:%f000Z', {column}, '{seconds} seconds')")
        };
        self.execute(&format!("UPDATE {table} SET {column} = {shifted}")).await
    }
}
