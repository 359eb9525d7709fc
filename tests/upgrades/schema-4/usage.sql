CREATE TABLE public.boundary_usage_days (
    day date NOT NULL,
    periods bigint NOT NULL,
    spans_midnight boolean NOT NULL,
    allowed_requests bigint NOT NULL,
    denied_requests bigint NOT NULL,
    unique_workspaces bigint NOT NULL,
    unique_users bigint NOT NULL,
    workspaces_sketch bytea NOT NULL,
    users_sketch bytea NOT NULL,
    CONSTRAINT boundary_usage_days_allowed_requests_check CHECK ((allowed_requests >= 0)),
    CONSTRAINT boundary_usage_days_denied_requests_check CHECK ((denied_requests >= 0)),
    CONSTRAINT boundary_usage_days_periods_check CHECK ((periods > 0)),
    CONSTRAINT boundary_usage_days_unique_users_check CHECK ((unique_users >= 0)),
    CONSTRAINT boundary_usage_days_unique_workspaces_check CHECK ((unique_workspaces >= 0))
);
ALTER TABLE ONLY public.boundary_usage_days ALTER COLUMN workspaces_sketch SET STORAGE EXTERNAL;
ALTER TABLE ONLY public.boundary_usage_days ALTER COLUMN users_sketch SET STORAGE EXTERNAL;
CREATE TABLE public.boundary_usage_deliveries (
    period_id bigint NOT NULL,
    idempotency_key uuid NOT NULL,
    attempts bigint NOT NULL,
    attempted_at timestamp with time zone NOT NULL,
    lease uuid,
    next_attempt_at timestamp with time zone NOT NULL,
    last_error text,
    CONSTRAINT boundary_usage_deliveries_attempts_check CHECK ((attempts > 0))
);
CREATE TABLE public.boundary_usage_deployment (
    only_row boolean DEFAULT true NOT NULL,
    created_at timestamp with time zone DEFAULT date_trunc('milliseconds'::text, now()) NOT NULL,
    hashing_key bytea NOT NULL,
    key_fingerprint text GENERATED ALWAYS AS ("left"(encode(sha256(hashing_key), 'hex'::text), 16)) STORED,
    CONSTRAINT boundary_usage_deployment_hashing_key_check CHECK ((octet_length(hashing_key) = 16)),
    CONSTRAINT boundary_usage_deployment_only_row_check CHECK (only_row)
);
CREATE TABLE public.boundary_usage_migrations (
    version bigint NOT NULL,
    description text NOT NULL,
    installed_on timestamp with time zone DEFAULT now() NOT NULL,
    success boolean NOT NULL,
    checksum bytea NOT NULL,
    execution_time bigint NOT NULL
);
CREATE TABLE public.boundary_usage_periods (
    period_id bigint NOT NULL,
    period_start timestamp with time zone NOT NULL,
    period_end timestamp with time zone NOT NULL,
    period_duration_ms bigint NOT NULL,
    unique_workspaces bigint NOT NULL,
    unique_users bigint NOT NULL,
    allowed_requests bigint NOT NULL,
    denied_requests bigint NOT NULL,
    replicas bigint NOT NULL,
    replica_workspaces_sum bigint NOT NULL,
    replica_users_sum bigint NOT NULL,
    stale_rows bigint NOT NULL,
    stale_allowed_requests bigint NOT NULL,
    stale_denied_requests bigint NOT NULL,
    delivered_at timestamp with time zone,
    CONSTRAINT boundary_usage_periods_check CHECK ((period_end >= period_start))
);
ALTER TABLE public.boundary_usage_periods ALTER COLUMN period_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.boundary_usage_periods_period_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE public.boundary_usage_replicas (
    replica_id uuid NOT NULL,
    last_flush bigint NOT NULL,
    flushed_at timestamp with time zone NOT NULL,
    CONSTRAINT boundary_usage_replicas_last_flush_check CHECK ((last_flush > 0))
);
CREATE TABLE public.boundary_usage_stats (
    replica_id uuid NOT NULL,
    unique_workspaces_count bigint DEFAULT 0 NOT NULL,
    unique_users_count bigint DEFAULT 0 NOT NULL,
    allowed_requests bigint DEFAULT 0 NOT NULL,
    denied_requests bigint DEFAULT 0 NOT NULL,
    window_start timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    workspaces_sketch bytea NOT NULL,
    users_sketch bytea NOT NULL,
    CONSTRAINT boundary_usage_stats_allowed_requests_check CHECK ((allowed_requests >= 0)),
    CONSTRAINT boundary_usage_stats_denied_requests_check CHECK ((denied_requests >= 0)),
    CONSTRAINT boundary_usage_stats_unique_users_count_check CHECK ((unique_users_count >= 0)),
    CONSTRAINT boundary_usage_stats_unique_workspaces_count_check CHECK ((unique_workspaces_count >= 0))
);
ALTER TABLE ONLY public.boundary_usage_stats ALTER COLUMN workspaces_sketch SET STORAGE EXTERNAL;
ALTER TABLE ONLY public.boundary_usage_stats ALTER COLUMN users_sketch SET STORAGE EXTERNAL;
INSERT INTO public.boundary_usage_days VALUES ('2026-11-28', 2, false, 70, 10, 15, 4, '\x02030300001acc930f000000000000000ce83bdceaa7b80487fbb99f0827ba0c7453b33aa33e6a1a8edc12662bf12a1b7b22e9cfaee3871b63c8a1e7b4cc1c1c0691c27156bcbf231ac3a15b0fd8bd2e50583d2a0d9e2931a6599f6bd83066440b444e8d5495f746a4889cd58245444af89ccd6ffd530650fe5aca94b8a5095596c22febe693af7a', '\x02030300001acc930400000000000000e6d748c95b20d1035ed017de4f51673ade9036a085bd03692189023f99781b7b');
INSERT INTO public.boundary_usage_deployment VALUES (true, '2026-11-28 14:05:28.208+00', '\x278bcefb2f1c22499c00ad4d93dafdb1', DEFAULT);
INSERT INTO public.boundary_usage_migrations VALUES (1, 'usage', '2026-11-28 14:05:28.208923+00', true, '\xf98a61b062ad973eaaf36297e7c0f02126f05b3bfd2e3c1b7c1818cc837fdce8aab6fa64a29b6b8afb4889acd7935588', -1);
INSERT INTO public.boundary_usage_migrations VALUES (2, 'periods', '2026-11-28 14:05:28.208923+00', true, '\x3754671095670597b87778c2b2eb1da07bb9067b4d7f2dab47684413bacca43ed29e0969f90100ed6b274b5e9d70ba47', -1);
INSERT INTO public.boundary_usage_migrations VALUES (3, 'deliveries', '2026-11-28 14:05:28.208923+00', true, '\xcfe03ebddac8ec4a3f45dfd92ab7b1bc239f9cb243d6cdffed107177ec9be54c1c24fbc3e99cfe5fdf81d99203734f67', -1);
INSERT INTO public.boundary_usage_migrations VALUES (4, 'days', '2026-11-28 14:05:28.208923+00', true, '\xf62c87510b902ba5460da27f548824e13cc499ced2cfdf1be3da7dee190c1fa8540b23c012e7ceb4999fc22455d25796', -1);
INSERT INTO public.boundary_usage_periods OVERRIDING SYSTEM VALUE VALUES (1, '2026-11-28 14:05:28.208+00', '2026-11-28 14:05:28.335+00', 127, 10, 3, 50, 10, 1, 10, 3, 0, 0, 0, NULL);
INSERT INTO public.boundary_usage_periods OVERRIDING SYSTEM VALUE VALUES (2, '2026-11-28 14:05:28.335+00', '2026-11-28 14:05:28.466+00', 131, 10, 4, 20, 0, 1, 10, 4, 0, 0, 0, NULL);
INSERT INTO public.boundary_usage_replicas VALUES ('ad03cc5b-f67d-40e3-b355-1f2cc0fb8145', 1, '2026-11-28 14:05:28.258504+00');
INSERT INTO public.boundary_usage_replicas VALUES ('c76a3a48-0a4d-4c80-ac82-9dbb4fe256fe', 1, '2026-11-28 14:05:28.404007+00');
INSERT INTO public.boundary_usage_replicas VALUES ('0193a1b2-0000-7000-8000-0000000000bb', 1, '2026-11-28 14:05:28.612728+00');
INSERT INTO public.boundary_usage_stats VALUES ('0193a1b2-0000-7000-8000-0000000000bb', 4, 4, 4, 0, '2026-11-28 14:05:28.612728+00', '2026-11-28 14:05:28.612728+00', '\x02030300001acc9304000000000000003b0be0c16afb634a56ad28318cdc6c6040c249a9885db266594d899332756170', '\x02030300001acc930400000000000000e6d748c95b20d1035ed017de4f51673ade9036a085bd03692189023f99781b7b');
SELECT pg_catalog.setval('public.boundary_usage_periods_period_id_seq', 2, true);
ALTER TABLE ONLY public.boundary_usage_days
    ADD CONSTRAINT boundary_usage_days_pkey PRIMARY KEY (day);
