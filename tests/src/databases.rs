//! Empty SQLite and PostgreSQL databases, a new one for each test.

use anyhow::{Context, Result};
use boundary_usage::Database;
use sqlx::postgres::PgPool;
use sqlx::sqlite::SqlitePool;
use sqlx::{AssertSqlSafe, Executor};
use tempfile::TempDir;

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

/// An empty database, which tests can also read and change without the library.
pub struct TestDatabase {
    /// The URL for the library.
    pub url: String,
    /// Whether it is PostgreSQL.
    pub is_postgres: bool,
    /// The directory of the SQLite file, which is removed on drop.
    _directory: Option<TempDir>,
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
        Ok(Self { url, is_postgres: false, _directory: Some(directory) })
    }

    /// Creates a database on this process's PostgreSQL server.
    ///
    /// # Errors
    ///
    /// Returns an error if PostgreSQL is not installed or does not start.
    pub async fn postgres() -> Result<Self> {
        let url = PostgresServer::running()?.new_database().await?;
        Ok(Self { url, is_postgres: true, _directory: None })
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
            let pool = PgPool::connect(&self.url).await?;
            pool.execute(sql).await?;
            pool.close().await;
        } else {
            let pool = SqlitePool::connect(&self.url).await?;
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
            let pool = PgPool::connect(&self.url).await?;
            sqlx::query_scalar::<_, i64>(sql).fetch_one(&pool).await
        } else {
            let pool = SqlitePool::connect(&self.url).await?;
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
