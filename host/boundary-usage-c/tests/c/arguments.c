// Wrong arguments of every function, and the last error of each thread.
//
//     arguments DATABASE

#include "checks.h"

static const uint8_t nil[16] = {0};
static const uint8_t workspace[16] = {1};
static const uint8_t owner[16] = {2};

// Checks that the last error contains a text.
static void check_message(const char *part) {
    check_context = part;
    CHECK(strstr(boundary_usage_last_error(), part) != NULL);
    check_context = "";
}

static void refuse_option(const char *name, const char *value, const char *part) {
    boundary_usage_options *options = boundary_usage_options_new();
    check_context = name;
    CHECK_STATUS(BOUNDARY_USAGE_INVALID_ARGUMENT, boundary_usage_options_set(options, name, value));
    check_message(part);
    boundary_usage_options_free(options);
}

static void check_options(void) {
    boundary_usage_options *options = boundary_usage_options_new();
    const char *const times[] = {"flush-interval", "checkpoint-interval", "flush-timeout", "shutdown-timeout"};
    const char *const not_times[] = {"", "60", "0s", "-1s", "25h", "soon"};
    size_t time, value;
    CHECK_STATUS(BOUNDARY_USAGE_INVALID_ARGUMENT, boundary_usage_options_set(NULL, "database", "sqlite:usage.db"));
    check_message("options is NULL");
    CHECK_STATUS(BOUNDARY_USAGE_INVALID_ARGUMENT, boundary_usage_options_set(options, NULL, "sqlite:usage.db"));
    check_message("name is NULL");
    CHECK_STATUS(BOUNDARY_USAGE_INVALID_ARGUMENT, boundary_usage_options_set(options, "database", NULL));
    check_message("value is NULL");
    boundary_usage_options_free(options);
    boundary_usage_options_free(NULL);
    refuse_option("databse", "sqlite:usage.db", "unknown option \"databse\"");
    refuse_option("", "", "unknown option");
    refuse_option("\xff", "x", "name is not UTF-8");
    refuse_option("database", "sqlite:\xff.db", "value is not UTF-8");
    refuse_option("database", "mysql://localhost/usage", "mysql");
    refuse_option("database", "", "database");
    refuse_option("replica", "7", "\"7\"");
    refuse_option("replica", "00000000-0000-0000-0000-000000000000", "nil");
    refuse_option("state-dir", "", "must be a path");
    refuse_option("component", "", "must be a path");
    refuse_option("state-slots", "yes", "must be on or off");
    for (time = 0; time < sizeof times / sizeof times[0]; time++) {
        for (value = 0; value < sizeof not_times / sizeof not_times[0]; value++) {
            refuse_option(times[time], not_times[value], "from 1ms to 1day");
        }
    }
}

// Checks that the password of a URL is in no message.
static void check_secrets(void) {
    boundary_usage_options *options = boundary_usage_options_new();
    CHECK_STATUS(BOUNDARY_USAGE_INVALID_ARGUMENT,
                 boundary_usage_options_set(options, "database", "postgres://role:hunter2@host:port/usage"));
    CHECK(strstr(boundary_usage_last_error(), "hunter2") == NULL);
    boundary_usage_options_free(options);
}

static void refuse_start(boundary_usage_options *options, const char *part) {
    boundary_usage_tracker *tracker = (boundary_usage_tracker *)&tracker;
    CHECK_STATUS(BOUNDARY_USAGE_INVALID_ARGUMENT, boundary_usage_start(options, &tracker));
    CHECK(tracker == NULL);
    check_message(part);
}

static void check_start(const char *database) {
    boundary_usage_options *options = boundary_usage_options_new();
    refuse_start(NULL, "options is NULL");
    refuse_start(options, "database is not set");
    set_option(options, "database", database);
    CHECK_STATUS(BOUNDARY_USAGE_INVALID_ARGUMENT, boundary_usage_start(options, NULL));
    check_message("tracker is NULL");
    set_option(options, "state-slots", "on");
    refuse_start(options, "state-slots needs state-dir");
    set_option(options, "state-dir", "state");
    set_option(options, "replica", "0193a1b2-0000-7000-8000-000000000001");
    refuse_start(options, "exclude each other");
    boundary_usage_options_free(options);
}

static void check_without_tracker(void) {
    CHECK_STATUS(BOUNDARY_USAGE_INVALID_ARGUMENT, boundary_usage_track(NULL, workspace, owner, 1, 0));
    check_message("tracker is NULL");
    CHECK_STATUS(BOUNDARY_USAGE_INVALID_ARGUMENT, boundary_usage_try_track(NULL, workspace, owner, 1, 0));
    CHECK_STATUS(BOUNDARY_USAGE_INVALID_ARGUMENT, boundary_usage_flush(NULL));
    CHECK_STATUS(BOUNDARY_USAGE_INVALID_ARGUMENT, boundary_usage_shutdown(NULL));
    CHECK(boundary_usage_status_json(NULL) == NULL);
    check_message("tracker is NULL");
    boundary_usage_free(NULL);
    boundary_usage_string_free(NULL);
    boundary_usage_set_log(NULL, NULL);
}