ALTER TABLE ONLY public.boundary_usage_deliveries
    ADD CONSTRAINT boundary_usage_deliveries_pkey PRIMARY KEY (period_id);
ALTER TABLE ONLY public.boundary_usage_deployment
    ADD CONSTRAINT boundary_usage_deployment_pkey PRIMARY KEY (only_row);
ALTER TABLE ONLY public.boundary_usage_migrations
    ADD CONSTRAINT boundary_usage_migrations_pkey PRIMARY KEY (version);
ALTER TABLE ONLY public.boundary_usage_periods
    ADD CONSTRAINT boundary_usage_periods_pkey PRIMARY KEY (period_id);
ALTER TABLE ONLY public.boundary_usage_replicas
    ADD CONSTRAINT boundary_usage_replicas_pkey PRIMARY KEY (replica_id);
ALTER TABLE ONLY public.boundary_usage_stats
    ADD CONSTRAINT boundary_usage_stats_pkey PRIMARY KEY (replica_id);
CREATE INDEX boundary_usage_periods_undelivered ON public.boundary_usage_periods USING btree (period_id) WHERE (delivered_at IS NULL);
ALTER TABLE ONLY public.boundary_usage_deliveries
    ADD CONSTRAINT boundary_usage_deliveries_period_id_fkey FOREIGN KEY (period_id) REFERENCES public.boundary_usage_periods(period_id) ON DELETE CASCADE;
