//! The file that `serve --config` reads: which sockets to serve, and for whom.
//!
//! ```toml
//! listen = "127.0.0.1:9464"                           # metrics, health and status over HTTP; optional
//! ignore-owners = ["0193a1b2-0000-7000-8000-0000000000ff"]  # their requests count, their ids do not; optional
//! allow-hosts = ["usage.example.com"]                 # host names of HTTP beside addresses and localhost; optional
//! group = "boundary"                                  # may connect, to all sockets that name no other; optional
//!
//! [[socket]]
//! path = "/run/boundary/alice.sock"
//! workspace = "0193a1b2-0000-7000-8000-000000000001"
//! owner = "0193a1b2-0000-7000-8000-0000000000aa"
//! group = "alice"                                     # optional
//! ```
//!
//! Every fault of the file is reported at once, so that nobody mends it line by line. Usage that is counted for the wrong
//! workspace cannot be mended later; what is contradictory is therefore refused.

use std::collections::HashMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use toml::{Table, Value};
use uuid::Uuid;

use crate::audit_socket::{Socket, SocketGroup};
use crate::cli::UsageError;
use crate::http::parse_host;
use crate::printable::{self, printable};

/// A unix socket's path has room for 108 bytes, the closing zero included.
const MAX_PATH_BYTES: usize = 107;

/// What the file says.
#[derive(Debug)]
pub struct Configuration {
    /// Where to listen for HTTP.
    pub listen: Option<SocketAddr>,
    /// Owners whose ids, and those of their workspaces, do not count.
    pub ignored_owners: Vec<Uuid>,
    /// Host names under which HTTP is served, beside addresses and `localhost`.
    pub allow_hosts: Vec<String>,
    /// The sockets to serve.
    pub sockets: Vec<Socket>,
}

/// Reads the file.
///
/// # Errors
///
/// When it cannot be read, and as wrong use when something is wrong in it.
pub fn read(file: &Path) -> Result<Configuration> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("cannot read the configuration file {}", printable::path(file)))?;
    parse(&text).map_err(|faults| {
        let faults: String = faults.iter().map(|fault| format!("\n  - {fault}")).collect();
        UsageError(format!("the configuration file {} is not valid:{faults}", printable::path(file))).into()
    })
}

/// Reads the text of a configuration file.
///
/// # Errors
///
/// All that is wrong with it.
pub fn parse(text: &str) -> Result<Configuration, Vec<String>> {
    let table: Table = text.parse().map_err(|error: toml::de::Error| vec![error.to_string().trim_end().to_owned()])?;
    let mut faults = Vec::new();
    let known = ["socket", "group", "listen", "allow-hosts", "ignore-owners"];
    for key in table.keys().filter(|key| !known.contains(&key.as_str())) {
        let key = printable(key);
        let expected = "`[[socket]]`, `group`, `listen`, `allow-hosts` and `ignore-owners`";
        faults.push(format!("unknown key `{key}`, expected {expected}"));
    }
    let listen = parse_listen(&table, &mut faults);
    let allow_hosts = parse_allow_hosts(&table, &mut faults);
    let group = parse_group("", &table, &mut faults);
    let ignored_owners = parse_ignored_owners(&table, &mut faults);
    let sockets = match table.get("socket") {
        Some(Value::Array(sockets)) if !sockets.is_empty() => parse_sockets(sockets, &mut faults),
        None => {
            faults.push("no socket: add a `[[socket]]` with `path`, `workspace` and `owner`".into());
            Vec::new()
        }
        Some(_) => {
            faults.push("`socket` must be a list of tables, each beginning with `[[socket]]`".into());
            Vec::new()
        }
    };
    let sockets = sockets.into_iter().map(|socket| Socket { group: socket.group.or(group), ..socket }).collect();
    let configuration = Configuration { listen, allow_hosts, ignored_owners, sockets };
    if faults.is_empty() { Ok(configuration) } else { Err(faults) }
}

/// What is wrong with a socket's path, if anything.
pub fn path_fault(path: &Path) -> Option<String> {
    let length = path.as_os_str().len();
    match length {
        0 => Some("the socket path is empty".into()),
        1..=MAX_PATH_BYTES => None,
        _ => Some(format!(
            "the socket path {} has {length} bytes, at most {MAX_PATH_BYTES} are possible",
            printable::path(path)
        )),
    }
}

/// Reads an address to listen on.
///
/// # Errors
///
/// When it is not an IP address with a port: a name may stand for several addresses.
pub fn parse_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "not an IP address and a port; write it like 127.0.0.1:9464 or [::1]:9464".to_owned())
}

/// Reads an id that names somebody.
///
/// # Errors
///
/// When it is not a UUID, or the nil one.
pub fn parse_id(text: &str) -> Result<Uuid, String> {
    match Uuid::try_parse(text) {
        Ok(id) if id.is_nil() => Err("the nil UUID names nobody".into()),
        Ok(id) => Ok(id),
        Err(error) => Err(format!("not a UUID: {}", printable(error))),
    }
}

