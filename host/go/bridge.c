// The function that receives the library's log messages.

#include "bridge.h"

#include "_cgo_export.h"

static void pass(int level, const char *message, void *context) {
    (void)context;
    // Exported Go functions have no `const`.
    boundaryUsageLog(level, (char *)message);
}

void bridge_set_log(int is_enabled) {
    boundary_usage_set_log(is_enabled ? pass : NULL, NULL);
}
