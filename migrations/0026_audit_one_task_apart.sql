-- migrate:up
SET LOCAL lock_timeout = '2s';
SET LOCAL statement_timeout = '10s';

-- One row a statement and user, whoever runs the statement. That of one task, as nearly all are, is
-- written without what groups and sorts: that takes longer than the rest.
CREATE OR REPLACE FUNCTION audit_tasks() RETURNS trigger LANGUAGE plpgsql AS $$
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

-- migrate:down
SET LOCAL lock_timeout = '2s';

CREATE OR REPLACE FUNCTION audit_tasks() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        INSERT INTO audit_log (user_id, action, task_ids)
        SELECT changed.user_id, changed.action, array_agg(changed.id ORDER BY changed.id)
        FROM (
            SELECT
                after.user_id, after.id,
                CASE
                    WHEN before.deleted_at IS NULL AND after.deleted_at IS NULL THEN 'update'
                    WHEN before.deleted_at IS NULL THEN 'delete'
                    WHEN after.deleted_at IS NULL THEN 'restore'
                    ELSE 'update'
                END AS action
            FROM before INNER JOIN after ON after.user_id = before.user_id AND after.id = before.id
        ) AS changed
        GROUP BY changed.user_id, changed.action;
    ELSE
        INSERT INTO audit_log (user_id, action, task_ids)
        SELECT
            changed.user_id, CASE TG_OP WHEN 'INSERT' THEN 'create' ELSE 'purge' END,
            array_agg(changed.id ORDER BY changed.id)
        FROM changed
        GROUP BY changed.user_id;
    END IF;
    RETURN NULL;
END $$;
