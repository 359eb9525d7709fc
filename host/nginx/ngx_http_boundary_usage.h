// The parts of the module: directives (`module`), requests (`request`), and the tracker of a worker (`worker`).

#ifndef NGX_HTTP_BOUNDARY_USAGE_H
#define NGX_HTTP_BOUNDARY_USAGE_H

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>
#include <boundary_usage.h>

typedef struct {
    boundary_usage_options    *options;
    ngx_path_t                *state_dir;
    ngx_str_t                  database;
    // The place of the directive that names the database.
    u_char                    *file;
    ngx_uint_t                 line;
    // Whether any location counts.
    ngx_uint_t                 is_used;
    // Shared memory with the number of uncounted requests, an `ngx_atomic_t`.
    ngx_shm_zone_t            *uncounted;
} ngx_http_boundary_usage_main_conf_t;

typedef struct {
    ngx_flag_t                 is_on;
    // The place of the directive that switches the location on.
    u_char                    *file;
    ngx_uint_t                 line;
    ngx_http_complex_value_t  *workspace;
    ngx_http_complex_value_t  *owner;
    // The statuses of denied requests, as `ngx_uint_t`.
    ngx_array_t               *denied;
} ngx_http_boundary_usage_loc_conf_t;

extern ngx_module_t  ngx_http_boundary_usage_module;

// Parses a UUID of 36 characters. The nil UUID is invalid.
ngx_int_t ngx_http_boundary_usage_parse_id(ngx_str_t *text, uint8_t id[16]);

// Counts a request at its end.
ngx_int_t ngx_http_boundary_usage_log_handler(ngx_http_request_t *r);

// Returns the result of a request, which exists from its log phase on.
ngx_int_t ngx_http_boundary_usage_get_result(ngx_http_request_t *r, ngx_http_variable_value_t *value, uintptr_t data);

// Returns the number of uncounted requests of all workers.
ngx_int_t ngx_http_boundary_usage_get_uncounted(ngx_http_request_t *r, ngx_http_variable_value_t *value,
    uintptr_t data);

// Starts the tracker of this worker. Blocks until it runs, or for 2 s if the database is down.
//
// If the start fails, a thread repeats it. The worker uses the options until `ngx_http_boundary_usage_stop`.
void ngx_http_boundary_usage_start(ngx_cycle_t *cycle, boundary_usage_options *options);

// Flushes for the last time, and stops the tracker. Does nothing if it was not started.
void ngx_http_boundary_usage_stop(ngx_cycle_t *cycle);

// Releases options, unless this process uses them for its tracker.
void ngx_http_boundary_usage_release(void *options);

// Returns the tracker of this worker, or NULL until a start succeeds.
boundary_usage_tracker *ngx_http_boundary_usage_tracker(void);

#endif
