-- migrate:up
SET LOCAL lock_timeout = '2s';
SET LOCAL statement_timeout = '10s';

ALTER TABLE tasks ADD CONSTRAINT tasks_title_not_blank CHECK (title ~ '[^[:space:]]') NOT VALID;

-- Counters, tombstones and the audit are each user's own: of a task that changed hands, the clients
-- of the first user would never hear that it is gone, and both would be counted wrongly.
CREATE FUNCTION keep_task_owner() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a task keeps its user_id: export the tasks, and import them as the other user'
        USING ERRCODE = 'integrity_constraint_violation';
END $$;

CREATE TRIGGER tasks_keep_owner BEFORE UPDATE OF user_id ON tasks
FOR EACH ROW WHEN (NEW.user_id <> OLD.user_id) EXECUTE FUNCTION keep_task_owner();

-- migrate:down
SET LOCAL lock_timeout = '2s';

DROP TRIGGER tasks_keep_owner ON tasks;
DROP FUNCTION keep_task_owner();
ALTER TABLE tasks DROP CONSTRAINT tasks_title_not_blank;
