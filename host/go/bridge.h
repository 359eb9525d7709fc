// Functions between Go and the C library.
//
// Trackers and ids are numbers, because Go allocates memory in each call that checks or passes their pointers. A result
// has the message of its failure, because the library keeps messages per thread, and Go's next call may run on another
// thread.

#ifndef BOUNDARY_USAGE_GO_BRIDGE_H
#define BOUNDARY_USAGE_GO_BRIDGE_H

#include <boundary_usage.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

// A pointer to a tracker of the library.
typedef uintptr_t bridge_tracker;

// An id. The bytes of a UUID are the little-endian bytes of `low`, then those of `high`.
typedef struct bridge_id {
    uint64_t low;
    uint64_t high;
} bridge_id;

// The status of a call, and the message of a failure, which the caller frees.
typedef struct bridge_result {
    boundary_usage_status status;
    char *message;
} bridge_result;

static inline bridge_result bridge_result_of(boundary_usage_status status) {
    bridge_result result = {status, NULL};
    if (status != BOUNDARY_USAGE_OK) {
        result.message = strdup(boundary_usage_last_error());
    }
    return result;
}

// Compilers reduce this to two stores on little-endian machines.
static inline void bridge_store(bridge_id id, uint8_t bytes[16]) {
    for (int i = 0; i < 8; i++) {
        bytes[i] = (uint8_t)(id.low >> (8 * i));
        bytes[8 + i] = (uint8_t)(id.high >> (8 * i));
    }
}

static inline bridge_result bridge_track(bridge_tracker tracker, bridge_id workspace, bridge_id owner,
                                         uint64_t allowed, uint64_t denied) {
    uint8_t w[16], o[16];
    bridge_store(workspace, w);
    bridge_store(owner, o);
    return bridge_result_of(boundary_usage_track((boundary_usage_tracker *)tracker, w, o, allowed, denied));
}

static inline bridge_result bridge_try_track(bridge_tracker tracker, bridge_id workspace, bridge_id owner,
                                             uint64_t allowed, uint64_t denied) {
    uint8_t w[16], o[16];
    bridge_store(workspace, w);
    bridge_store(owner, o);
    return bridge_result_of(boundary_usage_try_track((boundary_usage_tracker *)tracker, w, o, allowed, denied));
}

static inline bridge_result bridge_set(boundary_usage_options *options, const char *name, const char *value) {
    return bridge_result_of(boundary_usage_options_set(options, name, value));
}

static inline bridge_result bridge_start(const boundary_usage_options *options, bridge_tracker *started) {
    boundary_usage_tracker *tracker = NULL;
    boundary_usage_status status = boundary_usage_start(options, &tracker);
    *started = (bridge_tracker)tracker;
    return bridge_result_of(status);
}

static inline bridge_result bridge_flush(bridge_tracker tracker) {
    return bridge_result_of(boundary_usage_flush((boundary_usage_tracker *)tracker));
}

static inline bridge_result bridge_shutdown(bridge_tracker tracker) {
    return bridge_result_of(boundary_usage_shutdown((boundary_usage_tracker *)tracker));
}

static inline bridge_result bridge_status(bridge_tracker tracker, char **json) {
    *json = boundary_usage_status_json((boundary_usage_tracker *)tracker);
    // The function returns no status. It fails only for a child process, or by a fault of the library.
    return bridge_result_of(*json != NULL ? BOUNDARY_USAGE_OK : BOUNDARY_USAGE_INTERNAL);
}

static inline void bridge_free(bridge_tracker tracker) {
    boundary_usage_free((boundary_usage_tracker *)tracker);
}

// Passes the library's messages to `boundaryUsageLog` in Go, or discards them.
void bridge_set_log(int is_enabled);

#endif // BOUNDARY_USAGE_GO_BRIDGE_H
