-- migrate:up transaction:false
-- Changes, and lists by update, with what these are filtered by.
-- Plain dbmate fails on what a broken run left: DROP INDEX CONCURRENTLY tasks_updated; first.
-- squawk-ignore require-lock-timeout, require-statement-timeout, prefer-robust-stmts
CREATE INDEX CONCURRENTLY tasks_updated ON tasks (user_id, version, id)
INCLUDE (completed, priority, due_at, tag_bits, deleted_at);

-- migrate:down transaction:false
DROP INDEX CONCURRENTLY IF EXISTS tasks_updated;
