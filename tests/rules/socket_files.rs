//! Socket files that are removed or replaced while `serve` runs: it logs this and binds them again.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::audit_socket::{SESSION, send_and_hang_up};
use crate::http::get;
use crate::program::{Serving, Workplace, numbers, one_socket};

struct Scene {
    workplace: Workplace,
    serving: Serving,
    directory: PathBuf,
    socket: PathBuf,
}

impl Scene {
    fn new() -> Self {
        let workplace = Workplace::new();
        let directory = workplace.path("sockets");
        fs::create_dir(&directory).unwrap();
        let socket = directory.join("audit.sock");
        let listen = ["--listen", "127.0.0.1:0"].map(str::to_owned);
        let serving = workplace.serve(1, one_socket(&socket, 1, 2).into_iter().chain(listen));
        Self { workplace, serving, directory, socket }
    }

    fn readiness(&self) -> String {
        get(&self.serving.http(), "/readyz").body
    }

    /// Waits until `/readyz` contains the text.
    #[track_caller]
    fn wait_until_readiness_is(&self, text: &str) {
        let start = Instant::now();
        while !self.readiness().contains(text) {
            assert!(start.elapsed() < Duration::from_secs(20), "{text:?} is not in {:?}", self.readiness());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sends a session, stops `serve`, and checks that this number of sessions counted.
    fn assert_counted(mut self, sessions: u64) {
        assert_eq!(self.readiness(), "ready\n");
        send_and_hang_up(&self.socket, SESSION);
        self.serving.signal("TERM");
        self.serving.wait_for_log("stopping");
        self.serving.wait().json();
        assert_eq!(numbers(&self.workplace.json(["collect"])), [1, 1, 9 * sessions, 4 * sessions]);
    }
}

fn bind(path: &Path) -> UnixListener {
    UnixListener::bind(path).unwrap()
}

#[test]
fn a_removed_socket_is_bound_again_and_its_clients_stay_connected() {
    let mut scene = Scene::new();
    let mut old = std::os::unix::net::UnixStream::connect(&scene.socket).unwrap();
    fs::remove_file(&scene.socket).unwrap();
    scene.serving.wait_for_log("was removed");
    scene.serving.wait_for_log("bound the audit socket again");
    std::io::Write::write_all(&mut old, SESSION).unwrap();
    scene.assert_counted(2);
}

#[test]
fn serve_is_not_ready_while_the_directory_of_a_socket_is_missing() {
    let mut scene = Scene::new();
    fs::remove_dir_all(&scene.directory).unwrap();
    scene.serving.wait_for_log("the directory of the audit socket");
    let readiness = scene.readiness();
    assert!(readiness.starts_with("not ready") && readiness.contains("audit.sock"), "{readiness}");
    fs::create_dir(&scene.directory).unwrap();
    scene.serving.wait_for_log("bound the audit socket again");
    scene.assert_counted(1);
}

#[test]
fn a_socket_of_another_process_is_kept_and_serve_is_not_ready() {
    let mut scene = Scene::new();
    fs::remove_file(&scene.socket).unwrap();
    let other = bind(&scene.directory.join("other"));
    fs::rename(scene.directory.join("other"), &scene.socket).unwrap();
    scene.serving.wait_for_log("another process listens");
    scene.wait_until_readiness_is("another process listens");
    other.set_nonblocking(true).unwrap();
    assert!(other.accept().is_err(), "serve connected to the socket of the other process");
    drop(other);
    scene.serving.wait_for_log("bound the audit socket again");
    scene.assert_counted(1);
}

#[test]
fn a_file_at_the_path_of_a_socket_is_kept_and_reported() {
    let mut scene = Scene::new();
    fs::remove_file(&scene.socket).unwrap();
    fs::write(&scene.socket, "precious").unwrap();
    scene.serving.wait_for_log("is not a socket");
    scene.wait_until_readiness_is("is not a socket");
    assert_eq!(fs::read_to_string(&scene.socket).unwrap(), "precious");
    fs::remove_file(&scene.socket).unwrap();
    scene.serving.wait_for_log("bound the audit socket again");
    scene.assert_counted(1);
}