fn parse_sockets(tables: &[Value], faults: &mut Vec<String>) -> Vec<Socket> {
    let mut sockets = Vec::new();
    let mut paths = HashMap::new();
    let mut owners = HashMap::new();
    for (number, value) in (1..).zip(tables) {
        let Some(table) = value.as_table() else {
            faults.push(format!("socket {number} is not a table"));
            continue;
        };
        let Some(socket) = parse_socket(number, table, faults) else { continue };
        if let Some((first, path)) = paths.insert(Place::of(&socket.path), (number, socket.path.clone())) {
            let (one, other) = (printable::path(&path), printable::path(&socket.path));
            faults.push(if absolute(&path) == absolute(&socket.path) {
                format!("sockets {first} and {number} have the same path {other}")
            } else {
                format!("sockets {first} and {number} are one socket: {one} and {other} lead to the same file")
            });
        }
        let (first, owner) = *owners.entry(socket.workspace).or_insert((number, socket.owner));
        if owner != socket.owner {
            let workspace = socket.workspace;
            faults.push(format!("sockets {first} and {number} name different owners of the workspace {workspace}"));
        }
        sockets.push(socket);
    }
    sockets
}

fn parse_socket(number: usize, table: &Table, faults: &mut Vec<String>) -> Option<Socket> {
    for key in table.keys().filter(|key| !["path", "workspace", "owner", "group"].contains(&key.as_str())) {
        let key = printable(key);
        faults.push(format!("socket {number}: unknown key `{key}`, expected `path`, `workspace`, `owner` and `group`"));
    }
    let group = parse_group(&format!("socket {number}: "), table, faults);
    let mut field = |key: &str| match table.get(key) {
        Some(Value::String(text)) => Some(text.as_str()),
        Some(_) => {
            faults.push(format!("socket {number}: `{key}` must be a string"));
            None
        }
        None => {
            faults.push(format!("socket {number}: `{key}` is missing"));
            None
        }
    };
    let (path, workspace, owner) = (field("path"), field("workspace"), field("owner"));
    let mut id = |key: &str, text: Option<&str>| match parse_id(text?) {
        Ok(id) => Some(id),
        Err(fault) => {
            faults.push(format!("socket {number}: `{key}` is `{}`: {fault}", printable(text.unwrap_or_default())));
            None
        }
    };
    let (workspace, owner) = (id("workspace", workspace), id("owner", owner));
    let path = PathBuf::from(path?);
    if let Some(fault) = path_fault(&path) {
        faults.push(format!("socket {number}: {fault}"));
        return None;
    }
    Some(Socket { path, workspace: workspace?, owner: owner?, ids_ignored: false, group })
}

fn parse_listen(table: &Table, faults: &mut Vec<String>) -> Option<SocketAddr> {
    let fault = match table.get("listen")? {
        Value::String(text) => match parse_address(text) {
            Ok(address) => return Some(address),
            Err(fault) => format!("`listen` is `{}`: {fault}", printable(text)),
        },
        _ => "`listen` must be a string".to_owned(),
    };
    faults.push(fault);
    None
}

fn parse_ignored_owners(table: &Table, faults: &mut Vec<String>) -> Vec<Uuid> {
    let Some(value) = table.get("ignore-owners") else { return Vec::new() };
    let Some(owners) = value.as_array() else {
        faults.push("`ignore-owners` must be a list of strings, each a UUID".into());
        return Vec::new();
    };
    let mut id = |owner: &Value| {
        let Some(text) = owner.as_str() else {
            faults.push("`ignore-owners` must contain strings, each a UUID".into());
            return None;
        };
        let id = parse_id(text);
        id.map_err(|fault| faults.push(format!("`ignore-owners` contains `{}`: {fault}", printable(text)))).ok()
    };
    owners.iter().filter_map(&mut id).collect()
}

fn parse_allow_hosts(table: &Table, faults: &mut Vec<String>) -> Vec<String> {
    let mut hosts = Vec::new();
    let values = match table.get("allow-hosts") {
        None => return hosts,
        Some(Value::Array(values)) => values.as_slice(),
        Some(_) => &[Value::Boolean(false)],
    };
    for value in values {
        match value.as_str().map(|text| (text, parse_host(text))) {
            Some((_, Ok(host))) => hosts.push(host),
            Some((text, Err(fault))) => faults.push(format!("`allow-hosts` has `{}`: {fault}", printable(text))),
            None => faults.push("`allow-hosts` must be a list of names, like [\"usage.example.com\"]".to_owned()),
        }
    }
    hosts
}

/// A `group` where there is one. A fault is said after `place`.
fn parse_group(place: &str, table: &Table, faults: &mut Vec<String>) -> Option<SocketGroup> {
    let parsed = match table.get("group")? {
        Value::String(text) => text.parse(),
        Value::Integer(number) => number.to_string().parse(),
        _ => Err("it must be a name or a number".to_owned()),
    };
    parsed.map_err(|fault: String| faults.push(format!("{place}`group`: {fault}"))).ok()
}

/// The same for two paths exactly if they lead to the same file, which need not exist.
#[derive(PartialEq, Eq, Hash)]
enum Place {
    /// Device and inode of the directory, and the name in it.
    InDirectory(u64, u64, Option<OsString>),
    /// The directory cannot be seen.
    Unknown(PathBuf),
}

impl Place {
    fn of(path: &Path) -> Self {
        // Follows a link at the end of the path, too.
        let path = std::fs::canonicalize(path).unwrap_or_else(|_| absolute(path));
        match path.parent().and_then(|parent| std::fs::metadata(parent).ok()) {
            Some(directory) => {
                Self::InDirectory(directory.dev(), directory.ino(), path.file_name().map(ToOwned::to_owned))
            }
            None => Self::Unknown(path),
        }
    }
}

/// `a.sock` and `./a.sock` are the same path.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests;
