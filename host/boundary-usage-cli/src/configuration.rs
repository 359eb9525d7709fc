//! The file that `serve --config` reads.
//!
//! ```toml
//! listen = "127.0.0.1:9464"                                 # optional: HTTP for metrics, health and status
//! ignore-owners = ["0193a1b2-0000-7000-8000-0000000000ff"]  # optional: count their requests, but not their ids
//! allow-hosts = ["usage.example.com"]                       # optional: HTTP host names besides addresses
//! group = "boundary"                                        # optional: may connect to every socket without a group
//!
//! [[socket]]
//! path = "/run/boundary/alice.sock"
//! workspace = "0193a1b2-0000-7000-8000-000000000001"
//! owner = "0193a1b2-0000-7000-8000-0000000000aa"
//! group = "alice"                                           # optional
//! ```
//!
//! All faults of the file are reported together, each with its line and column. Contradictory settings are faults too,
//! because usage that is counted for the wrong workspace cannot be corrected later.

mod validation;

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::de::{Error as _, IgnoredAny};
use serde::{Deserialize, Deserializer};
use toml::Spanned;
use uuid::Uuid;

use self::validation::{Faults, Field, Key};
use crate::arguments::{check_socket_path, parse_address, parse_id};
use crate::audit_socket::{Socket, SocketGroup};
use crate::failure::UsageError;
use crate::http::parse_host;
use crate::printable;

/// The settings of a configuration file.
#[derive(Debug)]
pub struct Configuration {
    /// The address to listen on for HTTP.
    pub listen: Option<SocketAddr>,
    /// Owners whose ids and workspaces are not counted.
    pub ignored_owners: Vec<Uuid>,
    /// The host names that HTTP requests may have, besides addresses and `localhost`.
    pub allow_hosts: Vec<String>,
    /// The sockets to serve.
    pub sockets: Vec<Socket>,
}

const KEYS: [&str; 5] = ["listen", "ignore-owners", "allow-hosts", "group", "socket"];
const SOCKET_KEYS: [&str; 4] = ["path", "workspace", "owner", "group"];

/// The deserialized file, before its values are checked.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct File {
    listen: Field<String>,
    ignore_owners: Field<Vec<String>>,
    allow_hosts: Field<Vec<String>>,
    group: Field<Group>,
    #[serde(default, deserialize_with = "socket_tables")]
    socket: Vec<Spanned<SocketTable>>,
}

#[derive(Deserialize)]
struct SocketTable {
    path: Field<String>,
    workspace: Field<String>,
    owner: Field<String>,
    group: Field<Group>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Group {
    Name(String),
    Number(u32),
}

fn socket_tables<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Spanned<SocketTable>>, D::Error> {
    Vec::deserialize(deserializer)
        .map_err(|_| D::Error::custom("`socket` must be a list of tables, each with the header `[[socket]]`"))
}

/// The keys of all tables, with their places in the file.
#[derive(Deserialize)]
struct SocketKeys {
    #[serde(default)]
    socket: Vec<BTreeMap<Key, IgnoredAny>>,
}

/// Reads a configuration file.
///
/// # Errors
///
/// Returns an error if the file cannot be read, or a [`UsageError`] if it is not valid.
pub fn read(file: &Path) -> Result<Configuration> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("cannot read the configuration file {}", printable::path(file)))?;
    parse(&text).map_err(|faults| {
        let faults: String = faults.iter().map(|fault| format!("\n  - {fault}")).collect();
        UsageError(format!("the configuration file {} is not valid:{faults}", printable::path(file))).into()
    })
}

