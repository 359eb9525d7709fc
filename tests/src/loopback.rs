//! An HTTP client that sends exactly the bytes of a test, to a server on this machine.

use std::net::SocketAddr;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Sends a request, and returns the whole response.
///
/// `head` is the request line and headers, each with its end of line.
///
/// # Errors
///
/// Returns an error if the server cannot be reached, or closes the connection in the middle of its response.
pub async fn request(address: SocketAddr, head: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(format!("{head}host: localhost\r\nconnection: close\r\n\r\n").as_bytes()).await?;
    let mut response = Vec::new();
    stream.read_to_end(&mut response).await?;
    Ok(String::from_utf8(response)?)
}
