-- migrate:up
SET LOCAL lock_timeout = '2s';
SET LOCAL statement_timeout = '10s';

-- Who did what, and when. The API's role may add to it, and neither read nor change it.
CREATE TABLE audit_log (
    at timestamptz NOT NULL DEFAULT now(),
    user_id text NOT NULL,
    action text NOT NULL,
    task_ids bigint[] NOT NULL DEFAULT '{}',
    detail text NOT NULL DEFAULT '',
    address text NOT NULL DEFAULT '',
    request_id text NOT NULL DEFAULT coalesce(current_setting('app.request_id', true), ''),
    role name NOT NULL DEFAULT current_user
);
-- No BRIN index: its ranges only ever widen. Once newer entries have filled the pages of expired
-- ones, each purge would read the whole table.
CREATE INDEX audit_log_time ON audit_log (at);

-- One row a statement, user and action, whoever runs the statement. That of one task, as nearly all
-- are, is written without what groups and sorts: that takes longer than the rest.
CREATE FUNCTION audit_tasks() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        PERFORM FROM after OFFSET 1;
        IF FOUND THEN
            INSERT INTO audit_log (user_id, action, task_ids)
            SELECT changed.user_id, changed.action, array_agg(changed.id ORDER BY changed.id)
            FROM (
                SELECT
                    after.user_id, after.id,
                    CASE
                        WHEN (before.deleted_at IS NULL) = (after.deleted_at IS NULL) THEN 'update'
                        WHEN after.deleted_at IS NULL THEN 'restore'
                        ELSE 'delete'
                    END AS action
                FROM before
                INNER JOIN after ON after.user_id = before.user_id AND after.id = before.id
            ) AS changed
            GROUP BY changed.user_id, changed.action;
        ELSE
            INSERT INTO audit_log (user_id, action, task_ids)
            SELECT
                after.user_id,
                CASE
                    WHEN (before.deleted_at IS NULL) = (after.deleted_at IS NULL) THEN 'update'
                    WHEN after.deleted_at IS NULL THEN 'restore'
                    ELSE 'delete'
                END,
                ARRAY[after.id]
            FROM before, after;
        END IF;
    ELSE
        PERFORM FROM changed OFFSET 1;
        IF FOUND THEN
            INSERT INTO audit_log (user_id, action, task_ids)
            SELECT
                changed.user_id, CASE TG_OP WHEN 'INSERT' THEN 'create' ELSE 'purge' END,
                array_agg(changed.id ORDER BY changed.id)
            FROM changed
            GROUP BY changed.user_id;
        ELSE
            INSERT INTO audit_log (user_id, action, task_ids)
            SELECT
                changed.user_id, CASE TG_OP WHEN 'INSERT' THEN 'create' ELSE 'purge' END,
                ARRAY[changed.id]
            FROM changed;
        END IF;
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER tasks_audit_insert AFTER INSERT ON tasks
REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION audit_tasks();
CREATE TRIGGER tasks_audit_update AFTER UPDATE ON tasks
REFERENCING OLD TABLE AS before NEW TABLE AS after
FOR EACH STATEMENT EXECUTE FUNCTION audit_tasks();
CREATE TRIGGER tasks_audit_delete AFTER DELETE ON tasks
REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION audit_tasks();

-- migrate:down
SET LOCAL lock_timeout = '2s';

DROP TRIGGER tasks_audit_delete ON tasks;
DROP TRIGGER tasks_audit_update ON tasks;
DROP TRIGGER tasks_audit_insert ON tasks;
DROP FUNCTION audit_tasks();
DROP TABLE audit_log;
