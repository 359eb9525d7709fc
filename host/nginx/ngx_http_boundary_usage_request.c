// Counts a request in its log phase. The variables report the result.

#include "ngx_http_boundary_usage.h"

// The shortest time between two log lines of a worker about uncounted requests, in seconds.
#define REPORT_INTERVAL 60

// The longest part of an invalid id or of an error in a log line.
#define SHOWN_BYTES 100

#define ID_CHARACTERS 36

// The result of a request.
typedef struct {
    ngx_str_t    name;
    // The reason if the request is not counted, or else NULL.
    const char  *reason;
} result_t;

static const result_t  allowed = { ngx_string("allowed"), NULL };
static const result_t  denied = { ngx_string("denied"), NULL };
static const result_t  invalid_workspace = { ngx_string("invalid-workspace"),
                                             "boundary_usage_workspace is not a UUID" };
static const result_t  invalid_owner = { ngx_string("invalid-owner"), "boundary_usage_owner is not a UUID" };
static const result_t  not_started = { ngx_string("not-started"), "the tracker has not started" };
static const result_t  intake_full = { ngx_string("intake-full"), "the intake is full" };
static const result_t  failed = { ngx_string("failed"), "internal error" };


static ngx_int_t
hex_digit(u_char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }

    c |= 0x20;

    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : NGX_ERROR;
}


ngx_int_t
ngx_http_boundary_usage_parse_id(ngx_str_t *text, uint8_t id[16])
{
    uint8_t     any;
    ngx_int_t   high, low;
    ngx_uint_t  i, n;

    if (text->len != ID_CHARACTERS) {
        return NGX_ERROR;
    }

    any = 0;

    for (i = 0, n = 0; i < ID_CHARACTERS; i += 2) {
        if (i == 8 || i == 13 || i == 18 || i == 23) {
            if (text->data[i++] != '-') {
                return NGX_ERROR;
            }
        }

        high = hex_digit(text->data[i]);
        low = hex_digit(text->data[i + 1]);

        if (high == NGX_ERROR || low == NGX_ERROR) {
            return NGX_ERROR;
        }

        id[n] = (uint8_t) (high << 4 | low);
        any |= id[n++];
    }

    return any != 0 ? NGX_OK : NGX_ERROR;
}


// Returns the status, as in the access log.
static ngx_uint_t
status_of(ngx_http_request_t *r)
{
    return r->err_status ? r->err_status : r->headers_out.status;
}


// Returns the uncounted requests of all workers, in shared memory.
static ngx_atomic_t *
uncounted_requests(ngx_http_request_t *r)
{
    ngx_http_boundary_usage_main_conf_t  *mcf;

    mcf = ngx_http_get_module_main_conf(r, ngx_http_boundary_usage_module);

    return mcf->uncounted->data;
}


static ngx_uint_t
is_denied(ngx_array_t *denied, ngx_uint_t status)
{
    ngx_uint_t  i, *elements;

    elements = denied->elts;

    for (i = 0; i < denied->nelts; i++) {
        if (elements[i] == status) {
            return 1;
        }
    }

    return 0;
}


// Adds to the number of uncounted requests, and logs it unless the worker has recently done so.
static void
report(ngx_http_request_t *r, const result_t *result, ngx_str_t *detail)
{
    char               *quote;
    u_char              shown[SHOWN_BYTES];
    size_t              i, length;
    ngx_atomic_uint_t   number;
    static time_t       next;

    number = (ngx_atomic_uint_t) ngx_atomic_fetch_add(uncounted_requests(r), 1) + 1;

    if (ngx_time() < next) {
        return;
    }

    next = ngx_time() + REPORT_INTERVAL;
    length = ngx_min(detail->len, SHOWN_BYTES);

    // An id may come from the client.
    for (i = 0; i < length; i++) {
        shown[i] = detail->data[i] < 0x20 || detail->data[i] >= 0x7f ? '?' : detail->data[i];
    }

    quote = detail->data != NULL ? "\"" : "";
    ngx_log_error(NGX_LOG_WARN, r->connection->log, 0,
                  "boundary usage: request not counted: %s%s%s%*s%s (%uA requests until now; "
                  "each worker logs one of them a minute)",
                  result->reason, detail->data != NULL ? ": " : "", quote, length, shown, quote, number);
}


