-- migrate:up transaction:false
-- The primary key holds all of it now.
-- squawk-ignore require-lock-timeout, require-statement-timeout
DROP INDEX CONCURRENTLY IF EXISTS tasks_list;

-- migrate:down transaction:false
CREATE INDEX CONCURRENTLY tasks_list ON tasks (user_id, id)
INCLUDE (version, completed, priority, due_at, tag_bits, title) WHERE deleted_at IS NULL;
