//! The proxy of the module `postgres_proxy` as a program, for tests in other languages.
//!
//! `postgres-proxy URL` prints the proxy's own URL, and forwards connections to the database. Then it reads commands
//! from stdin, one per line. It prints one line after each command is complete, and ends at the end of stdin.
//!
//! | command | prints |
//! | --- | --- |
//! | `cut POINT [reset]` | `done`. Queues a cut, which closes the connection or resets it |
//! | `pending` | the number of queued cuts |
//! | `commits` | the number of commits that clients have sent |
//! | `committing N` | `done`, after clients have sent N commits |
//! | `deliver` | `done`. Forwards the commit that `commit-delayed` held back |
//! | `refuse`, `accept` | `done`. Closes new connections immediately, or accepts them again |
//!
//! The points are the variants of `Cut`: `write`, `commit`, `commit-delayed`, `reply`, `silence`, `request:N`,
//! `silent-request:N`.

#![forbid(unsafe_code)]

use anyhow::{Context, Result, bail, ensure};
use boundary_usage_tests::postgres_proxy::{Cut, Ending, PostgresProxy};

#[tokio::main]
async fn main() -> Result<()> {
    let url = std::env::args().nth(1).context("no URL of a database; usage: postgres-proxy URL")?;
    let proxy = PostgresProxy::in_front_of(&url).await?;
    println!("{}", proxy.url);
    // This thread may block, because the proxy runs on the runtime's threads.
    for line in std::io::stdin().lines() {
        let line = line?;
        println!("{}", run(&proxy, &line).await.with_context(|| format!("cannot run `{line}`"))?);
    }
    Ok(())
}

/// Runs one command, and returns the line to print.
async fn run(proxy: &PostgresProxy, line: &str) -> Result<String> {
    match *line.split_whitespace().collect::<Vec<_>>() {
        ["cut", point] => proxy.cut(cut(point)?),
        ["cut", point, "reset"] => proxy.cut_with(cut(point)?, Ending::Reset),
        ["pending"] => return Ok(proxy.pending().to_string()),
        ["commits"] => return Ok(proxy.commits().to_string()),
        ["committing", count] => proxy.committing(count.parse()?).await,
        ["deliver"] => proxy.deliver(),
        ["refuse"] => proxy.refuse(true),
        ["accept"] => proxy.refuse(false),
        _ => bail!("unknown command"),
    }
    Ok("done".to_owned())
}

fn cut(point: &str) -> Result<Cut> {
    let (name, number) = point.split_once(':').unwrap_or((point, "1"));
    let number = number.parse()?;
    ensure!(number > 0, "requests are counted from 1");
    Ok(match name {
        "write" => Cut::Write,
        "commit" => Cut::Commit,
        "commit-delayed" => Cut::CommitDelayed,
        "reply" => Cut::Reply,
        "silence" => Cut::Silence,
        "request" => Cut::Request(number),
        "silent-request" => Cut::SilentRequest(number),
        _ => bail!("unknown point `{name}`"),
    })
}