// Records a request. Returns its result, and stores an invalid id or the message of an error in `*detail`.
static const result_t *
track(ngx_http_request_t *r, ngx_http_boundary_usage_loc_conf_t *lcf, ngx_str_t *detail)
{
    uint8_t                  workspace[16], owner[16];
    ngx_uint_t               is_refused;
    boundary_usage_status    status;
    boundary_usage_tracker  *tracker;

    if (ngx_http_complex_value(r, lcf->workspace, detail) != NGX_OK) {
        return &failed;
    }

    if (ngx_http_boundary_usage_parse_id(detail, workspace) != NGX_OK) {
        return &invalid_workspace;
    }

    if (ngx_http_complex_value(r, lcf->owner, detail) != NGX_OK) {
        return &failed;
    }

    if (ngx_http_boundary_usage_parse_id(detail, owner) != NGX_OK) {
        return &invalid_owner;
    }

    ngx_str_null(detail);
    tracker = ngx_http_boundary_usage_tracker();

    if (tracker == NULL) {
        return &not_started;
    }

    is_refused = is_denied(lcf->denied, status_of(r));
    status = boundary_usage_try_track(tracker, workspace, owner, !is_refused, is_refused);

    if (status == BOUNDARY_USAGE_OK) {
        return is_refused ? &denied : &allowed;
    }

    if (status == BOUNDARY_USAGE_FULL) {
        return &intake_full;
    }

    detail->data = (u_char *) boundary_usage_last_error();
    detail->len = ngx_strlen(detail->data);

    return &failed;
}


ngx_int_t
ngx_http_boundary_usage_log_handler(ngx_http_request_t *r)
{
    ngx_str_t                            detail;
    const result_t                      *result;
    ngx_http_boundary_usage_loc_conf_t  *lcf;

    lcf = ngx_http_get_module_loc_conf(r, ngx_http_boundary_usage_module);

    // With `log_subrequest on`, subrequests have a log phase too.
    if (!lcf->is_on || r != r->main) {
        return NGX_OK;
    }

    ngx_str_null(&detail);
    result = track(r, lcf, &detail);
    ngx_http_set_ctx(r, (void *) result, ngx_http_boundary_usage_module);

    if (result->reason != NULL) {
        report(r, result, &detail);
    }

    return NGX_OK;
}


ngx_int_t
ngx_http_boundary_usage_get_result(ngx_http_request_t *r, ngx_http_variable_value_t *value, uintptr_t data)
{
    const result_t  *result;

    result = ngx_http_get_module_ctx(r, ngx_http_boundary_usage_module);

    if (result == NULL) {
        value->not_found = 1;
        return NGX_OK;
    }

    value->data = result->name.data;
    value->len = result->name.len;
    value->valid = 1;
    value->no_cacheable = 0;
    value->not_found = 0;

    return NGX_OK;
}


ngx_int_t
ngx_http_boundary_usage_get_uncounted(ngx_http_request_t *r, ngx_http_variable_value_t *value, uintptr_t data)
{
    u_char  *digits;

    digits = ngx_pnalloc(r->pool, NGX_ATOMIC_T_LEN);
    if (digits == NULL) {
        return NGX_ERROR;
    }

    value->data = digits;
    value->len = ngx_sprintf(digits, "%uA", (ngx_atomic_uint_t) *uncounted_requests(r)) - digits;
    value->valid = 1;
    value->no_cacheable = 0;
    value->not_found = 0;

    return NGX_OK;
}
