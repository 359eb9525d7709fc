// Measures one call of `boundary_usage_track` from one thread, and prints the medians as a line of JSON.
//
//     bench_track DATABASE
//
// The tracker flushes between rounds only. Both inputs alternate, so other load on the machine affects them alike.

#include "checks.h"

enum { ROUNDS = 61, CALLS = 20000, PAIRS = 1000, INPUTS = 2 };

static uint8_t workspaces[PAIRS][16], owners[PAIRS][16];

static double nanoseconds(void) {
    struct timespec now;
    CHECK(clock_gettime(CLOCK_MONOTONIC, &now) == 0);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

// Returns the time of one call in nanoseconds, on average over a round. `pairs` is a number of pairs in turn.
static double round_of(boundary_usage_tracker *tracker, int pairs) {
    double start = nanoseconds(), end;
    int call, pair = 0;
    for (call = 0; call < CALLS; call++) {
        if (boundary_usage_track(tracker, workspaces[pair], owners[pair], 1, 0) != BOUNDARY_USAGE_OK) {
            check_failed(__FILE__, __LINE__, "the tracker accepts activity");
        }
        pair = pair + 1 == pairs ? 0 : pair + 1;
    }
    end = nanoseconds();
    CHECK_STATUS(BOUNDARY_USAGE_OK, boundary_usage_flush(tracker));
    return (end - start) / CALLS;
}

static int compare(const void *left, const void *right) {
    double difference = *(const double *)left - *(const double *)right;
    return difference < 0 ? -1 : difference > 0;
}

static double median(double *values) {
    qsort(values, ROUNDS, sizeof *values, compare);
    return values[ROUNDS / 2];
}

int main(int count, char **arguments) {
    static double rounds[INPUTS][ROUNDS];
    boundary_usage_tracker *tracker;
    int pair, round;
    CHECK(count == 2);
    for (pair = 0; pair < PAIRS; pair++) {
        char name[16];
        snprintf(name, sizeof name, "w%d", pair + 1);
        id_of(name, workspaces[pair]);
        name[0] = 'u';
        id_of(name, owners[pair]);
    }
    tracker = started(manual_options(arguments[1]));
    for (round = 0; round < ROUNDS; round++) {
        rounds[0][round] = round_of(tracker, 1);
        rounds[1][round] = round_of(tracker, PAIRS);
    }
    CHECK_STATUS(BOUNDARY_USAGE_OK, boundary_usage_shutdown(tracker));
    boundary_usage_free(tracker);
    printf("{\"same_pair_ns\": %.1f, \"many_pairs_ns\": %.1f, \"pairs\": %d, \"calls\": %d, \"rounds\": %d}\n",
           median(rounds[0]), median(rounds[1]), PAIRS, CALLS, ROUNDS);
    return 0;
}
