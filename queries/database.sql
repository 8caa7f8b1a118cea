-- name: set_timeouts
-- What a fresh connection is given; kept for as long as it lives. Milliseconds.
SELECT
    set_config('statement_timeout', %(statement_timeout)s, false),
    set_config('lock_timeout', %(lock_timeout)s, false),
    set_config('idle_in_transaction_session_timeout', %(idle_timeout)s, false);

-- name: select_pending_migrations
-- Those of the given versions that the database has not seen; a newer one it knows does not count.
SELECT string_agg(version, ',' ORDER BY version)
FROM unnest(%(versions)s::text[]) AS version
WHERE version NOT IN (SELECT applied.version FROM schema_migrations AS applied);

-- name: try_migration_lock
-- True for one session at a time. Polled, never awaited: a waiting session would hold a snapshot
-- that CREATE INDEX CONCURRENTLY waits for in turn, a deadlock.
SELECT pg_try_advisory_lock(%(key)s);
