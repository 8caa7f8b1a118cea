-- migrate:up
SET LOCAL lock_timeout = '2s';
SET LOCAL statement_timeout = '1h';

ALTER TABLE tasks VALIDATE CONSTRAINT tasks_title_not_blank;

-- migrate:down
SET LOCAL lock_timeout = '2s';

SELECT 1;
