-- migrate:up transaction:false
-- Finds the trash of a user, and the users whose trash is due to be purged.
-- Plain dbmate fails on what a broken run left: DROP INDEX CONCURRENTLY tasks_trash; first.
-- squawk-ignore require-lock-timeout, require-statement-timeout, prefer-robust-stmts
CREATE INDEX CONCURRENTLY tasks_trash ON tasks (user_id, version, id) INCLUDE (deleted_at)
WHERE deleted_at IS NOT NULL;

-- migrate:down transaction:false
DROP INDEX CONCURRENTLY IF EXISTS tasks_trash;
