// The directives and the variables of the module.

#include "ngx_http_boundary_usage.h"

#define FIRST_STATUS 100
#define LAST_STATUS 599

typedef ngx_http_boundary_usage_main_conf_t  main_conf_t;
typedef ngx_http_boundary_usage_loc_conf_t   loc_conf_t;


static void *
create_main_conf(ngx_conf_t *cf)
{
    main_conf_t         *mcf;
    ngx_pool_cleanup_t  *cleanup;

    mcf = ngx_pcalloc(cf->pool, sizeof(main_conf_t));
    cleanup = ngx_pool_cleanup_add(cf->pool, 0);

    if (mcf == NULL || cleanup == NULL) {
        return NULL;
    }

    mcf->options = boundary_usage_options_new();
    if (mcf->options == NULL) {
        return NULL;
    }

    cleanup->handler = ngx_http_boundary_usage_release;
    cleanup->data = mcf->options;

    return mcf;
}


// Sets an option of the tracker. Logs why the library refuses a value.
static char *
set(main_conf_t *mcf, const char *option, const u_char *value, ngx_log_t *log, u_char *file, ngx_uint_t line)
{
    // nginx's texts of the configuration end with NUL.
    if (boundary_usage_options_set(mcf->options, option, (const char *) value) != BOUNDARY_USAGE_OK) {
        ngx_log_error(NGX_LOG_EMERG, log, 0, "boundary usage: %s in %s:%ui", boundary_usage_last_error(), file, line);
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


static char *
set_option(ngx_conf_t *cf, ngx_command_t *command, void *conf)
{
    ngx_str_t  *value;

    value = cf->args->elts;

    return set(conf, command->post, value[1].data, cf->log, cf->conf_file->file.name.data, cf->conf_file->line);
}


static char *
set_database(ngx_conf_t *cf, ngx_command_t *command, void *conf)
{
    main_conf_t  *mcf;

    mcf = conf;
    mcf->file = cf->conf_file->file.name.data;
    mcf->line = cf->conf_file->line;

    return ngx_conf_set_str_slot(cf, command, conf);
}


// Creates the directory, because it may contain the database. nginx later gives it to the user of the workers.
static char *
set_state_dir(ngx_conf_t *cf, ngx_command_t *command, void *conf)
{
    char         *rc;
    u_char       *name;
    main_conf_t  *mcf;

    mcf = conf;
    rc = ngx_conf_set_path_slot(cf, command, conf);

    if (rc != NGX_CONF_OK) {
        return rc;
    }

    name = mcf->state_dir->name.data;

    if (ngx_create_dir(name, 0700) == NGX_FILE_ERROR && ngx_errno != NGX_EEXIST) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, ngx_errno, "cannot create the directory \"%s\"", name);
        return NGX_CONF_ERROR;
    }

    rc = set(mcf, "state-dir", name, cf->log, cf->conf_file->file.name.data, cf->conf_file->line);

    return rc != NGX_CONF_OK ? rc : set(mcf, "state-slots", (u_char *) "on", cf->log, NULL, 0);
}


static char *
init_main_conf(ngx_conf_t *cf, void *conf)
{
    main_conf_t  *mcf;

    mcf = conf;

    if (mcf->database.data == NULL) {
        return NGX_CONF_OK;
    }

    // Without it, a worker that crashes loses its activity since the last flush.
    if (mcf->state_dir == NULL) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "\"boundary_usage_database\" needs \"boundary_usage_state_dir\" in %s:%ui", mcf->file, mcf->line);
        return NGX_CONF_ERROR;
    }

    return set(mcf, "database", mcf->database.data, cf->log, mcf->file, mcf->line);
}


static void *
create_loc_conf(ngx_conf_t *cf)
{
    loc_conf_t  *lcf;

    lcf = ngx_pcalloc(cf->pool, sizeof(loc_conf_t));
    if (lcf != NULL) {
        lcf->is_on = NGX_CONF_UNSET;
    }

    return lcf;
}


static char *
set_switch(ngx_conf_t *cf, ngx_command_t *command, void *conf)
{
    loc_conf_t  *lcf;

    lcf = conf;
    lcf->file = cf->conf_file->file.name.data;
    lcf->line = cf->conf_file->line;

    return ngx_conf_set_flag_slot(cf, command, conf);
}


