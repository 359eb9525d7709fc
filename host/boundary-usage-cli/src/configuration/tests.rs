//! What the configuration file may hold, and how its faults are reported.

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
        assert_eq!(faults(&text), [format!("sockets 1 and 2 are one socket: {one} and {other} lead to the same file")]);
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
