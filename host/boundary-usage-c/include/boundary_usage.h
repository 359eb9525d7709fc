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

#ifndef BOUNDARY_USAGE_H
#define BOUNDARY_USAGE_H

#include <stdint.h>

// The result of a call. The message is in `boundary_usage_last_error`.
typedef enum boundary_usage_status {
    // The call succeeded.
    BOUNDARY_USAGE_OK = 0,
    // An argument is NULL or invalid, or an option is.
    BOUNDARY_USAGE_INVALID_ARGUMENT = 1,
    // The intake is full. Only `boundary_usage_try_track` returns this.
    BOUNDARY_USAGE_FULL = 2,
    // The tracker has been shut down.
    BOUNDARY_USAGE_STOPPED = 3,
    // The database is unavailable. Nothing was applied, and a later call can succeed.
    BOUNDARY_USAGE_UNAVAILABLE = 4,
    // Lost a race for a lock. Nothing was applied, and a later call can succeed.
    BOUNDARY_USAGE_CONFLICT = 5,
    // A time limit has passed. The next flush determines whether this one was applied.
    BOUNDARY_USAGE_TIMED_OUT = 6,
    // A commit had no reply. The next flush determines whether it was applied.
    BOUNDARY_USAGE_COMMIT_UNKNOWN = 7,
    // The database refuses the operation, for example because the login fails.
    BOUNDARY_USAGE_REFUSED = 8,
    // The component cannot be loaded, crashed, or violated its contract.
    BOUNDARY_USAGE_COMPONENT = 9,
    // The state directory cannot be used, or another process uses it for the same replica.
    BOUNDARY_USAGE_STATE = 10,
    // The tracker belongs to the parent of this process.
    BOUNDARY_USAGE_FORKED = 11,
    // A fault of this library. Please report it.
    BOUNDARY_USAGE_INTERNAL = 12,
} boundary_usage_status;

// The level of a log message.
typedef enum boundary_usage_log_level {
    // Something needs attention: counts may get lost.
    BOUNDARY_USAGE_LOG_ERROR = 1,
    // An operation failed, and the tracker repeats it.
    BOUNDARY_USAGE_LOG_WARNING = 2,
    // An event of normal operation.
    BOUNDARY_USAGE_LOG_INFO = 3,
} boundary_usage_log_level;

// The options of a tracker. They have the names of the flags of `serve`.
typedef struct boundary_usage_options boundary_usage_options;

// A running tracker.
typedef struct boundary_usage_tracker boundary_usage_tracker;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// Returns the version of the library, such as "0.1.0". The string is static.
const char *boundary_usage_version(void);

// Creates options without values.
//
// The caller releases them with `boundary_usage_options_free`. Returns NULL only after an internal error.
struct boundary_usage_options *boundary_usage_options_new(void);

// Sets an option. The names and values are those of the flags of `boundary-usage serve`.
//
// | name | value | default |
// | --- | --- | --- |
// | database | `sqlite:PATH` or `postgres://USER:PASSWORD@HOST/DATABASE` | required |
// | replica | UUID of this process | the one in `state-dir`, or else random |
// | state-dir | directory of the checkpoint, which the next start restores after a crash | no checkpoint |
// | state-slots | `on`: processes share `state-dir`, and each takes a slot in it | `off` |
// | checkpoint-interval | time between checkpoints, such as `1s` | `1s` |
// | flush-interval | time between flushes, such as `60s` | `60s` |
// | flush-timeout | time limit of a flush | `30s` |
// | shutdown-timeout | time limit of the last flush | `10s` |
// | component | path of a component file | the component inside the library |
//
// `boundary_usage_start` opens the database and the directory. So it reports most faults of their values. The function
// copies both strings, which are UTF-8. Several threads must not use the same options simultaneously. It does not
// block.
//
// Returns BOUNDARY_USAGE_INVALID_ARGUMENT if the name is unknown or the value is invalid.
enum boundary_usage_status boundary_usage_options_set(struct boundary_usage_options *options,
                                                      const char *name,
                                                      const char *value);

// Releases options. NULL is allowed.
void boundary_usage_options_free(struct boundary_usage_options *options);

