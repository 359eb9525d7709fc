// Forks of a process with a busy tracker: the child's calls return immediately with an error.
//
//     fork DATABASE FORKS

#include "checks.h"

#include <sys/wait.h>

enum { CHILD_SECONDS = 20 };

static const uint8_t workspace[16] = {1};
static const uint8_t owner[16] = {2};
static int stops;

static void *keep_tracking(void *argument) {
    boundary_usage_tracker *tracker = (boundary_usage_tracker *)argument;
    unsigned number = 1;
    while (!__atomic_load_n(&stops, __ATOMIC_RELAXED)) {
        CHECK_STATUS(BOUNDARY_USAGE_OK, track_number(tracker, number++ % 5000 + 1));
    }
    return NULL;
}

static void *keep_flushing(void *argument) {
    while (!__atomic_load_n(&stops, __ATOMIC_RELAXED)) {
        CHECK_STATUS(BOUNDARY_USAGE_OK, boundary_usage_flush((boundary_usage_tracker *)argument));
    }
    return NULL;
}

// Uses the parent's tracker in the child. A call that hangs is ended by the alarm.
static void use_in_child(boundary_usage_tracker *tracker) {
    alarm(CHILD_SECONDS);
    CHECK_STATUS(BOUNDARY_USAGE_FORKED, boundary_usage_track(tracker, workspace, owner, 1, 0));
    CHECK_STATUS(BOUNDARY_USAGE_FORKED, boundary_usage_try_track(tracker, workspace, owner, 1, 0));
    CHECK_STATUS(BOUNDARY_USAGE_FORKED, boundary_usage_flush(tracker));
    CHECK(boundary_usage_status_json(tracker) == NULL);
    CHECK_STATUS(BOUNDARY_USAGE_FORKED, boundary_usage_shutdown(tracker));
    CHECK(strstr(boundary_usage_last_error(), "parent process") != NULL);
    boundary_usage_free(tracker);
    _exit(0);
}

static void await_child(pid_t child) {
    int status;
    CHECK(child > 0);
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(!WIFSIGNALED(status));
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void fork_often(const char *database, int forks) {
    boundary_usage_tracker *tracker = started(manual_options(database));
    pthread_t tracking, flushing;
    int number;
    CHECK(pthread_create(&tracking, NULL, keep_tracking, tracker) == 0);
    CHECK(pthread_create(&flushing, NULL, keep_flushing, tracker) == 0);
    for (number = 0; number < forks; number++) {
        pid_t child = fork();
        if (child == 0) {
            use_in_child(tracker);
        }
        await_child(child);
    }
    __atomic_store_n(&stops, 1, __ATOMIC_RELAXED);
    CHECK(pthread_join(tracking, NULL) == 0 && pthread_join(flushing, NULL) == 0);
    CHECK_STATUS(BOUNDARY_USAGE_OK, boundary_usage_shutdown(tracker));
    boundary_usage_free(tracker);
}

// Starts a tracker in a child, as the workers of a server do.
static void start_in_child(const char *database) {
    pid_t child = fork();
    if (child == 0) {
        boundary_usage_tracker *tracker;
        alarm(CHILD_SECONDS);
        tracker = started(manual_options(database));
        CHECK_STATUS(BOUNDARY_USAGE_OK, boundary_usage_track(tracker, workspace, owner, 1, 0));
        CHECK_STATUS(BOUNDARY_USAGE_OK, boundary_usage_flush(tracker));
        boundary_usage_free(tracker);
        _exit(0);
    }
    await_child(child);
}

int main(int count, char **arguments) {
    CHECK(count == 3);
    // The first child is of a process that has not used a tracker, and the second of one whose tracker has ended.
    start_in_child(arguments[1]);
    fork_often(arguments[1], atoi(arguments[2]));
    start_in_child(arguments[1]);
    return 0;
}
