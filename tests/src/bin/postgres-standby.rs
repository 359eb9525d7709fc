//! A PostgreSQL server and its hot standby as a program, for tests in other languages.
//!
//! `postgres-standby` prints the URL of the primary, and then that of the standby. Both end at the end of stdin.

#![forbid(unsafe_code)]

use anyhow::Result;
use boundary_usage_tests::restartable_postgres::RestartablePostgres;

#[tokio::main]
async fn main() -> Result<()> {
    let primary = RestartablePostgres::start("").await?;
    let standby = primary.start_standby().await?;
    println!("{}\n{}", primary.url(), standby.url());
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    Ok(())
}
