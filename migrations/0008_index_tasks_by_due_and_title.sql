-- migrate:up transaction:false
-- Also holds what lists by title are sorted by: an index-only scan takes lower(title) from here, if
-- the index has the title, too.
-- Plain dbmate fails on what a broken run left. Drop it first:
-- DROP INDEX CONCURRENTLY tasks_due_title;
-- squawk-ignore require-lock-timeout, require-statement-timeout, prefer-robust-stmts
CREATE INDEX CONCURRENTLY tasks_due_title ON tasks (user_id, due_at, id, lower(title))
INCLUDE (completed, priority, tag_bits, title) WHERE deleted_at IS NULL;

-- migrate:down transaction:false
DROP INDEX CONCURRENTLY IF EXISTS tasks_due_title;
