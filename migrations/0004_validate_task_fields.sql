-- migrate:up
SET LOCAL lock_timeout = '2s';
SET LOCAL statement_timeout = '1h';

ALTER TABLE tasks VALIDATE CONSTRAINT tasks_due_at_range;
ALTER TABLE tasks VALIDATE CONSTRAINT tasks_tags_count;
ALTER TABLE tasks VALIDATE CONSTRAINT tasks_tags_length;
-- Fails if a title was made blank by SQL, not by the API. Mend these tasks first:
-- SELECT user_id, id FROM tasks WHERE title !~ '[^[:space:]]';
ALTER TABLE tasks VALIDATE CONSTRAINT tasks_title_not_blank;

-- migrate:down
SET LOCAL lock_timeout = '2s';

SELECT 1;
