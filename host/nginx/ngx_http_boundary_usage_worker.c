// Starts and stops the tracker of a worker process, and passes its log messages to nginx.

#include "ngx_http_boundary_usage.h"

#include <ngx_event.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <time.h>

// The waits between attempts to start, in seconds. They double from the first to the last.
#define FIRST_WAIT 1
#define LAST_WAIT 60

// The time between two looks at the waiting log lines, in milliseconds.
#define TICK 1000

// The waiting log lines. The library logs failures of flushes, so a worker has few lines a second.
#define LINES 32
#define LINE_BYTES 1024

typedef struct {
    ngx_uint_t  level;
    char        text[LINE_BYTES];
} line_t;

typedef struct {
    boundary_usage_options            *options;
    _Atomic(boundary_usage_tracker *)  tracker;

    pthread_t                          starter;
    ngx_uint_t                         has_starter;
    // The mutex guards all fields below.
    pthread_mutex_t                    mutex;
    pthread_cond_t                     wakeup;
    ngx_uint_t                         is_stopping;
    ngx_uint_t                         lines_n;
    ngx_uint_t                         lines_lost;
    line_t                             lines[LINES];
} worker_t;

static worker_t     worker = { .mutex = PTHREAD_MUTEX_INITIALIZER };
static ngx_event_t  tick;


boundary_usage_tracker *
ngx_http_boundary_usage_tracker(void)
{
    return atomic_load_explicit(&worker.tracker, memory_order_acquire);
}


// Adds a line to the waiting ones. Any thread may call this.
//
// nginx's log is not made for other threads: the time is that of the last event, and writers such as syslog are not
// thread-safe. So the event loop writes the lines.
static void
queue_line(ngx_uint_t level, const char *format, const char *text)
{
    line_t  *line;

    pthread_mutex_lock(&worker.mutex);

    if (worker.lines_n < LINES) {
        line = &worker.lines[worker.lines_n++];
        line->level = level;
        (void) snprintf(line->text, LINE_BYTES, format, text);

    } else {
        worker.lines_lost++;
    }

    pthread_mutex_unlock(&worker.mutex);
}


static void
library_line(int level, const char *message, void *context)
{
    (void) context;

    queue_line(level == BOUNDARY_USAGE_LOG_ERROR ? NGX_LOG_ERR
               : level == BOUNDARY_USAGE_LOG_WARNING ? NGX_LOG_WARN : NGX_LOG_NOTICE,
               "%s", message);
}


// Writes the waiting lines.
static void
write_lines(ngx_log_t *log)
{
    ngx_uint_t  i;

    pthread_mutex_lock(&worker.mutex);

    for (i = 0; i < worker.lines_n; i++) {
        ngx_log_error(worker.lines[i].level, log, 0, "boundary usage: %s", worker.lines[i].text);
    }

    if (worker.lines_lost > 0) {
        ngx_log_error(NGX_LOG_WARN, log, 0, "boundary usage: %ui more messages were dropped", worker.lines_lost);
    }

    worker.lines_n = 0;
    worker.lines_lost = 0;

    pthread_mutex_unlock(&worker.mutex);
}


static void
on_tick(ngx_event_t *event)
{
    // A single process replaces its cycle and with it its log.
    event->log = ngx_cycle->log;
    write_lines(event->log);
    ngx_add_timer(event, TICK);
}


// Tries to start the tracker once. Requests count from then on.
static ngx_int_t
try_start(void)
{
    boundary_usage_status    status;
    boundary_usage_tracker  *tracker;

    status = boundary_usage_start(worker.options, &tracker);

    if (status != BOUNDARY_USAGE_OK) {
        // Only an outage is likely to end without a change of the configuration or of the database.
        queue_line(status == BOUNDARY_USAGE_UNAVAILABLE ? NGX_LOG_ERR : NGX_LOG_ALERT,
                   "cannot start, so requests are not counted; trying again: %s", boundary_usage_last_error());
        return NGX_ERROR;
    }

    atomic_store_explicit(&worker.tracker, tracker, memory_order_release);

    return NGX_OK;
}


