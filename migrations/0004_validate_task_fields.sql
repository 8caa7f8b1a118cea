-- migrate:up
SET LOCAL lock_timeout = '2s';
SET LOCAL statement_timeout = '1h';

ALTER TABLE tasks VALIDATE CONSTRAINT tasks_due_at_range;
ALTER TABLE tasks VALIDATE CONSTRAINT tasks_tags_count;
ALTER TABLE tasks VALIDATE CONSTRAINT tasks_tags_length;

-- migrate:down
SET LOCAL lock_timeout = '2s';

SELECT 1;
