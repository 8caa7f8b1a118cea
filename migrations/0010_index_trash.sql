-- migrate:up transaction:false
-- The trash of a user, and whose has been there for too long; no row outside the trash is in it.
-- Fails where a broken run has left an INVALID index: DROP INDEX CONCURRENTLY tasks_trash; first.
-- squawk-ignore require-lock-timeout, require-statement-timeout, prefer-robust-stmts
CREATE INDEX CONCURRENTLY tasks_trash ON tasks (user_id, version, id) INCLUDE (deleted_at)
WHERE deleted_at IS NOT NULL;

-- migrate:down transaction:false
DROP INDEX CONCURRENTLY IF EXISTS tasks_trash;
