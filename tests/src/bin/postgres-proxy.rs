//! The proxy of `postgres_proxy` for tests in other languages: a program that reads commands and prints one line for each.
//!
//! `postgres-proxy URL` prints the URL under which it passes connections on to that database. After that it reads a command a
//! line from standard input, and prints one line when the command is done. It ends with its standard input.
//!
//! | command | prints |
//! | --- | --- |
//! | `cut POINT [reset]` | `done`. Queues a cut, with a reset of the connection instead of its orderly end |
//! | `pending` | the number of cuts that have not struck |
//! | `commits` | the number of commits that clients have sent |
//! | `committing N` | `done`, as soon as clients have sent N commits |
//! | `deliver` | `done`. Passes on a commit that `commit-delayed` held back |
//! | `refuse`, `accept` | `done`. Closes new connections at once, or no longer |
//!
//! The points, of the enum `Cut`: `write`, `commit`, `commit-delayed`, `reply`, `silence`, `request:N`, `silent-request:N`.

#![forbid(unsafe_code)]

use anyhow::{Context, Result, bail, ensure};
use boundary_usage_tests::postgres_proxy::{Cut, Ending, PostgresProxy};

#[tokio::main]
async fn main() -> Result<()> {
    let url = std::env::args().nth(1).context("in front of which database? usage: postgres-proxy URL")?;
    let proxy = PostgresProxy::in_front_of(&url).await?;
    println!("{}", proxy.url);
    // This thread may block: the proxy runs on those of the runtime.
    for line in std::io::stdin().lines() {
        let line = line?;
        println!("{}", run(&proxy, &line).await.with_context(|| format!("cannot run `{line}`"))?);
    }
    Ok(())
}

/// Runs one command. Returns the line to print.
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
        _ => bail!("it is not a command"),
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
        _ => bail!("`{name}` is not a point to cut at"),
    })
}
