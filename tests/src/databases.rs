//! The two kinds of database, each test with a fresh one of its own.

use anyhow::{Context, Result};
use boundary_usage::Database;
use sqlx::postgres::PgPool;
use sqlx::sqlite::SqlitePool;
use sqlx::{AssertSqlSafe, Executor};
use tempfile::TempDir;

use crate::postgres_server::PostgresServer;

/// Turns the body of a test into two, which are named `…::sqlite` and `…::postgres`. The body gets a [`TestDatabase`].
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

/// An empty database, and a way into it beside the library's.
pub struct TestDatabase {
    /// Where it is.
    pub url: String,
    /// Whether it is PostgreSQL.
    pub is_postgres: bool,
    /// Removed with the test.
    _directory: Option<TempDir>,
}

impl TestDatabase {
    /// A SQLite file that does not exist yet.
    ///
    /// # Errors
    ///
    /// When there is no room for temporary files.
    pub fn sqlite() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let url = format!("sqlite:{}", directory.path().join("usage.db").display());
        Ok(Self { url, is_postgres: false, _directory: Some(directory) })
    }

    /// A new database of this process's PostgreSQL server.
    ///
    /// # Errors
    ///
    /// When PostgreSQL is not installed.
    pub async fn postgres() -> Result<Self> {
        let url = PostgresServer::running()?.new_database().await?;
        Ok(Self { url, is_postgres: true, _directory: None })
    }

    /// Connects with the library.
    ///
    /// # Errors
    ///
    /// Whatever the library answers.
    pub async fn connect(&self) -> Result<Database, boundary_usage::Error> {
        Database::connect(&self.url).await
    }

    /// The URL of the same database for another role (PostgreSQL).
    pub fn url_as(&self, role: &str) -> String {
        self.url.replacen("postgres@", &format!("{role}@"), 1)
    }

    /// Runs SQL behind the library's back.
    ///
    /// # Errors
    ///
    /// When the database refuses it.
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

    /// Reads one number behind the library's back.
    ///
    /// # Errors
    ///
    /// When the database refuses it, or answers something else.
    pub async fn number(&self, sql: &str) -> Result<i64> {
        let sql = AssertSqlSafe(sql.to_owned());
        let number = if self.is_postgres {
            let pool = PgPool::connect(&self.url).await?;
            sqlx::query_scalar::<_, i64>(sql).fetch_one(&pool).await
        } else {
            let pool = SqlitePool::connect(&self.url).await?;
            sqlx::query_scalar::<_, i64>(sql).fetch_one(&pool).await
        };
        number.context("reading a number")
    }

    /// Moves a stored time into the past: tests do not wait.
    ///
    /// # Errors
    ///
    /// When the database refuses it.
    pub async fn set_back(&self, table: &str, column: &str, seconds: u32) -> Result<()> {
        self.shift(table, column, -i64::from(seconds)).await
    }

    /// Moves a stored time into the future, as if the database's clock had been ahead when it was written.
    ///
    /// # Errors
    ///
    /// When the database refuses it.
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
