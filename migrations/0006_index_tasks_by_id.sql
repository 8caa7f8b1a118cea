-- migrate:up transaction:false
-- The primary key's successor, which also holds what lists are filtered and sorted by.
-- Plain dbmate fails on what a broken run left: DROP INDEX CONCURRENTLY tasks_id; first.
-- squawk-ignore require-lock-timeout, require-statement-timeout, prefer-robust-stmts
CREATE UNIQUE INDEX CONCURRENTLY tasks_id ON tasks (user_id, id)
INCLUDE (completed, priority, due_at, tag_bits, version, deleted_at);

-- migrate:down transaction:false
DROP INDEX CONCURRENTLY IF EXISTS tasks_id;
