//! Several replicas in separate processes on one database, during a collection: D4, D6, R8.

use std::path::PathBuf;

use boundary_usage_tests::on_each_database;

use crate::audit_socket::{SESSION, send_and_hang_up};
use crate::program::{Serving, Workplace, id, numbers};

/// The workspace and owner that are active at every replica.
const SHARED: (u128, u128) = (1, 7);

struct Replica {
    serving: Serving,
    sockets: Vec<PathBuf>,
}

impl Replica {
    /// Serves the shared workspace, another workspace of the shared user, and one with a user of its own.
    fn start(workplace: &Workplace, number: u128) -> Self {
        let served = [SHARED, (10 + number, SHARED.1), (20 + number, 30 + number)];
        let mut file = String::new();
        let mut sockets = Vec::new();
        for (workspace, owner) in served {
            let path = workplace.path(&format!("replica-{number}-{workspace}.sock"));
            let (workspace, owner) = (id(workspace), id(owner));
            file += &format!("[[socket]]\npath = {path:?}\nworkspace = \"{workspace}\"\nowner = \"{owner}\"\n");
            sockets.push(path);
        }
        let file = workplace.write(&format!("replica-{number}.toml"), &file);
        let options = ["-v", "--no-collect", "--flush-interval", "50ms", "--config", file.to_str().unwrap()];
        Self { serving: workplace.serve(sockets.len(), options), sockets }
    }
}

/// Sends a session to each socket of a replica.
fn send(sockets: &[PathBuf]) {
    sockets.iter().for_each(|socket| send_and_hang_up(socket, SESSION));
}

on_each_database! {
    async fn d4_d6_r8_counts_of_several_processes_are_right_during_a_collection(test) {
        let workplace = Workplace::on(&test.url);
        let count: u64 = if test.is_postgres { 3 } else { 2 };
        let mut replicas: Vec<_> = (1..=count).map(|number| Replica::start(&workplace, number.into())).collect();
        for replica in &mut replicas {
            send(&replica.sockets);
            replica.serving.wait_for_log("Written");
        }
        // All replicas receive sessions and flush while the collection closes the period.
        let first = std::thread::scope(|scope| {
            for Replica { sockets, .. } in &replicas {
                scope.spawn(|| (0..20).for_each(|_| send(sockets)));
            }
            workplace.json(["collect"])
        });
        replicas.iter().for_each(|replica| send(&replica.sockets));
        for Replica { serving, .. } in replicas {
            let report = serving.stop().json();
            assert_eq!(report["restarts"], 0);
        }
        let second = workplace.json(["collect"]);

        let [workspaces, users, allowed, denied] = numbers(&second);
        assert_eq!((workspaces, users), (1 + 2 * count, 1 + count), "{second}");
        assert_eq!(second["replica_workspaces_sum"], 3 * count);
        assert_eq!(second["replica_users_sum"], 2 * count);
        let [.., first_allowed, first_denied] = numbers(&first);
        assert!(first_allowed > 0 && first["replicas"] == count, "{first}");
        let sessions = count * 3 * 22;
        assert_eq!((first_allowed + allowed, first_denied + denied), (9 * sessions, 4 * sessions));
        Ok(())
    }
}
