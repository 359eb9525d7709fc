// A replica that runs commands, one a line, for tests of processes: they are killed, and lose their database.
//
//     replica COMMANDS REPLIES
//
// reads commands from the first descriptor, and writes a line for each to the second one. The standard streams are not
// used, so that a test can show that the library does not use them.
//
// | command | reply |
// | --- | --- |
// | `set NAME VALUE` | the status, and after an error its message |
// | `start`, `flush`, `shutdown` | the same |
// | `track W U A D` | the same, for ids such as `w1` or of 32 digits |
// | `status` | the JSON object |
// | `free` | `0` |
// | `log PATH` | `0`. Appends log messages to a file |
// | `log` | `0`. Discards log messages |

#include "checks.h"

#include <fcntl.h>

enum { LINE = 4096 };

static boundary_usage_options *options;
static boundary_usage_tracker *tracker;
static FILE *replies;

// Appends a message to the file of the context, in one call, because several threads log.
static void log_to_file(int level, const char *message, void *context) {
    char line[LINE];
    int length = snprintf(line, sizeof line, "%d %.4000s\n", level, message);
    CHECK(write(*(const int *)context, line, (size_t)length) == length);
}

static void set_log(const char *path) {
    static int file = -1;
    boundary_usage_set_log(NULL, NULL);
    if (file >= 0) {
        close(file);
        file = -1;
    }
    if (path != NULL) {
        file = open(path, O_WRONLY | O_APPEND | O_CREAT, 0600);
        CHECK(file >= 0);
        boundary_usage_set_log(log_to_file, &file);
    }
}

static void reply(boundary_usage_status status) {
    fprintf(replies, "%d %s\n", (int)status, status == BOUNDARY_USAGE_OK ? "" : boundary_usage_last_error());
}

static boundary_usage_status track(char *rest) {
    uint8_t workspace[16], owner[16];
    char names[2][40];
    unsigned long long allowed, denied;
    CHECK(sscanf(rest, "%39s %39s %llu %llu", names[0], names[1], &allowed, &denied) == 4);
    id_of(names[0], workspace);
    id_of(names[1], owner);
    return boundary_usage_track(tracker, workspace, owner, allowed, denied);
}

static void run(const char *command, char *rest) {
    if (strcmp(command, "set") == 0) {
        char *value = strchr(rest, ' ');
        CHECK(value != NULL);
        *value++ = 0;
        reply(boundary_usage_options_set(options, rest, value));
    } else if (strcmp(command, "start") == 0) {
        reply(boundary_usage_start(options, &tracker));
    } else if (strcmp(command, "track") == 0) {
        reply(track(rest));
    } else if (strcmp(command, "flush") == 0) {
        reply(boundary_usage_flush(tracker));
    } else if (strcmp(command, "shutdown") == 0) {
        reply(boundary_usage_shutdown(tracker));
    } else if (strcmp(command, "status") == 0) {
        char *json = boundary_usage_status_json(tracker);
        CHECK(json != NULL);
        fprintf(replies, "%s\n", json);
        boundary_usage_string_free(json);
    } else if (strcmp(command, "free") == 0) {
        boundary_usage_free(tracker);
        tracker = NULL;
        reply(BOUNDARY_USAGE_OK);
    } else if (strcmp(command, "log") == 0) {
        set_log(rest);
        reply(BOUNDARY_USAGE_OK);
    } else {
        CHECK(!"the command is known");
    }
}

int main(int count, char **arguments) {
    static char line[LINE];
    FILE *commands;
    CHECK(count == 3);
    commands = fdopen(atoi(arguments[1]), "r");
    replies = fdopen(atoi(arguments[2]), "w");
    CHECK(commands != NULL && replies != NULL);
    options = boundary_usage_options_new();
    while (fgets(line, sizeof line, commands) != NULL) {
        char *rest;
        line[strcspn(line, "\n")] = 0;
        check_context = line;
        rest = strchr(line, ' ');
        if (rest != NULL) {
            *rest++ = 0;
        }
        run(line, rest);
        CHECK(fflush(replies) == 0);
    }
    boundary_usage_free(tracker);
    boundary_usage_options_free(options);
    set_log(NULL);
    fclose(commands);
    fclose(replies);
    return 0;
}
