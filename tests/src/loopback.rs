//! A client that says exactly what a test has written, to a server on this machine.

use std::net::SocketAddr;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Sends a request line and headers, each with its line's end, and answers all that comes back.
///
/// # Errors
///
/// When the server cannot be reached, or hangs up in the middle.
pub async fn ask(address: SocketAddr, head: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(format!("{head}host: localhost\r\nconnection: close\r\n\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(String::from_utf8(answer)?)
}
