//! The file that `serve --config` reads: which sockets to serve, and for whom.
//!
//! ```toml
//! listen = "127.0.0.1:9464"                           # metrics, health and status over HTTP; optional
//! ignore-owners = ["0193a1b2-0000-7000-8000-0000000000ff"]  # their requests count, their ids do not; optional
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
use crate::cli::WrongUse;
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
        WrongUse(format!("the configuration file {} is not valid:{faults}", printable::path(file))).into()
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
    for key in table.keys().filter(|key| !["socket", "group", "listen", "ignore-owners"].contains(&key.as_str())) {
        let key = printable(key);
        faults.push(format!("unknown key `{key}`, expected `[[socket]]`, `group`, `ignore-owners` and `listen`"));
    }
    let listen = parse_listen(&table, &mut faults);
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
    if faults.is_empty() { Ok(Configuration { listen, ignored_owners, sockets }) } else { Err(faults) }
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
mod tests {
    use super::*;

    const WORKSPACE: &str = "11111111-1111-4111-8111-111111111111";
    const OWNER: &str = "22222222-2222-4222-8222-222222222222";

    fn socket(path: &str, workspace: &str, owner: &str) -> String {
        format!("[[socket]]\npath = \"{path}\"\nworkspace = \"{workspace}\"\nowner = \"{owner}\"\n")
    }

    fn faults(text: &str) -> Vec<String> {
        parse(text).expect_err("must be refused")
    }

    #[test]
    fn several_sockets_are_read_in_order() {
        let text = socket("/run/a.sock", WORKSPACE, OWNER) + &socket("/run/b.sock", OWNER, OWNER);
        let sockets = parse(&text).unwrap().sockets;
        let paths: Vec<_> = sockets.iter().map(|socket| socket.path.to_str().unwrap()).collect();
        assert_eq!(paths, ["/run/a.sock", "/run/b.sock"]);
        assert_eq!(sockets[0].workspace.to_string(), WORKSPACE);
        assert_eq!(sockets[0].owner.to_string(), OWNER);
    }

    #[test]
    fn a_workspace_may_have_two_sockets() {
        let text = socket("/run/a.sock", WORKSPACE, OWNER) + &socket("/run/b.sock", WORKSPACE, OWNER);
        assert_eq!(parse(&text).unwrap().sockets.len(), 2);
    }

    #[test]
    fn all_faults_are_reported_together() {
        let text = format!(
            "flush_interval = \"60s\"\n[[socket]]\nworkspace = \"nonsense\"\nowner = 7\nmode = \"0666\"\n{}",
            socket("", "00000000-0000-0000-0000-000000000000", OWNER)
        );
        let faults = faults(&text);
        for expected in [
            "unknown key `flush_interval`",
            "socket 1: unknown key `mode`",
            "socket 1: `path` is missing",
            "socket 1: `owner` must be a string",
            "socket 1: `workspace` is `nonsense`",
            "socket 2: `workspace` is `00000000-0000-0000-0000-000000000000`: the nil UUID",
            "socket 2: the socket path is empty",
        ] {
            assert!(faults.iter().any(|fault| fault.contains(expected)), "{expected} is not in {faults:#?}");
        }
        assert_eq!(faults.len(), 7);
    }

    #[test]
    fn a_group_holds_for_one_socket_or_for_all_that_name_none() {
        let (a, b) = (socket("/a", WORKSPACE, OWNER), socket("/b", OWNER, OWNER));
        let groups = |text: &str| parse(text).unwrap().sockets.iter().map(|socket| socket.group).collect::<Vec<_>>();
        let group = |text: &str| Some(text.parse::<SocketGroup>().unwrap());
        assert_eq!(groups(&format!("{a}{b}")), [None, None]);
        assert_eq!(groups(&format!("group = \"root\"\n{a}group = 7\n{b}")), [group("7"), group("0")]);
    }

