// The threads, descriptors and memory of trackers, while they run and after they are released.
//
//     resources DATABASE STATE-DIR CYCLES

#include "checks.h"

#include <dirent.h>
#include <fcntl.h>
#include <malloc.h>

enum { WARM_UP = 5, BYTES_PER_CYCLE = 64, DESCRIPTORS = 256 };

// The descriptors of the process before the first start.
static int is_open_before[DESCRIPTORS];

// Returns the number of entries of a folder in `/proc/self`, without those of this call.
static int entries(const char *path) {
    DIR *folder = opendir(path);
    int count = -3; // `.`, `..` and the descriptor of the folder
    CHECK(folder != NULL);
    while (readdir(folder) != NULL) {
        count++;
    }
    closedir(folder);
    return count;
}

static int descriptors(void) {
    return entries("/proc/self/fd");
}

static int threads(void) {
    return entries("/proc/self/task") + 1;
}

// Checks that the header documents every thread, which are all of the library except one.
static void check_threads(void) {
    // The kernel cuts names after 15 bytes.
    const char *const documented[] = {"boundary-usage\n", "boundary-usage-\n", "sqlx-sqlite-wor\n"};
    int seen[3] = {0};
    struct dirent *thread;
    DIR *folder = opendir("/proc/self/task");
    CHECK(folder != NULL);
    while ((thread = readdir(folder)) != NULL) {
        static char name[64];
        char path[300];
        size_t kind = 0;
        FILE *file;
        snprintf(path, sizeof path, "/proc/self/task/%s/comm", thread->d_name);
        if (thread->d_name[0] == '.' || atoi(thread->d_name) == (int)getpid() || (file = fopen(path, "r")) == NULL) {
            continue;
        }
        check_context = name;
        if (fgets(name, sizeof name, file) != NULL) {
            while (strcmp(name, documented[kind]) != 0) {
                CHECK(++kind < 3);
            }
            seen[kind]++;
        }
        fclose(file);
    }
    closedir(folder);
    CHECK(seen[0] >= 1 && seen[1] == 1);
    check_context = "";
}

// Checks that every descriptor of the library is documented in the header, and closed on exec.
static void check_descriptors(const char *database_file, const char *state) {
    static char counts[128];
    int descriptor, polls = 0, events = 0, sockets = 0, images = 0;
    for (descriptor = 0; descriptor < DESCRIPTORS; descriptor++) {
        static char target[512];
        char path[64];
        ssize_t length;
        snprintf(path, sizeof path, "/proc/self/fd/%d", descriptor);
        length = readlink(path, target, sizeof target - 1);
        if (length < 0 || is_open_before[descriptor]) {
            continue;
        }
        target[length] = 0;
        check_context = target;
        CHECK(fcntl(descriptor, F_GETFD) == FD_CLOEXEC);
        if (strcmp(target, "anon_inode:[eventpoll]") == 0) {
            polls++;
        } else if (strcmp(target, "anon_inode:[eventfd]") == 0) {
            events++;
        } else if (strncmp(target, "socket:", 7) == 0) {
            sockets++;
        } else if (strncmp(target, "/memfd:wasm-memory-image", 24) == 0) {
            images++;
        } else {
            CHECK(strstr(target, database_file) != NULL || strncmp(target, state, strlen(state)) == 0);
        }
    }
    snprintf(counts, sizeof counts, "%d epolls, %d eventfds, %d sockets, %d images", polls, events, sockets, images);
    check_context = counts;
    CHECK(polls == 2 && events == 1 && images == 1);
    // Its socket, the pair of the process, and at most one connection to PostgreSQL.
    CHECK(sockets == 3 || sockets == 4);
    check_context = "";
}

static void check_running(const char *database, const char *state) {
    boundary_usage_options *options = manual_options(database);
    const char *slash = strrchr(database, '/');
    boundary_usage_tracker *tracker;
    unsigned number;
    CHECK(slash != NULL);
    set_option(options, "state-dir", state);
    set_option(options, "state-slots", "on");
    set_option(options, "checkpoint-interval", "1ms");
    tracker = started(options);
    for (number = 1; number <= 200; number++) {
        CHECK_STATUS(BOUNDARY_USAGE_OK, track_number(tracker, number));
        if (number % 10 == 0) {
            CHECK_STATUS(BOUNDARY_USAGE_OK, boundary_usage_flush(tracker));
        }
        check_threads();
        check_descriptors(slash + 1, state);
    }
    boundary_usage_free(tracker);
}

static void run_cycle(const char *database, const char *state) {
    boundary_usage_options *options = manual_options(database);
    boundary_usage_tracker *tracker, *second;
    set_option(options, "state-dir", state);
    CHECK_STATUS(BOUNDARY_USAGE_OK, boundary_usage_start(options, &tracker));
    CHECK_STATUS(BOUNDARY_USAGE_OK, track_number(tracker, 1));
    CHECK_STATUS(BOUNDARY_USAGE_OK, boundary_usage_flush(tracker));
    CHECK_STATUS(BOUNDARY_USAGE_STATE, boundary_usage_start(options, &second));
    CHECK_STATUS(BOUNDARY_USAGE_OK, boundary_usage_shutdown(tracker));
    boundary_usage_free(tracker);
    boundary_usage_options_free(options);
}

static size_t bytes_in_use(void) {
    struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
}

// Checks that starts, also failed ones, and releases leave no thread, no descriptor and no memory behind.
static void check_cycles(const char *database, const char *state, int cycles) {
    static char context[128];
    int cycle, open_before, threads_before;
    size_t before;
    for (cycle = 0; cycle < WARM_UP; cycle++) {
        run_cycle(database, state);
    }
    // A thread that has been joined can still be visible for a moment.
    AWAIT(threads() == 1);
    open_before = descriptors();
    threads_before = threads();
    before = bytes_in_use();
    for (cycle = 0; cycle < cycles; cycle++) {
        run_cycle(database, state);
    }
    AWAIT(threads() == threads_before);
    snprintf(context, sizeof context, "%lu bytes before, %lu after; %d descriptors before, %d after",
             (unsigned long)before, (unsigned long)bytes_in_use(), open_before, descriptors());
    check_context = context;
    CHECK(descriptors() == open_before);
    CHECK(bytes_in_use() <= before + (size_t)cycles * BYTES_PER_CYCLE);
}

int main(int count, char **arguments) {
    int descriptor, open_before, running_before;
    CHECK(count == 4);
    for (descriptor = 0; descriptor < DESCRIPTORS; descriptor++) {
        is_open_before[descriptor] = fcntl(descriptor, F_GETFD) >= 0;
    }
    // `mallinfo2` counts the main arena only, and also released memory in the caches of small blocks. The caller of
    // this program switches the caches of the threads off.
    CHECK(mallopt(M_ARENA_MAX, 1) == 1 && mallopt(M_MXFAST, 0) == 1);
    CHECK(getenv("GLIBC_TUNABLES") != NULL);
    open_before = descriptors();
    running_before = threads();
    CHECK(running_before == 1);
    check_running(arguments[1], arguments[2]);
    AWAIT(threads() == running_before);
    check_context = "the pair of sockets stays open";
    CHECK(descriptors() == open_before + 2);
    check_context = "";
    check_cycles(arguments[1], arguments[2], atoi(arguments[3]));
    return 0;
}
