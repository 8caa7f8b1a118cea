-- migrate:up transaction:false
-- Fails where a broken run has left an INVALID index: DROP INDEX CONCURRENTLY tasks_list; first.
-- squawk-ignore require-lock-timeout, require-statement-timeout, prefer-robust-stmts
CREATE INDEX CONCURRENTLY tasks_list ON tasks (user_id, id)
INCLUDE (version, completed, priority, due_at, tag_bits, title) WHERE deleted_at IS NULL;

-- migrate:down transaction:false
DROP INDEX CONCURRENTLY IF EXISTS tasks_list;