    #[test]
    fn ignored_owners_are_a_list_of_ids() {
        let text = |owners: &str| format!("ignore-owners = {owners}\n{}", socket("/a", WORKSPACE, OWNER));
        assert_eq!(parse(&text(&format!("[\"{OWNER}\"]"))).unwrap().ignored_owners, [OWNER.parse::<Uuid>().unwrap()]);
        for refused in ["7", "\"a\"", "[7]", "[\"a\"]", "[\"00000000-0000-0000-0000-000000000000\"]"] {
            assert!(faults(&text(refused))[0].starts_with("`ignore-owners` "), "{refused}");
        }
    }

    #[test]
    fn an_unknown_group_is_named_with_its_place() {
        let text = format!("group = true\n{}group = \"no-such-group\"", socket("/a", WORKSPACE, OWNER));
        let faults = faults(&text);
        assert!(faults[0].starts_with("`group`: it must be a name or a number"), "{faults:?}");
        assert!(faults[1].starts_with("socket 1: `group`: there is no group `no-such-group`"), "{faults:?}");
    }

    #[test]
    fn an_address_to_listen_on_is_read_and_anything_else_is_refused() {
        let text = |listen: &str| format!("listen = {listen}\n{}", socket("/a", WORKSPACE, OWNER));
        assert_eq!(parse(&text("\"[::1]:9464\"")).unwrap().listen, Some("[::1]:9464".parse().unwrap()));
        assert_eq!(parse(&socket("/a", WORKSPACE, OWNER)).unwrap().listen, None);
        for refused in ["\"localhost:9464\"", "\"127.0.0.1\"", "\":9464\"", "9464"] {
            let faults = faults(&text(refused));
            assert!(faults[0].starts_with("`listen` "), "{faults:?}");
        }
    }

    #[test]
    fn the_same_path_twice_is_refused_however_it_is_spelt() {
        let text = socket("a.sock", WORKSPACE, OWNER) + &socket("./a.sock", OWNER, OWNER);
        assert_eq!(faults(&text), ["sockets 1 and 2 have the same path ./a.sock"]);
    }

    #[test]
    fn two_paths_of_one_socket_are_refused_as_such() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
        std::fs::create_dir(path("real")).unwrap();
        std::os::unix::fs::symlink(path("real"), path("link")).unwrap();
        drop(std::os::unix::net::UnixListener::bind(path("real/old.sock")).unwrap());
        std::os::unix::fs::symlink(path("real/old.sock"), path("old.sock")).unwrap();
        for (one, other) in [
            ("real/a.sock", "link/a.sock"),
            ("real/a.sock", "link/../real/a.sock"),
            ("real/../link/a.sock", "real/./a.sock"),
            ("real/old.sock", "old.sock"),
        ] {
            let (one, other) = (path(one), path(other));
            let text = socket(&one, WORKSPACE, OWNER) + &socket(&other, OWNER, OWNER);
            assert_eq!(
                faults(&text),
                [format!("sockets 1 and 2 are one socket: {one} and {other} lead to the same file")]
            );
        }
        let text = socket(&path("real/a.sock"), WORKSPACE, OWNER) + &socket(&path("link/b.sock"), OWNER, OWNER);
        assert_eq!(parse(&text).unwrap().sockets.len(), 2);
    }

    #[test]
    fn a_workspace_with_two_owners_is_refused() {
        let text = socket("/a", WORKSPACE, OWNER) + &socket("/b", WORKSPACE, WORKSPACE);
        assert!(faults(&text)[0].contains("different owners of the workspace 11111111"));
    }

    #[test]
    fn a_file_without_sockets_is_refused() {
        for text in ["", "socket = []", "socket = 1", "[socket]\npath = \"a\""] {
            assert_eq!(faults(text).len(), 1, "{text}");
        }
    }

    #[test]
    fn a_path_too_long_for_a_socket_is_refused() {
        assert!(path_fault(Path::new(&"a".repeat(107))).is_none());
        assert!(path_fault(Path::new(&"a".repeat(108))).unwrap().contains("108 bytes"));
    }

    #[test]
    fn what_is_not_toml_is_reported_with_its_line() {
        assert!(faults("[[socket]]\npath = ")[0].contains("line 2"));
    }
}
