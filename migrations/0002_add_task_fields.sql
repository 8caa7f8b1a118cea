-- migrate:up
SET LOCAL lock_timeout = '2s';
SET LOCAL statement_timeout = '10s';

CREATE TYPE task_priority AS ENUM ('none', 'low', 'medium', 'high');

-- Constant defaults: the table is not rewritten. Rows to come get their version from the statement
-- that writes them, or from the trigger below.
ALTER TABLE tasks
    ADD COLUMN IF NOT EXISTS priority task_priority NOT NULL DEFAULT 'none',
    ADD COLUMN IF NOT EXISTS due_at timestamptz,
    ADD COLUMN IF NOT EXISTS due_all_day boolean NOT NULL DEFAULT false,
    ADD COLUMN IF NOT EXISTS tags text[] NOT NULL DEFAULT '{}',
    ADD COLUMN IF NOT EXISTS completed_at timestamptz,
    ADD COLUMN IF NOT EXISTS deleted_at timestamptz,
    ADD COLUMN IF NOT EXISTS version bigint NOT NULL DEFAULT 1,
    ADD CONSTRAINT tasks_due_at_range CHECK (
        due_at >= timestamptz '1970-01-01 00:00+00' AND due_at < timestamptz '2201-01-01 00:00+00'
    ) NOT VALID,
    ADD CONSTRAINT tasks_tags_count CHECK (cardinality(tags) <= 20) NOT VALID,
    ADD CONSTRAINT tasks_tags_length CHECK (
        array_position(tags, '') IS NULL
        AND array_position(tags, NULL) IS NULL
        AND char_length(array_to_string(tags, '')) <= 1000
    ) NOT VALID,
    ADD CONSTRAINT tasks_title_not_blank CHECK (title ~ '[^[:space:]]') NOT VALID;

-- One row a user, locked by every write of theirs: the order of versions is the order of commits.
CREATE TABLE task_counters (
    user_id text NOT NULL,
    version bigint NOT NULL,
    stored bigint NOT NULL,
    CONSTRAINT task_counters_pkey PRIMARY KEY (user_id)
) WITH (fillfactor = 50);

-- What is left of a task that was deleted for good, so that clients who were offline learn of it.
CREATE TABLE purged_tasks (
    user_id text NOT NULL,
    version bigint NOT NULL,
    id bigint NOT NULL,
    purged_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT purged_tasks_pkey PRIMARY KEY (user_id, version, id)
);

-- Counts what a statement has not counted itself: one of the release before this, or a person's.
CREATE FUNCTION count_task_change() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    owner text := CASE TG_OP WHEN 'DELETE' THEN OLD.user_id ELSE NEW.user_id END;
    more bigint := CASE TG_OP WHEN 'INSERT' THEN 1 WHEN 'DELETE' THEN -1 ELSE 0 END;
    new_version bigint;
BEGIN
    UPDATE task_counters SET version = version + 1, stored = stored + more
    WHERE user_id = owner
    RETURNING version INTO new_version;
    IF new_version IS NULL THEN
        INSERT INTO task_counters AS counter (user_id, version, stored)
        SELECT owner, 2, count(*) + greatest(more, 0) FROM tasks WHERE user_id = owner
        ON CONFLICT (user_id) DO UPDATE
            SET version = counter.version + 1, stored = counter.stored + more
        RETURNING version INTO new_version;
    END IF;
    IF TG_OP = 'DELETE' THEN
        INSERT INTO purged_tasks (user_id, version, id) VALUES (owner, new_version, OLD.id);
        RETURN NULL;
    END IF;
    NEW.version := new_version;
    -- The release before this reopens tasks without knowing of it.
    IF NOT NEW.completed THEN
        NEW.completed_at := NULL;
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER tasks_count_insert BEFORE INSERT ON tasks
FOR EACH ROW WHEN (NEW.version = 1) EXECUTE FUNCTION count_task_change();
CREATE TRIGGER tasks_count_update BEFORE UPDATE ON tasks
FOR EACH ROW WHEN (NEW.version = OLD.version) EXECUTE FUNCTION count_task_change();
-- The API itself deletes for good only what is in the trash, and counts that.
CREATE TRIGGER tasks_count_delete AFTER DELETE ON tasks
FOR EACH ROW WHEN (OLD.deleted_at IS NULL) EXECUTE FUNCTION count_task_change();

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
DROP TRIGGER tasks_count_delete ON tasks;
DROP TRIGGER tasks_count_update ON tasks;
DROP TRIGGER tasks_count_insert ON tasks;
DROP FUNCTION count_task_change();
DROP TABLE purged_tasks;
DROP TABLE task_counters;
-- What is in the trash was deleted; without it, these tasks would be back.
DELETE FROM tasks WHERE deleted_at IS NOT NULL;
ALTER TABLE tasks
    DROP CONSTRAINT tasks_title_not_blank,
    DROP COLUMN version,
    DROP COLUMN deleted_at,
    DROP COLUMN completed_at,
    DROP COLUMN tags,
    DROP COLUMN due_all_day,
    DROP COLUMN due_at,
    DROP COLUMN priority;
DROP TYPE task_priority;
