// Runs files of `tests/scenarios` against the C library. `tests/src/scenario.rs` describes the lines.
//
//     scenario DATABASE DIRECT COMMANDS REPLIES FILE...
//
// The replicas use DATABASE, and the program of the Rust host collects from DIRECT, which is the same database. Faults
// need a real connection to cut: DATABASE is then a `postgres-proxy`, and COMMANDS and REPLIES are the descriptors of
// its stdin and stdout. They are -1 without a proxy.

#include "checks.h"

#include <netinet/in.h>
#include <sys/socket.h>

enum { REPLICAS = 8, WORDS = 6, DESCRIPTORS = 256, THREADS = 128, OUTPUT = 65536 };

typedef struct replica {
    char name[16];
    boundary_usage_tracker *tracker;
} replica;

// Calls of `track` by one thread.
typedef struct tracking {
    boundary_usage_tracker *tracker;
    unsigned first, ids, times;
    unsigned long long allowed, denied;
} tracking;

static replica replicas[REPLICAS];
static const char *database;
static FILE *commands, *replies;

static boundary_usage_tracker *start(const char *name) {
    char uuid[40];
    boundary_usage_options *options = manual_options(database);
    snprintf(uuid, sizeof uuid, "%02x000000-0000-0000-0000-%012lu", (unsigned char)name[0],
             strtoul(name + 1, NULL, 10));
    set_option(options, "replica", uuid);
    return started(options);
}

// Returns the place of a running replica, or a free place.
static replica *place_of(const char *name) {
    int place, free_place = -1;
    for (place = 0; place < REPLICAS; place++) {
        if (replicas[place].tracker == NULL) {
            free_place = place;
        } else if (strcmp(replicas[place].name, name) == 0) {
            return &replicas[place];
        }
    }
    CHECK(free_place >= 0);
    return &replicas[free_place];
}

static boundary_usage_tracker *tracker_of(const char *name) {
    replica *found = place_of(name);
    if (found->tracker == NULL) {
        snprintf(found->name, sizeof found->name, "%s", name);
        found->tracker = start(name);
    }
    return found->tracker;
}

static void stop(replica *stopped) {
    CHECK(stopped->tracker != NULL);
    CHECK_STATUS(BOUNDARY_USAGE_OK, boundary_usage_shutdown(stopped->tracker));
    boundary_usage_free(stopped->tracker);
    stopped->tracker = NULL;
}

// Tracks from a thread: each id `times` times.
static void *track_all(void *argument) {
    const tracking *work = (const tracking *)argument;
    unsigned number, time;
    for (number = work->first; number < work->first + work->ids; number++) {
        uint8_t id[16] = {0};
        id[12] = (uint8_t)(number >> 24);
        id[13] = (uint8_t)(number >> 16);
        id[14] = (uint8_t)(number >> 8);
        id[15] = (uint8_t)number;
        for (time = 0; time < work->times; time++) {
            CHECK_STATUS(BOUNDARY_USAGE_OK, boundary_usage_track(work->tracker, id, id, work->allowed, work->denied));
        }
    }
    return NULL;
}

static void track_from_threads(boundary_usage_tracker *tracker, char **words) {
    pthread_t threads[THREADS];
    tracking works[THREADS];
    unsigned thread, count = (unsigned)atoi(words[2]);
    CHECK(count <= THREADS);
    for (thread = 0; thread < count; thread++) {
        tracking work = {tracker, thread + 1, 1, (unsigned)atoi(words[3]), strtoull(words[4], NULL, 10),
                         strtoull(words[5], NULL, 10)};
        works[thread] = work;
        CHECK(pthread_create(&threads[thread], NULL, track_all, &works[thread]) == 0);
    }
    for (thread = 0; thread < count; thread++) {
        CHECK(pthread_join(threads[thread], NULL) == 0);
    }
}