typedef boundary_usage_status (*track_function)(boundary_usage_tracker *, const uint8_t *, const uint8_t *, uint64_t,
                                                uint64_t);

static void check_tracks(boundary_usage_tracker *tracker, track_function track) {
    CHECK_STATUS(BOUNDARY_USAGE_INVALID_ARGUMENT, track(tracker, NULL, owner, 1, 0));
    check_message("workspace is NULL");
    CHECK_STATUS(BOUNDARY_USAGE_INVALID_ARGUMENT, track(tracker, workspace, NULL, 1, 0));
    check_message("owner is NULL");
    CHECK_STATUS(BOUNDARY_USAGE_INVALID_ARGUMENT, track(tracker, nil, owner, 1, 0));
    check_message("workspace");
    CHECK_STATUS(BOUNDARY_USAGE_INVALID_ARGUMENT, track(tracker, workspace, nil, 1, 0));
    check_message("owner");
    CHECK_STATUS(BOUNDARY_USAGE_OK, track(tracker, workspace, owner, 0, 0));
    CHECK_STATUS(BOUNDARY_USAGE_OK, track(tracker, workspace, owner, UINT64_MAX, UINT64_MAX));
}

static void *check_other_thread(void *tracker) {
    CHECK(strcmp(boundary_usage_last_error(), "") == 0);
    CHECK_STATUS(BOUNDARY_USAGE_INVALID_ARGUMENT,
                 boundary_usage_track((boundary_usage_tracker *)tracker, NULL, owner, 1, 0));
    check_message("workspace is NULL");
    return NULL;
}

// Checks that each thread has its own last error, which outlives successful calls.
static void check_last_error(boundary_usage_tracker *tracker) {
    pthread_t thread;
    const char *message = boundary_usage_last_error();
    CHECK_STATUS(BOUNDARY_USAGE_INVALID_ARGUMENT, boundary_usage_flush(NULL));
    CHECK(pthread_create(&thread, NULL, check_other_thread, tracker) == 0 && pthread_join(thread, NULL) == 0);
    CHECK(strcmp(message, "tracker is NULL") == 0);
    CHECK_STATUS(BOUNDARY_USAGE_OK, boundary_usage_track(tracker, workspace, owner, 1, 0));
    CHECK(boundary_usage_last_error() == message && strcmp(message, "tracker is NULL") == 0);
}

static void check_long_message(void) {
    static char name[10000];
    boundary_usage_options *options = boundary_usage_options_new();
    memset(name, 'x', sizeof name - 1);
    CHECK_STATUS(BOUNDARY_USAGE_INVALID_ARGUMENT, boundary_usage_options_set(options, name, "on"));
    CHECK(strlen(boundary_usage_last_error()) == 2047);
    boundary_usage_options_free(options);
}

static void check_stopped(boundary_usage_tracker *tracker) {
    char *json;
    CHECK_STATUS(BOUNDARY_USAGE_OK, boundary_usage_shutdown(tracker));
    CHECK_STATUS(BOUNDARY_USAGE_STOPPED, boundary_usage_track(tracker, workspace, owner, 1, 0));
    CHECK_STATUS(BOUNDARY_USAGE_STOPPED, boundary_usage_try_track(tracker, workspace, owner, 1, 0));
    CHECK_STATUS(BOUNDARY_USAGE_STOPPED, boundary_usage_flush(tracker));
    CHECK_STATUS(BOUNDARY_USAGE_STOPPED, boundary_usage_shutdown(tracker));
    check_message("stopped");
    json = boundary_usage_status_json(tracker);
    CHECK(json != NULL && strstr(json, "\"stopped\":true") != NULL);
    boundary_usage_string_free(json);
    boundary_usage_free(tracker);
}

int main(int count, char **arguments) {
    boundary_usage_tracker *tracker;
    CHECK(count == 2);
    CHECK(strcmp(boundary_usage_last_error(), "") == 0);
    CHECK(BOUNDARY_USAGE_OK == 0);
    check_options();
    check_secrets();
    check_start(arguments[1]);
    check_without_tracker();
    check_long_message();
    tracker = started(manual_options(arguments[1]));
    check_tracks(tracker, boundary_usage_track);
    check_tracks(tracker, boundary_usage_try_track);
    check_last_error(tracker);
    check_stopped(tracker);
    return 0;
}
