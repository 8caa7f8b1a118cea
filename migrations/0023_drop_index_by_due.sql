-- migrate:up transaction:false
-- squawk-ignore require-lock-timeout, require-statement-timeout
DROP INDEX CONCURRENTLY IF EXISTS tasks_due;

-- migrate:down transaction:false
CREATE INDEX CONCURRENTLY tasks_due ON tasks (user_id, due_at, id)
INCLUDE (completed, priority, tag_bits) WHERE deleted_at IS NULL;