/// Parses the text of a configuration file.
///
/// # Errors
///
/// Returns all faults of the text, or the first one if it is not TOML.
pub fn parse(text: &str) -> Result<Configuration, Vec<String>> {
    let not_toml = |error: toml::de::Error| vec![error.to_string().trim_end().to_owned()];
    let file: File = toml::from_str(text).map_err(not_toml)?;
    let keys: BTreeMap<Key, IgnoredAny> = toml::from_str(text).map_err(not_toml)?;
    let socket_keys: SocketKeys = toml::from_str(text).map_err(not_toml)?;

    let mut faults = Faults::new(text);
    faults.check_keys(&keys, &KEYS);
    socket_keys.socket.iter().for_each(|keys| faults.check_keys(keys, &SOCKET_KEYS));
    if file.socket.is_empty() {
        faults.push(0, "no socket: add a table `[[socket]]` with `path`, `workspace` and `owner`");
    }
    let group = parse_group(&mut faults, file.group);
    let configuration = Configuration {
        listen: faults.parse("listen", file.listen, parse_address).map(Spanned::into_inner),
        ignored_owners: faults.parse_list("ignore-owners", file.ignore_owners, parse_id),
        allow_hosts: faults.parse_list("allow-hosts", file.allow_hosts, parse_host),
        sockets: parse_sockets(&mut faults, file.socket, group),
    };
    faults.into_result(configuration)
}

fn parse_group(faults: &mut Faults<'_>, field: Field<Group>) -> Option<SocketGroup> {
    let group = faults.typed("group", field, "a name or a number")?;
    let text = match group.get_ref() {
        Group::Name(name) => name.clone(),
        Group::Number(number) => number.to_string(),
    };
    let parsed = text.parse();
    parsed.map_err(|fault: String| faults.push(group.span().start, format!("`group`: {fault}"))).ok()
}

fn parse_sockets(
    faults: &mut Faults<'_>,
    tables: Vec<Spanned<SocketTable>>,
    default_group: Option<SocketGroup>,
) -> Vec<Socket> {
    let mut sockets = Vec::new();
    let mut paths = HashMap::new();
    let mut owners = HashMap::new();
    for table in tables {
        let (at, table) = (table.span().start, table.into_inner());
        let path = faults.required(at, "path", table.path, parse_path);
        let workspace = faults.required(at, "workspace", table.workspace, parse_id);
        let owner = faults.required(at, "owner", table.owner, parse_id);
        let group = parse_group(faults, table.group).or(default_group);
        let (Some(path), Some(workspace), Some(owner)) = (path, workspace, owner) else { continue };

        let line = faults.line(at);
        let place = Place::of(path.get_ref());
        if let Some((first_line, first)) = paths.insert(place, (line, path.get_ref().clone())) {
            let shown = printable::path(path.get_ref());
            let fault = if absolute(&first) == absolute(path.get_ref()) {
                format!("the path {shown} belongs to the socket in line {first_line} already")
            } else {
                let first = printable::path(&first);
                format!("{shown} is the same file as {first}, the path of the socket in line {first_line}")
            };
            faults.push(path.span().start, fault);
        }
        let (workspace, owner_at, owner) = (workspace.into_inner(), owner.span().start, owner.into_inner());
        let (first_line, first_owner) = *owners.entry(workspace).or_insert((line, owner));
        if first_owner != owner {
            faults.push(owner_at, format!("the workspace {workspace} has another owner in line {first_line}"));
        }
        sockets.push(Socket { path: path.into_inner(), workspace, owner, ids_ignored: false, group });
    }
    sockets
}

fn parse_path(text: &str) -> Result<PathBuf, String> {
    check_socket_path(Path::new(text)).map(|()| PathBuf::from(text))
}

/// The identity of a path.
///
/// Two paths have the same identity if they lead to the same file, which need not exist.
#[derive(PartialEq, Eq, Hash)]
enum Place {
    /// Device and inode of the directory, and the file's name in it.
    InDirectory(u64, u64, Option<OsString>),
    /// A path in a directory that cannot be read.
    Unknown(PathBuf),
}

impl Place {
    fn of(path: &Path) -> Self {
        // This call also follows a link at the end of the path.
        let path = std::fs::canonicalize(path).unwrap_or_else(|_| absolute(path));
        match path.parent().and_then(|parent| std::fs::metadata(parent).ok()) {
            Some(directory) => {
                Self::InDirectory(directory.dev(), directory.ino(), path.file_name().map(ToOwned::to_owned))
            }
            None => Self::Unknown(path),
        }
    }
}

/// Makes a path absolute, so that `a.sock` and `./a.sock` are equal.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests;
