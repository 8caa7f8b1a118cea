-- migrate:up transaction:false
-- squawk-ignore require-lock-timeout, require-statement-timeout
DROP INDEX CONCURRENTLY IF EXISTS tasks_version;

-- migrate:down transaction:false
CREATE INDEX CONCURRENTLY tasks_version ON tasks (user_id, version, id);
