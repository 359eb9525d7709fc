// Usage tracking for egress boundaries: counts unique workspaces, unique users, allowed and denied requests.
//
//     boundary_usage_options *options = boundary_usage_options_new();
//     boundary_usage_options_set(options, "database", "sqlite:usage.db");
//     boundary_usage_tracker *tracker;
//     if (boundary_usage_start(options, &tracker) != BOUNDARY_USAGE_OK)
//         fprintf(stderr, "%s\n", boundary_usage_last_error());
//     boundary_usage_options_free(options);
//     ...
//     boundary_usage_track(tracker, workspace, owner, 1, 0); // from any thread, does not wait for the database
//     ...
//     boundary_usage_shutdown(tracker); // the last flush
//     boundary_usage_free(tracker);
//
// The tracker is a sandboxed WebAssembly component, which all hosts share. Replicas of all hosts can share a database.
//
// THREADS. A tracker has a thread "boundary-usage" for itself and its database, and a thread "boundary-usage-ticks".
// Threads that write checkpoints and threads of SQLite come and go. All of them block all signals except those of
// faults. Functions may be called from any thread unless their comment states otherwise.
//
// PROCESS. The library changes no signal handler, no umask, no environment variable and no working directory. It writes
// nothing to the standard streams. Its descriptors are closed on exec. A tracker has two epolls, one eventfd, one
// socket, one image of the component's memory, locks in the state directory, and the connections and files of the
// database. One pair of sockets stays open for the process.
//
// FORK. After fork, the child cannot use the trackers of its parent, whose threads it lacks. All functions return
// BOUNDARY_USAGE_FORKED there. Start trackers after the fork, for example in each worker process. A child that is
// forked while other threads use the library can only exec or exit, as POSIX states for all libraries with locks.
//
// TIMES are texts such as "500ms", "60s" or "1h 30m". STRINGS are UTF-8 and end with NUL.
