-- fragment: settings_<is_local:true|false>
-- What statements need, whatever the database or the role sets; `is_local`: for one transaction.
set_config('statement_timeout', %(statement_timeout)s, <is_local>),
    set_config('lock_timeout', %(lock_timeout)s, <is_local>),
    set_config('idle_in_transaction_session_timeout', %(idle_timeout)s, <is_local>),
    set_config('TimeZone', 'UTC', <is_local>),
    set_config('DateStyle', 'ISO', <is_local>),
    set_config('plan_cache_mode', 'force_generic_plan', <is_local>),
    set_config('jit', 'off', <is_local>),
    set_config('enable_seqscan', 'off', <is_local>),
    set_config('row_security', 'on', <is_local>),
    CASE
        WHEN current_setting('transaction_timeout', true) IS NOT NULL
            THEN set_config('transaction_timeout', '0', <is_local>)
    END

-- name: set_settings
-- The settings of a fresh session, whatever those of the database or the role: limits in
-- milliseconds, none for a transaction (PostgreSQL 17), as each of an import's many statements has
-- its own; times in UTC and in the style that every session reads; read committed, so that a write
-- that waited for another sees its result; one plan for each statement, whatever its values, or a
-- list by tag would be planned each time; no jit, as compiling such short statements takes longer
-- than running them; no sequential scan where there is an index, as a plan made while a table was
-- empty is kept when it is not; and policies that hide rows instead of failing.
-- Behind a pooler it sets nothing and returns no row: pids are the pooler's, and clients share the
-- session.
SELECT
    {settings_false},
    set_config('default_transaction_isolation', 'read committed', false)
WHERE pg_backend_pid() = %(backend_pid)s;

-- name: select_pending_migrations
-- Those of the given versions that the database lacks; it may have newer ones that are not given.
SELECT string_agg(version, ',' ORDER BY version)
FROM unnest(%(versions)s::text[]) AS version
WHERE version NOT IN (SELECT applied.version FROM schema_migrations AS applied);

-- name: select_newer_migrations
-- Those that the database has beyond the newest that the code knows.
SELECT string_agg(version, ', ' ORDER BY version)
FROM schema_migrations
WHERE version > %(newest)s;

-- name: select_place_of_tables
-- The schema that new tables are made in, null if none of search_path exists, and whether the role
-- may create them there.
SELECT current_schema(), has_schema_privilege(current_schema(), 'CREATE');

-- name: select_other_places_of_tables
-- The schemas that have been migrated, where search_path names none of them.
SELECT string_agg(relnamespace::regnamespace::text, ', ' ORDER BY relnamespace)
FROM pg_class
WHERE relname = 'schema_migrations' AND relkind = 'r' AND to_regclass('schema_migrations') IS NULL;

-- name: select_tables_in_the_way
-- Which of the names of our tables are taken where they are to be made: before the first migration,
-- by another program.
SELECT string_agg(name, ', ' ORDER BY name)
FROM unnest('{tasks,task_counters,idempotency_keys,purged_tasks,audit_log}'::text[]) AS name
WHERE to_regclass(quote_ident(current_schema()) || '.' || name) IS NOT NULL;

-- name: select_drop_of_index
-- The statement that drops the index that a migration is to build, valid or not, where it exists.
SELECT format('DROP INDEX CONCURRENTLY %s', indexrelid::regclass)
FROM
    pg_index,
    regexp_matches(
        %(migration)s::text, '^CREATE (?:UNIQUE )?INDEX CONCURRENTLY (\w+) ON (\w+)', 'w'
    ) AS names
WHERE indexrelid = to_regclass(names[1]) AND indrelid = to_regclass(names[2]);

-- name: select_whether_policies_apply
-- Whether row-level security binds the role: not a superuser, nor, unless it is forced, the tables'
-- owner.
SELECT row_security_active('tasks');

-- name: select_whether_triggers_run
-- Whether changes are audited and tags found: no trigger runs where the role or the database is set
-- to apply what was changed elsewhere, and pg_restore --disable-triggers that fails midway leaves
-- ours disabled.
SELECT
    current_setting('session_replication_role') <> 'replica'
    AND NOT EXISTS (
        SELECT FROM pg_trigger
        WHERE tgrelid = 'tasks'::regclass AND tgname ^@ 'tasks_' AND tgenabled IN ('D', 'R')
    );

-- name: select_whether_own_session
-- Whether the client speaks to PostgreSQL itself: poolers and proxies tell a pid of their own.
SELECT pg_backend_pid() = %(backend_pid)s;

-- name: select_system_identifier
-- What a server shares with its replicas alone. An error where the role may not know it.
SELECT system_identifier FROM pg_control_system();

-- name: select_whether_options_arrive
-- Whether the session is this client's, with the option that it asked for.
SELECT current_setting('tasks.is_direct', true) = 'on';

-- name: select_options_of_migrations
-- Options that lift the timeouts of the role or the database: to build an index may take hours.
-- Migrations set those that they need. One that stops amid its transaction does not keep its locks.
-- By tabs: a space would reach pg_dump through dbmate as a plus.
SELECT concat_ws(
    chr(9), '--idle_in_transaction_session_timeout=10s',
    string_agg(format('--%s=0', name), chr(9) ORDER BY name)
)
FROM pg_settings
WHERE name IN ('statement_timeout', 'lock_timeout', 'transaction_timeout') AND setting <> '0';

-- name: select_whether_case_is_folded
-- Whether search and the order by title ignore case as most languages do: the locale decides. C
-- folds nothing beyond A to Z, Turkish makes another letter of I.
SELECT lower('Ä') = 'ä' AND lower('I') = 'i';

