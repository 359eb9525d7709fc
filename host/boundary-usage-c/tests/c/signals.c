// The library leaves signal handlers, signal masks and the umask alone, and its threads receive no signals.
//
//     signals DATABASE

#include "checks.h"

#include <dirent.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>

enum { SIGNALS = 65, DELIVERIES = 200 };

// Signals that a fault of the thread itself raises.
static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT};

typedef struct signals {
    struct sigaction actions[SIGNALS];
    sigset_t mask;
} signals;

static volatile sig_atomic_t deliveries;
static volatile pid_t receiver;

static pid_t this_thread(void) {
    return (pid_t)syscall(SYS_gettid);
}

static void on_term(int number) {
    (void)number;
    receiver = this_thread();
    deliveries = deliveries + 1;
}

static void on_fault(int number) {
    (void)number;
    _exit(2);
}

static void read_signals(signals *read) {
    int number;
    memset(read, 0, sizeof *read);
    for (number = 1; number < SIGNALS; number++) {
        // Two numbers between SIGSYS and SIGRTMIN belong to the C library.
        (void)sigaction(number, NULL, &read->actions[number]);
    }
    CHECK(pthread_sigmask(SIG_SETMASK, NULL, &read->mask) == 0);
}

static void check_unchanged(const signals *before) {
    signals now;
    int number, other;
    mode_t mask = umask(0);
    umask(mask);
    CHECK(mask == 0137);
    read_signals(&now);
    for (number = 1; number < SIGNALS; number++) {
        const struct sigaction *old = &before->actions[number], *current = &now.actions[number];
        CHECK(old->sa_handler == current->sa_handler && old->sa_flags == current->sa_flags);
        for (other = 1; other < SIGNALS; other++) {
            CHECK(sigismember(&old->sa_mask, other) == sigismember(&current->sa_mask, other));
        }
        CHECK(sigismember(&before->mask, number) == sigismember(&now.mask, number));
    }
}

// Returns the blocked signals of a thread as bits.
static unsigned long long blocked_by(const char *thread) {
    char path[300], line[256];
    unsigned long long blocked = 0;
    FILE *status;
    snprintf(path, sizeof path, "/proc/self/task/%s/status", thread);
    status = fopen(path, "r");
    if (status == NULL) {
        return ~0ULL; // The thread has just ended.
    }
    while (fgets(line, sizeof line, status) != NULL) {
        (void)sscanf(line, "SigBlk: %llx", &blocked);
    }
    fclose(status);
    return blocked;
}

// Checks that every thread of the library blocks every signal except faults.
static void check_threads(const pid_t application[2]) {
    DIR *threads = opendir("/proc/self/task");
    struct dirent *thread;
    int number, seen = 0;
    CHECK(threads != NULL);
    while ((thread = readdir(threads)) != NULL) {
        pid_t id = (pid_t)atoi(thread->d_name);
        unsigned long long blocked;
        if (id == 0 || id == application[0] || id == application[1]) {
            continue;
        }
        blocked = blocked_by(thread->d_name);
        for (number = 1; number < 32; number++) {
            int fault, is_fault = 0;
            for (fault = 0; fault < (int)(sizeof faults / sizeof faults[0]); fault++) {
                is_fault = is_fault || faults[fault] == number;
            }
            if (!is_fault && number != SIGKILL && number != SIGSTOP) {
                CHECK(blocked >> (number - 1) & 1);
            }
        }
        seen++;
    }
    closedir(threads);
    CHECK(seen >= 2);
}

static void block_term(int how) {
    sigset_t term;
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    CHECK(pthread_sigmask(how, &term, NULL) == 0);
}

static pid_t waiting_thread;
static int stops;

// The only thread of the application that does not block SIGTERM.
static void *wait_for_signals(void *argument) {
    (void)argument;
    block_term(SIG_UNBLOCK);
    __atomic_store_n(&waiting_thread, this_thread(), __ATOMIC_RELEASE);
    AWAIT(__atomic_load_n(&stops, __ATOMIC_ACQUIRE));
    return NULL;
}

static void check_delivery(boundary_usage_tracker *tracker) {
    pid_t application[2] = {this_thread(), 0};
    pthread_t thread;
    int number;
    block_term(SIG_BLOCK);
    CHECK(pthread_create(&thread, NULL, wait_for_signals, NULL) == 0);
    AWAIT((application[1] = __atomic_load_n(&waiting_thread, __ATOMIC_ACQUIRE)) != 0);
    for (number = 1; number <= DELIVERIES; number++) {
        CHECK_STATUS(BOUNDARY_USAGE_OK, track_number(tracker, (unsigned)number));
        CHECK(kill(getpid(), SIGTERM) == 0);
        AWAIT(deliveries == number);
        CHECK(receiver == application[1]);
        if (number % 20 == 0) {
            CHECK_STATUS(BOUNDARY_USAGE_OK, boundary_usage_flush(tracker));
            check_threads(application);
        }
    }
    __atomic_store_n(&stops, 1, __ATOMIC_RELEASE);
    CHECK(pthread_join(thread, NULL) == 0);
    block_term(SIG_UNBLOCK);
}

int main(int count, char **arguments) {
    const int own[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL};
    struct sigaction action;
    boundary_usage_options *options;
    boundary_usage_tracker *tracker;
    signals before;
    size_t number;
    CHECK(count == 2);
    umask(0137);
    memset(&action, 0, sizeof action);
    action.sa_handler = on_term;
    CHECK(sigaction(SIGTERM, &action, NULL) == 0);
    action.sa_handler = on_fault;
    for (number = 0; number < sizeof own / sizeof own[0]; number++) {
        CHECK(sigaction(own[number], &action, NULL) == 0);
    }
    read_signals(&before);
    // SIGPIPE keeps its default action, which ends the process.
    CHECK(before.actions[SIGPIPE].sa_handler == SIG_DFL);

    options = boundary_usage_options_new();
    set_option(options, "database", arguments[1]);
    set_option(options, "component", "/nonexistent/tracker.wasm");
    CHECK_STATUS(BOUNDARY_USAGE_COMPONENT, boundary_usage_start(options, &tracker));
    boundary_usage_options_free(options);
    check_unchanged(&before);

    tracker = started(manual_options(arguments[1]));
    check_unchanged(&before);
    check_delivery(tracker);
    check_unchanged(&before);
    CHECK_STATUS(BOUNDARY_USAGE_OK, boundary_usage_shutdown(tracker));
    boundary_usage_free(tracker);
    check_unchanged(&before);
    return 0;
}
