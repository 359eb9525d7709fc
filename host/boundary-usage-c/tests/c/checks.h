// Checks and ids for the test programs, which are C99 and C++17.
//
// A program that succeeds writes nothing to its standard streams. So each test also shows that the library does not.

#ifndef CHECKS_H
#define CHECKS_H

#include <boundary_usage.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

// Text for the message of a failed check, such as the line of a scenario.
static const char *check_context = "";

#define CHECK(condition) ((condition) ? (void)0 : check_failed(__FILE__, __LINE__, #condition))
#define CHECK_STATUS(expected, call) check_status((expected), (call), __FILE__, __LINE__, #call)

static inline void check_failed(const char *file, int line, const char *condition) {
    fprintf(stderr, "%s:%d: %s is false\n  last error: %s\n  %s\n", file, line, condition, boundary_usage_last_error(),
            check_context);
    _exit(1);
}

static inline void check_status(boundary_usage_status expected, boundary_usage_status actual, const char *file,
                                int line, const char *call) {
    if (actual != expected) {
        fprintf(stderr, "%s:%d: %s returned %d, must return %d\n  last error: %s\n  %s\n", file, line, call,
                (int)actual, (int)expected, boundary_usage_last_error(), check_context);
        _exit(1);
    }
}

// Waits until a condition is true, for a minute at most.
#define AWAIT(condition)                                       \
    do {                                                       \
        int check_waits = 0;                                   \
        while (!(condition)) {                                 \
            struct timespec check_pause = {0, 10 * 1000 * 1000}; \
            CHECK(check_waits++ < 6000 && #condition);         \
            nanosleep(&check_pause, NULL);                     \
        }                                                      \
    } while (0)

// Writes the UUID of a name such as `w7`: its first byte is the letter, and its last eight bytes are the number.
//
// A name of 32 hexadecimal digits is the UUID itself.
static inline void id_of(const char *name, uint8_t id[16]) {
    unsigned long long number = strtoull(name + 1, NULL, 10);
    int place;
    if (strlen(name) == 32) {
        for (place = 0; place < 16; place++) {
            unsigned value;
            CHECK(sscanf(name + 2 * place, "%2x", &value) == 1);
            id[place] = (uint8_t)value;
        }
        return;
    }
    memset(id, 0, 16);
    id[0] = (uint8_t)name[0];
    for (place = 15; place >= 8; place--) {
        id[place] = (uint8_t)(number & 0xff);
        number >>= 8;
    }
}

// Returns the number after a key such as `"flushes":` in a JSON text.
static inline unsigned long long number_of(const char *json, const char *key) {
    const char *found = strstr(json, key);
    if (found == NULL) {
        fprintf(stderr, "%s is missing in %s\n", key, json);
        _exit(1);
    }
    return strtoull(found + strlen(key), NULL, 10);
}

// Returns one number of the tracker's status.
static inline unsigned long long status_number(const boundary_usage_tracker *tracker, const char *key) {
    char *json = boundary_usage_status_json(tracker);
    unsigned long long number;
    CHECK(json != NULL);
    number = number_of(json, key);
    boundary_usage_string_free(json);
    return number;
}

static inline void set_option(boundary_usage_options *options, const char *name, const char *value) {
    CHECK_STATUS(BOUNDARY_USAGE_OK, boundary_usage_options_set(options, name, value));
}

// Returns options of a tracker that flushes only on request.
static inline boundary_usage_options *manual_options(const char *database) {
    boundary_usage_options *options = boundary_usage_options_new();
    CHECK(options != NULL);
    set_option(options, "database", database);
    set_option(options, "flush-interval", "1day");
    return options;
}

// Starts a tracker and releases its options.
//
// A start waits 2 s for the database, and valgrind makes both slower. So an unavailable database is tried again.
static inline boundary_usage_tracker *started(boundary_usage_options *options) {
    boundary_usage_tracker *tracker = NULL;
    boundary_usage_status status;
    AWAIT((status = boundary_usage_start(options, &tracker)) != BOUNDARY_USAGE_UNAVAILABLE);
    CHECK_STATUS(BOUNDARY_USAGE_OK, status);
    CHECK(tracker != NULL);
    boundary_usage_options_free(options);
    return tracker;
}

// Tracks one allowed request of the workspace `w` and the owner `u` with this number.
static inline boundary_usage_status track_number(boundary_usage_tracker *tracker, unsigned number) {
    char name[16];
    uint8_t workspace[16], owner[16];
    snprintf(name, sizeof name, "w%u", number);
    id_of(name, workspace);
    name[0] = 'u';
    id_of(name, owner);
    return boundary_usage_track(tracker, workspace, owner, 1, 0);
}

#endif