// Starts a tracker and stores it in `*tracker`, or stores NULL after an error.
//
// Copies the options. The caller releases the tracker with `boundary_usage_free`. Blocks while it compiles the
// component and connects to the database, usually for less than a second.
//
// If PostgreSQL is down, the start succeeds if an earlier start on this `state-dir` was connected to the same
// database. The tracker then records into its checkpoint and connects later. Otherwise the start returns
// BOUNDARY_USAGE_UNAVAILABLE after 2 s at most, and the caller can try again.
enum boundary_usage_status boundary_usage_start(const struct boundary_usage_options *options,
                                                struct boundary_usage_tracker **tracker);

// Records the activity of one batch of requests: marks both ids as active and adds both counts.
//
// An id is the 16 bytes of a UUID in the order of its text (RFC 9562). Counts of 0 still record the ids. Any number of
// threads may call this. It never waits for the database. It blocks only while the intake is full, which means that
// activity arrives faster than the component takes it.
//
// Returns BOUNDARY_USAGE_INVALID_ARGUMENT for a nil id, BOUNDARY_USAGE_STOPPED after a shutdown, and
// BOUNDARY_USAGE_FORKED in a child process.
enum boundary_usage_status boundary_usage_track(struct boundary_usage_tracker *tracker,
                                                const uint8_t workspace[16],
                                                const uint8_t owner[16],
                                                uint64_t allowed,
                                                uint64_t denied);

// Records activity like `boundary_usage_track`, but never blocks.
//
// Returns BOUNDARY_USAGE_FULL if the intake is full. The activity is then not recorded.
enum boundary_usage_status boundary_usage_try_track(struct boundary_usage_tracker *tracker,
                                                    const uint8_t workspace[16],
                                                    const uint8_t owner[16],
                                                    uint64_t allowed,
                                                    uint64_t denied);

// Writes all activity that was recorded before this call to the database.
//
// The tracker also flushes at every `flush-interval`. Any thread may call this. Blocks until the flush has ended, at
// most about twice `flush-timeout`. After any error, the next flush carries the activity.
enum boundary_usage_status boundary_usage_flush(struct boundary_usage_tracker *tracker);

// Returns the tracker's counters and the state of its checkpoint as a JSON object.
//
// The caller releases the string with `boundary_usage_string_free`. Any thread may call this. It does not block.
// Returns NULL after an error.
char *boundary_usage_status_json(const struct boundary_usage_tracker *tracker);

// Releases a string of this library. NULL is allowed.
void boundary_usage_string_free(char *string);

// Refuses later activity, flushes for the last time and stops the tracker.
//
// One thread calls it, once. Blocks until the last flush has succeeded or `shutdown-timeout` has passed, and the last
// checkpoint has the same limit again. The caller still releases the tracker with `boundary_usage_free`.
//
// After an error, the database lacks the activity since the last successful flush. With a `state-dir`, the next start
// restores it.
enum boundary_usage_status boundary_usage_shutdown(struct boundary_usage_tracker *tracker);

// Releases a tracker. NULL is allowed.
//
// Shuts it down first if that has not happened, and then blocks like `boundary_usage_shutdown`. Ends all its threads
// and closes its descriptors. No other thread may use the tracker during this call or after it. In a child process it
// returns immediately and releases nothing, because the tracker's threads are in the parent.
void boundary_usage_free(struct boundary_usage_tracker *tracker);

// Returns the message of the last failed call of this thread, or an empty string.
//
// Successful calls do not change it. The pointer is valid until the thread ends, and the thread's next failed call
// changes the text. A text of more than 2,047 bytes is cut.
const char *boundary_usage_last_error(void);

// Sets the function that receives log messages, for all trackers of the process. NULL discards them, as at the start.
//
// `level` is a `boundary_usage_log_level`. `message` is one line of UTF-8 and valid during the call. The threads of
// this library call the function, several of them possibly simultaneously. It must not call this library. When
// `boundary_usage_set_log` returns, no thread uses the previous function and context any more. It blocks until then.
void boundary_usage_set_log(void (*sink)(int level, const char *message, void *context),
                            void *context);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* BOUNDARY_USAGE_H */
