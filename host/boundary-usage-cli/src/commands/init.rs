//! `init`: creates the schema with a given hashing key.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use boundary_usage::{Database, HashingKey, KeyFingerprint};
use clap::Args;
use serde::Serialize;

use super::CANNOT_USE;
use crate::arguments::Global;
use crate::printable;

/// Create the schema of a database, with a given hashing key.
///
/// A database stores hashes of ids, made with its hashing key. `report` can merge databases that have the same key, for
/// example one for each region. Without a given key, the database gets a random one.
///
/// If the schema exists, nothing is changed, and the command succeeds if the key is the same. The key and the database
/// together reveal whether a given id was active, so keep the file as secret as the database.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// File with the hashing key: 32 hexadecimal digits, or 16 bytes. Its mode must be 0600 or 0400.
    #[arg(long, value_name = "FILE")]
    hashing_key_file: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  (umask 077; openssl rand -hex 16 > hashing.key)
  boundary-usage init --hashing-key-file hashing.key --database sqlite:eu.db
  boundary-usage init --hashing-key-file hashing.key --database sqlite:us.db";

/// The longest content of a key file: the digits, and the end of the line.
const FILE_BYTES_MAX: u64 = 64;

#[derive(Serialize)]
struct Initialized {
    key_fingerprint: KeyFingerprint,
}

pub(crate) async fn run(global: &Global, arguments: Arguments) -> Result<()> {
    let database = match &arguments.hashing_key_file {
        Some(file) => Database::create(&global.database, read_key(file)?).await.context(CANNOT_USE)?,
        None => Database::connect(&global.database).await.context(CANNOT_USE)?,
    };
    let key_fingerprint = database.key_fingerprint().await.context("cannot read the key's fingerprint")?;
    database.close().await;
    let human = || format!("the schema is ready; its hashing key has the fingerprint {key_fingerprint}");
    global.format.print_change(&Initialized { key_fingerprint: key_fingerprint.clone() }, human, || {
        "the schema is ready".to_owned()
    })
}

/// Reads a hashing key. No message contains a part of the key.
fn read_key(path: &Path) -> Result<HashingKey> {
    let shown = printable::path(path);
    let mut file = File::open(path).with_context(|| format!("cannot read the hashing key {shown}"))?;
    let metadata = file.metadata().with_context(|| format!("cannot read the hashing key {shown}"))?;
    let mode = metadata.permissions().mode() & 0o777;
    if !metadata.is_file() {
        bail!("the hashing key {shown} is not a regular file");
    }
    if mode & 0o177 != 0 {
        bail!("the hashing key {shown} has mode {mode:04o}, so others may read it; run: chmod 0600 {shown}");
    }
    let mut content = Vec::new();
    let read = file.by_ref().take(FILE_BYTES_MAX + 1).read_to_end(&mut content);
    read.with_context(|| format!("cannot read the hashing key {shown}"))?;
    match parse_key(&content) {
        Some(key) => Ok(key),
        None => bail!("the hashing key {shown} has neither 32 hexadecimal digits nor 16 bytes"),
    }
}

fn parse_key(content: &[u8]) -> Option<HashingKey> {
    if let ([high, low], []) = content.as_chunks::<8>() {
        return Some(HashingKey(u64::from_be_bytes(*high), u64::from_be_bytes(*low)));
    }
    let digits = std::str::from_utf8(content).ok()?.trim();
    let is_key = digits.len() == 32 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    let half = |digits| u64::from_str_radix(digits, 16).ok();
    if is_key { Some(HashingKey(half(&digits[..16])?, half(&digits[16..])?)) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_16_bytes_or_32_hexadecimal_digits() {
        let key = Some(HashingKey(1, 0xab));
        assert_eq!(parse_key(b"000000000000000100000000000000AB\n"), key);
        assert_eq!(parse_key(&[0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0xab]), key);
        for invalid in [&b""[..], b"00", b"00000000000000010000000000000g00", b"+0000000000000010000000000000000"] {
            assert_eq!(parse_key(invalid), None, "{invalid:?}");
        }
    }
}
