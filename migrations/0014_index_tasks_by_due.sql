-- migrate:up transaction:false
-- Fails where a broken run has left an INVALID index: DROP INDEX CONCURRENTLY tasks_due; first.
-- squawk-ignore require-lock-timeout, require-statement-timeout, prefer-robust-stmts
CREATE INDEX CONCURRENTLY tasks_due ON tasks (user_id, due_at, id)
INCLUDE (completed, priority, tag_bits) WHERE deleted_at IS NULL;

-- migrate:down transaction:false
DROP INDEX CONCURRENTLY IF EXISTS tasks_due;
