// The process runs out of threads or descriptors while a tracker starts or works. Each failure is an error of the call.
//
//     shortages threads|descriptors DATABASE STATE-DIR

#include "checks.h"

#include <dlfcn.h>
#include <errno.h>
#include <sys/resource.h>

enum { ATTEMPTS = 64, NONE = -1 };

typedef int (*create_function)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);

// The number of threads that can still be created, or NONE without a limit.
static int threads_left = NONE;
static int panics;

#ifdef __cplusplus
extern "C"
#endif
// Takes the place of the C library's function for the whole process.
int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *argument)
#ifdef __cplusplus
    noexcept
#endif
{
    static create_function original;
    if (original == NULL) {
        void *found = dlsym(RTLD_NEXT, "pthread_create");
        memcpy(&original, &found, sizeof original);
    }
    if (__atomic_load_n(&threads_left, __ATOMIC_SEQ_CST) != NONE) {
        if (__atomic_fetch_sub(&threads_left, 1, __ATOMIC_SEQ_CST) <= 0) {
            __atomic_store_n(&threads_left, 0, __ATOMIC_SEQ_CST);
            return EAGAIN;
        }
    }
    return original(thread, attributes, run, argument);
}

static void count_panics(int level, const char *message, void *context) {
    (void)level;
    (void)context;
    if (strstr(message, "panicked") != NULL) {
        __atomic_fetch_add(&panics, 1, __ATOMIC_RELAXED);
    }
}

static void limit_descriptors(rlim_t limit) {
    struct rlimit limits;
    CHECK(getrlimit(RLIMIT_NOFILE, &limits) == 0);
    limits.rlim_cur = limit == 0 ? limits.rlim_max : limit;
    CHECK(setrlimit(RLIMIT_NOFILE, &limits) == 0);
}

static void set_limit(int is_threads, int attempt) {
    if (is_threads) {
        __atomic_store_n(&threads_left, attempt, __ATOMIC_SEQ_CST);
    } else {
        limit_descriptors((rlim_t)attempt + 3);
    }
}

static void lift_limit(void) {
    __atomic_store_n(&threads_left, NONE, __ATOMIC_SEQ_CST);
    limit_descriptors(0);
}

// Uses a tracker under a limit. Returns whether everything succeeded.
static int use(const boundary_usage_options *options, int is_threads, int attempt) {
    boundary_usage_tracker *tracker;
    boundary_usage_status status, flushed;
    set_limit(is_threads, attempt);
    status = boundary_usage_start(options, &tracker);
    if (status != BOUNDARY_USAGE_OK) {
        CHECK(tracker == NULL && boundary_usage_last_error()[0] != 0);
        lift_limit();
        return 0;
    }
    (void)track_number(tracker, (unsigned)attempt + 1);
    flushed = boundary_usage_flush(tracker);
    status = boundary_usage_shutdown(tracker);
    lift_limit();
    boundary_usage_free(tracker);
    return flushed == BOUNDARY_USAGE_OK && status == BOUNDARY_USAGE_OK;
}

int main(int count, char **arguments) {
    boundary_usage_options *options;
    int attempt = 0, failures = 0, is_threads;
    CHECK(count == 4);
    is_threads = strcmp(arguments[1], "threads") == 0;
    boundary_usage_set_log(count_panics, NULL);
    options = manual_options(arguments[2]);
    set_option(options, "state-dir", arguments[3]);
    set_option(options, "checkpoint-interval", "1ms");
    set_option(options, "flush-timeout", "1s");
    set_option(options, "shutdown-timeout", "1s");
    // The component is compiled once, so that the attempts are fast.
    CHECK(use(options, 0, 1000));
    while (!use(options, is_threads, attempt)) {
        failures++;
        CHECK(++attempt < ATTEMPTS);
    }
    CHECK(failures > 0);
    // Without a thread for the checkpoint, the runtime panics inside the library.
    CHECK(!is_threads || panics > 0);
    boundary_usage_options_free(options);
    boundary_usage_set_log(NULL, NULL);
    return 0;
}