static char *
set_id(ngx_conf_t *cf, ngx_command_t *command, void *conf)
{
    char                       *rc;
    uint8_t                     id[16];
    ngx_str_t                  *value;
    ngx_http_complex_value_t  **slot;

    rc = ngx_http_set_complex_value_slot(cf, command, conf);
    if (rc != NGX_CONF_OK) {
        return rc;
    }

    value = cf->args->elts;
    slot = (ngx_http_complex_value_t **) ((char *) conf + command->offset);

    if ((*slot)->lengths == NULL && ngx_http_boundary_usage_parse_id(&value[1], id) != NGX_OK) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"%V\" is \"%V\", must be a UUID, and not the nil UUID, or contain a variable",
                           &command->name, &value[1]);
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


static char *
set_denied(ngx_conf_t *cf, ngx_command_t *command, void *conf)
{
    ngx_int_t    status;
    ngx_str_t   *value;
    ngx_uint_t   i, *element;
    loc_conf_t  *lcf;

    lcf = conf;

    if (lcf->denied != NULL) {
        return "is duplicate";
    }

    lcf->denied = ngx_array_create(cf->pool, cf->args->nelts - 1, sizeof(ngx_uint_t));
    if (lcf->denied == NULL) {
        return NGX_CONF_ERROR;
    }

    value = cf->args->elts;

    for (i = 1; i < cf->args->nelts; i++) {
        status = ngx_atoi(value[i].data, value[i].len);

        if (status < FIRST_STATUS || status > LAST_STATUS) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "status is \"%V\", must be a number from %d to %d", &value[i],
                               FIRST_STATUS, LAST_STATUS);
            return NGX_CONF_ERROR;
        }

        // The array has room for all statuses.
        element = ngx_array_push(lcf->denied);
        *element = (ngx_uint_t) status;
    }

    return NGX_CONF_OK;
}


// Checks a server or location that counts. Returns the missing directive, or NULL.
static const char *
missing_directive(main_conf_t *mcf, loc_conf_t *lcf)
{
    return mcf->database.data == NULL ? "boundary_usage_database"
           : lcf->workspace == NULL ? "boundary_usage_workspace"
           : lcf->owner == NULL ? "boundary_usage_owner" : NULL;
}


static char *
merge_loc_conf(ngx_conf_t *cf, void *parent, void *child)
{
    const char               *missing;
    loc_conf_t               *prev, *conf;
    main_conf_t              *mcf;
    static ngx_uint_t         defaults[] = { NGX_HTTP_FORBIDDEN, 407 };
    static const ngx_array_t  default_denied = { defaults, 2, sizeof(ngx_uint_t), 2, NULL };

    prev = parent;
    conf = child;

    if (conf->is_on == NGX_CONF_UNSET) {
        conf->is_on = prev->is_on == 1;
        conf->file = prev->file;
        conf->line = prev->line;
    }

    conf->workspace = conf->workspace != NULL ? conf->workspace : prev->workspace;
    conf->owner = conf->owner != NULL ? conf->owner : prev->owner;
    conf->denied = conf->denied != NULL ? conf->denied
                   : prev->denied != NULL ? prev->denied : (ngx_array_t *) &default_denied;

    if (!conf->is_on) {
        return NGX_CONF_OK;
    }

    mcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_boundary_usage_module);
    mcf->is_used = 1;
    missing = missing_directive(mcf, conf);

    if (missing != NULL) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0, "\"boundary_usage on\" needs \"%s\" in %s:%ui", missing, conf->file,
                      conf->line);
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


static ngx_int_t
add_variables(ngx_conf_t *cf)
{
    ngx_uint_t                  i;
    ngx_http_variable_t        *variable;
    static ngx_http_variable_t  variables[] = {
        { ngx_string("boundary_usage_result"), NULL, ngx_http_boundary_usage_get_result, 0,
          NGX_HTTP_VAR_NOCACHEABLE, 0 },
        { ngx_string("boundary_usage_uncounted"), NULL, ngx_http_boundary_usage_get_uncounted, 0,
          NGX_HTTP_VAR_NOCACHEABLE, 0 },
    };

    for (i = 0; i < sizeof(variables) / sizeof(variables[0]); i++) {
        variable = ngx_http_add_variable(cf, &variables[i].name, variables[i].flags);
        if (variable == NULL) {
            return NGX_ERROR;
        }

        variable->get_handler = variables[i].get_handler;
    }

    return NGX_OK;
}


