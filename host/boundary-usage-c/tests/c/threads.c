// Many threads use one tracker and all functions that allow it. The counts are exact.
//
//     threads DATABASE ROUNDS REPLACED
//
// REPLACED is the path of another SQLite file, which the program replaces. The flushes of its tracker fail and are
// logged, while a thread replaces the log sink.

#include "checks.h"

enum { TRACKERS = 8, PAIRS = 50, MESSAGES = 3 }; // Messages are logged during replacements of the sink.

// The log sink's context, which the program releases after it has replaced the sink.
typedef struct logged {
    unsigned messages;
} logged;

typedef struct work {
    boundary_usage_tracker *tracker;
    unsigned thread, rounds;
} work;

static int stops;

static void *track_pairs(void *argument) {
    const work *own = (const work *)argument;
    unsigned round, pair, full = 0;
    for (round = 0; round < own->rounds; round++) {
        for (pair = 1; pair <= PAIRS; pair++) {
            CHECK_STATUS(BOUNDARY_USAGE_OK, track_number(own->tracker, own->thread * PAIRS + pair));
        }
        // Each thread has its own last error, so no other thread changes this text.
        CHECK_STATUS(BOUNDARY_USAGE_INVALID_ARGUMENT,
                     boundary_usage_track(own->tracker, NULL, NULL, own->thread, own->rounds));
        CHECK(strcmp(boundary_usage_last_error(), "workspace is NULL") == 0);
        full += boundary_usage_flush(NULL) == BOUNDARY_USAGE_INVALID_ARGUMENT;
        CHECK(strcmp(boundary_usage_last_error(), "tracker is NULL") == 0);
    }
    CHECK(full == own->rounds);
    return NULL;
}

// Leaves the processor to the other threads. Valgrind runs one thread at a time, and a flush has a time limit.
static void pause_briefly(void) {
    const struct timespec pause = {0, 1000 * 1000};
    nanosleep(&pause, NULL);
}

static void *flush_repeatedly(void *tracker) {
    while (!__atomic_load_n(&stops, __ATOMIC_ACQUIRE)) {
        CHECK_STATUS(BOUNDARY_USAGE_OK, boundary_usage_flush((boundary_usage_tracker *)tracker));
        pause_briefly();
    }
    return NULL;
}

static void *read_status_repeatedly(void *tracker) {
    unsigned long long activities = 0;
    while (!__atomic_load_n(&stops, __ATOMIC_ACQUIRE)) {
        unsigned long long now = status_number((const boundary_usage_tracker *)tracker, "\"activities\":");
        CHECK(now >= activities);
        activities = now;
        pause_briefly();
    }
    return NULL;
}

static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned all_messages;

static void count_message(int level, const char *message, void *context) {
    CHECK(level >= BOUNDARY_USAGE_LOG_ERROR && level <= BOUNDARY_USAGE_LOG_INFO && message[0] != 0);
    pthread_mutex_lock(&log_lock);
    ((logged *)context)->messages++;
    pthread_mutex_unlock(&log_lock);
    __atomic_fetch_add(&all_messages, 1, __ATOMIC_RELEASE);
}

static void release(logged *log) {
    pthread_mutex_lock(&log_lock);
    free(log);
    pthread_mutex_unlock(&log_lock);
}

#ifdef RELEASES_EARLY
static void await_message(void) {
    unsigned before = __atomic_load_n(&all_messages, __ATOMIC_ACQUIRE);
    while (__atomic_load_n(&all_messages, __ATOMIC_ACQUIRE) == before && !__atomic_load_n(&stops, __ATOMIC_ACQUIRE)) {
        pause_briefly();
    }
}
#endif

// Replaces the sink again and again. A call of a replaced sink would use released memory.
static void *replace_log_repeatedly(void *argument) {
    (void)argument;
    while (!__atomic_load_n(&stops, __ATOMIC_ACQUIRE)) {
        logged *log;
        pthread_mutex_lock(&log_lock);
        log = (logged *)calloc(1, sizeof *log);
        CHECK(log != NULL);
        pthread_mutex_unlock(&log_lock);
        boundary_usage_set_log(count_message, log);
#ifdef RELEASES_EARLY // With this mistake, a test shows that ThreadSanitizer notices a late call.
        release(log);
        await_message();
#else
        pause_briefly();
        boundary_usage_set_log(NULL, NULL);
        release(log);
#endif
    }
    return NULL;
}

// Returns a tracker whose flushes fail, because another file replaces its database.
static boundary_usage_tracker *failing_tracker(const char *path) {
    char database[1024];
    boundary_usage_options *options = boundary_usage_options_new();
    boundary_usage_tracker *tracker;
    FILE *file;
    snprintf(database, sizeof database, "sqlite:%s", path);
    set_option(options, "database", database);
    set_option(options, "flush-interval", "1ms");
    set_option(options, "shutdown-timeout", "100ms");
    tracker = started(options);
    CHECK(unlink(path) == 0);
    file = fopen(path, "w");
    CHECK(file != NULL && fputs("This is not a database.", file) >= 0 && fclose(file) == 0);
    CHECK_STATUS(BOUNDARY_USAGE_OK, track_number(tracker, 1));
    return tracker;
}

int main(int count, char **arguments) {
    pthread_t threads[TRACKERS], flushing, reading, logging;
    work works[TRACKERS];
    boundary_usage_tracker *tracker, *failing;
    unsigned thread, rounds;
    CHECK(count == 4);
    rounds = (unsigned)atoi(arguments[2]);
    tracker = started(manual_options(arguments[1]));
    failing = failing_tracker(arguments[3]);
    CHECK(pthread_create(&flushing, NULL, flush_repeatedly, tracker) == 0);
    CHECK(pthread_create(&reading, NULL, read_status_repeatedly, tracker) == 0);
    CHECK(pthread_create(&logging, NULL, replace_log_repeatedly, NULL) == 0);
    for (thread = 0; thread < TRACKERS; thread++) {
        works[thread].tracker = tracker;
        works[thread].thread = thread;
        works[thread].rounds = rounds;
        CHECK(pthread_create(&threads[thread], NULL, track_pairs, &works[thread]) == 0);
    }
    for (thread = 0; thread < TRACKERS; thread++) {
        CHECK(pthread_join(threads[thread], NULL) == 0);
    }
    // A tracker logs its first failure, and then at most one a minute.
    while (__atomic_load_n(&all_messages, __ATOMIC_ACQUIRE) < MESSAGES) {
        CHECK(boundary_usage_shutdown(failing) != BOUNDARY_USAGE_OK);
        boundary_usage_free(failing);
        CHECK(unlink(arguments[3]) == 0);
        failing = failing_tracker(arguments[3]);
    }
    __atomic_store_n(&stops, 1, __ATOMIC_RELEASE);
    CHECK(pthread_join(flushing, NULL) == 0);
    CHECK(pthread_join(reading, NULL) == 0);
    CHECK(pthread_join(logging, NULL) == 0);
    CHECK(status_number(tracker, "\"activities\":") == (unsigned long long)TRACKERS * PAIRS * rounds);
    CHECK_STATUS(BOUNDARY_USAGE_OK, boundary_usage_shutdown(tracker));
    CHECK(status_number(tracker, "\"pending_activities\":") == 0);
    boundary_usage_free(tracker);
    CHECK(boundary_usage_shutdown(failing) != BOUNDARY_USAGE_OK);
    boundary_usage_free(failing);
    return 0;
}
