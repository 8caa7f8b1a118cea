-- migrate:up transaction:false
-- Fails where a broken run has left an INVALID index: DROP INDEX CONCURRENTLY tasks_version; first.
-- squawk-ignore require-lock-timeout, require-statement-timeout, prefer-robust-stmts
CREATE INDEX CONCURRENTLY tasks_version ON tasks (user_id, version, id);

-- migrate:down transaction:false
DROP INDEX CONCURRENTLY IF EXISTS tasks_version;