// Prepares the shared number of uncounted requests. A reload keeps it.
static ngx_int_t
init_zone(ngx_shm_zone_t *zone, void *previous)
{
    ngx_slab_pool_t  *pool;

    pool = (ngx_slab_pool_t *) zone->shm.addr;
    zone->data = previous != NULL ? previous : ngx_slab_calloc(pool, sizeof(ngx_atomic_t));

    return zone->data != NULL ? NGX_OK : NGX_ERROR;
}


static ngx_int_t
add_handler(ngx_conf_t *cf)
{
    ngx_str_t                   name = ngx_string("boundary_usage");
    main_conf_t                *mcf;
    ngx_http_handler_pt        *handler;
    ngx_http_core_main_conf_t  *cmcf;

    mcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_boundary_usage_module);
    // The smallest size of a zone is 8 pages.
    mcf->uncounted = ngx_shared_memory_add(cf, &name, 8 * ngx_pagesize, &ngx_http_boundary_usage_module);

    cmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module);
    handler = ngx_array_push(&cmcf->phases[NGX_HTTP_LOG_PHASE].handlers);

    if (mcf->uncounted == NULL || handler == NULL) {
        return NGX_ERROR;
    }

    mcf->uncounted->init = init_zone;
    *handler = ngx_http_boundary_usage_log_handler;

    return NGX_OK;
}


// Starts the tracker in workers only: the master and the processes of a cache serve no requests.
static ngx_int_t
init_process(ngx_cycle_t *cycle)
{
    main_conf_t  *mcf;

    if (ngx_process != NGX_PROCESS_WORKER && ngx_process != NGX_PROCESS_SINGLE) {
        return NGX_OK;
    }

    mcf = ngx_http_cycle_get_module_main_conf(cycle, ngx_http_boundary_usage_module);

    if (mcf != NULL && mcf->is_used) {
        ngx_http_boundary_usage_start(cycle, mcf->options);
    }

    return NGX_OK;
}


#define ANYWHERE (NGX_HTTP_MAIN_CONF | NGX_HTTP_SRV_CONF | NGX_HTTP_LOC_CONF)
#define OPTION(directive, option) \
    { ngx_string(directive), NGX_HTTP_MAIN_CONF | NGX_CONF_TAKE1, set_option, NGX_HTTP_MAIN_CONF_OFFSET, 0, option }

static ngx_command_t  commands[] = {
    { ngx_string("boundary_usage_database"), NGX_HTTP_MAIN_CONF | NGX_CONF_TAKE1, set_database,
      NGX_HTTP_MAIN_CONF_OFFSET, offsetof(main_conf_t, database), NULL },
    OPTION("boundary_usage_flush_interval", "flush-interval"),
    OPTION("boundary_usage_checkpoint_interval", "checkpoint-interval"),
    OPTION("boundary_usage_shutdown_timeout", "shutdown-timeout"),
    { ngx_string("boundary_usage_state_dir"), NGX_HTTP_MAIN_CONF | NGX_CONF_TAKE1, set_state_dir,
      NGX_HTTP_MAIN_CONF_OFFSET, offsetof(main_conf_t, state_dir), NULL },
    { ngx_string("boundary_usage"), ANYWHERE | NGX_CONF_FLAG, set_switch,
      NGX_HTTP_LOC_CONF_OFFSET, offsetof(loc_conf_t, is_on), NULL },
    { ngx_string("boundary_usage_workspace"), ANYWHERE | NGX_CONF_TAKE1, set_id,
      NGX_HTTP_LOC_CONF_OFFSET, offsetof(loc_conf_t, workspace), NULL },
    { ngx_string("boundary_usage_owner"), ANYWHERE | NGX_CONF_TAKE1, set_id,
      NGX_HTTP_LOC_CONF_OFFSET, offsetof(loc_conf_t, owner), NULL },
    { ngx_string("boundary_usage_denied"), ANYWHERE | NGX_CONF_1MORE, set_denied,
      NGX_HTTP_LOC_CONF_OFFSET, 0, NULL },
    ngx_null_command
};

static ngx_http_module_t  context = {
    .preconfiguration = add_variables,
    .postconfiguration = add_handler,
    .create_main_conf = create_main_conf,
    .init_main_conf = init_main_conf,
    .create_loc_conf = create_loc_conf,
    .merge_loc_conf = merge_loc_conf,
};

ngx_module_t  ngx_http_boundary_usage_module = {
    NGX_MODULE_V1,
    .ctx = &context,
    .commands = commands,
    .type = NGX_HTTP_MODULE,
    .init_process = init_process,
    .exit_process = ngx_http_boundary_usage_stop,
};
