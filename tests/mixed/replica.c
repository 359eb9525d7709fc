// The C replica of the test: replica URL REPLICA FLUSH_EVERY.

#include <boundary_usage.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static void check(boundary_usage_status status) {
    if (status != BOUNDARY_USAGE_OK) {
        fprintf(stderr, "C: %d %s\n", (int)status, boundary_usage_last_error());
        exit(1);
    }
}

static int read_id(const char *text, uint8_t id[16]) {
    unsigned int byte;
    for (int i = 0; i < 16; i++, text += 2) {
        if (*text == '-') {
            text++;
        }
        if (sscanf(text, "%2x", &byte) != 1) {
            return 0;
        }
        id[i] = (uint8_t)byte;
    }
    return 1;
}

int main(int count, char **arguments) {
    if (count != 4) {
        return 2;
    }
    boundary_usage_options *options = boundary_usage_options_new();
    check(boundary_usage_options_set(options, "database", arguments[1]));
    check(boundary_usage_options_set(options, "replica", arguments[2]));
    check(boundary_usage_options_set(options, "flush-interval", "1day"));
    boundary_usage_tracker *tracker;
    check(boundary_usage_start(options, &tracker));
    boundary_usage_options_free(options);

    char line[256], workspace[37], owner[37];
    uint8_t workspace_id[16], owner_id[16];
    uint64_t allowed, denied;
    const char *format = "{\"workspace\":\"%36[^\"]\",\"owner\":\"%36[^\"]\","
                         "\"allowed\":%" SCNu64 ",\"denied\":%" SCNu64 "}";
    for (long tracked = 1; fgets(line, sizeof line, stdin) != NULL; tracked++) {
        if (sscanf(line, format, workspace, owner, &allowed, &denied) != 4 || !read_id(workspace, workspace_id) ||
            !read_id(owner, owner_id)) {
            fprintf(stderr, "C: invalid line: %s", line);
            return 1;
        }
        check(boundary_usage_track(tracker, workspace_id, owner_id, allowed, denied));
        if (tracked % atol(arguments[3]) == 0) {
            check(boundary_usage_flush(tracker));
        }
    }
    check(boundary_usage_shutdown(tracker));
    boundary_usage_free(tracker);
    return 0;
}