static void track_beside_flushes(boundary_usage_tracker *tracker, char **words) {
    unsigned flush, count = (unsigned)atoi(words[2]);
    tracking work = {tracker, 1, count, 1, strtoull(words[3], NULL, 10), strtoull(words[4], NULL, 10)};
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, track_all, &work) == 0);
    for (flush = 0; flush < count; flush++) {
        CHECK_STATUS(BOUNDARY_USAGE_OK, boundary_usage_flush(tracker));
    }
    CHECK(pthread_join(thread, NULL) == 0);
}

// Flushes; returns the outcome as scenarios name it.
static const char *flush_outcome(boundary_usage_tracker *tracker) {
    unsigned long long idle = status_number(tracker, "\"idle_flushes\":");
    unsigned long long confirmed = status_number(tracker, "\"confirmed_flushes\":");
    unsigned long long flushes = status_number(tracker, "\"flushes\":");
    if (boundary_usage_flush(tracker) != BOUNDARY_USAGE_OK) {
        CHECK(status_number(tracker, "\"flushes\":") == flushes);
        return "error";
    }
    if (status_number(tracker, "\"idle_flushes\":") > idle) {
        return "idle";
    }
    CHECK(status_number(tracker, "\"flushes\":") == flushes + 1);
    return status_number(tracker, "\"confirmed_flushes\":") > confirmed ? "confirmed" : "written";
}

static int is_connected(void) {
    int descriptor;
    for (descriptor = 0; descriptor < DESCRIPTORS; descriptor++) {
        struct sockaddr_storage peer;
        socklen_t size = sizeof peer;
        if (getpeername(descriptor, (struct sockaddr *)&peer, &size) == 0 && peer.ss_family == AF_INET) {
            return 1;
        }
    }
    return 0;
}

// Sends a command to the proxy, and reads its reply.
static void ask_proxy(const char *command, char *reply, int size) {
    CHECK(commands != NULL);
    CHECK(fprintf(commands, "%s\n", command) > 0 && fflush(commands) == 0);
    CHECK(fgets(reply, size, replies) != NULL);
}

// Queues the cut of the connection that corresponds to a fault. A flush has six requests: begin, two locks, read,
// upsert and commit.
static void fail(const char *step) {
    static const char *const points[][2] = {
        {"begin", "request:1"}, {"acquire", "request:2"},  {"read", "request:4"},          {"upsert", "write"},
        {"commit", "commit"},   {"commit-lost", "commit"}, {"commit-reply-lost", "reply"},
    };
    char command[64], reply[64];
    size_t point = 0;
    while (strcmp(points[point][0], step) != 0) {
        CHECK(++point < sizeof points / sizeof points[0]);
    }
    if (point == 0) {
        // If an idle connection turns out to be closed, the flush opens another one. So it must be a new one.
        AWAIT(!is_connected());
    }
    snprintf(command, sizeof command, "cut %s", points[point][1]);
    ask_proxy(command, reply, sizeof reply);
}

// Runs a command of the program of the Rust host; returns its output.
static const char *program(const char *command) {
    static char output[OUTPUT];
    char line[4096];
    size_t length;
    FILE *pipe;
    snprintf(line, sizeof line, "\"$BOUNDARY_USAGE_TEST_PROGRAM\" --format json %s", command);
    pipe = popen(line, "r");
    CHECK(pipe != NULL);
    length = fread(output, 1, sizeof output - 1, pipe);
    output[length] = 0;
    CHECK(pclose(pipe) == 0);
    return output;
}

static void collect(char **expected) {
    char collected[128];
    const char *json = program("collect");
    snprintf(collected, sizeof collected, "W%llu U%llu A%llu D%llu", number_of(json, "\"unique_workspaces\":"),
             number_of(json, "\"unique_users\":"), number_of(json, "\"allowed_requests\":"),
             number_of(json, "\"denied_requests\":"));
    check_context = collected;
    {
        char wanted[128];
        snprintf(wanted, sizeof wanted, "%s %s %s %s", expected[0], expected[1], expected[2], expected[3]);
        CHECK(strcmp(collected, wanted) == 0);
    }
    check_context = "";
}

