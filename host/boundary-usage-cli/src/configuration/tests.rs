//! Tests of valid configuration files, and of the faults that are reported for invalid ones.

use super::*;

const WORKSPACE: &str = "11111111-1111-4111-8111-111111111111";
const OWNER: &str = "22222222-2222-4222-8222-222222222222";

fn socket(path: &str, workspace: &str, owner: &str) -> String {
    format!("[[socket]]\npath = \"{path}\"\nworkspace = \"{workspace}\"\nowner = \"{owner}\"\n")
}

fn faults(text: &str) -> Vec<String> {
    parse(text).expect_err("must be rejected")
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
fn all_faults_are_reported_together_with_their_places() {
    let text = format!(
        "flush_interval = \"60s\"\n[[socket]]\nworkspace = \"nonsense\"\nowner = 7\n  mode = \"0666\"\n{}",
        socket("", "00000000-0000-0000-0000-000000000000", OWNER)
    );
    let faults = faults(&text);
    for (fault, expected) in faults.iter().zip([
        "line 1, column 1: unknown key `flush_interval`",
        "line 2, column 1: `path` is missing",
        "line 3, column 13: `workspace` is `nonsense`: not a UUID",
        "line 4, column 9: `owner` must be a string",
        "line 5, column 3: unknown key `mode`",
        "line 7, column 8: `path` is ``: the socket path is empty",
        "line 8, column 13: `workspace` is `00000000-0000-0000-0000-000000000000`: the nil UUID",
    ]) {
        assert!(fault.starts_with(expected), "{expected} is not in {faults:#?}");
    }
    assert_eq!(faults.len(), 7);
}

#[test]
fn a_group_applies_to_one_socket_or_to_all_without_a_group() {
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
    for invalid in ["7", "\"a\"", "[7]", "[\"a\"]", "[\"00000000-0000-0000-0000-000000000000\"]"] {
        let faults = faults(&text(invalid));
        assert!(faults[0].starts_with("line 1, column 17: `ignore-owners` "), "{invalid}: {faults:?}");
    }
}

#[test]
fn an_unknown_group_is_reported_with_its_place() {
    let text = format!("group = true\n{}group = \"no-such-group\"", socket("/a", WORKSPACE, OWNER));
    let faults = faults(&text);
    assert!(faults[0].starts_with("line 1, column 9: `group` must be a name or a number"), "{faults:?}");
    assert!(faults[1].starts_with("line 6, column 9: `group`: there is no group `no-such-group`"), "{faults:?}");
}

#[test]
fn only_an_ip_address_with_a_port_is_accepted_for_http() {
    let text = |listen: &str| format!("listen = {listen}\n{}", socket("/a", WORKSPACE, OWNER));
    assert_eq!(parse(&text("\"[::1]:9464\"")).unwrap().listen, Some("[::1]:9464".parse().unwrap()));
    assert_eq!(parse(&socket("/a", WORKSPACE, OWNER)).unwrap().listen, None);
    for invalid in ["\"localhost:9464\"", "\"127.0.0.1\"", "\":9464\"", "9464"] {
        let faults = faults(&text(invalid));
        assert!(faults[0].starts_with("line 1, column 10: `listen` "), "{faults:?}");
    }
}

#[test]
fn the_same_path_in_another_spelling_is_rejected() {
    let text = socket("a.sock", WORKSPACE, OWNER) + &socket("./a.sock", OWNER, OWNER);
    assert_eq!(faults(&text), ["line 6, column 8: the path ./a.sock belongs to the socket in line 1 already"]);
}

#[test]
fn two_paths_that_lead_to_one_file_are_rejected() {
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
        let fault = format!("{other} is the same file as {one}, the path of the socket in line 1");
        assert_eq!(faults(&text), [format!("line 6, column 8: {fault}")]);
    }
    let text = socket(&path("real/a.sock"), WORKSPACE, OWNER) + &socket(&path("link/b.sock"), OWNER, OWNER);
    assert_eq!(parse(&text).unwrap().sockets.len(), 2);
}

#[test]
fn a_workspace_with_two_owners_is_rejected() {
    let text = socket("/a", WORKSPACE, OWNER) + &socket("/b", WORKSPACE, WORKSPACE);
    let fault = format!("line 8, column 9: the workspace {WORKSPACE} has another owner in line 1");
    assert_eq!(faults(&text), [fault]);
}

#[test]
fn a_file_without_sockets_is_rejected() {
    for (text, fault) in [
        ("", "line 1, column 1: no socket"),
        ("socket = []", "line 1, column 1: no socket"),
        ("socket = 1", "TOML parse error at line 1, column 10"),
        ("[socket]\npath = \"a\"", "TOML parse error at line 1, column 1"),
        ("socket = [1]", "TOML parse error at line 1, column 10"),
    ] {
        let faults = faults(text);
        assert!(faults.len() == 1 && faults[0].starts_with(fault), "{text}: {faults:?}");
        assert!(faults[0].contains("[[socket]]"), "{text}: {faults:?}");
    }
}

#[test]
fn a_syntax_error_is_reported_with_its_line() {
    assert!(faults("[[socket]]\npath = ")[0].contains("line 2"));
}
