//! Owners that are not persons: their requests count, but their ids and their workspaces do not.

use serde_json::json;

use crate::audit_socket::{SESSION, send_and_hang_up};
use crate::program::{Workplace, id, numbers, one_socket};

#[test]
fn requests_of_ignored_owners_count_without_their_ids() {
    let workplace = Workplace::new();
    let socket = workplace.path("audit.sock");
    let ignored = ["--ignore-owner".to_owned(), id(3), "--ignore-owner".to_owned(), id(2)];
    let serving = workplace.serve(1, one_socket(&socket, 1, 2).into_iter().chain(ignored));
    send_and_hang_up(&socket, SESSION);
    let report = serving.stop().json();
    assert_eq!(report["sockets"][0]["allowed"], json!(9));
    assert_eq!(numbers(&workplace.json(["collect"])), [0, 0, 9, 4]);
}

#[test]
fn owners_in_the_file_and_owners_in_flags_are_all_ignored() {
    let workplace = Workplace::new();
    let socket = |name: &str, workspace, owner| {
        format!("[[socket]]\npath = {name:?}\nworkspace = \"{}\"\nowner = \"{}\"\n", id(workspace), id(owner))
    };
    let sockets = socket("a.sock", 1, 7) + &socket("b.sock", 2, 8) + &socket("c.sock", 3, 9);
    workplace.write("sockets.toml", &format!("ignore-owners = [\"{}\"]\n{sockets}", id(7)));
    let serving = workplace.serve(3, ["--config", "sockets.toml", "--ignore-owner", &id(8)]);
    for name in ["a.sock", "b.sock", "c.sock"] {
        send_and_hang_up(&workplace.path(name), SESSION);
    }
    serving.stop().json();
    assert_eq!(numbers(&workplace.json(["status"])["so_far"]), [1, 1, 27, 12]);
    assert_eq!(numbers(&workplace.json(["collect"])), [1, 1, 27, 12]);
}