// Returns the number of objects in the array `rows`.
static unsigned long rows(void) {
    const char *found = strstr(program("status"), "\"rows\":"), *end;
    unsigned long count = 0;
    CHECK(found != NULL);
    end = strchr(found, ']');
    CHECK(end != NULL);
    while ((found = strchr(found, '{')) != NULL && found < end) {
        count++;
        found++;
    }
    return count;
}

static void step(char **words, int count) {
    const char *kind = words[0];
    if (strcmp(kind, "track") == 0 && count == 6) {
        uint8_t workspace[16], owner[16];
        id_of(words[2], workspace);
        id_of(words[3], owner);
        CHECK_STATUS(BOUNDARY_USAGE_OK,
                     boundary_usage_track(tracker_of(words[1]), workspace, owner, strtoull(words[4], NULL, 10),
                                          strtoull(words[5], NULL, 10)));
    } else if (strcmp(kind, "threads") == 0 && count == 6) {
        track_from_threads(tracker_of(words[1]), words);
    } else if (strcmp(kind, "beside") == 0 && count == 5) {
        track_beside_flushes(tracker_of(words[1]), words);
    } else if (strcmp(kind, "flush") == 0 && count == 4) {
        const char *outcome = flush_outcome(tracker_of(words[1]));
        CHECK(strcmp(words[3], "any") == 0 || strcmp(words[3], outcome) == 0);
    } else if (strcmp(kind, "fail") == 0 && count == 2) {
        fail(words[1]);
    } else if (strcmp(kind, "restart") == 0 && count == 2) {
        stop(place_of(words[1]));
    } else if (strcmp(kind, "collect") == 0 && count == 6) {
        collect(words + 2);
    } else if (strcmp(kind, "rows") == 0 && count == 3) {
        CHECK(rows() == strtoul(words[2], NULL, 10));
    } else {
        CHECK(!"the line is known");
    }
}

static void run(FILE *file) {
    static char line[256], shown[256];
    while (fgets(line, sizeof line, file) != NULL) {
        char *words[WORDS], *word, *rest = NULL;
        int count = 0;
        snprintf(shown, sizeof shown, "%s", line);
        check_context = shown;
        for (word = strtok_r(line, " \n", &rest); word != NULL && line[0] != '#'; word = strtok_r(NULL, " \n", &rest)) {
            CHECK(count < WORDS);
            words[count++] = word;
        }
        if (count > 0) {
            step(words, count);
        }
    }
}

// Runs a file, and stops its replicas.
static void run_file(const char *path) {
    FILE *file = fopen(path, "r");
    int place;
    CHECK(file != NULL);
    run(file);
    fclose(file);
    if (commands != NULL) {
        char reply[64];
        ask_proxy("pending", reply, sizeof reply);
        check_context = "a fault did not strike";
        CHECK(strcmp(reply, "0\n") == 0);
    }
    check_context = path;
    for (place = 0; place < REPLICAS; place++) {
        if (replicas[place].tracker != NULL) {
            stop(&replicas[place]);
        }
    }
}

int main(int count, char **arguments) {
    int argument;
    CHECK(count > 5);
    database = arguments[1];
    CHECK(setenv("BOUNDARY_USAGE_DATABASE", arguments[2], 1) == 0);
    if (atoi(arguments[3]) >= 0) {
        commands = fdopen(atoi(arguments[3]), "w");
        replies = fdopen(atoi(arguments[4]), "r");
        CHECK(commands != NULL && replies != NULL);
    }
    for (argument = 5; argument < count; argument++) {
        run_file(arguments[argument]);
        // The next scenario begins with an empty period.
        (void)program("collect");
    }
    if (commands != NULL) {
        fclose(commands);
        fclose(replies);
    }
    return 0;
}