-- name: try_migration_lock
-- True for one session at a time. Polled, never awaited: a waiting session would hold a snapshot
-- that CREATE INDEX CONCURRENTLY waits for in turn: a deadlock. The session idles while it holds
-- the lock, so its idle timeout is lifted.
SELECT pg_try_advisory_lock(%(key)s)
FROM set_config('idle_session_timeout', '0', false);

-- name: set_user
-- Whose rows the statements of this transaction may touch, and for which request: the tables'
-- policies read the user, the audit reads the request.
SELECT
    set_config('app.user_id', %(user_id)s, true),
    set_config('app.request_id', %(request_id)s, true);

-- name: set_user_and_settings
-- Behind a pooler: what set_user and set_settings do, for this transaction alone. Its isolation is
-- not set: it stays that of the role.
SELECT
    set_config('app.user_id', %(user_id)s, true),
    set_config('app.request_id', %(request_id)s, true),
    {settings_true};

-- name: select_grants
-- The statements, in order, that let a role serve the API and do nothing else, whatever an earlier
-- release, a person or default privileges gave it or PUBLIC. They run in one transaction, so that
-- it lacks nothing meanwhile. A role that exists keeps its password and timeouts. Timeouts are set
-- on the role for statements without a user, which have no others behind a pooler. A temporary
-- table would hide the one of its name from the triggers, the audit's among them, and a function in
-- the tables' schema would hide one of PostgreSQL's own: PUBLIC loses the right to create either.
-- Some hosts put row-level security on every table. Where it is on the two that have no policy of
-- ours, the role gets one: else it would see no version, and each write would fail with its audit
-- entry. A policy locks its table, for which nobody waits longer than for a migration.
SELECT statement
FROM
    (SELECT %(role)s::name::text AS role) AS given,  -- truncated to 63 bytes, as any name is
    LATERAL (
        SELECT array_agg(pg_class.oid) AS closed
        FROM pg_class
        WHERE relrowsecurity AND NOT EXISTS (
            SELECT FROM pg_policy WHERE polrelid = pg_class.oid AND polname = role
        )
    ) AS without_policy,
    LATERAL (
        VALUES
            (0, false, 'SET LOCAL lock_timeout = ''2s'''),
            (1, true, format('CREATE ROLE %I LOGIN PASSWORD %L', role, %(verifier)s::text)),
            (2, true, format('ALTER ROLE %I SET statement_timeout = %s', role, %(timeout)s::int)),
            (3, true, format('ALTER ROLE %I SET lock_timeout = %s', role, %(lock_timeout)s::int)),
            (4, true, format(
                'ALTER ROLE %I SET idle_in_transaction_session_timeout = %s',
                role, %(idle_timeout)s::int
            )),
            (5, false, format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), role)),
            (6, false, format('GRANT USAGE ON SCHEMA %I TO %I', current_schema(), role)),
            (7, false, format(
                'REVOKE ALL ON schema_migrations, tasks, task_counters, idempotency_keys,'
                ' purged_tasks, audit_log, tasks_id_seq FROM PUBLIC, %I',
                role
            )),
            (8, false, format('GRANT SELECT ON schema_migrations TO %I', role)),
            (9, false, format('GRANT SELECT, INSERT, UPDATE, DELETE ON tasks TO %I', role)),
            (10, false, format(
                'GRANT SELECT, INSERT, UPDATE ON task_counters, idempotency_keys TO %I', role
            )),
            (11, false, format('GRANT SELECT, INSERT ON purged_tasks TO %I', role)),
            (12, false, format(
                'GRANT INSERT (at, user_id, action, task_ids, detail, address, request_id)'
                ' ON audit_log TO %I',
                role
            )),
            (13, false, format('GRANT EXECUTE ON FUNCTION bits_of_tags(text[]) TO %I', role)),
            (14, false, CASE
                WHEN has_database_privilege('public', current_database(), 'TEMPORARY')
                    THEN format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database())
            END),
            (15, false, CASE
                WHEN has_schema_privilege('public', current_schema(), 'CREATE')
                    THEN format('REVOKE CREATE ON SCHEMA %I FROM PUBLIC', current_schema())
            END),
            (16, false, CASE WHEN 'schema_migrations'::regclass = ANY (closed) THEN format(
                'CREATE POLICY %I ON schema_migrations FOR SELECT TO %I USING (true)', role, role
            ) END),
            (17, false, CASE WHEN 'audit_log'::regclass = ANY (closed) THEN format(
                'CREATE POLICY %I ON audit_log FOR INSERT TO %I WITH CHECK (true)', role, role
            ) END)
    ) AS grants (position, is_for_new_role, statement)
WHERE statement IS NOT NULL
    AND (NOT is_for_new_role OR NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role))
ORDER BY position;

-- name: select_other_writers
-- The roles, besides the owner and the given one, that have a right to write where no row-level
-- security stops them: hosts give it by default to those of an API of their own.
SELECT string_agg(DISTINCT coalesce(rolname, 'PUBLIC'), ', ' ORDER BY coalesce(rolname, 'PUBLIC'))
FROM
    pg_class,
    aclexplode(relacl) AS given
    LEFT JOIN pg_roles ON pg_roles.oid = grantee
WHERE pg_class.oid IN ('audit_log'::regclass, 'schema_migrations'::regclass)
    AND privilege_type IN ('INSERT', 'UPDATE', 'DELETE', 'TRUNCATE')
    AND grantee <> relowner AND rolname IS DISTINCT FROM %(role)s::name;