// Repeats the start until it succeeds or the worker exits.
static void *
run_starter(void *unused)
{
    time_t           wait;
    ngx_int_t        rc;
    struct timespec  deadline;

    (void) unused;
    rc = NGX_ERROR;

    pthread_mutex_lock(&worker.mutex);

    for (wait = FIRST_WAIT; rc != NGX_OK && !worker.is_stopping; wait = ngx_min(2 * wait, LAST_WAIT)) {
        (void) clock_gettime(CLOCK_MONOTONIC, &deadline);
        deadline.tv_sec += wait;

        while (!worker.is_stopping
               && pthread_cond_timedwait(&worker.wakeup, &worker.mutex, &deadline) == 0)
        {
            /* a spurious wakeup */
        }

        if (!worker.is_stopping) {
            pthread_mutex_unlock(&worker.mutex);
            rc = try_start();
            pthread_mutex_lock(&worker.mutex);
        }
    }

    pthread_mutex_unlock(&worker.mutex);

    return NULL;
}


// Starts the thread that repeats the start. nginx's signals stay with the event loop.
static void
start_starter(ngx_log_t *log)
{
    int                 error;
    sigset_t            all, previous;
    pthread_condattr_t  attributes;

    (void) pthread_condattr_init(&attributes);
    (void) pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    error = pthread_cond_init(&worker.wakeup, &attributes);
    (void) pthread_condattr_destroy(&attributes);

    if (error == 0) {
        (void) sigfillset(&all);
        (void) pthread_sigmask(SIG_SETMASK, &all, &previous);
        error = pthread_create(&worker.starter, NULL, run_starter, NULL);
        (void) pthread_sigmask(SIG_SETMASK, &previous, NULL);
    }

    if (error != 0) {
        ngx_log_error(NGX_LOG_ALERT, log, error,
                      "boundary usage: cannot create a thread, so this worker counts no requests until a reload");
        return;
    }

    worker.has_starter = 1;
}


void
ngx_http_boundary_usage_start(ngx_cycle_t *cycle, boundary_usage_options *options)
{
    static ngx_connection_t  nothing = { .fd = (ngx_socket_t) -1 };

    worker.options = options;
    boundary_usage_set_log(library_line, NULL);

    // nginx restarts a worker that fails here without a delay. So the worker serves without a tracker.
    if (try_start() != NGX_OK) {
        start_starter(cycle->log);
    }

    write_lines(cycle->log);

    tick.handler = on_tick;
    tick.log = cycle->log;
    // The debug log prints the descriptor of every timer's connection.
    tick.data = &nothing;
    // The timer must not delay the end of a worker.
    tick.cancelable = 1;
    ngx_add_timer(&tick, TICK);
}


void
ngx_http_boundary_usage_stop(ngx_cycle_t *cycle)
{
    boundary_usage_tracker  *tracker;

    if (worker.has_starter) {
        pthread_mutex_lock(&worker.mutex);
        worker.is_stopping = 1;
        pthread_cond_signal(&worker.wakeup);
        pthread_mutex_unlock(&worker.mutex);
        (void) pthread_join(worker.starter, NULL);
        worker.has_starter = 0;
    }

    tracker = atomic_exchange(&worker.tracker, NULL);

    if (tracker != NULL) {
        if (boundary_usage_shutdown(tracker) != BOUNDARY_USAGE_OK) {
            queue_line(NGX_LOG_ERR, "the last flush failed, and the next worker repeats it: %s",
                       boundary_usage_last_error());
        }

        boundary_usage_free(tracker);
        boundary_usage_set_log(NULL, NULL);
    }

    worker.options = NULL;
    write_lines(cycle->log);
}


void
ngx_http_boundary_usage_release(void *options)
{
    // A single process releases the configuration of its tracker when it reads a new one.
    if (options != worker.options) {
        boundary_usage_options_free(options);
    }
}
